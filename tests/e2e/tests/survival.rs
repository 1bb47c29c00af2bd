//! Containers outlive a killed daemon; a real Debian with nginx stands for real work.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gantry_e2e::{Engine, Registry, debian_rootfs, eventually, free_port, run};

/// One HTTP request on a connection of its own; the body.
fn request(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    text.split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .ok_or_else(|| std::io::Error::other(format!("not an answer: {text:?}")))
}

/// Sends 200 requests a second until told to stop; counts them, returns the failures.
fn load(
    port: u16,
    stop: &Arc<AtomicBool>,
    sent: &Arc<AtomicU64>,
) -> std::thread::JoinHandle<Vec<String>> {
    let (stop, sent) = (Arc::clone(stop), Arc::clone(sent));
    std::thread::spawn(move || {
        let mut failures = Vec::new();
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            match request(port) {
                Ok(body) if body == "from the volume\n" => {}
                Ok(body) => failures.push(format!("wrong body {body:?}")),
                Err(error) => failures.push(error.to_string()),
            }
            sent.fetch_add(1, Ordering::Relaxed);
            next += Duration::from_millis(5);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        failures
    })
}

/// Lets the container's apt reach what the host's reaches.
fn give_apt_sources(engine: &Engine, name: &str) {
    for file in [
        "/etc/apt/sources.list",
        "/etc/apt/sources.list.d/debian.sources",
    ] {
        if let Ok(text) = std::fs::read(file) {
            let script = format!("mkdir -p $(dirname {file}) && cat > {file}");
            engine
                .docker_stdin(&["exec", "-i", name, "sh", "-c", &script], &text)
                .ok();
        }
    }
}

#[test]
fn nginx_serves_through_a_killed_daemon() {
    let registry = Registry::start();
    registry.push_rootfs(&debian_rootfs(), "debian:12");
    let mut engine = Engine::with(Default::default());
    let image = format!("{}/debian:12", registry.domain());
    engine.docker(&["pull", "-q", &image]).ok();
    engine.docker(&["volume", "create", "site"]).ok();
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:80");
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "web",
            "-p",
            &publish,
            "-v",
            "site:/var/www/html",
            &image,
            "sleep",
            "infinity",
        ])
        .ok();
    give_apt_sources(&engine, "web");
    // The mirror may be a snapshot of another day.
    let install = "apt-get update -qq -o Acquire::Check-Valid-Until=false -o Acquire::Check-Date=false && \
                   DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light";
    engine.docker(&["exec", "web", "sh", "-c", install]).ok();
    engine
        .docker(&[
            "exec",
            "web",
            "sh",
            "-c",
            "echo from the volume > /var/www/html/index.html && nginx",
        ])
        .ok();
    eventually("nginx serves the volume", 30, || {
        (request(port).ok()? == "from the volume\n").then_some(())
    });

    let count = "i=0; while [ $i -lt 400 ]; do echo n$i; i=$((i+1)); sleep 0.02; done";
    engine
        .docker(&["run", "-d", "--name", "counter", &image, "sh", "-c", count])
        .ok();
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "ends",
            &image,
            "sh",
            "-c",
            "sleep 2; exit 42",
        ])
        .ok();
    let (stop, sent) = (Arc::default(), Arc::default());
    let loader = load(port, &stop, &sent);
    std::thread::sleep(Duration::from_millis(700));
    let before = sent.load(Ordering::Relaxed);
    engine.kill9();
    // Longer than the container takes that ends meanwhile, and until there was some load.
    std::thread::sleep(Duration::from_secs(3));
    eventually("the load goes on", 60, || {
        (sent.load(Ordering::Relaxed) > before + 400).then_some(())
    });
    engine.boot();
    let booted = sent.load(Ordering::Relaxed);
    eventually("the load goes on", 60, || {
        (sent.load(Ordering::Relaxed) > booted + 100).then_some(())
    });
    stop.store(true, Ordering::Relaxed);
    let failures = loader.join().unwrap();
    assert!(
        failures.is_empty(),
        "{} failures, first {:?}",
        failures.len(),
        failures[0]
    );

    assert_eq!(
        engine
            .docker(&["ps", "-q", "--filter", "name=web"])
            .ok()
            .lines()
            .count(),
        1
    );
    assert_eq!(
        engine
            .docker(&[
                "inspect",
                "-f",
                "{{.State.Status}} {{.State.ExitCode}}",
                "ends"
            ])
            .ok(),
        "exited 42"
    );
    assert_eq!(engine.docker(&["wait", "counter"]).ok(), "0");
    let lines: Vec<String> = engine
        .docker(&["logs", "counter"])
        .ok()
        .lines()
        .map(str::to_owned)
        .collect();
    let want: Vec<String> = (0..400).map(|i| format!("n{i}")).collect();
    assert_eq!(lines, want, "nothing lost or doubled");
    assert_eq!(
        engine
            .docker(&["exec", "web", "cat", "/var/www/html/index.html"])
            .ok(),
        "from the volume"
    );
    engine.docker(&["stop", "-t", "1", "web"]).ok();
    assert!(request(port).is_err());
    engine.docker(&["rm", "web"]).ok();
    engine.docker(&["volume", "rm", "site"]).ok();
    engine.finish();
}

#[test]
fn sigterm_leaves_containers_running_unless_told_otherwise() {
    let mut engine = Engine::start();
    engine
        .docker(&["run", "-d", "--name", "lives", "busybox", "sleep", "60"])
        .ok();
    let pid = engine
        .docker(&["inspect", "-f", "{{.State.Pid}}", "lives"])
        .ok();
    engine.terminate();
    assert!(
        run("test", &["-d", &format!("/proc/{pid}")]).code == 0,
        "the container lives on"
    );
    engine.boot();
    assert_eq!(
        engine
            .docker(&["inspect", "-f", "{{.State.Pid}}", "lives"])
            .ok(),
        pid
    );
    engine.finish();
}

#[test]
fn names_and_attach_work_after_a_restart() {
    let mut engine = Engine::start();
    engine.docker(&["network", "create", "net"]).ok();
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "one",
            "--network",
            "net",
            "busybox",
            "sleep",
            "60",
        ])
        .ok();
    engine
        .docker(&[
            "run",
            "-d",
            "-i",
            "--name",
            "two",
            "--network",
            "net",
            "busybox",
            "sh",
        ])
        .ok();
    engine.kill9();
    engine.boot();
    let out = engine.docker_stdin(
        &["attach", "two"],
        b"ping -c 1 -W 2 one > /dev/null && echo found\nexit\n",
    );
    assert_eq!(out.out, "found\n", "{out:?}");
    engine.docker(&["rm", "-f", "one", "two"]).ok();
    engine.docker(&["network", "rm", "net"]).ok();
    engine.finish();
}
