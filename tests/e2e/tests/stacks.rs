//! Real stacks under docker compose: services from Debian packages, brought up, scaled, restarted and taken down.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_e2e::{Done, Engine, Options, Registry, eventually, free_port, run_env};

/// What the application answers.
struct Visits {
    count: i64,
    host: String,
}

/// The body of a page; what is no 200 is an error.
fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: stack.test\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.into()),
        _ => Err(std::io::Error::other(answer)),
    }
}

#[track_caller]
fn visits(port: u16) -> Visits {
    let page = eventually("the application answers", 20, || get(port, "/").ok());
    let page: serde_json::Value = serde_json::from_str(&page).expect("it answers in JSON");
    Visits {
        count: page["visits"].as_i64().expect("a number"),
        host: page["host"].as_str().expect("a name").into(),
    }
}

/// One stack on an engine of its own, and the registry that its images come from.
struct Stack {
    engine: Engine,
    registry: Registry,
    file: PathBuf,
    port: u16,
}

impl Stack {
    fn new(name: &str) -> Self {
        let registry = Registry::start();
        for image in ["nginx", "postgres", "redis", "web"] {
            registry.push_stack_image(image);
        }
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self {
            engine: Engine::with(Options::default()),
            registry,
            file: here.join("stacks").join(name).join("compose.yaml"),
            port: free_port(),
        }
    }

    fn compose(&self, args: &[&str]) -> Done {
        let environment = [
            ("DOCKER_HOST", self.engine.host()),
            ("REGISTRY", self.registry.domain()),
            ("PORT", self.port.to_string()),
            ("FROM_ENV", "out of the environment".into()),
            ("COMPOSE_ANSI", "never".into()),
            ("COMPOSE_PROGRESS", "quiet".into()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let mut line = vec!["-f", self.file.to_str().expect("the path is text")];
        line.extend(args);
        let compose =
            std::env::var("GANTRY_TEST_COMPOSE").unwrap_or_else(|_| "docker-compose".into());
        run_env(compose, &line, &environment)
    }

    fn exec(&self, service: &str, command: &[&str]) -> Done {
        let mut args = vec!["exec", "-T", service];
        args.extend(command);
        self.compose(&args)
    }

    /// Takes everything down, and looks that nothing of it is left.
    fn down(self, volumes: &[&str]) {
        self.compose(&["down", "-t", "2"]).ok();
        // Those that only the images ask for have no name to come back to.
        self.engine.docker(&["volume", "prune", "-f"]).ok();
        let named = self.engine.docker(&["volume", "ls", "-q"]).ok();
        assert_eq!(
            named.lines().collect::<Vec<_>>(),
            volumes,
            "only -v takes volumes"
        );
        self.compose(&["down", "-v"]).ok();
        assert_eq!(self.engine.docker(&["ps", "-aq"]).ok(), "");
        assert_eq!(self.engine.docker(&["volume", "ls", "-q"]).ok(), "");
        let networks = ["network", "ls", "--format", "{{.Name}}"];
        let mut left: Vec<String> = self
            .engine
            .docker(&networks)
            .ok()
            .lines()
            .map(str::to_owned)
            .collect();
        left.sort();
        assert_eq!(left, ["bridge", "host", "none"]);
        self.engine.finish();
    }
}

#[test]
fn a_proxy_an_application_and_a_database() {
    let stack = Stack::new("blog");
    stack.compose(&["up", "-d", "--wait"]).ok();
    let first = visits(stack.port);
    assert_eq!(first.count, 1);

    stack
        .compose(&["up", "-d", "--wait", "--scale", "web=3"])
        .ok();
    let mut hosts = std::collections::BTreeSet::new();
    eventually("all three answer", 20, || {
        hosts.insert(visits(stack.port).host);
        (hosts.len() == 3).then_some(())
    });
    let services = stack
        .compose(&["ps", "--format", "{{.Service}} {{.Health}}"])
        .ok();
    assert_eq!(services.matches("web healthy").count(), 3, "{services}");
    assert_eq!(services.matches("db healthy").count(), 1, "{services}");
    stack.compose(&["up", "-d", "--scale", "web=1"]).ok();

    // The data outlives a restart of everything, and the proxy's port comes back.
    let before = visits(stack.port).count;
    stack.compose(&["restart", "-t", "5"]).ok();
    let after = eventually("the stack is back", 30, || get(stack.port, "/").ok());
    assert!(
        after.contains(&format!("\"visits\":{}", before + 1)),
        "{after}"
    );
    stack.compose(&["stop", "-t", "5"]).ok();
    assert!(get(stack.port, "/").is_err(), "a stopped stack answers");
    stack.compose(&["up", "-d", "--wait"]).ok();
    assert!(visits(stack.port).count > before);

    let logs = stack.compose(&["logs", "--no-color", "proxy"]).ok();
    assert!(logs.contains("GET / HTTP/1.0\" 200"), "{logs}");
    // The database is on an internal network only.
    stack.exec("proxy", &["getent", "hosts", "db"]).fails(2, "");
    assert!(stack.compose(&["top", "db"]).ok().contains("postgres"));
    let user = stack.exec("db", &["id", "-un"]).ok();
    assert_eq!(user, "postgres");
    stack.down(&["blog_data"]);
}

#[test]
fn replicas_wait_for_their_primary() {
    let stack = Stack::new("queue");
    stack.compose(&["up", "-d", "--wait"]).ok();
    assert_eq!(visits(stack.port).count, 1);
    // `seed` ran to its end before the application was started.
    assert_eq!(
        stack.exec("primary", &["redis-cli", "get", "seeded"]).ok(),
        "yes"
    );
    let seed = stack
        .compose(&["ps", "-a", "seed", "--format", "{{.ExitCode}} {{.State}}"])
        .ok();
    assert_eq!(seed, "0 exited");
    for index in ["1", "2"] {
        let read = [
            "exec",
            "-T",
            "--index",
            index,
            "replica",
            "redis-cli",
            "get",
            "visits",
        ];
        let value = eventually("the replica has the value", 30, || {
            let value = stack.compose(&read).ok();
            (value == "1").then_some(value)
        });
        assert_eq!(value, "1");
    }
    stack
        .compose(&[
            "up",
            "-d",
            "--wait",
            "--no-recreate",
            "--scale",
            "replica=4",
        ])
        .ok();
    let info = || {
        stack
            .exec("primary", &["redis-cli", "info", "replication"])
            .ok()
    };
    eventually("four replicas", 30, || {
        info().contains("connected_slaves:4").then_some(())
    });
    let replica = stack.compose(&["ps", "-q", "replica"]).ok();
    let limits = stack.engine.docker(&[
        "inspect",
        "-f",
        "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}",
        replica.lines().next().expect("a replica"),
    ]);
    assert_eq!(limits.ok(), "134217728 500000000");
    // A killed primary comes back with what it had been told.
    stack.compose(&["kill", "primary"]).ok();
    stack
        .compose(&[
            "up",
            "-d",
            "--wait",
            "--no-recreate",
            "--scale",
            "replica=4",
        ])
        .ok();
    assert_eq!(visits(stack.port).count, 2);
    eventually("the replicas are back", 20, || {
        info().contains("connected_slaves:4").then_some(())
    });
    stack.down(&["queue_data"]);
}

#[test]
fn one_of_everything() {
    let stack = Stack::new("kitchen");
    stack.compose(&["up", "-d"]).ok();
    let mut wrong = Vec::new();
    let front = |script: &str| stack.exec("front", &["sh", "-c", script]).ok();
    for (script, wanted) in [
        ("cat /run/secrets/token", "s3cret"),
        ("cat /etc/written.conf", "written = yes"),
        ("cat /mnt/extra", "EXTRA=from a file"),
        ("echo $COLOUR, $EXTRA", "green, from a file"),
        ("hostname -f", "front-door.example.test"),
        ("cat /proc/1/comm", "docker-init"),
        ("ulimit -Sn; ulimit -Hn; ulimit -p", "1024\n2048\n512"),
        ("cat /proc/sys/net/ipv4/ip_local_port_range", "20000\t30000"),
        (
            "grep -E 'CapEff|NoNewPrivs' /proc/self/status",
            "CapEff:\t0000000000000400\nNoNewPrivs:\t1",
        ),
        ("cat /proc/self/oom_score_adj", "300"),
        ("id -G", "0 8"),
        ("stat -f -c %b /small; stat -c %a /small", "256\n700"),
        (
            "df -m /dev/shm | tail -1 | awk '{print $2}'; df -m /run | tail -1 | awk '{print $2}'",
            "16\n4",
        ),
        (
            "touch /x 2>&1",
            "touch: cannot touch '/x': Read-only file system",
        ),
        ("touch /scratch/x /shared/x && echo fine", "fine"),
        (
            "getent hosts elsewhere.test | awk '{print $1}'",
            "192.0.2.7",
        ),
        ("getent hosts host.docker.internal | wc -l", "1"),
        ("ip -4 -o addr show | grep -c 10.213.4.10/24", "1"),
    ] {
        let done = stack.exec("front", &["sh", "-c", script]);
        if done.out.trim() != wanted {
            wrong.push(format!("{script}: {} {}", done.out, done.err));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let copied = ["cat", "/run/secrets/fromenv", "/etc/inline.conf"];
    let copied = stack.exec("peer", &copied).ok();
    assert_eq!(copied, "out of the environmentcolour = blue");
    // Names, aliases and fixed addresses.
    for name in ["front", "door", "gate", "ahead"] {
        let found = stack.exec("peer", &["getent", "ahostsv4", name]).ok();
        assert!(found.starts_with("10.213.4.10 "), "{name}: {found}");
    }
    let peer = stack
        .exec(
            "peer",
            &["cat", "/sys/class/net/eth0/address", "/etc/resolv.conf"],
        )
        .ok();
    assert!(
        peer.starts_with("02:42:0a:d5:04:63") && peer.contains("search example.test"),
        "{peer}"
    );
    // Shared namespaces, and volumes from another service.
    let back = |script: &str| stack.exec("back", &["sh", "-c", script]);
    assert_eq!(
        back("id -u; id -g; pwd; cat /etc/hostname").ok(),
        "33\n33\n/made/for/you\nfront-door"
    );
    for namespace in ["net", "pid", "ipc"] {
        let link = format!("readlink /proc/self/ns/{namespace}");
        assert_eq!(back(&link).ok(), front(&link), "{namespace}");
    }
    assert_eq!(back("ls /shared/x").ok(), "/shared/x");
    // The network to the outside has its own MTU, and is where the default route goes.
    assert_eq!(
        front("cat /sys/class/net/$(ip route show default | grep -o 'eth[0-9]')/mtu"),
        "1400"
    );

    let profiled = stack
        .compose(&["--profile", "debug", "run", "--rm", "tools"])
        .ok();
    assert_eq!(profiled, "written = yes");
    assert!(
        !stack
            .compose(&["ps", "-a", "--services"])
            .ok()
            .contains("tools")
    );
    // A second `up` has nothing to do; a changed variable makes one container anew.
    let ids = stack.compose(&["ps", "-q"]).ok();
    stack.compose(&["up", "-d"]).ok();
    assert_eq!(stack.compose(&["ps", "-q"]).ok(), ids);
    stack.compose(&["pause", "peer"]).ok();
    assert!(stack.compose(&["ps", "peer"]).ok().contains("(Paused)"));
    stack.compose(&["unpause", "peer"]).ok();
    stack.down(&["kitchen_shared"]);
}
