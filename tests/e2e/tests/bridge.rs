//! Options of bridge networks: who reaches their members, what they are seen as, what they are given.

use gantry_e2e::{Done, Engine, Far, Options, docker, eventually, free_port, inspect, run};
use serde_json::{Value, json};

const MODE4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const MODE6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
/// Two servers, of which one is published.
const WEB: &str =
    "mkdir -p /www; echo page > /www/index.html; httpd -p 81 -h /www; exec httpd -f -p 80 -h /www";

fn sh(engine: &Engine, name: &str, script: &str) -> Done {
    engine.docker(&["exec", name, "sh", "-c", script])
}

fn serve(engine: &Engine, options: &str) {
    let mut args = vec!["run", "-d"];
    args.extend(options.split(' '));
    args.extend(["busybox", "sh", "-c", WEB]);
    engine.docker(&args).ok();
}

fn create(engine: &Engine, options: &[(&str, &str)], line: &str) -> Done {
    let options: Vec<String> = options.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let mut args = vec!["network", "create"];
    args.extend(options.iter().flat_map(|option| ["-o", option]));
    args.extend(line.split(' '));
    engine.docker(&args)
}

/// Whom a server out there takes a container for.
fn seen_as(engine: &Engine, name: &str, url: &str) -> String {
    sh(engine, name, &format!("timeout 9 wget -qO- {url}")).ok()
}

/// Checks what another machine reaches of a member of a network in some mode: the published port and the other one at the
/// member's own address, ICMP, and the published port at the host's address.
fn check_reach(far: &Far, member: &str, host: &str, port: u16, expected: [bool; 4]) {
    let bracketed = |ip: &str| {
        if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip.to_owned()
        }
    };
    let (at, host) = (bracketed(member), bracketed(host));
    let get = |url: String| far.get(&url).is_some();
    let tries: [&(dyn Fn() -> bool + Sync); 4] = [
        &|| get(format!("http://{at}/")),
        &|| get(format!("http://{at}:81/")),
        &|| far.run(&["busybox", "ping", "-c1", "-W1", member]).code == 0,
        &|| get(format!("http://{host}:{port}/")),
    ];
    let what = [
        "the published port",
        "another port",
        "the member by ICMP",
        "the host's port",
    ];
    std::thread::scope(|scope| {
        for ((attempt, reached), what) in tries.into_iter().zip(expected).zip(what) {
            scope.spawn(move || match reached {
                true => eventually(what, 20, || attempt().then_some(())),
                false => assert!(!attempt(), "{what} of {member}"),
            });
        }
    });
}

#[test]
fn gateway_modes_decide_who_reaches_members() {
    let engine = Engine::start();
    let mut far = Far::new(&engine);
    far.serve(8000);
    let (who4, who6) = (
        format!("http://{}:8000/", far.ip()),
        format!("http://[{}]:8000/", far.ip6()),
    );
    for (n, mode, reachable, translated) in [
        (1, "nat", [false, false, false, true], true),
        (2, "nat-unprotected", [true, true, true, true], true),
        (3, "routed", [true, false, true, false], false),
    ] {
        let subnets = format!("--ipv6 --subnet 10.236.{n}.0/24 --subnet fd33:36:{n}::/64 net");
        create(&engine, &[(MODE4, mode), (MODE6, mode)], &subnets).ok();
        let port = free_port();
        serve(&engine, &format!("--name web --network net -p {port}:80"));
        let at = inspect(&engine, "web")["NetworkSettings"]["Networks"]["net"].clone();
        let (ip4, ip6) = (
            at["IPAddress"].as_str().unwrap(),
            at["GlobalIPv6Address"].as_str().unwrap(),
        );
        eventually("both servers answer the host", 20, || {
            let get = |port| {
                run(
                    "curl",
                    &["-sf", "-m", "2", &format!("http://{ip4}:{port}/")],
                )
                .code
            };
            (get(80) == 0 && get(81) == 0).then_some(())
        });
        check_reach(&far, ip4, &far.host(), port, reachable);
        check_reach(&far, ip6, &far.host6(), port, reachable);
        let expected = |own: &str, host: String| if translated { host } else { own.to_owned() };
        assert_eq!(
            seen_as(&engine, "web", &who4),
            expected(ip4, far.host()),
            "{mode}"
        );
        assert_eq!(
            seen_as(&engine, "web", &who6),
            expected(ip6, far.host6()),
            "{mode}"
        );
        let bindings = inspect(&engine, "web")["NetworkSettings"]["Ports"]["80/tcp"].clone();
        let shown = if translated {
            port.to_string()
        } else {
            String::new()
        };
        assert_eq!(
            bindings,
            json!([{"HostIp": "0.0.0.0", "HostPort": shown}, {"HostIp": "::", "HostPort": shown}]),
            "{mode}"
        );
        docker(&engine, "rm -f web").ok();
        docker(&engine, "network rm net").ok();
    }
    drop(far);
    engine.finish();
}

#[test]
fn isolated_networks_have_no_place_for_the_host() {
    let engine = Engine::start();
    create(&engine, &[(MODE4, "isolated")], "alone").fails(
        1,
        "gateway mode 'isolated' can only be used for an internal network",
    );
    let name = format!("gb{}", engine.tag());
    let bridge = ("com.docker.network.bridge.name", name.as_str());
    create(
        &engine,
        &[(MODE4, "isolated"), (MODE6, "isolated"), bridge],
        "--internal --ipv6 --subnet 10.236.9.0/24 alone",
    )
    .ok();
    let told = inspect(&engine, "alone");
    let pools = told["IPAM"]["Config"].as_array().unwrap();
    assert!(pools.iter().all(|pool| pool["Gateway"].is_null()), "{told}");
    let host = run("ip", &["addr", "show", "dev", &name]).ok();
    assert!(
        !host.contains("inet ") && !host.contains("scope global"),
        "{host}"
    );
    for n in ["1", "2"] {
        docker(
            &engine,
            &format!("run -d --name a{n} --network alone busybox sleep 600"),
        )
        .ok();
    }
    // The address that a gateway would have is a member's.
    let first = inspect(&engine, "a1")["NetworkSettings"]["Networks"]["alone"].clone();
    assert_eq!(
        (&first["IPAddress"], &first["Gateway"]),
        (&"10.236.9.1".into(), &"".into())
    );
    assert_eq!(sh(&engine, "a2", "ping -c1 -W3 a1").code, 0);
    assert_eq!(sh(&engine, "a2", "ip route | grep default; true").ok(), "");
    docker(&engine, "rm -f a1 a2").ok();
    docker(&engine, "network rm alone").ok();
    engine.finish();
}

#[test]
fn sources_and_trusted_links() {
    let engine = Engine::start();
    let mut far = Far::new(&engine);
    far.serve(8000);
    let who = format!("http://{}:8000/", far.ip());
    let second = far.second();
    create(
        &engine,
        &[("com.docker.network.host_ipv4", &second)],
        "--subnet 10.236.11.0/24 as",
    )
    .ok();
    create(
        &engine,
        &[("com.docker.network.bridge.enable_ip_masquerade", "false")],
        "--subnet 10.236.12.0/24 plain",
    )
    .ok();
    let trusted = [(
        "com.docker.network.bridge.trusted_host_interfaces",
        far.link(),
    )];
    create(&engine, &trusted, "--subnet 10.236.13.0/24 friends").ok();
    docker(&engine, "run -d --name box --network as busybox sleep 600").ok();
    assert_eq!(seen_as(&engine, "box", &who), second);
    docker(
        &engine,
        "run -d --name bare --network plain --ip 10.236.12.7 busybox sleep 600",
    )
    .ok();
    assert_eq!(seen_as(&engine, "bare", &who), "10.236.12.7");
    let port = free_port();
    serve(
        &engine,
        &format!("--name web --network friends --ip 10.236.13.7 -p {port}:80"),
    );
    let direct = eventually("the published port is open to friends", 20, || {
        far.get("http://10.236.13.7/")
    });
    assert_eq!(direct, "page\n");
    assert_eq!(far.get("http://10.236.13.7:81/"), None);
    assert_eq!(
        far.get(&format!("http://{}:{port}/", far.host()))
            .as_deref(),
        Some("page\n")
    );
    docker(&engine, "rm -f box bare web").ok();
    docker(&engine, "network rm as plain friends").ok();
    drop(far);
    engine.finish();
}

#[test]
fn names_sizes_and_bindings() {
    let engine = Engine::start();
    let name = format!("gb{}", engine.tag());
    let port = free_port();
    let options = [
        ("com.docker.network.bridge.name", name.as_str()),
        ("com.docker.network.driver.mtu", "1390"),
        ("com.docker.network.container_iface_prefix", "lan"),
        ("com.docker.network.bridge.host_binding_ipv4", "127.0.0.1"),
        ("com.docker.network.bridge.inhibit_ipv4", "true"),
    ];
    create(&engine, &options, "--subnet 10.236.14.0/24 odd").ok();
    let link = run("ip", &["addr", "show", "dev", &name]).ok();
    assert!(
        link.contains("mtu 1390") && !link.contains("inet "),
        "{link}"
    );
    serve(&engine, &format!("--name web --network odd -p {port}:80"));
    let inside = sh(&engine, "web", "ip addr show lan0; ip route").ok();
    assert!(
        inside.contains("mtu 1390") && inside.contains("default via 10.236.14.1 dev lan0"),
        "{inside}"
    );
    assert_eq!(
        docker(&engine, "port web 80").ok(),
        format!("127.0.0.1:{port}")
    );
    let told = inspect(&engine, "odd");
    assert_eq!(told["Options"]["com.docker.network.driver.mtu"], "1390");
    let taken = [("com.docker.network.bridge.name", name.as_str())];
    create(&engine, &taken, "again").fails(1, "bridge name");
    for (key, value, why) in [
        (MODE4, "bridged", "(unknown gateway mode bridged)"),
        (
            "com.docker.network.bridge.enable_icc",
            "maybe",
            "(strconv.ParseBool: parsing \"maybe\": invalid syntax)",
        ),
        ("com.docker.network.host_ipv6", "here", "(nil ip)"),
    ] {
        let words = format!("failed to parse {key} value: {value} {why}");
        create(&engine, &[(key, value)], "bad").fails(1, &words);
    }
    create(
        &engine,
        &[("com.docker.network.driver.mtu", "small")],
        "bad",
    )
    .fails(1, "small");
    create(
        &engine,
        &[],
        "--subnet 10.236.15.0/25 --subnet 10.236.15.128/25 bad",
    )
    .fails(1, "bridge driver doesn't support multiple subnets");
    assert_eq!(docker(&engine, "network ls -q -f name=bad").ok(), "");
    docker(&engine, "rm -f web").ok();
    docker(&engine, "network rm odd").ok();
    engine.finish();
}

#[test]
fn pools_ranges_and_reserved_addresses() {
    let far_host = "10.238.1.0/24";
    let engine = Engine::with(Options {
        config: Some(json!({"default-address-pools": [{"base": "10.238.0.0/21", "size": 24}]})),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    let far = Far::new(&engine);
    run("ip", &["route", "add", far_host, "dev", far.link()]).ok();
    let subnet = |name: &str| {
        inspect(&engine, name)["IPAM"]["Config"][0]["Subnet"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    // The default network has the first; a route of the host leads to the second.
    assert_eq!(subnet("bridge"), "10.238.0.0/24");
    for n in 2..8 {
        docker(&engine, &format!("network create n{n}")).ok();
        assert_eq!(subnet(&format!("n{n}")), format!("10.238.{n}.0/24"));
    }
    docker(&engine, "network create full")
        .fails(1, "all predefined address pools have been fully subnetted");
    docker(&engine, "network rm n3").ok();
    // The kernel takes its time with the route.
    eventually("its subnet is free", 30, || {
        (docker(&engine, "network create again").code == 0).then_some(())
    });
    assert_eq!(subnet("again"), "10.238.3.0/24");
    docker(&engine, "network create --subnet 10.238.2.128/25 over")
        .fails(1, "Pool overlaps with other one on this address space");

    docker(&engine, "network create --subnet 10.236.16.0/24 --gateway 10.236.16.254 --ip-range 10.236.16.8/30 --aux-address router=10.236.16.9 part").ok();
    let told = inspect(&engine, "part")["IPAM"]["Config"][0].clone();
    assert_eq!(
        told,
        json!({"Subnet": "10.236.16.0/24", "IPRange": "10.236.16.8/30", "Gateway": "10.236.16.254", "AuxiliaryAddresses": {"router": "10.236.16.9"}})
    );
    let mut given = Vec::new();
    for n in 0..3 {
        docker(
            &engine,
            &format!("run -d --name p{n} --network part busybox sleep 600"),
        )
        .ok();
        given.push(sh(&engine, &format!("p{n}"), "hostname -i").ok());
    }
    assert_eq!(given, ["10.236.16.8", "10.236.16.10", "10.236.16.11"]);
    docker(&engine, "run --rm --network part busybox true").fails(
        125,
        "no available IPv4 addresses on this network's address pools: part",
    );
    // Outside the range, a wish may be for any.
    assert_eq!(
        docker(
            &engine,
            "run --rm --network part --ip 10.236.16.77 busybox hostname -i"
        )
        .ok(),
        "10.236.16.77"
    );
    docker(
        &engine,
        "run --rm --network part --ip 10.236.16.9 busybox true",
    )
    .fails(125, "Address already in use");
    docker(&engine, "network create --subnet 10.236.17.1/24 bad").fails(
        1,
        "invalid subnet 10.236.17.1/24: it should be 10.236.17.0/24",
    );
    docker(&engine, "rm -f p0 p1 p2").ok();
    docker(&engine, "network rm part n2 again n4 n5 n6 n7").ok();
    drop(far);
    engine.finish();
}

#[test]
fn more_networks_than_docker_has_pools_for() {
    let engine = Engine::start();
    let names: Vec<String> = (0..40).map(|n| format!("many{n}")).collect();
    let mut subnets = std::collections::HashSet::new();
    for name in &names {
        let (status, reply) = engine.api(
            "POST",
            "/networks/create",
            Some(&json!({"Name": name}).to_string()),
        );
        assert_eq!(status, 201, "{reply}");
        let (_, told) = engine.api("GET", &format!("/networks/{name}"), None);
        let told: Value = serde_json::from_str(&told).unwrap();
        subnets.insert(
            told["IPAM"]["Config"][0]["Subnet"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    assert_eq!(subnets.len(), names.len());
    let beyond = subnets
        .iter()
        .filter(|subnet| subnet.starts_with("10."))
        .count();
    assert!(beyond >= 9, "{subnets:?}");
    docker(
        &engine,
        "run --rm --network many39 busybox ip route show default",
    )
    .ok();
    docker(&engine, "network prune -f").ok();
    assert_eq!(docker(&engine, "network ls -q -f type=custom").ok(), "");
    engine.finish();
}

#[test]
fn removals_are_finished_by_the_next_daemon() {
    let mut engine = Engine::start();
    let name = format!("gb{}", engine.tag());
    let options = [("com.docker.network.bridge.name", name.as_str())];
    create(&engine, &options, "--subnet 10.236.30.0/24 brief").ok();
    let there = || run("ip", &["link", "show", "dev", &name]).code == 0;
    assert!(there());
    let (status, reply) = engine.api("DELETE", "/networks/brief", None);
    assert_eq!(status, 204, "{reply}");
    engine.kill9();
    engine.boot();
    eventually("the bridge is gone", 20, || (!there()).then_some(()));
    // Its name and its subnet are free at once, whatever the kernel is still at.
    for _ in 0..3 {
        create(&engine, &options, "--subnet 10.236.30.0/24 brief").ok();
        assert!(there());
        docker(&engine, "network rm brief").ok();
    }
    engine.finish();
}
