//! Running containers that are attached to networks and detached from them.

use gantry_e2e::{Engine, docker, eventually, run};
use serde_json::json;

#[test]
fn connect_and_disconnect_a_running_container() {
    let engine = Engine::start();
    engine
        .docker(&["network", "create", "--subnet", "10.233.7.0/24", "side"])
        .ok();
    engine
        .docker(&["run", "-d", "--name", "moves", "busybox", "sleep", "60"])
        .ok();
    engine
        .docker(&["network", "connect", "--ip", "10.233.7.9", "side", "moves"])
        .ok();
    assert!(
        engine
            .docker(&["exec", "moves", "ip", "-4", "addr"])
            .ok()
            .contains("10.233.7.9/24")
    );
    engine
        .docker(&["network", "disconnect", "side", "moves"])
        .ok();
    assert!(
        !engine
            .docker(&["exec", "moves", "ip", "-4", "addr"])
            .ok()
            .contains("10.233.7.9")
    );
    engine.docker(&["rm", "-f", "moves"]).ok();
    engine.docker(&["network", "rm", "side"]).ok();
    engine.finish();
}

#[test]
fn what_is_detached_is_out_of_sight_and_free_at_once() {
    let mut engine = Engine::start();
    docker(&engine, "network create --subnet 10.236.27.0/24 side").ok();
    let names = ["one", "two"];
    let pids = names.map(|name| {
        docker(&engine, &format!("run -d --name {name} busybox sleep 3600")).ok();
        docker(&engine, &format!("inspect -f {{{{.State.Pid}}}} {name}")).ok()
    });
    // What the kernel lists in the container's namespace.
    let seen = |pid: &str, file: &str| {
        let path = format!("/proc/{pid}/net/{file}");
        std::fs::read_to_string(path).expect("the container runs")
    };
    let wish =
        json!({"IPAMConfig": {"IPv4Address": "10.236.27.9"}, "MacAddress": "02:42:0a:ec:1b:09"});
    let ask = |engine: &Engine, what: &str, name: &str| {
        let body = json!({"Container": name, "EndpointConfig": wish}).to_string();
        let path = format!("/networks/side/{what}");
        let (status, reply) = engine.api("POST", &path, Some(&body));
        assert_eq!(status, 200, "{what} {name}: {reply}");
    };
    let ping = ["exec", "one", "ping", "-c1", "-W5", "10.236.27.1"];
    for round in 0..10 {
        // One address and one MAC, now here, now there.
        for (name, pid) in names.iter().zip(&pids) {
            ask(&engine, "connect", name);
            assert!(seen(pid, "dev").contains("eth1"), "{round}");
            if *name == "one" {
                engine.docker(&ping).ok();
            }
            ask(&engine, "disconnect", name);
            assert!(!seen(pid, "dev").contains("eth1"), "{round}");
            assert!(!seen(pid, "fib_trie").contains("10.236.27."), "{round}");
            assert!(!seen(pid, "route").contains("eth1"), "{round}");
        }
    }
    // What was under way when the daemon was killed is whole or gone.
    for delay in [0, 1, 2, 4, 8] {
        ask(&engine, "connect", "one");
        let client = {
            let mut client = std::process::Command::new("curl");
            client.arg("-s").arg("--unix-socket").arg(engine.socket());
            client.args(["-X", "POST", "-H", "Content-Type: application/json"]);
            client.args([
                "-d",
                r#"{"Container": "one"}"#,
                "http://d/networks/side/disconnect",
            ]);
            client.stdout(std::process::Stdio::null()).spawn()
        };
        std::thread::sleep(std::time::Duration::from_millis(5 + delay));
        engine.kill9();
        client.expect("curl is there").wait().expect("it ends");
        engine.boot();
        let format = "{{range .Containers}}{{.Name}}{{end}}";
        let members = engine
            .docker(&["network", "inspect", "-f", format, "side"])
            .ok();
        if members == "one" {
            ask(&engine, "disconnect", "one");
        }
        assert!(
            !seen(&pids[0], "dev").contains("eth1"),
            "{delay}: {members}"
        );
    }
    docker(&engine, "rm -f one two").ok();
    docker(&engine, "network rm side").ok();
    engine.finish();
}

#[test]
fn a_detachment_that_is_not_whole_is_one_all_the_same() {
    let mut engine = Engine::start();
    docker(&engine, "network create --subnet 10.236.33.0/24 side").ok();
    docker(&engine, "run -d --name box busybox sleep 3600").ok();
    docker(&engine, "network connect --ip 10.236.33.9 side box").ok();
    let hosts = docker(&engine, "inspect -f {{.HostsPath}} box").ok();
    let aside = format!("{hosts}.aside");
    std::fs::rename(&hosts, &aside).unwrap();
    std::fs::create_dir(&hosts).unwrap();
    let words = format!("writing {hosts}: is a directory");
    docker(&engine, "network disconnect side box").fails(1, &words);
    std::fs::remove_dir(&hosts).unwrap();
    std::fs::rename(&aside, &hosts).unwrap();
    let format = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
    for _ in 0..2 {
        let listed = engine.docker(&["inspect", "-f", format, "box"]).ok();
        assert_eq!(listed, "bridge");
        docker(&engine, "network disconnect side box").fails(1, "is not connected to network side");
        // Neither is it there at the next start, nor for the next daemon.
        engine.kill9();
        engine.boot();
        docker(&engine, "restart -t 0 box").ok();
    }
    docker(&engine, "rm -f box").ok();
    docker(&engine, "network rm side").ok();
    engine.finish();
}

/// Attaches a running container to a network and detaches it, again and again; nothing may be left.
fn come_and_go(rounds: usize) {
    let engine = Engine::start();
    docker(
        &engine,
        "network create --ipv6 --subnet 10.236.26.0/24 --subnet fd33:26::/64 side",
    )
    .ok();
    docker(&engine, "run -d --name box busybox sleep 3600").ok();
    let links = |inside: bool| {
        let list = std::fs::read_dir("/sys/class/net").unwrap();
        let host = list.filter(|e| {
            e.as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .contains(&engine.tag()[..6])
        });
        if inside {
            engine.docker(&["exec", "box", "ls", "/sys/class/net"]).ok()
        } else {
            host.count().to_string()
        }
    };
    let hosts = || engine.docker(&["exec", "box", "cat", "/etc/hosts"]).ok();
    let rules = || {
        run(
            "nft",
            &["list", "table", "inet", &format!("gantry-{}", engine.tag())],
        )
        .ok()
    };
    let before = (links(true), links(false), hosts(), rules());
    let connect = json!({"Container": "box", "EndpointConfig": {"Aliases": ["again"]}}).to_string();
    let disconnect = json!({"Container": "box"}).to_string();
    for round in 0..rounds {
        let (status, reply) = engine.api("POST", "/networks/side/connect", Some(&connect));
        assert_eq!(status, 200, "{round}: {reply}");
        let (status, reply) = engine.api("POST", "/networks/side/disconnect", Some(&disconnect));
        assert_eq!(status, 200, "{round}: {reply}");
    }
    eventually("nothing is left of them", 20, || {
        ((links(true), links(false), hosts(), rules()) == before).then_some(())
    });
    docker(&engine, "network rm side").ok();
    engine.finish();
}

#[test]
fn attachments_that_come_and_go_leave_nothing() {
    come_and_go(60);
}

#[test]
#[ignore = "cargo xtask soak"]
fn five_hundred_attachments_leave_nothing() {
    come_and_go(500);
}
