//! IPv6 alone and beside IPv4, seen from containers, from the host and from another machine.

use gantry_e2e::{Done, Engine, Far, Options, docker, eventually, free_port, inspect, run};
use serde_json::Value;

const WEB: &str = "mkdir -p /www; echo page > /www/index.html; exec httpd -fv -p 80 -h /www";

fn serve(engine: &Engine, options: &str) {
    let mut args = vec!["run", "-d"];
    args.extend(options.split(' '));
    args.extend(["busybox", "sh", "-c", WEB]);
    engine.docker(&args).ok();
}

fn sh(engine: &Engine, name: &str, script: &str) -> Done {
    engine.docker(&["exec", name, "sh", "-c", script])
}

fn pings(engine: &Engine, name: &str, whom: &str) -> bool {
    sh(engine, name, &format!("ping -6 -c1 -W2 {whom}")).code == 0
}

/// A page that comes at last.
fn page(engine: &Engine, name: &str, url: &str) -> String {
    eventually("the page comes", 20, || {
        let done = sh(engine, name, &format!("timeout 3 wget -qO- {url}"));
        (done.code == 0).then_some(done.out)
    })
}

#[test]
fn both_families_on_one_network() {
    let engine = Engine::start();
    let far = Far::new(&engine);
    docker(&engine, "network create --ipv6 both").ok();
    let told = inspect(&engine, "both");
    assert_eq!(
        (&told["EnableIPv4"], &told["EnableIPv6"]),
        (&Value::Bool(true), &Value::Bool(true))
    );
    let pools = told["IPAM"]["Config"].as_array().unwrap();
    assert_eq!(pools.len(), 2, "{told}");
    let subnet = pools[1]["Subnet"].as_str().unwrap();
    assert!(
        subnet.starts_with("fd") && subnet.ends_with("/64"),
        "unique-local: {subnet}"
    );
    let port = free_port();
    serve(&engine, &format!("--name web --network both -p {port}:80"));
    docker(
        &engine,
        "run -d --name box --network both busybox sleep 600",
    )
    .ok();

    // From inside: addresses, names, the way out.
    let web = inspect(&engine, "web");
    let at = &web["NetworkSettings"]["Networks"]["both"];
    let (ip6, gateway) = (
        at["GlobalIPv6Address"].as_str().unwrap(),
        at["IPv6Gateway"].as_str().unwrap(),
    );
    assert_eq!(at["GlobalIPv6PrefixLen"], 64);
    assert!(
        sh(&engine, "web", "ip -6 addr show eth0")
            .ok()
            .contains(&format!("{ip6}/64"))
    );
    assert!(
        sh(&engine, "web", "ip -6 route")
            .ok()
            .contains(&format!("default via {gateway} dev eth0"))
    );
    assert!(
        sh(&engine, "box", "nslookup -type=AAAA web")
            .ok()
            .contains(ip6)
    );
    assert_eq!(page(&engine, "box", &format!("http://[{ip6}]/")), "page\n");
    for whom in ["web", gateway, &far.host6()] {
        assert!(pings(&engine, "box", whom), "{whom}");
    }
    // The other machine knows no way back to the container's own address.
    assert!(pings(&engine, "box", &far.ip6()), "masqueraded");
    let members = inspect(&engine, "both")["Containers"].to_string();
    assert!(
        members.contains(&format!("\"IPv6Address\":\"{ip6}/64\"")),
        "{members}"
    );

    // The published port: from another machine, which is known by its address, and from a neighbour.
    let url = format!("http://[{}]:{port}/", far.host6());
    let outside = eventually("the other machine is served", 30, || far.get(&url));
    assert_eq!(outside, "page\n");
    let log = docker(&engine, "logs web");
    assert!(
        format!("{}{}", log.out, log.err).contains(&format!("[{}]", far.ip6())),
        "{log:?}"
    );
    assert_eq!(page(&engine, "box", &url), "page\n", "hairpin");
    assert_eq!(
        run("curl", &["-gsf", "-m", "5", &url]).ok(),
        "page",
        "from the host"
    );
    let shown = docker(&engine, "port web 80").ok();
    assert_eq!(shown, format!("0.0.0.0:{port}\n[::]:{port}"));
    // A running container comes to it later, and leaves.
    docker(&engine, "run -d --name late busybox sleep 600").ok();
    assert!(
        !sh(&engine, "late", "ip -6 addr show eth0")
            .out
            .contains("global")
    );
    docker(&engine, "network connect both late").ok();
    assert!(pings(&engine, "late", "web"));
    docker(&engine, "network disconnect both late").ok();
    assert!(!pings(&engine, "late", ip6));
    docker(&engine, "rm -f web box late").ok();
    docker(&engine, "network rm both").ok();
    drop(far);
    engine.finish();
}

#[test]
fn a_network_without_ipv4() {
    let engine = Engine::start();
    let far = Far::new(&engine);
    docker(&engine, "network create --ipv4=false nothing").fails(1, "IPv4 or IPv6 must be enabled");
    docker(
        &engine,
        "network create --ipv4=false --ipv6 --subnet fd33:61::/64 --gateway fd33:61::fe six",
    )
    .ok();
    let told = inspect(&engine, "six");
    assert_eq!(told["EnableIPv4"], false);
    assert_eq!(told["IPAM"]["Config"].as_array().unwrap().len(), 1);
    let port = free_port();
    serve(
        &engine,
        &format!("--name web --network six --ip6 fd33:61::7 -p {port}:80"),
    );
    docker(&engine, "run -d --name box --network six busybox sleep 600").ok();
    assert_eq!(sh(&engine, "web", "ip -4 -o addr | grep -v ' lo '").out, "");
    assert!(
        sh(&engine, "web", "ip -6 addr show eth0")
            .ok()
            .contains("fd33:61::7/64")
    );
    let at = inspect(&engine, "web")["NetworkSettings"].clone();
    assert_eq!(at["Networks"]["six"]["IPAddress"], "");
    assert_eq!(at["Networks"]["six"]["IPv6Gateway"], "fd33:61::fe");
    assert_eq!(at["Ports"]["80/tcp"].as_array().unwrap().len(), 1, "{at}");
    assert_eq!(page(&engine, "box", "http://web/"), "page\n");
    let url = format!("http://[{}]:{port}/", far.host6());
    assert_eq!(eventually("it is served", 30, || far.get(&url)), "page\n");
    assert!(pings(&engine, "box", &far.ip6()));
    docker(
        &engine,
        "run --rm --network six --ip6 fd33:61::7 busybox true",
    )
    .fails(125, "Address already in use");
    docker(&engine, "rm -f web box").ok();
    docker(&engine, "network rm six").ok();
    drop(far);
    engine.finish();
}

#[test]
fn the_default_network_with_ipv6() {
    let mut engine = Engine::with(Options {
        config: Some(serde_json::json!({"ipv6": true, "fixed-cidr-v6": "fd33:62::/64"})),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    let far = Far::new(&engine);
    let hosts = docker(
        &engine,
        "run --rm --add-host gate:host-gateway busybox cat /etc/hosts",
    )
    .ok();
    assert!(hosts.contains("fd33:62::1\tgate"), "{hosts}");
    docker(&engine, "run -d --name box busybox sleep 600").ok();
    let at = inspect(&engine, "box")["NetworkSettings"].clone();
    let ip6 = at["GlobalIPv6Address"].as_str().unwrap();
    assert!(ip6.starts_with("fd33:62::"), "{at}");
    assert_eq!(at["IPv6Gateway"], "fd33:62::1");
    assert!(pings(&engine, "box", "fd33:62::1"));
    assert!(pings(&engine, "box", &far.ip6()));
    docker(&engine, "rm -f box").ok();
    engine.terminate();

    // The gateway's own address, and a part of the subnet for containers.
    engine.configure(serde_json::json!({"ipv6": true, "bip6": "fd33:63::9/64", "fixed-cidr-v6": "fd33:63::a:0/112"}));
    engine.boot();
    let told = inspect(&engine, "bridge");
    let six = &told["IPAM"]["Config"][1];
    assert_eq!(
        (&six["Subnet"], &six["Gateway"], &six["IPRange"]),
        (
            &"fd33:63::/64".into(),
            &"fd33:63::9".into(),
            &"fd33:63::a:0/112".into()
        )
    );
    docker(&engine, "run -d --name box busybox sleep 600").ok();
    let addresses = sh(&engine, "box", "ip -6 addr show eth0").ok();
    assert!(addresses.contains("fd33:63::a:0/64"), "{addresses}");
    assert!(pings(&engine, "box", "fd33:63::9"));
    docker(&engine, "rm -f box").ok();
    engine.terminate();

    // Without a word about addresses they are unique-local.
    engine.configure(serde_json::json!({"ipv6": true}));
    engine.boot();
    let six = inspect(&engine, "bridge")["IPAM"]["Config"][1].clone();
    assert!(six["Subnet"].as_str().unwrap().starts_with("fd"), "{six}");
    drop(far);
    engine.finish();
}

#[test]
fn members_apart_and_networks_within() {
    let engine = Engine::start();
    let far = Far::new(&engine);
    docker(
        &engine,
        "network create --ipv6 -o com.docker.network.bridge.enable_icc=false apart",
    )
    .ok();
    docker(&engine, "network create --ipv6 --internal within").ok();
    for network in ["apart", "within"] {
        for n in ["1", "2"] {
            docker(
                &engine,
                &format!("run -d --name {network}{n} --network {network} busybox sleep 600"),
            )
            .ok();
        }
    }
    assert!(pings(&engine, "apart1", &far.ip6()));
    assert!(!pings(&engine, "apart1", "apart2"));
    assert!(pings(&engine, "within1", "within2"));
    assert!(!pings(&engine, "within1", &far.ip6()));
    assert_eq!(
        sh(&engine, "within1", "ip -6 route | grep default; true").ok(),
        ""
    );
    // Not even with a way of its own.
    let gateway = inspect(&engine, "within")["IPAM"]["Config"][1]["Gateway"]
        .as_str()
        .unwrap()
        .to_owned();
    let pid = inspect(&engine, "within1")["State"]["Pid"].to_string();
    let route = [
        "-t", &pid, "-n", "ip", "-6", "route", "add", "default", "via", &gateway,
    ];
    run("nsenter", &route).ok();
    assert!(!pings(&engine, "within1", &far.ip6()));
    docker(&engine, "rm -f apart1 apart2 within1 within2").ok();
    docker(&engine, "network rm apart within").ok();
    drop(far);
    engine.finish();
}
