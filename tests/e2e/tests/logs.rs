//! Logs: drivers and their options, rotation and compression, forwarding to receivers that come and go.

use std::io::{BufRead, BufReader, Read};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gantry_e2e::{Engine, Options, eventually, free_port, run};

/// Where a container's log files are.
fn log_file(engine: &Engine, name: &str, suffix: &str) -> PathBuf {
    let id = engine.docker(&["inspect", "-f", "{{.Id}}", name]).ok();
    let file = format!("data/containers/{id}/{id}-json.log{suffix}");
    engine.dir().join(file)
}

/// The numbers in lines of a text, as (first, last) of those that follow each other.
fn spans(text: &str) -> Vec<(u32, u32)> {
    let mut spans: Vec<(u32, u32)> = Vec::new();
    for line in text.lines() {
        let number = line
            .parse()
            .unwrap_or_else(|_| panic!("{line:?} is no number"));
        match spans.last_mut().filter(|(_, last)| last + 1 == number) {
            Some((_, last)) => *last = number,
            None => spans.push((number, number)),
        }
    }
    spans
}

/// Starts a container that runs a script.
fn start(engine: &Engine, name: &str, options: &[&str], script: &str) {
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(options);
    args.extend(["busybox", "sh", "-c", script]);
    engine.docker(&args).ok();
}

#[test]
fn rotated_and_compressed_logs_are_read_as_one() {
    let engine = Engine::start();
    let options = ["--log-driver", "local", "--log-opt", "max-size=60k"];
    let script = "seq 1 3000; while ! [ -e /go ]; do sleep 0.05; done; seq 3001 4000";
    start(&engine, "cc", &options, script);
    let packed = log_file(&engine, "cc", ".3.gz");
    eventually("rotated files are compressed", 20, || {
        packed.exists().then_some(())
    });
    assert_eq!(spans(&engine.docker(&["logs", "cc"]).out), [(1, 3000)]);
    let tail = engine.docker(&["logs", "-n", "2500", "cc"]).out;
    assert_eq!(spans(&tail), [(501, 3000)]);
    let mut follow = engine.docker_command();
    let follow = follow.args(["logs", "-f", "-n", "5", "cc"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(follow.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    assert_eq!(first, "2996\n");
    engine.docker(&["exec", "cc", "touch", "/go"]).ok();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(spans(&rest), [(2997, 4000)], "followed over rotations");
    assert!(follow.wait().unwrap().success());
    engine.finish();
}

#[test]
fn a_frame_is_a_line_except_for_dockers_own_client() {
    let engine = Engine::start();
    start(&engine, "cc", &[], "seq 1 1000");
    engine.docker(&["wait", "cc"]).ok();
    let frames = |agent: &str| {
        let path = "/containers/cc/logs?stdout=1&stderr=1";
        let headers = format!("User-Agent: {agent}\r\n");
        let none = serde_json::Value::Null;
        let mut taken = gantry_e2e::raw::ask(&engine, "GET", path, &headers, &none);
        let mut body = Vec::new();
        while let Some(chunk) = taken.chunk() {
            body.extend(chunk);
        }
        let (mut count, mut rest, mut text) = (0, body.as_slice(), Vec::new());
        while let Some((head, after)) = rest.split_first_chunk::<8>() {
            assert_eq!(head[..4], [1, 0, 0, 0]);
            let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
            text.extend_from_slice(&after[..length]);
            rest = &after[length..];
            count += 1;
        }
        (count, spans(&String::from_utf8(text).unwrap()))
    };
    assert_eq!(frames("python-docker/7"), (1000, vec![(1, 1000)]));
    let (count, text) = frames("Docker-Client/28.2.2 (linux)");
    assert!(count < 10 && text == [(1, 1000)], "{count} {text:?}");
    engine.finish();
}

#[test]
fn a_limit_bounds_what_is_kept_and_non_blocking_mode_loses_nothing_on_an_idle_disk() {
    let engine = Engine::start();
    let options = [
        "--log-opt",
        "max-size=50k",
        "--log-opt",
        "max-file=2",
        "--log-opt",
        "mode=non-blocking",
        "--log-opt",
        "max-buffer-size=8m",
    ];
    start(&engine, "cc", &options, "seq 1 2000");
    engine.docker(&["wait", "cc"]).ok();
    let kept = engine.docker(&["logs", "cc"]).out;
    let kept = spans(&kept);
    let begin = kept[0].0;
    assert!((200..1900).contains(&begin), "the oldest are gone: {begin}");
    assert_eq!(kept, [(begin, 2000)], "the newest are complete");
    assert!(!log_file(&engine, "cc", ".2").exists());
    engine.finish();
}

#[test]
fn a_log_is_cleared_while_it_is_followed() {
    let engine = Engine::start();
    let script = "echo one; while ! [ -e /go ]; do sleep 0.05; done; echo two";
    start(&engine, "cc", &[], script);
    let mut follow = engine.docker_command();
    let follow = follow.args(["logs", "-f", "cc"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(follow.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    engine.gantry(&["logs", "--clear", "cc"]).ok();
    assert_eq!(engine.docker(&["logs", "cc"]).out, "");
    engine.docker(&["exec", "cc", "touch", "/go"]).ok();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "two\n");
    assert!(follow.wait().unwrap().success());
    assert_eq!(engine.docker(&["logs", "cc"]).out, "two\n");
    let (code, _) = engine.api("DELETE", "/containers/cc/logs", None);
    assert_eq!(code, 204, "an ended container's log too");
    assert_eq!(engine.docker(&["logs", "cc"]).out, "");
    assert_eq!(engine.api("DELETE", "/containers/nope/logs", None).0, 404);
    engine.finish();
}

#[test]
fn options_are_checked_inherited_and_shown() {
    let config = serde_json::json!({
        "log-driver": "json-file", "log-opts": {"labels": "team", "tag": "{{.Name}}/{{.ImageName}}"},
    });
    let engine = Engine::with(Options {
        config: Some(config),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    for (options, words) in [
        (
            &["--log-driver", "splunk"][..],
            "logger: no log driver named 'splunk' is registered",
        ),
        (
            &["--log-opt", "x=y"],
            "unknown log opt 'x' for json-file log driver",
        ),
        (&["--log-opt", "max-size=x"], "invalid size: 'x'"),
        (
            &["--log-opt", "max-file=0"],
            "max-file cannot be less than 1",
        ),
        (
            &["--log-opt", "mode=x"],
            "logger: logging mode not supported: x",
        ),
        (
            &["--log-driver", "gelf"],
            "gelf-address is a required parameter",
        ),
    ] {
        let args = [&["create"][..], options, &["busybox"]].concat();
        engine.docker(&args).fails(1, words);
    }
    start(
        &engine,
        "cc",
        &["--label", "team=blue", "--label", "other=x"],
        "echo hi",
    );
    engine.docker(&["wait", "cc"]).ok();
    assert_eq!(
        engine.docker(&["logs", "--details", "cc"]).out,
        "tag=cc%2Fbusybox,team=blue hi\n"
    );
    start(&engine, "none", &["--log-driver", "none"], "echo hi");
    engine
        .docker(&["logs", "none"])
        .fails(1, "configured logging driver does not support reading");
    let info = engine.docker(&["info", "-f", "{{json .Plugins.Log}}"]).ok();
    assert_eq!(
        info,
        r#"["fluentd","gelf","journald","json-file","local","syslog"]"#
    );
    engine.finish();
    let mut bad = Command::new(gantry_e2e::bin_dir().join("gantryd"));
    let dir = tempfile::tempdir().unwrap();
    let root = |name: &str| dir.path().join(name).display().to_string();
    let socket = format!("unix://{}", root("s"));
    bad.args([
        "-H",
        &socket,
        "--data-root",
        &root("data"),
        "--exec-root",
        &root("run"),
    ]);
    bad.args([
        "--pidfile",
        &root("pid"),
        "--config-file",
        "/dev/null",
        "--log-opt",
        "x=y",
    ]);
    let out = bad.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr) + String::from_utf8_lossy(&out.stdout);
    assert!(
        !out.status.success() && said.contains("unknown log opt 'x'"),
        "{said}"
    );
}

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

#[test]
fn journald_fluentd_and_gelf_get_what_docker_sends() {
    let engine = Engine::start();
    let path = engine.dir().join("journal");
    let journal = UnixDatagram::bind(&path).unwrap();
    let fluentd = TcpListener::bind("127.0.0.1:0").unwrap();
    let gelf = UdpSocket::bind("127.0.0.1:0").unwrap();
    journal
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    gelf.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut buffer = vec![0; 65536];

    let socket = format!("journald-socket={}", path.display());
    let options = [
        "--log-driver",
        "journald",
        "--log-opt",
        &socket,
        "--log-opt",
        "cache-disabled=true",
    ];
    start(&engine, "jj", &options, "echo to-journal >&2");
    let read = journal.recv(&mut buffer).unwrap();
    let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
    for field in [
        "MESSAGE=to-journal",
        "PRIORITY=3",
        "CONTAINER_NAME=jj",
        "IMAGE_NAME=busybox",
    ] {
        assert!(text.lines().any(|line| line == field), "{field} in {text}");
    }
    engine
        .docker(&["logs", "jj"])
        .fails(1, "configured logging driver does not support reading");

    let address = format!("fluentd-address={}", fluentd.local_addr().unwrap());
    let serve = std::thread::spawn(move || {
        // The first connection asks whether somebody is there, the second brings the events.
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"to-fluentd") {
            let (mut stream, _) = fluentd.accept().unwrap();
            let mut buffer = [0; 4096];
            while !bytes.ends_with(b"to-fluentd") {
                match stream.read(&mut buffer).unwrap() {
                    0 => break,
                    read => bytes.extend_from_slice(&buffer[..read]),
                }
            }
        }
        bytes
    });
    let options = [
        "--log-driver",
        "fluentd",
        "--log-opt",
        &address,
        "--log-opt",
        "tag=t.{{.Name}}",
    ];
    start(&engine, "ff", &options, "echo to-fluentd");
    let bytes = serve.join().unwrap();
    assert!(
        bytes.starts_with(b"\x93\xa4t.ff"),
        "{}",
        bytes.escape_ascii()
    );
    let named = b"container_name\xa3/ff";
    assert!(bytes.windows(named.len()).any(|window| window == named));
    assert_eq!(engine.docker(&["logs", "ff"]).out, "to-fluentd\n");

    let address = format!("gelf-address=udp://{}", gelf.local_addr().unwrap());
    let options = [
        "--log-driver",
        "gelf",
        "--log-opt",
        &address,
        "--log-opt",
        "gelf-compression-type=none",
        "--log-opt",
        "labels=team",
        "--label",
        "team=blue",
    ];
    start(&engine, "gg", &options, "echo to-gelf");
    let read = gelf.recv(&mut buffer).unwrap();
    let message: serde_json::Value = serde_json::from_slice(&buffer[..read]).unwrap();
    let found =
        ["short_message", "_container_name", "_team", "version"].map(|key| message[key].clone());
    assert_eq!(found, ["to-gelf", "gg", "blue", "1.1"]);
    assert_eq!(engine.docker(&["logs", "gg"]).out, "to-gelf\n");
    engine.finish();
}

#[test]
fn syslog_over_tls() {
    let engine = Engine::start();
    let port = free_port();
    let file = |name: &str| engine.dir().join(name).display().to_string();
    let (cert, key, out) = (file("cert.pem"), file("key.pem"), file("received"));
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
            &key,
            "-out",
            &cert,
        ],
    )
    .ok();
    let mut server = Command::new("openssl")
        .args([
            "s_server",
            "-quiet",
            "-accept",
            &format!("127.0.0.1:{port}"),
            "-cert",
            &cert,
            "-key",
            &key,
        ])
        .stdin(Stdio::piped())
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the server listens", 10, || {
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
