//! Containers as machines of their own on one of the host's links, through the docker CLI.

use gantry_e2e::{Card, Engine, eventually};

const WEB: &str = "mkdir -p /www; echo page > /www/index.html; exec httpd -f -p 80 -h /www";

#[test]
fn macvlan_containers_are_machines_of_their_own() {
    let mut engine = Engine::start();
    let card = Card::new();
    let parent = format!("parent={}", card.name());
    let create = ["network", "create", "-d", "macvlan"];
    let subnet = ["--subnet", "10.177.0.0/24", "--gateway", "10.177.0.1"];
    let args = [&create[..], &subnet, &["-o", &parent, "lan"]].concat();
    engine.docker(&args).ok();
    let address = ["--network", "lan", "--ip", "10.177.0.9"];
    let args = [&["run", "-d", "--name", "web"], &address[..]].concat();
    let args = [&args[..], &["busybox", "sh", "-c", WEB]].concat();
    engine.docker(&args).ok();
    let ask = |engine: &Engine, url: &str| {
        let args = [
            "run",
            "--rm",
            "--network",
            "lan",
            "busybox",
            "wget",
            "-qO-",
            url,
        ];
        let done = engine.docker(&args);
        (done.code == 0).then_some(done.out)
    };
    for url in ["http://10.177.0.9/", "http://web/"] {
        let page = eventually("the server answers", 20, || ask(&engine, url));
        assert_eq!(page, "page\n", "{url}");
    }
    let address = ["exec", "web", "cat", "/sys/class/net/eth0/address"];
    assert_eq!(engine.docker(&address).ok(), "02:42:0a:b1:00:09");
    let routes = engine.docker(&["exec", "web", "ip", "route"]).ok();
    assert!(
        routes.contains("default via 10.177.0.1 dev eth0"),
        "{routes}"
    );
    let format = "{{.Driver}} {{.Scope}} {{.Options.parent}}";
    let told = engine
        .docker(&["network", "inspect", "-f", format, "lan"])
        .ok();
    assert_eq!(told, format!("macvlan local {}", card.name()));
    engine.kill9();
    engine.boot();
    let page = eventually("the server answers the next engine", 20, || {
        ask(&engine, "http://web/")
    });
    assert_eq!(page, "page\n");
    engine.docker(&["network", "disconnect", "lan", "web"]).ok();
    let links = engine.docker(&["exec", "web", "ls", "/sys/class/net"]).ok();
    assert_eq!(links, "lo");
    engine.docker(&["rm", "-f", "web"]).ok();
    engine.docker(&["network", "rm", "lan"]).ok();
    drop(card);
    engine.finish();
}

#[test]
fn a_parent_that_cannot_be_is_refused() {
    let engine = Engine::start();
    for (driver, option, words) in [
        (
            "macvlan",
            "parent=absent0",
            "invalid subinterface vlan name absent0",
        ),
        (
            "macvlan",
            "parent=absent0.7",
            "failed to find master interface absent0",
        ),
        (
            "macvlan",
            "parent=lo",
            "loopback interface is not a valid macvlan parent link",
        ),
        (
            "macvlan",
            "macvlan_mode=odd",
            "requested macvlan mode 'odd' is not valid",
        ),
        (
            "ipvlan",
            "ipvlan_mode=l4",
            "requested ipvlan mode 'l4' is not valid",
        ),
    ] {
        let args = ["network", "create", "-d", driver, "-o", option, "lan"];
        engine.docker(&args).fails(1, words);
    }
    assert_eq!(
        engine
            .docker(&["network", "ls", "-q", "-f", "name=lan"])
            .ok(),
        ""
    );
    engine.finish();
}
