//! The resolv.conf of running containers, as the host's changes.

use std::fs;

use gantry_e2e::{Done, Engine, Options, eventually};

fn docker(engine: &Engine, line: &str) -> Done {
    engine.docker(&line.split_whitespace().collect::<Vec<_>>())
}

fn sh(engine: &Engine, name: &str, script: &str) -> String {
    engine.docker(&["exec", name, "sh", "-c", script]).ok()
}

/// What a container's file says, read as resolvers read it. busybox's `cat` has the kernel hand the file's pages on
/// (sendfile), and shows what becomes of them until somebody takes them: zeros where the file was cut off meanwhile.
fn resolv(engine: &Engine, name: &str) -> String {
    sh(engine, name, "dd if=/etc/resolv.conf bs=64k 2>/dev/null")
}

/// An engine with a file of its own as the host's, which it finds again at every start.
fn engine(text: &str) -> Engine {
    let engine = Engine::with(Options {
        files: vec![("/etc/resolv.conf", text.to_owned())],
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    engine
}

/// Changes what the engine finds as the host's file, in place.
fn change(engine: &Engine, text: &str) {
    fs::write(engine.dir().join("file0"), text).expect("the file is the test's");
}

fn has(text: &str, line: &str) -> bool {
    text.lines().any(|l| l == line)
}

fn changed_to(engine: &Engine, name: &str, lines: &[&str]) -> String {
    eventually("its file is as the host's", 20, || {
        let now = resolv(engine, name);
        lines.iter().all(|line| has(&now, line)).then_some(now)
    })
}

#[test]
fn running_containers_are_given_what_the_hosts_file_says() {
    let mut engine = engine("nameserver 192.0.2.1\nsearch one.example\noptions timeout:1\n");
    docker(&engine, "network create app").ok();
    for (name, options) in [
        ("plain", ""),
        ("host", "--network host"),
        ("app", "--network app"),
        ("edited", ""),
        ("own", "--dns 192.0.2.9"),
        ("mate", "--network container:plain"),
    ] {
        docker(
            &engine,
            &format!("run -d --name {name} {options} busybox sleep 600"),
        )
        .ok();
    }
    sh(&engine, "edited", "echo '# mine' >> /etc/resolv.conf");
    let untouched = ["edited", "own"].map(|name| (name, resolv(&engine, name)));
    let inode = sh(&engine, "plain", "stat -c %i /etc/resolv.conf");

    // Shorter than before, so that nothing of it may be left.
    change(&engine, "nameserver 192.0.2.2\nsearch two.example\n");
    let wanted = ["nameserver 192.0.2.2", "search two.example"];
    for name in ["plain", "host", "mate"] {
        let now = changed_to(&engine, name, &wanted);
        assert!(!now.contains("timeout"), "{now}");
        assert!(now.ends_with("two.example"), "{now:?}");
    }
    changed_to(
        &engine,
        "app",
        &[
            "nameserver 127.0.0.11",
            "search two.example",
            "# ExtServers: [192.0.2.2]",
        ],
    );
    assert_eq!(sh(&engine, "plain", "stat -c %i /etc/resolv.conf"), inode);
    // What is being written anew says nothing.
    change(&engine, "");
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(resolv(&engine, "plain").contains("192.0.2.2"));

    // Without a daemon; the next one finds what the first one found.
    engine.kill9();
    engine.boot();
    changed_to(
        &engine,
        "plain",
        &["nameserver 192.0.2.1", "options timeout:1"],
    );
    changed_to(&engine, "host", &["nameserver 192.0.2.1"]);
    change(&engine, "nameserver 192.0.2.3\n");
    changed_to(&engine, "plain", &["nameserver 192.0.2.3"]);
    for (name, text) in untouched {
        assert_eq!(resolv(&engine, name), text, "{name}");
    }
    // One that joins a network with names and leaves it again has the servers of now.
    docker(&engine, "network connect app plain").ok();
    assert!(has(&resolv(&engine, "plain"), "nameserver 127.0.0.11"));
    docker(&engine, "network disconnect app plain").ok();
    assert!(has(&resolv(&engine, "plain"), "nameserver 192.0.2.3"));
    docker(&engine, "rm -f mate plain host app edited own").ok();
    docker(&engine, "network rm app").ok();
    engine.finish();
}

#[test]
fn a_rewrite_that_a_crash_cut_off_is_done_again() {
    let mut engine = engine("nameserver 192.0.2.1\n");
    for name in ["before", "after", "edited"] {
        docker(&engine, &format!("run -d --name {name} busybox sleep 600")).ok();
    }
    let id = |name: &str| docker(&engine, &format!("inspect -f {{{{.Id}}}} {name}")).ok();
    let ids = ["before", "after", "edited"].map(id);
    let file = docker(&engine, "inspect -f {{.ResolvConfPath}} before").ok();
    let original = fs::read_to_string(&file).expect("the container is there");
    engine.kill9();
    // The record tells of the text that was to be written and of the one before; the file has one of these, or an edit.
    let next = original.replace("192.0.2.1", "192.0.2.77");
    for (id, text) in ids.iter().zip([
        original.clone(),
        format!("{next}\n\n\n"),
        "nameserver 192.0.2.5\n".to_owned(),
    ]) {
        let records = fs::read_dir(engine.dir().join("run/network/sandboxes")).unwrap();
        let mut records = records.map(|entry| entry.unwrap().path());
        let record = records
            .find(|path| path.to_str().is_some_and(|path| path.contains(id.as_str())))
            .expect("the sandbox is written down");
        let mut saved: serde_json::Value =
            serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
        saved["resolv"] = next.clone().into();
        saved["resolv_before"] = original.clone().into();
        fs::write(&record, saved.to_string()).unwrap();
        fs::write(file.replace(&ids[0], id), text).unwrap();
    }
    engine.boot();
    change(&engine, "nameserver 192.0.2.4\n");
    for name in ["before", "after"] {
        changed_to(&engine, name, &["nameserver 192.0.2.4"]);
    }
    assert_eq!(resolv(&engine, "edited"), "nameserver 192.0.2.5");
    docker(&engine, "rm -f before after edited").ok();
    engine.finish();
}
