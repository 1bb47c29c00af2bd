//! What the host's own processes connect to published ports at its loopback addresses.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use gantry_fixtures::Host;
use rustix::net::{AddressFamily, SocketType};

use super::flows::engine;
use super::*;

/// How a connection got there.
#[derive(Debug, PartialEq)]
enum Way {
    /// Every packet is translated.
    Translated,
    /// It was made to the container.
    Led,
}

/// Connects from the host, from an address of its own if it is told one.
fn open(host: &Host, from: Option<SocketAddrV4>, to: SocketAddrV4) -> Option<TcpStream> {
    let opened = host.namespace.enter(|| {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        if let Some(from) = from {
            rustix::net::bind(&socket, &from)?;
        }
        rustix::net::connect(&socket, &to)?;
        Ok(TcpStream::from(socket))
    });
    opened.ok()
}

/// The way of a connection that answers; none when it is refused.
fn way(host: &Host, from: Option<SocketAddrV4>, to: SocketAddrV4) -> Option<Way> {
    let mut stream = open(host, from, to)?;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("it is a socket");
    assert!(echoes(&mut stream, "here"), "{to}");
    let told = stream.peer_addr().expect("it is connected");
    assert_eq!(told, SocketAddr::V4(to), "as its program connected it");
    // The kernel tells others the truth.
    let own = stream.local_addr().expect("it is connected").port();
    let ss = host.namespace.shell(&format!("ss -Htn sport = :{own}"));
    let peer = ss.split_whitespace().nth(4);
    Some(match peer.expect("a line of ss") == to.to_string() {
        true => Way::Translated,
        false => Way::Led,
    })
}

fn kill(process: &Path) {
    let pid = process
        .file_name()
        .and_then(|name| name.to_str()?.parse().ok());
    let pid = pid
        .and_then(rustix::process::Pid::from_raw)
        .expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is there");
}

fn at(ip: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(ip, port)
}

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const THERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);

#[test]
fn connections_at_loopback_addresses_are_led_also_without_the_daemon() {
    let hosts = Hosts::new(1);
    let host = hosts.host(1);
    let mut engine = engine(host, json!({}));
    let row = "-p 9000-9003:5-8";
    let ports = format!("--name echo -p 8000:7 -p {THERE}:8001:7 {row}");
    run(&engine, &ports, SLEEP);
    let server = Echo::inside(&engine, "echo", &[7]);
    let answers = || eventually("it answers", 20, || way(host, None, at(HERE, 8000)));
    answers();
    let led = |ip, port| assert_eq!(way(host, None, at(ip, port)), Some(Way::Led), "{ip}:{port}");
    let all_are_led = || {
        led(HERE, 8000);
        led(Ipv4Addr::new(127, 7, 7, 7), 8000);
        led(THERE, 8001);
        led(HERE, 9002);
        assert_eq!(way(host, None, at(HERE, 8001)), None);
    };
    all_are_led();
    for (from, to) in [
        (None, at(host.address, 8000)),
        (Some(at(HERE, 0)), at(HERE, 8000)),
    ] {
        assert_eq!(way(host, from, to), Some(Way::Translated), "{to}");
    }
    engine.kill9();
    all_are_led();
    // Nobody holds it then.
    kill(&netd(&engine));
    eventually("it is translated", 20, || {
        let way = way(host, None, at(HERE, 8000));
        (way == Some(Way::Translated)).then_some(())
    });
    engine.boot();
    all_are_led();

    engine.kill9();
    engine.configure(json!({"published-ports-shortcut": false}));
    engine.boot();
    let translated = || way(host, None, at(HERE, 8000)) == Some(Way::Translated);
    assert!(translated(), "netd holds it no more");
    engine.kill9();
    engine.configure(json!({}));
    engine.boot();
    all_are_led();

    // Another container's.
    drop(server);
    docker(&engine, "rm -f echo").ok();
    assert_eq!(way(host, None, at(HERE, 8000)), None);
    run(&engine, "--name other -p 8000:9", SLEEP);
    let server = Echo::inside(&engine, "other", &[9]);
    answers();
    led(HERE, 8000);
    docker(&engine, "network create net").ok();
    docker(&engine, "network connect net other").ok();
    docker(&engine, "network disconnect bridge other").ok();
    led(HERE, 8000);
    drop(server);
    engine.finish();
}
