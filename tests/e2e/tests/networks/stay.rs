//! Who stays in the network namespace of a container that is gone.

use std::process::{Child, Command, Stdio};

use gantry_e2e::{Card, Engine, docker, eventually};
use gantry_fixtures::Namespace;

/// A process of the host's in a container's network namespace; ended when dropped.
struct Stayer {
    process: Child,
    namespace: Namespace,
}

impl Stayer {
    fn of(engine: &Engine, container: &str) -> Self {
        let line = format!("inspect -f {{{{.State.Pid}}}} {container}");
        let pid = docker(engine, &line).ok();
        let process = Command::new("nsenter")
            .args(["--net", "--target", &pid, "sleep", "600"])
            .stdin(Stdio::null())
            .spawn();
        let process = process.expect("package util-linux is installed");
        let namespace = Namespace::of_process(pid.parse().unwrap());
        // It is there when it is what it was to become.
        let name = format!("/proc/{}/comm", process.id());
        eventually("it stays", 30, || {
            (std::fs::read_to_string(&name).ok()? == "sleep\n").then_some(())
        });
        Self { process, namespace }
    }

    fn links(&self) -> String {
        self.namespace.shell("ip -o link")
    }
}

impl Drop for Stayer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The container goes, its namespace stays; another takes its address at once, and has it for itself.
fn stays_without_links(engine: &Engine, network: &str, address: &str) {
    let run = |name: &str| {
        let start = format!("run -d --name {name} --network {network} --ip {address}");
        docker(engine, &format!("{start} busybox sleep 3600")).ok();
    };
    run("first");
    let stayer = Stayer::of(engine, "first");
    assert!(stayer.links().contains("eth0"), "{}", stayer.links());
    docker(engine, "rm -f first").ok();
    run("second");
    eventually("nothing is left to who stays", 30, || {
        (!stayer.links().contains("eth0")).then_some(())
    });
    let ping = [
        "run",
        "--rm",
        "--network",
        network,
        "busybox",
        "ping",
        "-c1",
        "-W5",
        address,
    ];
    engine.docker(&ping).ok();
    docker(engine, "rm -f second").ok();
}

#[test]
fn who_stays_in_the_namespace_of_a_container_keeps_no_address() {
    let engine = Engine::start();
    let card = Card::new();
    let lan = format!(
        "-d macvlan -o parent={} --subnet 10.236.31.0/24 lan",
        card.name()
    );
    docker(&engine, "network create --subnet 10.236.30.0/24 side").ok();
    docker(&engine, &format!("network create {lan}")).ok();
    stays_without_links(&engine, "side", "10.236.30.9");
    stays_without_links(&engine, "lan", "10.236.31.9");
    docker(&engine, "network rm side lan").ok();
    drop(card);
    engine.finish();
}

#[test]
fn links_of_ended_containers_do_not_outlive_the_daemon() {
    let mut engine = Engine::start();
    docker(&engine, "network create --subnet 10.236.32.0/24 side").ok();
    docker(
        &engine,
        "run -d --name box --network side busybox sleep 3600",
    )
    .ok();
    let stayer = Stayer::of(&engine, "box");
    docker(&engine, "rm -f box").ok();
    // Sooner than it was looked for.
    engine.terminate();
    assert!(!stayer.links().contains("eth0"), "{}", stayer.links());
    engine.boot();
    docker(&engine, "network rm side").ok();
    engine.finish();
}
