//! Networks of CNI plugins. Engines are on hosts of their own: the page's names are anybody's.

use std::fs;
use std::path::Path;

use gantry_e2e::{Engine, Options, eventually};
use gantry_fixtures::{Host, Hosts};
use serde_json::{Value, json};

use crate::page::{block, configuration, idle, instead};

const PAGE: &str = "docs/networks-cni.md";

/// An engine that has something to serve pages by the name of `nginx`.
fn engine(host: &Host, options: &Value) -> Engine {
    let engine = Engine::with(Options {
        config: Some(json!({"drivers": {"network": {"cni": {"options": options}}}})),
        namespace: Some(host.namespace.path()),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    let serve = "docker create --name made busybox sh -c 'echo page >/index.html; exec httpd -f -p 80' && \
                 docker commit made nginx && docker rm made";
    engine.client("sh", &["-c", serve]).ok();
    engine
}

/// Leases are the test's own.
fn leases(list: &str, dir: &Path) -> String {
    let kept = format!(
        r#""type": "host-local", "dataDir": "{}/leases","#,
        dir.display()
    );
    instead(list, r#""type": "host-local","#, &kept)
}

#[test]
fn a_list_in_the_directory_makes_a_network_as_documented() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let hosts = Hosts::new(1);
    let conf = dir.path().join("net.d");
    fs::create_dir(&conf).expect("a new directory");
    let engine = engine(hosts.host(1), &json!({"conf": conf}));
    let commands = block(PAGE, "sh", "10-lab.conflist");
    let commands = instead(&commands, "/etc/cni/net.d", &conf.display().to_string());
    let commands = leases(&commands, dir.path());
    let bin = idle(dir.path());
    let script = format!("set -e; PATH={}:$PATH\n{commands}", bin.display());
    engine.client("sh", &["-c", &script]).ok();
    eventually("the published port is served", 30, || {
        let ask = "curl -fs -m 2 http://127.0.0.1:8080/";
        let page = hosts.host(1).namespace.try_shell(ask).ok()?;
        (page == "page").then_some(())
    });
    engine.finish();
}

#[test]
fn the_documented_configuration_makes_a_network() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let hosts = Hosts::new(1);
    let printed = configuration(PAGE, "timeout");
    let options = &printed["drivers"]["network"]["cni"]["options"];
    assert_eq!(options["conf"], "/etc/cni/net.d");
    let list = options["networks"]["lab"].to_string();
    let list = leases(
        &list.replace("\":\"host-local\",", "\": \"host-local\","),
        dir.path(),
    );
    let mut options = options.clone();
    options["conf"] = json!(dir.path());
    options["networks"]["lab"] = serde_json::from_str(&list).expect("it is JSON");
    let engine = engine(hosts.host(1), &options);
    let create = ["network", "create", "-d", "cni", "lab"];
    engine.docker(&create).ok();
    let run = ["run", "--rm", "--network", "lab", "busybox", "ip", "addr"];
    let shown = engine.docker(&run).ok();
    assert!(shown.contains("inet 10.88.0."), "{shown}");
    engine.finish();
}
