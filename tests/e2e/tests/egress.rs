//! Egress lists: where a container may go.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, Command, Stdio};

use gantry_e2e::{Done, Engine, eventually, run};

/// A machine beyond the host with three addresses that serve a page, and a name server on the host that knows it.
struct World {
    ns: String,
    server: Child,
    dns: Ipv4Addr,
}

const ADDRESSES: [&str; 3] = ["10.254.78.2", "10.254.78.3", "10.254.78.4"];

impl World {
    fn new(engine: &Engine) -> Self {
        let tag = engine.tag();
        let (ns, host, far) = (format!("ge{tag}"), format!("ga{tag}"), format!("gb{tag}"));
        let ip = |line: &str| drop(run("ip", &line.split(' ').collect::<Vec<_>>()).ok());
        ip(&format!("netns add {ns}"));
        ip(&format!(
            "link add {host} type veth peer name {far} netns {ns}"
        ));
        ip(&format!("addr add 10.254.78.1/29 dev {host}"));
        ip(&format!("link set {host} up"));
        for address in ADDRESSES {
            ip(&format!("-n {ns} addr add {address}/29 dev {far}"));
        }
        ip(&format!("-n {ns} link set {far} up"));
        ip(&format!("-n {ns} link set lo up"));
        let www = engine.dir().join("www");
        std::fs::create_dir(&www).unwrap();
        std::fs::write(www.join("index.html"), "world\n").unwrap();
        let server = Command::new("ip")
            .args([
                "netns", "exec", &ns, "busybox", "httpd", "-f", "-p", "80", "-h",
            ])
            .arg(www)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let [_, b, c, d] = std::process::id().to_be_bytes();
        let dns = Ipv4Addr::new(127, 100 + b % 100, c, d.max(1));
        serve_names(UdpSocket::bind((dns, 53)).unwrap());
        Self { ns, server, dns }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        run("ip", &["netns", "del", &self.ns]);
    }
}

/// Answers for `listed.test` and `late.test`, and for nothing else.
fn serve_names(socket: UdpSocket) {
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            let name_end = 12 + query[12..length].iter().position(|b| *b == 0).unwrap() + 1;
            let question = &query[12..name_end + 4];
            let asks_v4 = question[question.len() - 4..] == [0, 1, 0, 1];
            let address = match &question[..question.len() - 4] {
                b"\x06listed\x04test\0" => Some([10, 254, 78, 3]),
                b"\x04late\x04test\0" => Some([10, 254, 78, 4]),
                _ => None,
            };
            let code = if address.is_some() { 0 } else { 3 };
            let count = u8::from(asks_v4 && address.is_some());
            let mut reply = query[..2].to_vec();
            reply.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
            reply.extend(question);
            if let Some(address) = address.filter(|_| asks_v4) {
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
                reply.extend(address);
            }
            socket.send_to(&reply, from).unwrap();
        }
    });
}

fn wget(engine: &Engine, container: &str, url: &str) -> Done {
    engine.docker(&["exec", container, "wget", "-qO-", url])
}

#[test]
fn a_container_goes_where_it_may() {
    let mut engine = Engine::start();
    let world = World::new(&engine);
    let dns = world.dns.to_string();
    let start = |name: &str, flags: &[&str]| {
        let mut args = vec!["run", "-d", "--name", name, "--dns", &dns];
        args.extend(flags);
        args.extend(["busybox", "httpd", "-f", "-p", "80", "-h", "/etc"]);
        engine.gantry(&args).ok();
    };
    start("free", &[]);
    start(
        "named",
        &["--egress-allow", "10.254.78.2/32,listed.test,late.test"],
    );
    start("shut", &["--egress-allow", "none", "-p", "127.0.0.1::80"]);
    eventually("the world answers", 30, || {
        (wget(&engine, "free", "http://10.254.78.3/").out == "world\n").then_some(())
    });
    assert_eq!(wget(&engine, "named", "http://10.254.78.2/").ok(), "world");
    wget(&engine, "named", "http://10.254.78.3/").fails(1, "can't connect");
    assert_eq!(wget(&engine, "named", "http://listed.test/").ok(), "world");
    wget(&engine, "shut", "http://10.254.78.2/").fails(1, "can't connect");
    wget(&engine, "shut", "http://listed.test/").fails(1, "bad address");
    // The host itself is outside; a neighbour and whoever comes in are not.
    wget(&engine, "shut", "http://10.254.78.1/").fails(1, "can't connect");
    let ip = |name: &str| {
        let format = "{{.NetworkSettings.IPAddress}}";
        engine.docker(&["inspect", "-f", format, name]).ok()
    };
    wget(&engine, "shut", &format!("http://{}/passwd", ip("free"))).ok();
    let port = engine.docker(&["port", "shut", "80"]).ok();
    eventually("the published port answers", 30, || {
        let page = run(
            "curl",
            &["-sSf", "-m", "5", &format!("http://{port}/passwd")],
        );
        (page.code == 0).then_some(())
    });
    let shown = engine.docker(&["inspect", "named", "shut"]).ok();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        shown[0]["HostConfig"]["Egress"]["Allow"],
        serde_json::json!(["10.254.78.2/32", "listed.test", "late.test"])
    );
    assert_eq!(
        shown[1]["HostConfig"]["Egress"]["Allow"],
        serde_json::json!([])
    );

    // A name is a way while there is no daemon, too.
    let pid = engine
        .docker(&["inspect", "-f", "{{.State.Pid}}", "named"])
        .ok();
    engine.kill9();
    let inside = |url: &str| {
        let args = [
            "-t",
            &pid,
            "-n",
            "-m",
            "-r",
            "/bin/busybox",
            "wget",
            "-qO-",
            url,
        ];
        run("nsenter", &args)
    };
    inside("http://10.254.78.4/").fails(1, "can't connect");
    assert_eq!(inside("http://late.test/").ok(), "world");
    engine.boot();
    assert_eq!(wget(&engine, "named", "http://10.254.78.4/").ok(), "world");

    // Another list while it runs, which the next start knows.
    engine
        .gantry(&["update", "--egress-allow", "10.254.78.2", "free"])
        .ok();
    for _ in 0..2 {
        assert_eq!(wget(&engine, "free", "http://10.254.78.2/").ok(), "world");
        wget(&engine, "free", "http://10.254.78.3/").fails(1, "can't connect");
        engine.docker(&["restart", "-t", "0", "free"]).ok();
    }

    // A network of the user's, and a restart.
    engine.docker(&["network", "create", "own"]).ok();
    engine.docker(&["network", "connect", "own", "named"]).ok();
    wget(&engine, "named", "http://10.254.78.1/").fails(1, "can't connect");
    engine.docker(&["restart", "-t", "0", "named"]).ok();
    assert_eq!(wget(&engine, "named", "http://10.254.78.2/").ok(), "world");
    assert_eq!(wget(&engine, "named", "http://listed.test/").ok(), "world");

    for (flags, why) in [
        (
            ["--network", "host", "none"],
            "conflicting options: egress allow-list and the host network mode",
        ),
        (
            ["--network", "bridge", "300.0.0.0/8"],
            "invalid egress rule \"300.0.0.0/8\"",
        ),
    ] {
        engine
            .gantry(&[
                "run",
                "--rm",
                flags[0],
                flags[1],
                "--egress-allow",
                flags[2],
                "busybox",
                "true",
            ])
            .fails(125, why);
    }
    engine.docker(&["rm", "-f", "named"]).ok();
    engine.docker(&["network", "rm", "own"]).ok();
    drop(world);
    engine.finish();
}
