//! Networks of CNI plugins, through the docker CLI, with Debian's plugins.

use std::fs;
use std::path::Path;

use gantry_e2e::{Engine, Options, eventually, free_port, run};
use serde_json::{Value, json};

const PLUGINS: &str = "/usr/lib/cni";
const WEB: &str = "mkdir -p /www; echo page > /www/index.html; exec httpd -f -p 80 -h /www";

/// The name of a link, and of a network, that no other test has.
fn unique(kind: &str) -> String {
    format!("c{kind}{}", std::process::id())
}

/// Leases are kept below `dir`; the network is `10.<second>.0.0/24`.
fn host_local(dir: &Path, second: u8) -> Value {
    json!({
        "type": "host-local",
        "dataDir": dir.join("leases"),
        "ranges": [[{"subnet": format!("10.{second}.0.0/24"), "gateway": format!("10.{second}.0.1")}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    })
}

/// A bridge as lists of other engines have it, with the plugin for ports that the engine does not need.
fn bridge(dir: &Path, name: &str, second: u8) -> Value {
    json!({"cniVersion": "1.0.0", "name": name, "plugins": [
        {"type": "bridge", "bridge": name, "isGateway": true, "ipMasq": true, "hairpinMode": true,
         "capabilities": {"mac": true, "ips": true}, "ipam": host_local(dir, second)},
        {"type": "portmap", "capabilities": {"portMappings": true}},
        {"type": "tuning", "sysctl": {"net.ipv4.conf.all.log_martians": "1"}},
    ]})
}

/// An engine whose lists are the files of `<dir>/net.d`.
fn engine(dir: &Path, files: &[(&str, Value)], networks: &Value) -> Engine {
    let conf = dir.join("net.d");
    fs::create_dir(&conf).unwrap();
    for (name, list) in files {
        fs::write(conf.join(name), list.to_string()).unwrap();
    }
    let options = json!({"bin": [PLUGINS, dir], "conf": conf, "networks": networks, "timeout": 20});
    let engine = Engine::with(Options {
        config: Some(json!({"drivers": {"network": {"cni": {"options": options}}}})),
        ..Default::default()
    });
    engine.import_busybox("busybox:latest");
    engine
}

/// The page of a server, asked for by a container.
fn ask(engine: &Engine, from: &str, whom: &str) -> String {
    let url = format!("http://{whom}/");
    eventually("a container reaches another", 20, || {
        let done = engine.docker(&["exec", from, "timeout", "2", "wget", "-qO-", &url]);
        (done.code == 0).then_some(done.out)
    })
}

/// The addresses that host-local has leased.
fn leases(dir: &Path, network: &str) -> Vec<String> {
    let entries = fs::read_dir(dir.join("leases").join(network));
    let names = entries.into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().into_string().unwrap());
    let mut leases: Vec<_> = names.filter(|name| name.starts_with("10.")).collect();
    leases.sort();
    leases
}

/// The rules by which plugins masquerade a network.
fn rules(network: &str) -> Vec<String> {
    let rules = run("iptables-save", &["-t", "nat"]).ok();
    let of_network = |line: &&str| line.contains(&format!("name: \\\"{network}\\\""));
    rules
        .lines()
        .filter(of_network)
        .map(str::to_owned)
        .collect()
}

fn links() -> String {
    run("ip", &["-o", "link"]).ok()
}

#[test]
fn a_bridge_of_plugins_with_names_ports_and_recovery() {
    let dir = tempfile::tempdir().unwrap();
    let name = unique("b");
    let list = bridge(dir.path(), &name, 179);
    let mut engine = engine(dir.path(), &[("10-lan.conflist", list)], &json!({}));
    let conf = format!("conf={name}");
    engine
        .docker(&["network", "create", "-d", "cni", "-o", &conf, "lan"])
        .ok();
    let port = free_port();
    let publish = format!("{port}:80");
    let web = [
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "lan",
        "-p",
        &publish,
        "busybox",
        "sh",
        "-c",
        WEB,
    ];
    engine.docker(&web).ok();
    let wishes = ["--ip", "10.179.0.77", "--mac-address", "02:00:00:00:00:77"];
    let two = [
        &["run", "-d", "--name", "two", "--network", "lan"],
        &wishes[..],
        &["busybox", "sleep", "1000"],
    ];
    engine.docker(&two.concat()).ok();
    assert_eq!(ask(&engine, "two", "web"), "page\n");

    // What plugins gave is what is shown, and what is inside.
    let format = "{{with .NetworkSettings.Networks.lan}}{{.IPAddress}}/{{.IPPrefixLen}} {{.Gateway}} {{.MacAddress}}{{end}}";
    let shown = engine.docker(&["inspect", "-f", format, "two"]).ok();
    assert_eq!(shown, "10.179.0.77/24 10.179.0.1 02:00:00:00:00:77");
    let inside = engine
        .docker(&["exec", "two", "ip", "addr", "show", "eth0"])
        .ok();
    assert!(
        inside.contains("inet 10.179.0.77/24") && inside.contains("02:00:00:00:00:77"),
        "{inside}"
    );
    let routes = engine.docker(&["exec", "two", "ip", "route"]).ok();
    assert_eq!(routes.matches("default").count(), 1, "{routes}");
    let web_address = engine
        .docker(&[
            "inspect",
            "-f",
            "{{.NetworkSettings.Networks.lan.IPAddress}}",
            "web",
        ])
        .ok();
    let mut leased = [web_address.clone(), "10.179.0.77".to_owned()];
    leased.sort();
    assert_eq!(leases(dir.path(), &name), leased);
    assert!(!rules(&name).is_empty());
    // A published port, at an address of the host's that is not the bridge's.
    let host = engine
        .docker(&[
            "network",
            "inspect",
            "-f",
            "{{(index .IPAM.Config 0).Gateway}}",
            "bridge",
        ])
        .ok();
    let fetch = |port: u16| {
        run(
            "curl",
            &["-s", "-m", "5", &format!("http://{host}:{port}/")],
        )
    };
    assert_eq!(fetch(port).ok(), "page");
    // Nothing routes the loopback address to a plugin's link.
    let at_loopback = |address: &str| {
        let page = run(
            "curl",
            &["-gs", "-m", "5", &format!("http://{address}:{port}/")],
        );
        assert_eq!(page.ok(), "page", "{address}");
    };
    at_loopback("127.0.0.1");
    at_loopback("[::1]");

    // Another network beside: the default route is one, and follows.
    engine
        .docker(&["network", "create", "--subnet", "10.180.0.0/24", "aaa"])
        .ok();
    engine.docker(&["network", "connect", "aaa", "two"]).ok();
    let route = || engine.docker(&["exec", "two", "ip", "route"]).ok();
    let defaults = |routes: String| -> Vec<String> {
        let lines = routes.lines().filter(|line| line.starts_with("default"));
        lines.map(|line| line.trim().to_owned()).collect()
    };
    assert_eq!(defaults(route()), ["default via 10.180.0.1 dev eth1"]);
    engine.docker(&["network", "disconnect", "lan", "two"]).ok();
    assert_eq!(leases(dir.path(), &name), [web_address.as_str()]);
    engine.docker(&["network", "connect", "lan", "two"]).ok();
    assert_eq!(defaults(route()), ["default via 10.180.0.1 dev eth1"]);
    engine.docker(&["network", "disconnect", "aaa", "two"]).ok();
    assert_eq!(defaults(route()), ["default via 10.179.0.1 dev eth0"]);
    assert_eq!(ask(&engine, "two", "web"), "page\n");

    // A daemon that is killed, and a container that ends before the next comes.
    let pid = engine
        .docker(&["inspect", "-f", "{{.State.Pid}}", "two"])
        .ok();
    engine.kill9();
    run("kill", &["-9", &pid]).ok();
    eventually("the container has ended", 30, || {
        (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    engine.boot();
    eventually("what it had is given back", 20, || {
        (leases(dir.path(), &name) == [web_address.as_str()]).then_some(())
    });
    assert_eq!(fetch(port).ok(), "page");
    at_loopback("127.0.0.1");
    engine.docker(&["rm", "-f", "two"]).ok();
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "two",
            "--network",
            "lan",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    assert_eq!(ask(&engine, "two", "web"), "page\n");

    engine.docker(&["rm", "-f", "web", "two"]).ok();
    assert!(leases(dir.path(), &name).is_empty());
    assert_eq!(rules(&name), [""; 0]);
    assert!(links().contains(&name));
    engine.docker(&["network", "rm", "lan", "aaa"]).ok();
    assert!(!links().contains(&name), "{}", links());
    engine.finish();
}

#[test]
fn point_to_point_and_macvlan_plugins() {
    let dir = tempfile::tempdir().unwrap();
    let card = unique("m");
    run("ip", &["link", "add", &card, "type", "bridge"]).ok();
    run("ip", &["link", "set", &card, "up"]).ok();
    let ptp = json!({"cniVersion": "0.4.0", "plugins": [{"type": "ptp", "ipam": host_local(dir.path(), 181)}]});
    let engine = engine(dir.path(), &[], &json!({"ptp": ptp}));
    let macvlan = json!({"cniVersion": "0.3.1", "name": card, "type": "macvlan", "master": card, "ipam": host_local(dir.path(), 182)});
    // A network has its own name's list, unless it brings one.
    engine
        .docker(&["network", "create", "-d", "cni", "ptp"])
        .ok();
    let option = format!("conflist={macvlan}");
    engine
        .docker(&["network", "create", "-d", "cni", "-o", &option, "lan"])
        .ok();
    let before = links();
    for network in ["ptp", "lan"] {
        let (server, client) = (format!("{network}-web"), format!("{network}-two"));
        let start = ["run", "-d", "--network", network, "--name"];
        engine
            .docker(&[&start[..], &[&server, "busybox", "sh", "-c", WEB]].concat())
            .ok();
        engine
            .docker(&[&start[..], &[&client, "busybox", "sleep", "1000"]].concat())
            .ok();
        assert_eq!(ask(&engine, &client, &server), "page\n", "{network}");
        let id = engine
            .docker(&[
                "network",
                "inspect",
                "-f",
                "{{.Driver}} {{len .Containers}}",
                network,
            ])
            .ok();
        assert_eq!(id, "cni 2");
        engine.docker(&["rm", "-f", &server, &client]).ok();
    }
    assert!(leases(dir.path(), "ptp").is_empty() && leases(dir.path(), &card).is_empty());
    let names = |text: &str| -> Vec<String> {
        let name = |line: &str| {
            line.split_whitespace()
                .nth(1)
                .unwrap_or_default()
                .to_owned()
        };
        text.lines()
            .map(name)
            .filter(|name| name.starts_with("veth"))
            .collect()
    };
    let known = names(&before);
    eventually("their links are gone", 30, || {
        names(&links())
            .iter()
            .all(|l| known.contains(l))
            .then_some(())
    });
    engine.docker(&["network", "rm", "ptp", "lan"]).ok();
    assert!(links().contains(&card), "the host's own link stays");
    run("ip", &["link", "delete", &card]).ok();
    engine.finish();
}

#[test]
fn what_cannot_be_is_told_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let name = unique("x");
    let mut small = bridge(dir.path(), &name, 183);
    small["plugins"][0]["ipam"]["ranges"][0][0]["rangeStart"] = "10.183.0.9".into();
    small["plugins"][0]["ipam"]["ranges"][0][0]["rangeEnd"] = "10.183.0.9".into();
    let absent = json!({"cniVersion": "1.0.0", "name": "odd", "plugins": [{"type": "nothing"}]});
    let files = [("10-small.conflist", small), ("20-odd.conflist", absent)];
    let engine = engine(dir.path(), &files, &json!({}));
    for (options, words) in [
        (
            vec!["-o", "conf=other"],
            "there is no CNI network \"other\" in ",
        ),
        (vec![], "there is no CNI network \"lan\" in "),
        (
            vec!["-o", "conf=odd"],
            "there is no CNI plugin \"nothing\" in /usr/lib/cni, ",
        ),
        (
            vec!["-o", "conflist={\"cniVersion\": \"1.0.0\"}"],
            "invalid value for conflist: it has no plugins",
        ),
        (vec!["-o", "parent=eth0"], "unknown option \"parent\""),
        (
            vec!["--subnet", "10.1.0.0/24"],
            "a CNI network has the subnets of its configuration",
        ),
        (vec!["--internal"], "it cannot be internal"),
    ] {
        let create = [&["network", "create", "-d", "cni"], &options[..], &["lan"]].concat();
        engine.docker(&create).fails(1, words);
    }
    assert_eq!(
        engine
            .docker(&["network", "ls", "-q", "-f", "driver=cni"])
            .ok(),
        ""
    );
    let conf = format!("conf={name}");
    engine
        .docker(&["network", "create", "-d", "cni", "-o", &conf, "lan"])
        .ok();
    let start = ["run", "-d", "--network", "lan", "busybox", "sleep", "1000"];
    let first = engine.docker(&start).ok();
    let second = [
        "run",
        "-d",
        "--name",
        "late",
        "--network",
        "lan",
        "busybox",
        "sleep",
        "1000",
    ];
    engine.docker(&second).fails(
        125,
        "CNI plugin \"bridge\" failed to ADD: failed to allocate for range 0",
    );
    engine.docker(&["rm", "late"]).ok();
    assert_eq!(leases(dir.path(), &name), ["10.183.0.9"]);
    engine.docker(&["rm", "-f", &first]).ok();
    assert_eq!(rules(&name), [""; 0]);
    engine.docker(&["network", "rm", "lan"]).ok();
    engine.finish();
}
