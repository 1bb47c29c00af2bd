//! Plugin files that must not be loaded: one clear reason each, and every other driver is there.

mod common;

use std::fs;
use std::os::unix::fs::chown;

use common::{Engine, call, chmod, mock};
use gantry_driver_api::Kind;
use gantry_driver_registry::{DriverState, Isolation, RegistryError};
use serde_json::json;

const VICTIM: &str = "libgantry_network_mock.so";

/// Loads the directory with a good volume driver beside the victim, and returns the reason why the victim is not there.
fn reason(engine: &Engine) -> String {
    engine.install("mock_volume", "libgantry_volume_mock.so");
    engine.load(&json!({}));
    let volume = engine.registry.volume("mock").unwrap();
    assert!(volume.list(&call(), ()).unwrap().is_empty());
    let status = engine.status(Kind::Network, "mock");
    assert_eq!(
        (status.state, status.generation),
        (DriverState::Unavailable, 0)
    );
    let error = engine.registry.network("mock").err().unwrap();
    assert_eq!(
        error.to_string(),
        format!("driver network/mock is not available: {}", status.reason)
    );
    assert!(
        !status.reason.contains('\n') && status.reason.len() < 600,
        "{}",
        status.reason
    );
    status.reason
}

fn expect(engine: &Engine, words: &str) {
    let reason = reason(engine);
    assert!(reason.contains(words), "{reason}");
}

#[test]
fn not_elf() {
    let engine = Engine::new();
    fs::write(engine.plugin(VICTIM), "#!/bin/sh\n").unwrap();
    expect(&engine, "is not a plugin: no whole ELF file");
}

#[test]
fn truncated() {
    for keep in [1000, 60_000] {
        let engine = Engine::new();
        let bytes = fs::read(mock("mock_network")).unwrap();
        fs::write(engine.plugin(VICTIM), &bytes[..keep]).unwrap();
        expect(&engine, "is not a plugin: ");
    }
}

#[test]
fn another_library() {
    let engine = Engine::new();
    let linker = fs::read_dir("/lib/x86_64-linux-gnu")
        .or_else(|_| fs::read_dir("/lib64"))
        .unwrap();
    let library = linker
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with("libm.so.6"))
        .unwrap();
    fs::copy(library, engine.plugin(VICTIM)).unwrap();
    chmod(&engine.plugin(VICTIM), 0o644);
    expect(&engine, "it has no section .gantry.manifest");
}

#[test]
fn writable_by_others() {
    for mode in [0o666, 0o775] {
        let engine = Engine::new();
        engine.install("mock_network", VICTIM);
        chmod(&engine.plugin(VICTIM), mode);
        expect(
            &engine,
            &format!("is not trusted: others may write to it (mode {mode:04o})"),
        );
    }
}

#[test]
fn somebody_elses() {
    let engine = Engine::new();
    engine.install("mock_network", VICTIM);
    chown(engine.plugin(VICTIM), Some(65533), None).unwrap();
    expect(&engine, "is not trusted: it belongs to user 65533");
}

#[test]
fn in_a_directory_that_others_may_write_to() {
    let engine = Engine::new();
    engine.install("mock_network", VICTIM);
    chmod(&engine.home.path().join("plugins"), 0o777);
    engine.load(&json!({}));
    let reason = engine.status(Kind::Network, "mock").reason;
    assert!(
        reason.contains("plugins is not trusted: others may write to it (mode 0777)"),
        "{reason}"
    );
}

#[test]
fn under_a_wrong_name() {
    let engine = Engine::new();
    engine.install("mock_storage", VICTIM);
    expect(
        &engine,
        "holds driver storage/mock: file name and manifest disagree",
    );
}

#[test]
fn of_another_protocol() {
    let engine = Engine::new();
    engine.install("mock_future", "libgantry_network_future.so");
    engine.load(&json!({}));
    let reason = engine.status(Kind::Network, "future").reason;
    assert_eq!(
        reason,
        "speaks protocol versions 98 to 99, this engine speaks 1 to 1"
    );
}

#[test]
fn with_damaged_segments() {
    // The manifest is still readable; the dynamic linker would not survive it.
    let engine = Engine::new();
    let mut bytes = fs::read(mock("mock_network")).unwrap();
    let headers = u64::from_le_bytes(bytes[32..40].try_into().unwrap()) as usize;
    for header in bytes[headers..].chunks_mut(56).take(4) {
        header[8..16].fill(0x7f);
    }
    fs::write(engine.plugin(VICTIM), bytes).unwrap();
    expect(&engine, "is not a plugin: no whole ELF file");
}

#[test]
fn for_another_machine() {
    let engine = Engine::new();
    let mut bytes = fs::read(mock("mock_network")).unwrap();
    bytes[18..20].copy_from_slice(&243u16.to_le_bytes());
    fs::write(engine.plugin(VICTIM), bytes).unwrap();
    expect(
        &engine,
        "is not a plugin: it is for another machine (Riscv64)",
    );
}

#[test]
fn whose_constructor_fails() {
    for (failure, words) in [
        (
            json!({"with": "error", "code": "failed_precondition", "message": "no disk"}),
            "does not start: no disk",
        ),
        (json!({"with": "panic"}), "new was told to panic"),
    ] {
        for isolation in ["none", "process"] {
            let engine = Engine::new();
            engine.install("mock_network", VICTIM);
            let options = json!({"fail": {"new": failure}});
            engine
                .load(&json!({"network": {"mock": {"isolation": isolation, "options": options}}}));
            let reason = engine.status(Kind::Network, "mock").reason;
            assert!(reason.contains(words), "{isolation}: {reason}");
        }
    }
}

#[test]
fn whose_process_dies_at_once() {
    let engine = Engine::new();
    engine.install("mock_network", VICTIM);
    let options = json!({"fail": {"new": {"with": "segfault"}}});
    engine.load(&json!({"network": {"mock": {"isolation": "process", "options": options}}}));
    let reason = engine.status(Kind::Network, "mock").reason;
    assert!(
        reason.contains("its process does not start: its process was killed by signal 11"),
        "{reason}"
    );
}

#[test]
fn missing() {
    let engine = Engine::new();
    engine.load(&json!({"storage": "nowhere", "volume": {"default": "mock", "mock": {}}}));
    let error = engine.registry.storage("nowhere").err().unwrap();
    let dir = engine.home.path().join("plugins");
    assert_eq!(
        error.to_string(),
        format!(
            "driver storage/nowhere is not available: there is no libgantry_storage_nowhere.so in {}",
            dir.display()
        )
    );
    assert!(engine.status(Kind::Storage, "nowhere").default);
    // Drivers that came with the engine are missed without anybody speaking of them.
    let status = engine.status(Kind::Network, "bridge");
    assert_eq!(status.state, DriverState::Unavailable);
    assert!(
        status
            .reason
            .starts_with("there is no libgantry_network_bridge.so in ")
    );
    let error = engine.registry.network("weave").err().unwrap();
    assert!(matches!(error, RegistryError::Unknown { .. }));
    assert_eq!(
        error.to_string(),
        "driver network/weave is not available: no such plugin is installed"
    );
}

#[test]
fn somebody_elses_driver_is_isolated_unless_told_otherwise() {
    let engine = Engine::new();
    engine.install("mock_network", VICTIM);
    engine.load(&json!({}));
    let status = engine.status(Kind::Network, "mock");
    assert_eq!(status.isolation, Isolation::Process);
    engine.load(&json!({"network": {"mock": {"isolation": "none"}}}));
    let status = engine.status(Kind::Network, "mock");
    assert_eq!((status.isolation, status.generation), (Isolation::None, 2));
}

#[test]
fn a_bad_replacement_leaves_the_old_driver_in_service() {
    let engine = Engine::new();
    engine.install("mock_network", VICTIM);
    engine.load(&json!({}));
    let driver = engine.registry.network("mock").unwrap();
    fs::write(engine.plugin(VICTIM), "garbage").unwrap();
    engine.load(&json!({}));
    driver.health(&call()).unwrap();
    assert_eq!(
        engine.status(Kind::Network, "mock").state,
        DriverState::Ready
    );
}
