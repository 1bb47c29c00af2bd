//! An isolated driver does not outlive its engine, whatever either of them is doing.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::Engine;
use gantry_driver_api::{Call, ErrorCode};
use gantry_driver_registry::Isolation;
use serde_json::json;

/// Set in the process that plays the engine.
const ROLE: &str = "GANTRY_TEST_ENGINE";

/// Processes that are children of this one.
fn children() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Whether the process ends soon.
fn ends(pid: &str) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    let proc = format!("/proc/{pid}/stat");
    while Instant::now() < end {
        // One that nobody reaps yet has ended, too.
        match std::fs::read_to_string(&proc) {
            Ok(stat) if !stat.contains(") Z ") => std::thread::sleep(Duration::from_millis(2)),
            _ => return true,
        }
    }
    false
}

/// Loads a driver that hangs, lets it hang, and tells its process ID.
fn hang() -> (Engine, String) {
    let options = json!({"fail": {"info": {"with": "hang"}}});
    let engine = Engine::load_network(Isolation::Process, &options);
    let driver = engine.registry.network("mock").unwrap();
    let call = Call::new("test").with_timeout(Duration::from_millis(20));
    let error = driver.info(&call, ()).unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    let [pid] = <[String; 1]>::try_from(children()).unwrap();
    (engine, pid)
}

#[test]
fn it_ends_with_the_registry() {
    let (engine, pid) = hang();
    engine.registry.shutdown(Duration::from_millis(50));
    assert!(ends(&pid));
}

#[test]
fn it_ends_when_the_engine_is_killed() {
    if std::env::var_os(ROLE).is_some() {
        let (engine, pid) = hang();
        println!("driver {pid} home {}", engine.home.path().display());
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let mut engine = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "it_ends_when_the_engine_is_killed",
            "--nocapture",
        ])
        .env(ROLE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(engine.stdout.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find_map(|line| {
        let (_, rest) = line.split_once("driver ")?;
        let (pid, home) = rest.split_once(" home ")?;
        Some((pid.to_owned(), home.to_owned()))
    });
    engine.kill().unwrap();
    engine.wait().unwrap();
    let (pid, home) = line.unwrap();
    std::fs::remove_dir_all(Path::new(&home)).unwrap();
    assert!(ends(&pid));
}
