//! What other programs do to the host's packet filter, and what becomes of published ports and ways out meanwhile. Each
//! engine is on a host of its own; another host on the same switch looks at it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use gantry_e2e::{Done, Echo, Engine, Options, eventually};
use gantry_fixtures::{Host, Hosts};
use serde_json::json;

const WEB: &str = "mkdir -p /www; echo page > /www/index.html; exec httpd -fv -p 80 -h /www";

fn docker(engine: &Engine, line: &str) -> Done {
    engine.docker(&line.split(' ').collect::<Vec<_>>())
}

/// An engine on the first of two hosts, with a server published at port 8080.
fn serving(hosts: &Hosts) -> Engine {
    let engine = Engine::with(Options {
        namespace: Some(hosts.host(1).namespace.path()),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    engine
        .docker(&[
            "run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", WEB,
        ])
        .ok();
    reached(hosts);
    engine
}

fn get(from: &Host, hosts: &Hosts) -> Option<String> {
    let url = format!("http://{}:8080/", hosts.host(1).address);
    from.namespace
        .try_shell(&format!("curl -sf -m 1 {url}"))
        .ok()
}

/// The other host reaches the server, at last.
fn reached(hosts: &Hosts) {
    let page = eventually("the other host gets the page", 20, || {
        get(hosts.host(2), hosts)
    });
    assert_eq!(page.trim(), "page");
}

/// A container reaches the other host, at last.
fn reaches_out(engine: &Engine, hosts: &Hosts) {
    let ping = format!("exec web ping -c1 -W1 {}", hosts.host(2).address);
    eventually("the container gets out", 20, || {
        (docker(engine, &ping).code == 0).then_some(())
    });
}

#[test]
fn clients_of_other_hosts_are_seen_by_their_own_addresses() {
    let hosts = Hosts::new(2);
    let engine = serving(&hosts);
    let log = docker(&engine, "logs web").err;
    assert!(log.contains(&hosts.host(2).address.to_string()), "{log}");
    engine.finish();
}

#[test]
fn what_others_flush_and_delete_is_made_again() {
    let hosts = Hosts::new(2);
    let engine = serving(&hosts);
    let table = format!("gantry-{}", engine.tag());
    let host = &hosts.host(1).namespace;
    for damage in [
        "nft flush ruleset".to_owned(),
        format!("nft flush table inet {table}"),
        format!("nft flush chain inet {table} prerouting"),
        format!("nft flush map inet {table} ports4"),
        format!("nft delete table inet {table}"),
    ] {
        host.shell(&damage);
        reached(&hosts);
        reaches_out(&engine, &hosts);
        let page = host.shell("curl -gsf -m 3 http://[::1]:8080/");
        assert_eq!(page.trim(), "page", "{damage}");
    }
    assert!(engine.log().contains("changed by another program"));
    engine.finish();
}

#[test]
fn foreign_chains_that_drop_let_containers_pass() {
    let hosts = Hosts::new(2);
    let engine = serving(&hosts);
    let host = &hosts.host(1).namespace;
    let marks = || {
        let rules = host.shell("nft list ruleset");
        let mark = format!("gantry-{}", engine.tag());
        rules
            .lines()
            .filter(|l| l.contains("comment") && l.contains(&mark))
            .count()
    };
    for change in [
        "iptables-nft -P FORWARD DROP",
        // The policy stays, our rules go.
        "iptables-nft -F FORWARD",
        "nft add table inet wall; nft 'add chain inet wall f { type filter hook forward priority 10; policy drop; }'",
        "nft flush chain inet wall f",
    ] {
        host.shell(change);
        reached(&hosts);
        reaches_out(&engine, &hosts);
    }
    let before = marks();
    docker(&engine, "network create side").ok();
    docker(&engine, "network rm side").ok();
    assert_eq!(marks(), before, "networks come and go without a trace");
    host.shell("iptables-nft -P FORWARD ACCEPT; nft delete table inet wall");
    docker(&engine, "rm -f web").ok();
    engine.finish();
    assert_eq!(
        host.shell("iptables-nft -S FORWARD").trim(),
        "-P FORWARD ACCEPT"
    );
}

#[test]
fn legacy_tables_are_told_of() {
    let hosts = Hosts::new(2);
    let host = &hosts.host(1).namespace;
    if host.try_shell("iptables-legacy -P FORWARD DROP").is_err() {
        // A kernel without the old tables: nothing can be in the way.
        return;
    }
    host.shell("iptables-legacy -P FORWARD ACCEPT");
    let engine = serving(&hosts);
    let warnings = || docker(&engine, "info").err;
    assert!(!warnings().contains("iptables-legacy"));
    host.shell("iptables-legacy -P FORWARD DROP");
    assert_eq!(get(hosts.host(2), &hosts), None);
    let told = warnings();
    assert!(told.contains("iptables-legacy -P FORWARD ACCEPT"), "{told}");
    // The next port that is published is a reason to say so in the log.
    docker(&engine, "run -d --name more -p 8081:80 busybox sleep 60").ok();
    assert!(
        engine
            .log()
            .contains("iptables-legacy drops forwarded packets")
    );
    host.shell("iptables-legacy -P FORWARD ACCEPT");
    reached(&hosts);
    assert!(!warnings().contains("iptables-legacy"));
    engine.finish();
}

/// Says something over a connection and hears it again.
fn echoes(stream: &mut TcpStream, text: &str) {
    let mut back = vec![0; text.len()];
    stream.write_all(text.as_bytes()).expect("it is connected");
    stream.read_exact(&mut back).expect("it answers");
    assert_eq!(back, text.as_bytes());
}

#[test]
fn connections_go_on_through_a_flush() {
    let hosts = Hosts::new(2);
    let engine = serving(&hosts);
    engine
        .docker(&[
            "run", "-d", "--name", "echo", "-p", "7:7", "busybox", "sleep", "600",
        ])
        .ok();
    let server = Echo::inside(&engine, "echo", &[7]);
    let address = (hosts.host(1).address, 7);
    let mut stream = eventually("the echo answers", 20, || {
        let stream = hosts.host(2).namespace.enter(|| {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            Ok(stream)
        });
        stream.ok()
    });
    echoes(&mut stream, "before");
    hosts.host(1).namespace.shell("nft flush ruleset");
    reached(&hosts);
    echoes(&mut stream, "after");
    drop(server);
    engine.finish();
}

#[test]
fn containers_are_reached_at_their_own_addresses_when_the_daemon_allows_it() {
    let hosts = Hosts::new(2);
    let mut engine = serving(&hosts);
    docker(&engine, "exec -d web httpd -p 81 -h /www").ok();
    let format = "{{.NetworkSettings.IPAddress}}";
    let address = engine.docker(&["inspect", "-f", format, "web"]).ok();
    let (host, other) = (hosts.host(1), &hosts.host(2).namespace);
    other.shell(&format!("ip route add {address}/32 via {}", host.address));
    let directly = |port: u16| {
        let url = format!("http://{address}:{port}/");
        other.try_shell(&format!("curl -sf -m 1 {url}")).ok()
    };
    let from_another_network = |engine: &Engine| {
        let wget = format!("run --rm --network side busybox wget -T 2 -qO- http://{address}/");
        docker(engine, &wget).code
    };
    docker(&engine, "network create side").ok();
    for allowed in [false, true, false] {
        engine.kill9();
        engine.configure(json!({"allow-direct-routing": allowed}));
        engine.boot();
        reached(&hosts);
        assert_eq!(directly(80).is_some(), allowed);
        assert_eq!(directly(81), None, "it is not published");
        assert_ne!(from_another_network(&engine), 0);
        // The host itself is no other host.
        host.namespace
            .shell(&format!("curl -sf -m 3 http://{address}:81/"));
    }
    other.shell(&format!("ip route del {address}/32"));
    docker(&engine, "rm -f web").ok();
    docker(&engine, "network rm side").ok();
    engine.finish();
}
