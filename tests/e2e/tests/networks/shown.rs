//! Configurations for networks, and what is told of networks.

use gantry_e2e::{Engine, docker, inspect};
use serde_json::json;

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
    let held = "error while removing network: configuration network \"conf\" is in use";
    docker(&engine, "network rm conf").fails(1, held);
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
        ("name=^b", "back bridge"),
        ("name=^inn$ name=ba.k", "back"),
        ("name=[", ""),
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
    assert_eq!(names(&format!("id=^{}", &id[..9])), "back");
    assert_eq!(names(&format!("id=^{}", &id[1..9])), "");
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
