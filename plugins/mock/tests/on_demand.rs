//! Drivers of the engine's own are loaded when they are first called, if nothing speaks against it.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Engine, call};
use gantry_driver_api::{Kind, Reconcile};
use gantry_driver_registry::DriverState::{Faulted, Idle, Ready};
use gantry_plugin_conformance::driver_host;
use serde_json::json;

const FILE: &str = "libgantry_network_none.so";

/// The built driver `network/none`.
fn shipped() -> PathBuf {
    let beside = driver_host().expect("gantry-driver-host is built");
    beside.with_file_name(FILE)
}

fn engine() -> Engine {
    let engine = Engine::new();
    fs::copy(shipped(), engine.plugin(FILE)).expect("the drivers are built");
    engine
}

impl Engine {
    fn state(&self) -> (gantry_driver_registry::DriverState, u64) {
        let status = self.status(Kind::Network, "none");
        (status.state, status.generation)
    }

    fn copies(&self) -> usize {
        fs::read_dir(self.home.path().join("exec/plugins")).map_or(0, Iterator::count)
    }
}

#[test]
fn the_first_call_loads_it() {
    let engine = engine();
    engine.load(&json!({}));
    let driver = engine.registry.network("none").unwrap();
    driver.reconcile(&call(), Reconcile::default()).unwrap();
    engine.load(&json!({}));
    assert_eq!((engine.state(), engine.copies()), ((Idle, 1), 0));
    driver.info(&call(), ()).unwrap();
    assert_eq!((engine.state(), engine.copies()), ((Ready, 1), 1));
    engine.load(&json!({}));
    assert_eq!((engine.state(), engine.copies()), ((Ready, 1), 1));
}

#[test]
fn objects_of_its_load_it() {
    let engine = engine();
    engine.load(&json!({}));
    let driver = engine.registry.network("none").unwrap();
    let live = vec!["0".repeat(64)];
    let request = Reconcile {
        live,
        ..Reconcile::default()
    };
    driver.reconcile(&call(), request).unwrap();
    assert_eq!(engine.state(), (Ready, 1));
}

#[test]
fn data_and_settings_load_it_at_once() {
    let engine = engine();
    let data = engine.home.path().join("data/network/none");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("something"), "").unwrap();
    engine.load(&json!({}));
    assert_eq!(engine.state(), (Ready, 1));

    let engine = self::engine();
    engine.load(&json!({"network": {"none": {"isolation": "none"}}}));
    assert_eq!(engine.state(), (Ready, 1));
    let engine = self::engine();
    engine.load(&json!({"network": "none"}));
    assert_eq!(engine.state(), (Ready, 1));
}

#[test]
fn settings_that_come_later_load_it() {
    let engine = engine();
    engine.load(&json!({}));
    assert_eq!(engine.state(), (Idle, 1));
    engine.load(&json!({"network": {"none": {"isolation": "none"}}}));
    assert_eq!(engine.state(), (Ready, 2));
}

#[test]
fn what_is_wrong_with_it_is_told_at_the_first_call_and_tried_again() {
    let engine = engine();
    engine.load(&json!({}));
    let driver = engine.registry.network("none").unwrap();
    fs::write(engine.plugin(FILE), "garbage").unwrap();
    let error = driver.info(&call(), ()).unwrap_err().to_string();
    let words = "driver network/none is not available: ";
    assert!(
        error.starts_with(words) && error.contains("no whole ELF file"),
        "{error}"
    );
    let status = engine.status(Kind::Network, "none");
    assert_eq!(status.state, Faulted);
    assert!(
        error.ends_with(&status.reason),
        "{error}: {}",
        status.reason
    );

    fs::copy(shipped(), engine.plugin(FILE)).unwrap();
    driver.info(&call(), ()).unwrap();
    assert_eq!(engine.state(), (Ready, 1));
}

#[test]
fn a_reload_takes_what_has_been_mended() {
    let engine = engine();
    engine.load(&json!({}));
    let driver = engine.registry.network("none").unwrap();
    fs::write(engine.plugin(FILE), "garbage").unwrap();
    driver.info(&call(), ()).unwrap_err();
    fs::copy(shipped(), engine.plugin(FILE)).unwrap();
    engine.load(&json!({}));
    assert_eq!(engine.state(), (Ready, 2));
    driver.info(&call(), ()).unwrap();
}

#[test]
fn what_takes_its_files_place_does_not_matter() {
    let engine = engine();
    engine.load(&json!({}));
    fs::remove_file(engine.plugin(FILE)).unwrap();
    fs::write(engine.plugin(FILE), "garbage").unwrap();
    let driver = engine.registry.network("none").unwrap();
    driver.info(&call(), ()).unwrap();
    assert_eq!(engine.state(), (Ready, 1));
}

#[test]
fn many_first_calls_load_it_once() {
    let engine = engine();
    engine.load(&json!({}));
    let driver = engine.registry.network("none").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| driver.info(&call(), ()).unwrap());
        }
    });
    assert_eq!((engine.state(), engine.copies()), ((Ready, 1), 1));
}
