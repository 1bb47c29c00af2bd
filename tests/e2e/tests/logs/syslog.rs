//! The syslog driver, against servers that can be away and that speak TLS.

use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gantry_e2e::{Engine, eventually, free_port, run};

use crate::{spans, start};

/// A syslog server on TCP that can be away.
struct Syslog {
    port: u16,
    lines: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Syslog {
    fn new() -> Self {
        Self {
            port: free_port(),
            lines: Arc::default(),
            stop: Arc::default(),
            thread: None,
        }
    }
    fn address(&self) -> String {
        format!("syslog-address=tcp://127.0.0.1:{}", self.port)
    }
    fn listen(&mut self) {
        self.stop.store(false, Ordering::SeqCst);
        let listener = TcpListener::bind(("127.0.0.1", self.port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (lines, stop) = (self.lines.clone(), self.stop.clone());
        self.thread = Some(std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        let patience = Some(Duration::from_millis(50));
                        stream.set_read_timeout(patience).unwrap();
                        let mut text = Vec::new();
                        serve(&stream, &mut text, &lines, || stop.load(Ordering::SeqCst));
                        if stop.load(Ordering::SeqCst) {
                            // As a server that is stopped does: no more connections, and then what the kernel has taken
                            // for this one. What it has acknowledged is the receiver's to keep.
                            drop(listener);
                            stream.shutdown(Shutdown::Write).unwrap();
                            let idle = std::cell::Cell::new(0);
                            let settled = || idle.replace(idle.get() + 1) > 4;
                            serve(&stream, &mut text, &lines, settled);
                            return;
                        }
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        }));
    }
    /// Ends the server and its connections.
    fn leave(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
    /// What came, the text alone, without immediate repetitions.
    fn texts(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        let text = |line: &String| line.rsplit_once("]: ").map(|(_, text)| text.to_owned());
        lines.iter().filter_map(text).collect()
    }
}

/// Reads until the other side ends, or until nothing comes and `enough` says so.
fn serve(
    mut stream: &TcpStream,
    text: &mut Vec<u8>,
    lines: &Mutex<Vec<String>>,
    enough: impl Fn() -> bool,
) {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => text.extend_from_slice(&buffer[..read]),
            Err(_) if enough() => return,
            Err(_) => continue,
        }
        while let Some(at) = text.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = text.drain(..=at).collect();
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            lines.lock().unwrap().push(line);
        }
    }
}

#[test]
fn nothing_is_lost_while_daemon_and_receiver_are_away() {
    let mut engine = Engine::start();
    let mut syslog = Syslog::new();
    syslog.listen();
    let address = syslog.address();
    let options = [
        "--log-driver",
        "syslog",
        "--log-opt",
        &address,
        "--log-opt",
        "tag={{.Name}}",
        "--log-opt",
        "cache-max-size=40k",
        "--log-opt",
        "cache-max-file=50",
    ];
    let script = "n=0; while [ $n -lt 5000 ]; do n=$((n+1)); echo $n; [ $((n % 500)) = 0 ] && sleep 0.2; done";
    start(&engine, "cc", &options, script);
    eventually("the first lines arrive", 20, || {
        (syslog.texts().len() > 100).then_some(())
    });
    syslog.leave();
    engine.kill9();
    std::thread::sleep(Duration::from_millis(300));
    engine.boot();
    std::thread::sleep(Duration::from_millis(300));
    syslog.listen();
    engine.docker(&["wait", "cc"]).ok();
    eventually("the last line arrives", 30, || {
        (syslog.texts().last().map(String::as_str) == Some("5000")).then_some(())
    });
    let mut got: Vec<u32> = syslog.texts().iter().map(|t| t.parse().unwrap()).collect();
    got.sort_unstable();
    got.dedup();
    assert_eq!(got.len(), 5000, "at least once, each");
    let line = syslog.lines.lock().unwrap()[0].clone();
    assert!(line.starts_with("<30>") && line.contains(" cc["), "{line}");
    assert_eq!(spans(&engine.docker(&["logs", "cc"]).out), [(1, 5000)]);
    syslog.leave();
    let args = [&["run", "-d"], &options[..], &["busybox", "true"]].concat();
    engine
        .docker(&args)
        .fails(125, "failed to initialize logging driver");
    engine.finish();
}

#[test]
fn a_container_that_goes_at_its_end_is_forwarded_whole() {
    let engine = Engine::start();
    let mut syslog = Syslog::new();
    syslog.listen();
    let address = syslog.address();
    let args = [
        "run",
        "--rm",
        "--log-driver",
        "syslog",
        "--log-opt",
        &address,
    ];
    let args = [&args[..], &["busybox", "seq", "1", "2000"]].concat();
    assert_eq!(spans(&engine.docker(&args).out), [(1, 2000)]);
    eventually("the container is gone", 20, || {
        engine.docker(&["ps", "-aq"]).ok().is_empty().then_some(())
    });
    assert_eq!(syslog.texts().len(), 2000);
    syslog.leave();
    engine.finish();
}

/// A certificate for `localhost`, signed by itself.
fn certificate(cert: &str, key: &str) {
    run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            key,
            "-out",
            cert,
        ],
    )
    .ok();
}

/// A server that writes what it receives into a file.
fn tls_server(port: u16, [cert, key, out]: [&str; 3]) -> Child {
    Command::new("openssl")
        .args([
            "s_server",
            "-quiet",
            "-accept",
            &format!("127.0.0.1:{port}"),
            "-cert",
            cert,
            "-key",
            key,
        ])
        .stdin(Stdio::piped())
        .stdout(std::fs::File::create(out).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn syslog_over_tls() {
    let engine = Engine::start();
    let port = free_port();
    let file = |name: &str| engine.dir().join(name).display().to_string();
    let (cert, key, out) = (file("cert.pem"), file("key.pem"), file("received"));
    certificate(&cert, &key);
    let mut server = tls_server(port, [&cert, &key, &out]);
    eventually("the server listens", 30, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let (address, ca) = (
        format!("syslog-address=tcp+tls://localhost:{port}"),
        format!("syslog-tls-ca-cert={cert}"),
    );
    let options = [
        "--log-driver",
        "syslog",
        "--log-opt",
        &address,
        "--log-opt",
        "syslog-format=rfc5424",
    ];
    let trusting = [&options[..], &["--log-opt", &ca]].concat();
    start(&engine, "cc", &trusting, "echo under-cover");
    let received = || std::fs::read_to_string(Path::new(&out)).unwrap_or_default();
    eventually("the line arrives", 20, || {
        received().contains("under-cover").then_some(())
    });
    let text = received();
    let (length, rest) = text.split_once(' ').unwrap();
    assert_eq!(length.parse::<usize>().unwrap(), rest.len(), "{text}");
    let args = [&["run", "-d"], &options[..], &["busybox", "true"]].concat();
    engine
        .docker(&args)
        .fails(125, "failed to initialize logging driver");
    server.kill().unwrap();
    server.wait().unwrap();
    engine.finish();
}
