//! Published ports beyond what the kernel translates by itself: over IPv6 to containers without it, on `[::1]`, through
//! the host's INPUT rules, thousands at once.

mod flows;
mod listening;
mod shortcut;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use gantry_e2e::{Done, Echo, Engine, Far, Options, eventually, free_port};
use gantry_fixtures::{Hosts, Namespace};
use serde_json::json;

const WEB: &str = "mkdir -p /www; echo page > /www/index.html; httpd -fv -p 80 -h /www";
const SLEEP: &str = "exec sleep 600";

fn docker(engine: &Engine, line: &str) -> Done {
    engine.docker(&line.split(' ').collect::<Vec<_>>())
}

fn run(engine: &Engine, options: &str, script: &str) {
    let mut args = vec!["run", "-d"];
    args.extend(options.split(' '));
    args.extend(["busybox", "sh", "-c", script]);
    engine.docker(&args).ok();
}

fn connect(address: &str) -> Option<TcpStream> {
    let address: SocketAddr = address.parse().expect("an address with a port");
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    Some(stream)
}

/// Whether what is said comes back.
fn echoes(stream: &mut TcpStream, text: &str) -> bool {
    let mut back = vec![0; text.len()];
    stream.write_all(text.as_bytes()).is_ok()
        && stream.read_exact(&mut back).is_ok()
        && back == text.as_bytes()
}

/// What comes back of a datagram.
fn datagram(socket: &UdpSocket, text: &str) -> Option<String> {
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .ok()?;
    socket.send(text.as_bytes()).ok()?;
    let mut back = [0; 2000];
    let length = socket.recv(&mut back).ok()?;
    Some(String::from_utf8_lossy(&back[..length]).into_owned())
}

fn udp(address: &str) -> UdpSocket {
    let any = match address.starts_with('[') {
        true => "[::]:0",
        false => "0.0.0.0:0",
    };
    let socket = UdpSocket::bind(any).expect("an address is there");
    socket.connect(address).expect("a route is there");
    socket
}

/// What comes back of a datagram that is sent from another network.
fn datagram_from(network: &Namespace, address: &str, text: &str) -> Option<String> {
    let socket = network.enter(|| Ok(udp(address)));
    datagram(&socket.expect("it is entered"), text)
}

fn get(url: &str) -> Option<String> {
    let done = gantry_e2e::run("curl", &["-gsf", "-m", "3", url]);
    (done.code == 0).then_some(done.out)
}

#[test]
fn ipv6_reaches_containers_that_have_none_and_outlives_the_daemon() {
    let mut engine = Engine::start();
    let far = Far::new(&engine);
    let (web, echo, at) = (free_port(), free_port(), free_port());
    run(
        &engine,
        &format!("--name web -p {web}:80 -p [::1]:{at}:80"),
        WEB,
    );
    let both = format!("--name echo -p {echo}:7 -p {echo}:7/udp");
    run(&engine, &both, SLEEP);
    let server = Echo::inside(&engine, "echo", &[7]);
    let told = docker(&engine, "port web").ok();
    for line in [
        format!("80/tcp -> 0.0.0.0:{web}"),
        format!("80/tcp -> [::]:{web}"),
        format!("80/tcp -> [::1]:{at}"),
    ] {
        assert!(told.contains(&line), "{told}");
    }
    for url in [
        format!("http://127.0.0.1:{web}/"),
        format!("http://[::1]:{web}/"),
        format!("http://[::1]:{at}/"),
        format!("http://[{}]:{web}/", far.host6()),
    ] {
        let page = eventually(&format!("{url} answers"), 20, || get(&url));
        assert_eq!(page, "page\n", "{url}");
    }
    assert!(get(&format!("http://127.0.0.1:{at}/")).is_none());
    // From another machine.
    let outside = format!("http://[{}]:{web}/", far.host6());
    assert_eq!(far.get(&outside).as_deref(), Some("page\n"));
    assert_eq!(far.get(&format!("http://[{}]:{at}/", far.host6())), None);

    let address = format!("[::1]:{echo}");
    let mut stream = eventually("the echo answers", 20, || {
        let mut stream = connect(&address)?;
        echoes(&mut stream, "one").then_some(stream)
    });
    let socket = eventually("datagrams come back", 20, || {
        let socket = udp(&address);
        datagram(&socket, "one").map(|_| socket)
    });
    // A datagram may be lost, or late on a loaded machine.
    let flows = |text: &str| {
        eventually("the flow goes on", 20, || {
            datagram(&socket, text).filter(|back| back == text)
        });
    };
    engine.kill9();
    assert!(echoes(&mut stream, "without a daemon"));
    flows("two");
    assert!(echoes(&mut connect(&address).unwrap(), "a new one"));
    engine.boot();
    assert!(echoes(&mut stream, "with the next daemon"));
    flows("three");
    assert!(echoes(&mut connect(&address).unwrap(), "another"));

    drop(server);
    docker(&engine, "rm -f echo").ok();
    let ended = stream.read(&mut [0; 1]);
    assert!(
        matches!(ended, Ok(0) | Err(_)),
        "the connection ends with its container: {ended:?}"
    );
    assert!(connect(&address).is_none(), "nobody listens");
    drop(far);
    engine.finish();
}

/// The engine's netd, below `/proc`.
fn netd(engine: &Engine) -> PathBuf {
    let dir = engine.dir().display().to_string();
    let processes = std::fs::read_dir("/proc")
        .expect("proc is mounted")
        .flatten();
    let mut processes = processes.map(|process| process.path());
    let netd = processes.find(|process| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains("gantry-netd") && line.contains(&dir)
    });
    netd.expect("netd runs")
}

#[test]
fn without_the_proxy_only_the_kernel_translates() {
    let engine = Engine::with(Options {
        config: Some(json!({"userland-proxy": false})),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    let port = free_port();
    run(
        &engine,
        &format!("--name web -p {port}:80 -p [::1]:{port}:80"),
        WEB,
    );
    eventually("the server answers", 20, || {
        get(&format!("http://127.0.0.1:{port}/"))
    });
    assert_eq!(
        docker(&engine, "port web").ok(),
        format!("80/tcp -> 0.0.0.0:{port}")
    );
    assert!(connect(&format!("[::1]:{port}")).is_none());
    engine.finish();
}

#[test]
fn published_ports_obey_the_hosts_input_rules_when_told_to() {
    let hosts = Hosts::new(2);
    let (host, other) = (hosts.host(1), hosts.host(2));
    let mut engine = Engine::with(Options {
        namespace: Some(host.namespace.path()),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    run(&engine, "--name web -p 8080:80 -p 8081:80", WEB);
    run(&engine, "--name echo -p 7:7/udp", SLEEP);
    let server = Echo::inside(&engine, "echo", &[7]);
    // Live containers' ports follow the option.
    engine.kill9();
    engine.configure(json!({"published-ports-obey-input": true}));
    engine.boot();
    let get = |network: &Namespace, address: &str| {
        network
            .try_shell(&format!("curl -gsf -m 3 http://{address}/"))
            .ok()
    };
    let (v4, v6) = (host.address.to_string(), format!("[{}]", host.address_v6));
    for (from, address) in [
        (&host.namespace, "127.0.0.1:8080".to_owned()),
        (&host.namespace, "[::1]:8080".to_owned()),
        (&host.namespace, format!("{v4}:8080")),
        (&other.namespace, format!("{v4}:8080")),
        (&other.namespace, format!("{v6}:8081")),
    ] {
        let page = eventually(&format!("{address} answers"), 20, || get(from, &address));
        assert_eq!(page.trim(), "page", "{address}");
    }
    // A container reaches the port as well, by translation.
    let page = docker(
        &engine,
        &format!("run --rm busybox wget -qO- http://{v4}:8080/"),
    );
    assert_eq!(page.ok(), "page");
    host.namespace.shell(
        "nft add table inet wall; nft 'add chain inet wall in { type filter hook input priority 0; }'; \
         nft add rule inet wall in iifname eth0 tcp dport 8080 drop; \
         nft add rule inet wall in iifname eth0 udp dport 7 drop",
    );
    assert_eq!(get(&other.namespace, &format!("{v4}:8080")), None);
    assert!(get(&other.namespace, &format!("{v4}:8081")).is_some());
    assert!(get(&host.namespace, &format!("{v4}:8080")).is_some());
    let echo = format!("{v4}:7");
    assert_eq!(datagram_from(&other.namespace, &echo, "over"), None);
    host.namespace.shell("nft delete table inet wall");
    eventually("datagrams pass", 20, || {
        datagram_from(&other.namespace, &echo, "over")
    });
    drop(server);
    // The server sees the relay, as it does with Docker's proxy.
    let log = docker(&engine, "logs web");
    let gateway = engine.docker(&[
        "network",
        "inspect",
        "bridge",
        "-f",
        "{{(index .IPAM.Config 0).Gateway}}",
    ]);
    assert!(log.err.contains(&gateway.ok()), "{}", log.err);
    engine.finish();
}

#[test]
fn ten_thousand_ports_and_ranges() {
    let host = Namespace::new();
    let engine = Engine::with(Options {
        namespace: Some(host.path()),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    run(&engine, "--name many -p 10000-20000:10000-20000/udp", SLEEP);
    let server = Echo::inside(&engine, "many", &[10000, 15000, 20000]);
    for address in ["127.0.0.1", "[::1]"] {
        for port in [10000, 15000, 20000] {
            let at = format!("{address}:{port}");
            eventually(&format!("{at} answers"), 20, || {
                datagram_from(&host, &at, "hello")
            });
        }
    }
    let told = engine.docker(&["port", "many", "17123/udp"]).ok();
    assert_eq!(told, "0.0.0.0:17123\n[::]:17123");
    let held = netd(&engine)
        .join("fd")
        .read_dir()
        .expect("it runs")
        .count();
    assert!((1..100).contains(&held), "{held} descriptors");
    // A range of the host for one port of the container: the first that is free.
    for (name, port) in [("one", 8000), ("two", 8001)] {
        run(&engine, &format!("--name {name} -p 8000-8009:80"), WEB);
        let told = engine.docker(&["port", name]).ok();
        assert!(
            told.contains(&format!("80/tcp -> 0.0.0.0:{port}")),
            "{told}"
        );
    }
    docker(&engine, "run -d -p 12345:1/udp busybox true").fails(125, "port is already allocated");
    docker(&engine, "run -d -p 15000-15010:80/udp busybox true")
        .fails(125, "port is already allocated");
    drop(server);
    docker(&engine, "rm -f many").ok();
    docker(&engine, "run -d -p 12345:1/udp busybox true").ok();
    engine.finish();
}

#[test]
fn sctp_is_published_where_the_kernel_has_it_and_refused_elsewhere() {
    let engine = Engine::start();
    let port = free_port();
    let done = docker(
        &engine,
        &format!("run -d --name sctp -p {port}:3868/sctp busybox sleep 60"),
    );
    let there = std::fs::read_to_string("/proc/net/protocols")
        .unwrap()
        .contains("SCTP");
    if there {
        done.ok();
        assert_eq!(
            docker(&engine, "port sctp").ok(),
            format!("3868/sctp -> 0.0.0.0:{port}")
        );
    } else {
        done.fails(125, "protocol not supported");
        assert_eq!(docker(&engine, "port sctp").ok(), "");
    }
    engine.finish();
}
