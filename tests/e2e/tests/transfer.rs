//! Images on their way: connections that are cut and held, servers that send something else, daemons that are killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use gantry_e2e::{
    Engine, Options, Registry, Relay, busybox_rootfs, eventually, noise, run, skopeo_digest,
};
use serde_json::{Value, json};

/// Bytes of the image that cannot be compressed.
const NOISE: u64 = 12 << 20;
const MB: u64 = 1 << 20;
/// What is asked twice at a cut, and everything that is no layer.
const SLACK: u64 = 3 * MB;

/// A registry with the image `big:1`: busybox, and noise as `/noise`.
fn registry() -> Registry {
    let registry = Registry::start();
    let root = registry.dir().join("root");
    busybox_rootfs(&root);
    fs::write(root.join("noise"), noise(88_172_645_463_325_252, NOISE)).unwrap();
    registry.push_rootfs(&root, "big:1");
    registry
}

/// An engine that tries again soon and often.
fn engine() -> Engine {
    Engine::with(Options {
        config: Some(json!({"max-download-attempts": 20})),
        ..Options::default()
    })
}

fn digest_there(name: &str) -> String {
    skopeo_digest(&format!("docker://{name}"), &["--tls-verify=false"])
}

fn checks_out(engine: &Engine, name: &str) {
    let size = engine.docker(&["run", "--rm", name, "stat", "-c", "%s", "/noise"]);
    assert_eq!(size.ok(), NOISE.to_string());
}

/// Files below `dir` of more than `size` bytes.
fn large_files(dir: &Path, size: u64) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => found.extend(large_files(&entry.path(), size)),
            Ok(meta) if meta.len() > size => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

#[test]
fn a_pull_goes_on_where_it_was_cut() {
    let registry = registry();
    let relay = Relay::start(registry.port());
    relay.down.cut_at(&[2 * MB, 5 * MB, 8 * MB, 11 * MB]);
    let engine = engine();
    let name = format!("{}/big:1", relay.domain());
    let said = engine.docker(&["pull", &name]).ok();
    for words in [
        "Pulling fs layer",
        "Retrying in 1 second",
        "Verifying Checksum",
        "Download complete",
        "Pull complete",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(relay.down.cuts_left(), 0);
    let moved = relay.down.total();
    assert!(moved < NOISE + SLACK, "{moved} bytes for {NOISE}");
    checks_out(&engine, &name);
    engine.finish();
}

/// Holds the transfer that `client` starts, has the registry killed meanwhile and started again, and waits for the end.
fn killed_and_started(
    registry: &mut Registry,
    way: &gantry_e2e::Direction,
    mut client: std::process::Command,
) -> String {
    let client = client
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    way.await_hold();
    registry.kill();
    way.release();
    // What it had sent before it died may be all of it, in the kernel's buffers: that is cut off.
    eventually("the connection is gone", 60, || {
        (way.cuts_left() == 0).then_some(())
    });
    registry.boot();
    let done = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}\n{complaint}");
    said
}

#[test]
fn transfers_outlive_the_registry() {
    let mut registry = registry();
    let relay = Relay::start(registry.port());
    let engine = engine();
    let name = format!("{}/big:1", relay.domain());
    relay.down.hold_at(7 * MB);
    relay.down.cut_at(&[8 * MB]);
    let mut pull = engine.docker_command();
    pull.args(["pull", &name]);
    let said = killed_and_started(&mut registry, &relay.down, pull);
    assert!(said.contains("Retrying in"), "{said}");
    let moved = relay.down.total();
    assert!(moved < NOISE + SLACK, "{moved} bytes for {NOISE}");
    checks_out(&engine, &name);

    // It never had this one: what a registry keeps of an upload when it is killed is its own affair, so all may come anew.
    let mut target = Registry::start();
    let relay = Relay::start(target.port());
    let there = format!("{}/big:1", relay.domain());
    engine.docker(&["tag", &name, &there]).ok();
    relay.up.hold_at(5 * MB);
    let mut push = engine.docker_command();
    push.args(["push", &there]);
    let said = killed_and_started(&mut target, &relay.up, push);
    assert!(said.contains("Retrying in"), "{said}");
    let [there, here] =
        [&target, &registry].map(|r| digest_there(&format!("{}/big:1", r.domain())));
    assert_eq!(there, here);
    engine.finish();
}

#[test]
fn as_many_layers_at_once_as_the_configuration_says() {
    let registry = Registry::start();
    let roots = [1, 2, 3].map(|seed| {
        let root = registry.dir().join(format!("layer{seed}"));
        fs::create_dir(&root).unwrap();
        fs::write(root.join(format!("noise{seed}")), noise(seed, 4 * MB)).unwrap();
        root
    });
    registry.push_layers(&roots.each_ref().map(PathBuf::as_path), "three:1");
    let engine = Engine::with(Options {
        config: Some(json!({"max-concurrent-downloads": 1})),
        ..Options::default()
    });
    let path = format!("/images/create?fromImage={}/three&tag=1", registry.domain());
    let (code, text) = engine.api("POST", &path, None);
    assert_eq!(code, 200, "{text}");
    let steps = text.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).unwrap();
        (message["status"] == "Downloading").then(|| message["id"].to_string())
    });
    let mut turns: Vec<String> = steps.collect();
    turns.dedup();
    assert_eq!(turns.len(), roots.len(), "layers took turns: {turns:?}");
    engine.finish();
}

#[test]
fn a_killed_daemon_goes_on_with_what_it_has() {
    let registry = registry();
    let relay = Relay::start(registry.port());
    relay.down.hold_at(7 * MB);
    let mut engine = engine();
    let name = format!("{}/big:1", relay.domain());
    let mut client = engine
        .docker_command()
        .args(["pull", &name])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    relay.down.await_hold();
    // What has passed the relay may still be on its way.
    eventually("the daemon has what came", 60, || {
        (!large_files(&engine.dir().join("data"), 6 * MB).is_empty()).then_some(())
    });
    engine.kill9();
    assert!(!client.wait().unwrap().success());
    relay.down.release();
    engine.boot();
    let before = relay.down.total();
    engine.gantry(&["pull", &name]).ok();
    let moved = relay.down.total() - before;
    assert!(moved < NOISE - 5 * MB + SLACK, "{moved} bytes of {NOISE}");
    checks_out(&engine, &name);
    engine.finish();
}

#[test]
fn a_push_outlives_cuts_and_costs_nothing_the_second_time() {
    let source = registry();
    let target = Registry::start();
    let relay = Relay::start(target.port());
    let engine = engine();
    let name = format!("{}/big:1", source.domain());
    let there = format!("{}/team/big:1", relay.domain());
    engine.docker(&["pull", "-q", &name]).ok();
    engine.docker(&["tag", &name, &there]).ok();
    relay.up.cut_at(&[3 * MB, 9 * MB]);
    let said = engine.docker(&["push", &there]).ok();
    for words in [
        "Preparing",
        "Retrying in 1 second",
        "Pushed",
        "1: digest: sha256:",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(relay.up.cuts_left(), 0);
    let direct = format!("{}/team/big:1", target.domain());
    assert_eq!(digest_there(&direct), digest_there(&name));

    let before = relay.up.total();
    let said = engine.gantry(&["push", &there]).ok();
    assert!(said.contains("Layer already exists"), "{said}");
    let moved = relay.up.total() - before;
    assert!(moved < 4096, "{moved} bytes");
    // Another repository of that registry takes the layer from the first.
    let third = format!("{}/third:1", relay.domain());
    engine.docker(&["tag", &name, &third]).ok();
    let said = engine.docker(&["push", &third]).ok();
    assert!(said.contains("Mounted from team/big"), "{said}");
    assert!(relay.up.total() - before < MB);
    engine.finish();
}

#[test]
fn other_bytes_than_those_asked_for_are_refused() {
    let registry = registry();
    let engine = Engine::with(Options {
        config: Some(json!({"max-download-attempts": 1})),
        ..Options::default()
    });
    let name = format!("{}/big:1", registry.domain());
    let blobs = large_files(&registry.dir().join("data"), NOISE / 2);
    let [blob] = blobs.as_slice() else {
        panic!("{blobs:?}")
    };
    let good = fs::read(blob).unwrap();

    // As many bytes, but others: at the end, so that all of it is unpacked before that shows.
    let mut wrong = good.clone();
    let last = wrong.len() - 20;
    wrong[last] ^= 0x55;
    fs::write(blob, &wrong).unwrap();
    let said = engine.docker(&["pull", &name]);
    said.fails(1, "filesystem layer verification failed for digest sha256:");
    // Fewer.
    fs::write(blob, &good[..good.len() - 1000]).unwrap();
    engine.docker(&["pull", &name]).fails(1, "unexpected EOF");
    assert_eq!(engine.docker(&["images", "-aq"]).ok(), "");
    // More: what was kept of the last attempt is not trusted either.
    let mut longer = good.clone();
    longer.extend([0; 1000]);
    fs::write(blob, &longer).unwrap();
    engine
        .docker(&["pull", &name])
        .fails(1, "unexpected size of sha256:");
    fs::write(blob, &good).unwrap();
    engine.docker(&["pull", &name]).ok();
    checks_out(&engine, &name);
    engine.finish();
}

#[test]
fn a_mirror_that_sends_other_bytes_is_passed_over() {
    let (bad, good) = (registry(), Registry::start());
    let mirror = |registry: &Registry| format!("http://{}", registry.domain());
    let engine = Engine::with(Options {
        config: Some(json!({"registry-mirrors": [mirror(&bad), mirror(&good)]})),
        ..Options::default()
    });
    let from = format!("docker://{}/big:1", bad.domain());
    for registry in [&bad, &good] {
        let to = format!("docker://{}/library/big:1", registry.domain());
        let tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
        run(
            "skopeo",
            &[&["copy", "-q"], &tls[..], &[&from, &to]].concat(),
        )
        .ok();
    }
    for blob in large_files(&bad.dir().join("data"), NOISE / 2) {
        let mut bytes = fs::read(&blob).unwrap();
        bytes[5 << 20] ^= 0x55;
        fs::write(&blob, bytes).unwrap();
    }
    engine.docker(&["pull", "-q", "big:1"]).ok();
    checks_out(&engine, "big:1");
    engine.finish();
}

/// The steps of each layer come in dockerd's order and words, with numbers where bytes move.
#[test]
fn steps_are_told_as_dockerd_tells_them() {
    let registry = registry();
    let engine = Engine::with(Options::default());
    let path = format!("/images/create?fromImage={}/big&tag=1", registry.domain());
    let (code, text) = engine.api("POST", &path, None);
    assert_eq!(code, 200, "{text}");
    let messages: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let first = messages.iter().find(|m| m["status"] == "Pulling fs layer");
    let layer = &first.expect("a layer")["id"];
    assert_eq!(layer.as_str().map(str::len), Some(12), "{layer}");
    let steps: Vec<&Value> = messages.iter().filter(|m| m["id"] == *layer).collect();
    let mut words: Vec<&str> = steps.iter().filter_map(|m| m["status"].as_str()).collect();
    words.dedup();
    assert_eq!(
        words,
        [
            "Pulling fs layer",
            "Downloading",
            "Verifying Checksum",
            "Download complete",
            "Extracting",
            "Pull complete"
        ]
    );
    for step in &steps {
        let detail = &step["progressDetail"];
        if ["Downloading", "Extracting"].contains(&step["status"].as_str().unwrap()) {
            let (current, total) = (detail["current"].as_u64(), detail["total"].as_u64());
            assert!(current <= total && total > Some(NOISE), "{step}");
            assert!(
                step["progress"]
                    .as_str()
                    .is_some_and(|bar| bar.starts_with('['))
            );
        } else {
            assert_eq!(*detail, json!({}), "{step}");
        }
    }
    engine.finish();
}
