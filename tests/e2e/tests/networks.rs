//! Networks and published ports through the docker CLI.

use std::io::{Read, Write};
use std::net::TcpStream;

use gantry_e2e::{Engine, Far, docker, eventually, free_port, inspect, run};
use serde_json::json;

fn get(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(5)))
        .ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

const WEB: &str = "mkdir -p /www; echo page > /www/index.html; exec httpd -f -p 80 -h /www";

#[test]
fn containers_find_each_other_by_name() {
    let engine = Engine::start();
    engine.docker(&["network", "create", "app"]).ok();
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "web",
            "--network",
            "app",
            "--network-alias",
            "site",
            "busybox",
            "sh",
            "-c",
            WEB,
        ])
        .ok();
    for name in ["web", "site", "web.app"] {
        let args = [
            "run",
            "--rm",
            "--network",
            "app",
            "busybox",
            "wget",
            "-qO-",
            &format!("http://{name}/"),
        ];
        let page = eventually("the server answers", 10, || {
            let done = engine.docker(&args);
            (done.code == 0).then_some(done.out)
        });
        assert_eq!(page, "page\n", "{name}");
    }
    let missing = engine.docker(&[
        "run",
        "--rm",
        "--network",
        "app",
        "busybox",
        "wget",
        "-qO-",
        "http://nobody.invalid/",
    ]);
    assert_ne!(missing.code, 0);
    let listed = engine
        .docker(&[
            "network",
            "inspect",
            "-f",
            "{{range .Containers}}{{.Name}}{{end}}",
            "app",
        ])
        .ok();
    assert_eq!(listed, "web");
    engine
        .docker(&["network", "rm", "app"])
        .fails(1, "has active endpoints");
    engine.docker(&["rm", "-f", "web"]).ok();
    engine.docker(&["network", "rm", "app"]).ok();
    engine.finish();
}

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
fn published_port_from_host_container_and_another_namespace() {
    let engine = Engine::start();
    let port = free_port();
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "web",
            "-p",
            &format!("{port}:80"),
            "busybox",
            "sh",
            "-c",
            WEB,
        ])
        .ok();
    let page = eventually("the server answers on loopback", 10, || {
        get(&format!("127.0.0.1:{port}"))
    });
    assert!(page.ends_with("page\n"), "{page}");
    assert!(
        engine
            .docker(&["port", "web"])
            .ok()
            .contains(&format!("80/tcp -> 0.0.0.0:{port}"))
    );

    let far = Far::new(&engine);
    let url = format!("http://{}:{port}/", far.host());
    let outside = far.get(&url);
    let seen = engine.docker(&["run", "--rm", "busybox", "wget", "-qO-", &url]);
    assert_eq!(outside.as_deref(), Some("page\n"));
    assert_eq!(seen.ok(), "page", "hairpin");
    drop(far);

    let busy = engine.docker(&[
        "run",
        "-d",
        "--name",
        "two",
        "-p",
        &format!("{port}:80"),
        "busybox",
        "sleep",
        "9",
    ]);
    busy.fails(125, "port is already allocated");
    engine.finish();
}

#[test]
fn host_none_and_shared_namespaces() {
    let engine = Engine::start();
    let links = |mode: &str| {
        engine
            .docker(&[
                "run",
                "--rm",
                "--network",
                mode,
                "busybox",
                "ls",
                "/sys/class/net",
            ])
            .ok()
    };
    assert_eq!(links("none"), "lo");
    assert_eq!(links("bridge"), "eth0\nlo");
    let far = Far::new(&engine);
    assert!(links("host").lines().any(|link| link == far.link()));
    drop(far);
    engine
        .docker(&["run", "-d", "--name", "web", "busybox", "sh", "-c", WEB])
        .ok();
    let args = [
        "run",
        "--rm",
        "--network",
        "container:web",
        "busybox",
        "wget",
        "-qO-",
        "http://127.0.0.1/",
    ];
    let page = eventually("the neighbour answers", 10, || {
        let done = engine.docker(&args);
        (done.code == 0).then_some(done.out)
    });
    assert_eq!(page, "page\n");
    engine.finish();
}

#[test]
fn configurations_for_other_networks() {
    let mut engine = Engine::start();
    docker(&engine, "network create --config-only --subnet 10.236.21.0/24 --ipv6 --subnet fd33:21::/64 --label of=conf -o com.docker.network.driver.mtu=1380 conf").ok();
    let conf = inspect(&engine, "conf");
    assert_eq!(
        (&conf["ConfigOnly"], &conf["Driver"], &conf["Scope"]),
        (&json!(true), &json!("null"), &json!("local"))
    );
    docker(&engine, "run --rm --network conf busybox true")
        .fails(125, "cannot create endpoint on configuration-only network");
    docker(&engine, "network create --config-from conf real").ok();
    let real = inspect(&engine, "real");
    assert_eq!(
        (&real["ConfigOnly"], &real["ConfigFrom"]),
        (&json!(false), &json!({"Network": "conf"}))
    );
    assert_eq!(
        (&real["Driver"], &real["EnableIPv6"]),
        (&json!("bridge"), &json!(true))
    );
    let pools = real["IPAM"]["Config"].as_array().unwrap();
    assert!(
        pools.iter().any(|pool| pool["Subnet"] == "10.236.21.0/24"),
        "{real}"
    );
    assert_eq!(
        (
            &real["Labels"]["of"],
            &real["Options"]["com.docker.network.driver.mtu"]
        ),
        (&json!("conf"), &json!("1380"))
    );
    let inside = docker(&engine, "run --rm --network real busybox ip addr show eth0").ok();
    for part in ["10.236.21.2/24", "fd33:21::2/64", "mtu 1380"] {
        assert!(inside.contains(part), "{part}: {inside}");
    }
    docker(&engine, "network rm conf").fails(1, "configuration network \"conf\" is in use");
    for (line, why) in [
        (
            "--config-from absent x",
            "configuration network \"absent\" does not exist",
        ),
        (
            "--config-from conf --subnet 10.236.22.0/24 x",
            "user specified configurations are not supported if the network depends on a configuration network",
        ),
        (
            "--config-from conf -o a=b x",
            "network driver options are not supported if the network depends on a configuration network",
        ),
        (
            "--config-only --config-from conf x",
            "a configuration network cannot depend on another configuration network",
        ),
        (
            "--config-only --internal x",
            "configuration network can only contain network specific fields.",
        ),
        (
            "--config-only conf",
            "network with name conf already exists",
        ),
    ] {
        docker(&engine, &format!("network create {line}")).fails(1, why);
    }
    // It stays what it is when the daemon is another, and is not pruned.
    engine.kill9();
    engine.boot();
    docker(&engine, "network prune -f").ok();
    assert_eq!(
        docker(
            &engine,
            "network ls -f type=custom --format {{.Name}}:{{.Driver}}"
        )
        .ok(),
        "conf:null"
    );
    docker(&engine, "network rm conf").ok();
    engine.finish();
}

#[test]
fn gateways_by_priority_and_what_is_told_of_networks() {
    let engine = Engine::start();
    docker(
        &engine,
        "network create --subnet 10.236.24.0/24 --label tier=back back",
    )
    .ok();
    docker(
        &engine,
        "network create --subnet 10.236.25.0/24 --internal inner",
    )
    .ok();
    docker(&engine, "run -d --name box busybox sleep 600").ok();
    let route = || {
        engine
            .docker(&["exec", "box", "sh", "-c", "ip route | grep default"])
            .ok()
    };
    let before = route();
    docker(&engine, "network connect --ip 10.236.24.9 --link-local-ip 169.254.9.9 --alias other --driver-opt com.docker.network.endpoint.ifname=back0 back box").ok();
    let links = engine
        .docker(&["exec", "box", "ip", "addr", "show", "back0"])
        .ok();
    assert!(
        links.contains("10.236.24.9/24") && links.contains("169.254.9.9/16"),
        "{links}"
    );
    assert!(
        route().contains("via 10.236.24.1 dev back0"),
        "the first name has the default route: {}",
        route()
    );
    docker(&engine, "network disconnect back box").ok();
    assert_eq!(route(), before);
    docker(&engine, "network connect --gw-priority -1 back box").ok();
    assert_eq!(route(), before);
    docker(&engine, "network connect --gw-priority 9 inner box").ok();
    assert_eq!(route(), before, "there is no way out of it");
    docker(&engine, "run --rm --network back busybox nslookup box").ok();
    docker(&engine, "network connect back box")
        .fails(1, "endpoint with name box already exists in network back");
    docker(&engine, "network disconnect host box").fails(1, "is not connected to network host");
    docker(&engine, "network disconnect -f back nobody").fails(1, "endpoint nobody not found");
    let published = json!({"Image": "busybox", "HostConfig": {
        "NetworkMode": "host", "PortBindings": {"80/tcp": [{"HostPort": "80"}]}
    }});
    let (status, reply) = engine.api(
        "POST",
        "/containers/create?name=loud",
        Some(&published.to_string()),
    );
    assert_eq!(status, 201, "{reply}");
    let words = "Published ports are discarded when using host network mode";
    assert!(reply.contains(words), "{reply}");
    docker(&engine, "rm loud").ok();
    docker(&engine, "network connect --ip 10.1.1.1 inner box")
        .fails(1, "already exists in network inner");

    let names = |filter: &str| {
        let mut args = vec!["network", "ls", "--format", "{{.Name}}"];
        args.extend(filter.split(' ').flat_map(|f| ["-f", f]));
        let mut names: Vec<String> = engine
            .docker(&args)
            .ok()
            .lines()
            .map(str::to_owned)
            .collect();
        names.sort();
        names.join(" ")
    };
    for (filter, found) in [
        ("type=custom", "back inner"),
        ("type=builtin", "bridge host none"),
        ("label=tier", "back"),
        ("label=tier=front", ""),
        ("name=in", "inner"),
        ("driver=host", "host"),
        ("scope=local type=custom", "back inner"),
        ("dangling=true", ""),
    ] {
        assert_eq!(names(filter), found, "{filter}");
    }
    docker(&engine, "network ls -f what=ever").fails(1, "invalid filter 'what'");
    docker(&engine, "network ls -f type=odd").fails(1, "invalid filter: 'type'='odd'");
    let id = inspect(&engine, "back")["Id"].as_str().unwrap().to_owned();
    assert_eq!(names(&format!("id={}", &id[..9])), "back");
    let verbose = engine.docker(&[
        "network",
        "inspect",
        "--verbose",
        "-f",
        "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}",
        "back",
    ]);
    assert_eq!(verbose.ok(), "box 10.236.24.2/24");
    docker(&engine, "network inspect absent").fails(1, "network absent not found");
    docker(&engine, "network rm absent").fails(1, "network absent not found");
    docker(&engine, "network rm bridge")
        .fails(1, "bridge is a pre-defined network and cannot be removed");
    docker(&engine, "network create back").fails(1, "network with name back already exists");
    assert_eq!(
        docker(&engine, "network prune -f --filter label!=tier").out,
        ""
    );
    docker(&engine, "rm -f box").ok();
    let pruned = docker(&engine, "network prune -f --filter label=tier").ok();
    assert_eq!(pruned, "Deleted Networks:\nback");
    docker(&engine, "network rm inner").ok();
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
