//! Kills at random moments, many.

use std::time::{Duration, Instant};

use gantry_e2e::{Engine, Registry};

use crate::tools::{begin, fsck, has, in_order, push_image, runs};

#[test]
#[ignore = "minutes: cargo xtask soak"]
fn kills_at_random_moments() {
    let registry = Registry::start();
    push_image(&registry, "big:1");
    let mut engine = Engine::start();
    let name = format!("{}/big:1", registry.domain());
    engine
        .docker(&[
            "run",
            "--name",
            "box",
            "busybox",
            "sh",
            "-c",
            "head -c 2000000 /dev/urandom >/new",
        ])
        .ok();
    let archive = engine.dir().join("image.tar").display().to_string();
    engine.docker(&["pull", "-q", &name]).ok();
    engine.docker(&["save", "-o", &archive, &name]).ok();
    let operations: [&[&str]; 6] = [
        &["pull", &name],
        &["load", "-i", &archive],
        &["commit", "box", "new:1"],
        &["rmi", "-f", &name],
        &["image", "prune", "-a", "-f"],
        &["create", &name],
    ];
    let mut seed = u64::from(std::process::id()) | 1;
    eprintln!("seed {seed}");
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let end = Instant::now() + Duration::from_secs(600);
    let mut kills = 0;
    while Instant::now() < end {
        let args = operations[random(operations.len() as u64) as usize];
        let mut client = begin(&engine, args);
        std::thread::sleep(Duration::from_micros(random(400_000)));
        engine.kill9();
        let done = client.wait().unwrap().success();
        engine.boot();
        kills += 1;
        in_order(&engine, &format!("{args:?}, kill {kills}"));
        match args[0] {
            "pull" | "load" if done => runs(&engine, &name),
            "rmi" if done => assert!(!has(&engine, &name)),
            "commit" if done => assert!(has(&engine, "new:1")),
            _ => {}
        }
    }
    eprintln!("{kills} kills");
    assert_eq!(fsck(&engine, &[])["Clean"], true);
    engine.finish();
}
