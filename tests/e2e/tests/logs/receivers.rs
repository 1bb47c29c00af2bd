//! The drivers journald, fluentd and gelf, each against a socket.

use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use gantry_e2e::Engine;

use crate::start;

const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

#[test]
fn journald_fluentd_and_gelf_get_what_docker_sends() {
    let engine = Engine::start();
    journald(&engine);
    fluentd(&engine);
    gelf(&engine);
    engine.finish();
}

fn journald(engine: &Engine) {
    let path = engine.dir().join("journal");
    let journal = UnixDatagram::bind(&path).unwrap();
    journal.set_read_timeout(PATIENCE).unwrap();
    let socket = format!("journald-socket={}", path.display());
    let options = [
        "--log-driver",
        "journald",
        "--log-opt",
        &socket,
        "--log-opt",
        "cache-disabled=true",
    ];
    start(engine, "jj", &options, "echo to-journal >&2");
    let mut buffer = vec![0; 65536];
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
}

fn fluentd(engine: &Engine) {
    let fluentd = TcpListener::bind("127.0.0.1:0").unwrap();
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
    start(engine, "ff", &options, "echo to-fluentd");
    let bytes = serve.join().unwrap();
    assert!(
        bytes.starts_with(b"\x93\xa4t.ff"),
        "{}",
        bytes.escape_ascii()
    );
    let named = b"container_name\xa3/ff";
    assert!(bytes.windows(named.len()).any(|window| window == named));
    assert_eq!(engine.docker(&["logs", "ff"]).out, "to-fluentd\n");
}

fn gelf(engine: &Engine) {
    let gelf = UdpSocket::bind("127.0.0.1:0").unwrap();
    gelf.set_read_timeout(PATIENCE).unwrap();
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
    start(engine, "gg", &options, "echo to-gelf");
    let mut buffer = vec![0; 65536];
    let read = gelf.recv(&mut buffer).unwrap();
    let message: serde_json::Value = serde_json::from_slice(&buffer[..read]).unwrap();
    let found =
        ["short_message", "_container_name", "_team", "version"].map(|key| message[key].clone());
    assert_eq!(found, ["to-gelf", "gg", "blue", "1.1"]);
    assert_eq!(engine.docker(&["logs", "gg"]).out, "to-gelf\n");
}
