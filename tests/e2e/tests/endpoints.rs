//! What a container is given on its networks, seen from inside.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use gantry_e2e::{Engine, docker, eventually, free_port, inspect, run};
use serde_json::{Value, json};

#[test]
fn attachments_are_what_was_asked_for() {
    let engine = Engine::start();
    docker(
        &engine,
        "network create --ipv6 --subnet 10.233.8.0/24 --subnet fd33:8::/64 lan",
    )
    .ok();
    docker(&engine, "network create --subnet 10.233.9.0/24 side").ok();
    let lan = "name=lan,ip=10.233.8.7,ip6=fd33:8::7,link-local-ip=169.254.7.7,mac-address=02:00:00:00:00:07,\
               alias=one,alias=two,gw-priority=5,driver-opt=com.docker.network.endpoint.ifname=lan0,\
               driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1";
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "box",
            "--network",
            lan,
            "--network",
            "side",
            "busybox",
            "sleep",
            "60",
        ])
        .ok();
    let sh = |script: &str| engine.docker(&["exec", "box", "sh", "-c", script]).ok();
    let link = sh("ip addr show lan0");
    for part in [
        "10.233.8.7/24",
        "fd33:8::7/64",
        "169.254.7.7/16",
        "02:00:00:00:00:07",
    ] {
        assert!(link.contains(part), "{part}: {link}");
    }
    assert!(sh("ip addr show eth1").contains("10.233.9.2/24"));
    assert!(sh("ip route").contains("default via 10.233.8.1 dev lan0"));
    assert_eq!(sh("cat /proc/sys/net/ipv4/conf/lan0/log_martians"), "1");
    let shown = inspect(&engine, "box");
    let at = &shown["NetworkSettings"]["Networks"]["lan"];
    let id = shown["Id"].as_str().unwrap()[..12].to_owned();
    assert_eq!(at["DNSNames"], json!(["box", "one", "two", id]));
    assert_eq!(at["Aliases"], json!(["one", "two"]));
    assert_eq!(at["IPAMConfig"]["LinkLocalIPs"], json!(["169.254.7.7"]));
    assert_eq!(at["GwPriority"], 5);
    for (key, value) in [
        ("IPAddress", "10.233.8.7"),
        ("Gateway", "10.233.8.1"),
        ("GlobalIPv6Address", "fd33:8::7"),
        ("IPv6Gateway", "fd33:8::1"),
        ("MacAddress", "02:00:00:00:00:07"),
    ] {
        assert_eq!(at[key], value, "{key}");
    }
    let found = docker(
        &engine,
        "run --rm --network side --link box:friend busybox nslookup friend",
    );
    assert!(
        found.ok().contains("10.233.9.2"),
        "a link is a name of this container's own"
    );
    docker(&engine, "run --rm --network lan busybox nslookup two").ok();
    for (line, why) in [
        (
            "create --network lan --ip 10.1.1.1 busybox",
            "invalid config for network lan: invalid endpoint settings:\nno configured subnet or ip-range contain the IP address 10.1.1.1",
        ),
        (
            "create --network bridge --ip 172.17.0.9 busybox",
            "invalid config for network bridge: invalid endpoint settings:\nuser specified IP address is supported on user defined networks only",
        ),
        (
            "create --network name=lan,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.eth0.x=1 busybox",
            "unrecognised network interface sysctl 'net.ipv4.conf.eth0.x=1'",
        ),
        (
            "run --rm --network name=lan,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.nothing=1 busybox true",
            "/proc/sys/net/ipv4/conf/eth0/nothing is not a sysctl file",
        ),
        (
            "run --rm --network lan --ip 10.233.8.7 busybox true",
            "Address already in use",
        ),
        (
            "create --link nobody busybox",
            "could not get container for nobody: No such container: nobody",
        ),
    ] {
        docker(&engine, line).fails(if line.starts_with("run") { 125 } else { 1 }, why);
    }
    docker(&engine, "rm -f box").ok();
    docker(&engine, "network rm lan side").ok();
    engine.finish();
}

#[test]
fn links_of_the_default_network_follow() {
    let engine = Engine::start();
    docker(
        &engine,
        "run -d --name db --expose 5432 -e SECRET=x busybox sleep 600",
    )
    .ok();
    docker(
        &engine,
        "run -d --name web --link db:my-db busybox sleep 600",
    )
    .ok();
    let ip = || {
        let shown = inspect(&engine, "db");
        shown["NetworkSettings"]["IPAddress"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let sh = |script: &str| engine.docker(&["exec", "web", "sh", "-c", script]).ok();
    let first = ip();
    assert!(sh("cat /etc/hosts").contains(&format!("{first}\tmy-db ")));
    let env = sh("env");
    for line in [
        format!("MY_DB_PORT=tcp://{first}:5432"),
        format!("MY_DB_PORT_5432_TCP_ADDR={first}"),
        "MY_DB_NAME=/web/my-db".to_owned(),
        "MY_DB_ENV_SECRET=x".to_owned(),
    ] {
        assert!(env.lines().any(|l| l == line), "{line}: {env}");
    }
    docker(&engine, "stop -t 0 db").ok();
    // Addresses rest for a while before somebody else gets them.
    eventually("another container has the address", 30, || {
        let id = docker(&engine, "run -d busybox sleep 600").ok();
        let shown = inspect(&engine, &id);
        (shown["NetworkSettings"]["IPAddress"] == first.as_str()).then_some(())
    });
    docker(&engine, "start db").ok();
    let second = ip();
    assert_ne!(first, second);
    let hosts = sh("cat /etc/hosts");
    assert!(hosts.contains(&format!("{second}\tmy-db ")), "{hosts}");
    assert!(!hosts.contains(&format!("{first}\tmy-db")), "{hosts}");
    docker(&engine, "stop -t 0 db web").ok();
    docker(&engine, "start web").fails(
        1,
        "Cannot link to a non running container: /db AS /web/my-db",
    );

    docker(&engine, "start db web").ok();
    assert!(sh("cat /etc/hosts").contains("my-db"));
    let missing = "No such container: web/other";
    docker(&engine, "rm --link web/other").fails(1, missing);
    docker(&engine, "rm --link db").fails(1, "cannot remove the default link name");
    docker(&engine, "rm --link /web/my-db").ok();
    assert!(!sh("cat /etc/hosts").contains("my-db"));
    let links = &inspect(&engine, "web")["HostConfig"]["Links"];
    assert!(links.as_array().is_none_or(Vec::is_empty), "{links}");
    docker(&engine, "stop -t 0 db").ok();
    docker(&engine, "restart -t 0 web").ok();
    let missing = "No such container: web/my-db";
    engine
        .gantry(&["rm", "--link", "web/my-db"])
        .fails(1, missing);
    engine.finish();
}

#[test]
fn names_hosts_and_no_network_at_all() {
    let engine = Engine::start();
    let made = docker(
        &engine,
        "run --rm --dns 192.0.2.53 --dns-search corp.test --dns-option ndots:2 --add-host gate:host-gateway --add-host six:fd00::6 busybox cat /etc/resolv.conf /etc/hosts",
    )
    .ok();
    for line in [
        "nameserver 192.0.2.53",
        "search corp.test",
        "options ndots:2",
        "fd00::6\tsix",
    ] {
        assert!(made.contains(line), "{line}: {made}");
    }
    let format = "{{(index .IPAM.Config 0).Gateway}}";
    let gateway = engine
        .docker(&["network", "inspect", "-f", format, "bridge"])
        .ok();
    assert!(made.contains(&format!("{gateway}\tgate")), "{made}");
    let create = |version: &str, body: Value| {
        let (status, reply) = engine.api(
            "POST",
            &format!("{version}/containers/create"),
            Some(&body.to_string()),
        );
        assert_eq!(status, 201, "{reply}");
        serde_json::from_str::<Value>(&reply).unwrap()["Id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let bare = create(
        "",
        json!({"Image": "busybox", "Cmd": ["ip", "-o", "link"], "NetworkDisabled": true}),
    );
    let links = engine.docker(&["start", "-a", &bare]).ok();
    assert_eq!(links.lines().count(), 1, "{links}");
    assert!(links.contains(" lo:"), "{links}");
    let old = create(
        "/v1.43",
        json!({"Image": "busybox", "Cmd": ["ip", "link", "show", "eth0"], "MacAddress": "02:42:00:00:00:99"}),
    );
    assert!(
        engine
            .docker(&["start", "-a", &old])
            .ok()
            .contains("02:42:00:00:00:99")
    );
    let body = json!({
        "Image": "busybox", "MacAddress": "02:42:00:00:00:99",
        "NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": "02:42:00:00:00:98"}}},
    });
    let (status, reply) = engine.api("POST", "/containers/create", Some(&body.to_string()));
    assert_eq!(status, 400);
    assert!(
        reply.contains(
            "the container-wide MAC address must match the endpoint-specific MAC address"
        ),
        "{reply}"
    );
    engine.finish();
}

#[test]
fn every_way_to_publish() {
    let engine = Engine::start();
    let (one, range) = (free_port(), free_port());
    let last = range + 3;
    let serve = "exec httpd -f -p 80 -h /etc";
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "box",
            "--expose",
            "81",
            "-P",
            "-p",
            &format!("127.0.0.1:{one}:53/udp"),
            "-p",
            &format!("{range}-{last}:80"),
            "busybox",
            "sh",
            "-c",
            serve,
        ])
        .ok();
    let shown = inspect(&engine, "box");
    let ports = &shown["NetworkSettings"]["Ports"];
    assert_eq!(
        ports["53/udp"],
        json!([{"HostIp": "127.0.0.1", "HostPort": one.to_string()}])
    );
    let any = ports["81/tcp"][0]["HostPort"]
        .as_str()
        .unwrap()
        .parse::<u16>()
        .unwrap();
    assert!(any >= 1024);
    let chosen = ports["80/tcp"][0]["HostPort"]
        .as_str()
        .unwrap()
        .parse::<u16>()
        .unwrap();
    assert!((range..=last).contains(&chosen));
    eventually("the page is served", 30, || {
        let page = run(
            "curl",
            &[
                "-sf",
                "-m",
                "3",
                &format!("http://127.0.0.1:{chosen}/passwd"),
            ],
        );
        (page.code == 0).then_some(())
    });
    // A server in the container's network: busybox has none for UDP.
    let pid = shown["State"]["Pid"].to_string();
    let script = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  s.bind((\"\", 53))\nwhile True: s.sendto(*s.recvfrom(99))";
    let mut server = Command::new("nsenter")
        .args(["-t", &pid, "-n", "python3", "-c", script])
        .spawn()
        .unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    eventually("an echo comes back", 30, || {
        socket.send_to(b"hello", ("127.0.0.1", one)).ok()?;
        let mut buffer = [0; 16];
        let length = socket.recv(&mut buffer).ok()?;
        (&buffer[..length] == b"hello").then_some(())
    });
    server.kill().unwrap();
    server.wait().unwrap();
    engine.finish();
}
