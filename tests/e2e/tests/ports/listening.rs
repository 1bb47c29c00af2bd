//! Where the engine writes no rules (`"iptables": false`), published ports are relayed by sockets of netd's own.

use std::net::TcpListener;

use gantry_e2e::{Echo, Engine, Options, eventually};
use gantry_fixtures::{Host, Hosts};
use serde_json::json;

use super::{SLEEP, WEB, connect, datagram, datagram_from, docker, echoes, netd, run, udp};

fn engine(host: &Host, config: serde_json::Value) -> Engine {
    let engine = Engine::with(Options {
        namespace: Some(host.namespace.path()),
        config: Some(config),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    engine
}

/// The sockets of a host that listen on its ports, as `ss` shows them.
fn listening(host: &Host) -> String {
    host.namespace
        .shell("ss -Hltun 'sport = :8080 or sport = :7'")
}

fn page(from: &Host, address: &str) -> Option<String> {
    let line = format!("curl -gsf -m 3 http://{address}/");
    from.namespace.try_shell(&line).ok()
}

/// Waits until a server at port 8080, and an echo at port 7, answer on the first host from everywhere.
fn answer_everywhere(host: &Host, other: &Host) {
    let (v4, v6) = (host.address.to_string(), format!("[{}]", host.address_v6));
    for (from, at) in [
        (host, "127.0.0.1"),
        (host, "[::1]"),
        (host, v4.as_str()),
        (other, v4.as_str()),
        (other, v6.as_str()),
    ] {
        let told = eventually(&format!("{at} answers"), 20, || {
            page(from, &format!("{at}:8080"))
        });
        assert_eq!(told.trim(), "page", "{at}");
        eventually(&format!("datagrams come back from {at}"), 20, || {
            datagram_from(&from.namespace, &format!("{at}:7"), "hello")
        });
    }
}

#[test]
fn without_rules_netd_listens_on_published_ports() {
    let hosts = Hosts::new(2);
    let (host, other) = (hosts.host(1), hosts.host(2));
    let mut engine = engine(host, json!({"iptables": false}));
    assert!(!host.namespace.shell("nft list tables").contains("gantry-"));
    run(&engine, "--name web -p 8080:80", WEB);
    run(&engine, "--name echo -p 7:7 -p 7:7/udp", SLEEP);
    let server = Echo::inside(&engine, "echo", &[7]);
    let everywhere = || answer_everywhere(host, other);
    everywhere();
    let inside = format!("run --rm busybox wget -qO- http://{}:8080/", host.address);
    assert_eq!(docker(&engine, &inside).ok(), "page");
    assert_eq!(listening(host).lines().count(), 6, "{}", listening(host));

    // The same conflicts as with any server, both ways.
    docker(&engine, "run -d -p 8080:80 busybox true").fails(125, "port is already allocated");
    let taken = host
        .namespace
        .enter(|| std::net::TcpListener::bind("0.0.0.0:8081"));
    docker(&engine, "run -d --name late -p 8081:80 busybox true")
        .fails(125, "address already in use");
    drop(taken);
    let other_server = host
        .namespace
        .enter(|| std::net::UdpSocket::bind("0.0.0.0:7"));
    assert_eq!(
        other_server.unwrap_err().kind(),
        std::io::ErrorKind::AddrInUse
    );

    let (mut stream, flow) = host
        .namespace
        .enter(|| Ok((connect("127.0.0.1:7"), udp("127.0.0.1:7"))))
        .unwrap();
    let stream = stream.as_mut().expect("it is listened on");
    assert!(echoes(stream, "with the first daemon"));
    let flows = |text: &str| {
        eventually("the flow goes on", 20, || {
            datagram(&flow, text).filter(|back| back == text)
        });
    };
    flows("one");
    engine.kill9();
    assert!(echoes(stream, "without a daemon"));
    flows("two");
    everywhere();
    engine.boot();
    assert!(echoes(stream, "with the next daemon"));
    flows("three");
    everywhere();
    // Ports of a running container come and go.
    engine.gantry(&["update", "--publish-rm", "80", "web"]).ok();
    assert!(!listening(host).contains(":8080"), "{}", listening(host));
    engine
        .gantry(&["update", "--publish-add", "8080:80", "web"])
        .ok();
    everywhere();

    drop((server, flow));
    docker(&engine, "rm -f web echo late").ok();
    assert_eq!(listening(host), "");
    docker(&engine, "run --rm -p 8080:80 -p 7:7/udp busybox true").ok();
    assert_eq!(listening(host), "");
    engine.finish();
}

/// Ends netd while there is no daemon, and takes one of its ports before there is another.
fn take_from_netd(engine: &mut Engine, host: &Host, at: &str) -> TcpListener {
    let netd = netd(engine);
    engine.kill9();
    let pid = netd.file_name().expect("it has a number").to_string_lossy();
    gantry_e2e::run("kill", &["-9", &*pid]).ok();
    eventually("the port is free", 20, || {
        host.namespace.enter(|| TcpListener::bind(at)).ok()
    })
}

#[test]
fn a_port_that_another_program_took_is_had_again_when_it_is_free() {
    let hosts = Hosts::new(2);
    let host = hosts.host(1);
    let mut engine = engine(host, json!({"iptables": false}));
    run(&engine, "--name web -p 8080:80 -p 8081:80", WEB);
    let gets = |at: &str| {
        let told = eventually(&format!("{at} answers"), 20, || page(host, at));
        assert_eq!(told.trim(), "page", "{at}");
    };
    gets("127.0.0.1:8080");
    let taken = take_from_netd(&mut engine, host, "0.0.0.0:8080");
    engine.boot();
    gets("127.0.0.1:8081");
    gets("[::1]:8080");
    assert_eq!(page(host, "127.0.0.1:8080"), None);
    // Containers that come meanwhile have nothing to do with it.
    run(&engine, "--name other -p 8082:80", WEB);
    gets("127.0.0.1:8082");
    drop(taken);
    gets("127.0.0.1:8080");
    // One that is not wanted any more is left to whoever has it.
    let taken = take_from_netd(&mut engine, host, "0.0.0.0:8080");
    engine.boot();
    gets("127.0.0.1:8081");
    engine.gantry(&["update", "--publish-rm", "80", "web"]).ok();
    drop(taken);
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(listening(host), "");
    gets("127.0.0.1:8082");
    docker(&engine, "rm -f web other").ok();
    engine.finish();
}

#[test]
fn where_the_kernel_leads_nothing_netd_listens_on_relayed_ports() {
    let hosts = Hosts::new(2);
    let (host, other) = (hosts.host(1), hosts.host(2));
    let mut engine = engine(host, json!({}));
    engine.terminate();
    // By a table of this name the daemon tries whether the kernel leads packets to sockets. Where the chain is at another
    // hook, the kernel refuses, as it does without `tproxy`.
    let trial = format!("inet gantry-{}-try", engine.tag());
    host.namespace.shell(&format!(
        "nft add table {trial}; nft 'add chain {trial} relay {{ type filter hook output priority 0; }}'"
    ));
    engine.boot();
    run(&engine, "--name web -p 8080:80", WEB);
    run(&engine, "--name echo -p 7:7 -p 7:7/udp", SLEEP);
    let server = Echo::inside(&engine, "echo", &[7]);
    answer_everywhere(host, other);
    // Over IPv4 the kernel translates.
    let sockets = listening(host);
    assert_eq!(sockets.lines().count(), 3, "{sockets}");
    assert_eq!(sockets.matches("[::]:").count(), 3 + 3, "{sockets}");
    // Through the host's INPUT rules all comes by sockets, to live containers as well.
    engine.kill9();
    answer_everywhere(host, other);
    engine.configure(json!({"published-ports-obey-input": true}));
    engine.boot();
    answer_everywhere(host, other);
    assert_eq!(listening(host).lines().count(), 6, "{}", listening(host));
    let rules = format!("nft list chain inet gantry-{} relay", engine.tag());
    assert!(!host.namespace.shell(&rules).contains("tproxy"));
    drop(server);
    docker(&engine, "rm -f web echo").ok();
    assert_eq!(listening(host), "");
    host.namespace.shell(&format!("nft delete table {trial}"));
    engine.finish();
}

#[test]
fn containers_that_run_follow_the_option() {
    let hosts = Hosts::new(2);
    let (host, other) = (hosts.host(1), hosts.host(2));
    let mut engine = engine(host, json!({}));
    run(&engine, "--name web -p 8080:80 -p 8081:80", WEB);
    let address = format!("{}:8080", host.address);
    let reached = || eventually("the other host gets the page", 20, || page(other, &address));
    reached();
    assert_eq!(listening(host), "");
    // Where the kernel translates, another program can listen there as well, and does not hear a thing.
    let mut taken = host
        .namespace
        .enter(|| TcpListener::bind("0.0.0.0:8081"))
        .ok();
    for (config, sockets) in [
        (json!({"iptables": false}), 2),
        // Neither rules nor a proxy: as in Docker, nothing leads there.
        (json!({"iptables": false, "userland-proxy": false}), 0),
        (json!({}), 0),
    ] {
        engine.kill9();
        engine.configure(config.clone());
        engine.boot();
        let nothing = config.get("userland-proxy").is_some();
        match nothing {
            true => assert_eq!(page(other, &address), None),
            false => drop(reached()),
        }
        assert_eq!(listening(host).lines().count(), sockets, "{config}");
        if taken.take().is_some() {
            let at = format!("{}:8081", host.address);
            eventually("the port is had when it is free", 20, || page(other, &at));
        }
    }
    docker(&engine, "rm -f web").ok();
    engine.finish();
}
