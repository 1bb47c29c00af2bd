//! What a plugin may do to the engine: nothing but fail its own calls.

mod common;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{BOTH, Engine, call};
use gantry_driver_api::{Call, ErrorCode, Kind};
use gantry_driver_registry::{DriverState, Isolation};
use serde_json::{Value, json};

fn failing(method: &str, failure: Value) -> Value {
    json!({"fail": {method: failure}})
}

/// Waits until the driver serves again in a generation after `generation`.
fn comes_back(engine: &Engine, generation: u64) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        let status = engine.status(Kind::Network, "mock");
        if status.state == DriverState::Ready && status.generation > generation {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

#[test]
fn one_file_serves_in_process_and_isolated() {
    for isolation in BOTH {
        let engine = Engine::load_network(isolation, &json!({}));
        let driver = engine.registry.network("mock").unwrap();
        assert!(driver.health(&call()).unwrap().healthy);
        let status = engine.status(Kind::Network, "mock");
        assert_eq!(
            (status.isolation, status.state),
            (isolation, DriverState::Ready)
        );
        assert_eq!(status.generation, 1);
    }
}

#[test]
fn an_error_keeps_its_class_and_words() {
    for isolation in BOTH {
        let failure = json!({"with": "error", "code": "resource_exhausted", "message": "no more"});
        let engine = Engine::load_network(isolation, &failing("info", failure));
        let driver = engine.registry.network("mock").unwrap();
        let error = driver.info(&call(), ()).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (ErrorCode::ResourceExhausted, "no more")
        );
        driver.health(&call()).unwrap();
    }
}

#[test]
fn a_panic_in_process_faults_the_driver() {
    let engine = Engine::load_network(Isolation::None, &failing("info", json!({"with": "panic"})));
    let driver = engine.registry.network("mock").unwrap();
    for timeout in [None, Some(Duration::from_secs(30))] {
        let call = Call {
            timeout,
            ..Call::new("test")
        };
        let error = driver.info(&call, ()).unwrap_err();
        assert_eq!(error.code, ErrorCode::Panicked);
        assert!(
            error.message.starts_with("driver network/mock: "),
            "{}",
            error.message
        );
        assert!(
            error.message.contains("info was told to panic"),
            "{}",
            error.message
        );
        assert!(!error.message.contains('\n'));
    }
    assert_eq!(
        driver.health(&call()).unwrap_err().code,
        ErrorCode::Panicked
    );
    let status = engine.status(Kind::Network, "mock");
    assert_eq!(status.state, DriverState::Faulted);
    assert!(status.reason.contains("told to panic"), "{}", status.reason);
    // A reload brings the next generation, behind the very same handle.
    engine.load(&json!({"network": {"mock": {"isolation": "none"}}}));
    driver.info(&call(), ()).unwrap();
    assert_eq!(engine.status(Kind::Network, "mock").generation, 2);
}

#[test]
fn an_isolated_driver_comes_back_after_whatever_kills_it() {
    for (failure, words) in [
        (json!({"with": "panic"}), "told to panic"),
        (json!({"with": "segfault"}), "killed by signal 11"),
        (json!({"with": "exit", "status": 3}), "exited with status 3"),
    ] {
        let engine = Engine::load_network(Isolation::Process, &failing("info", failure));
        let driver = engine.registry.network("mock").unwrap();
        let error = driver.info(&call(), ()).unwrap_err();
        assert_eq!(error.code, ErrorCode::Panicked);
        assert!(error.message.contains(words), "{}", error.message);
        assert!(comes_back(&engine, 1));
        driver.health(&call()).unwrap();
        assert_eq!(engine.status(Kind::Network, "mock").generation, 2);
    }
}

#[test]
fn a_death_fails_every_call_in_flight() {
    let options = json!({"fail": {"info": {"with": "hang"}, "join": {"with": "segfault"}}});
    let engine = Engine::load_network(Isolation::Process, &options);
    let driver = engine.registry.network("mock").unwrap();
    std::thread::scope(|scope| {
        let hanging: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| driver.info(&call(), ())))
            .collect();
        // Calls beside those that hang are served.
        for _ in 0..100 {
            driver.health(&call()).unwrap();
        }
        let endpoint = serde_json::from_value(json!({"network": "n", "id": "e"})).unwrap();
        assert_eq!(
            driver.join(&call(), endpoint).unwrap_err().code,
            ErrorCode::Panicked
        );
        for call in hanging {
            assert_eq!(call.join().unwrap().unwrap_err().code, ErrorCode::Panicked);
        }
    });
    driver.health(&call()).unwrap();
}

#[test]
fn a_call_that_hangs_ends_at_its_deadline() {
    for isolation in BOTH {
        let engine = Engine::load_network(isolation, &failing("info", json!({"with": "hang"})));
        let driver = engine.registry.network("mock").unwrap();
        let short = Call::new("test").with_timeout(Duration::from_millis(30));
        for _ in 0..3 {
            let error = driver.info(&short, ()).unwrap_err();
            assert_eq!(error.code, ErrorCode::DeadlineExceeded);
            assert_eq!(error.message, "driver network/mock: no answer within 30ms");
            driver.health(&call()).unwrap();
        }
        assert_eq!(
            engine.status(Kind::Network, "mock").state,
            DriverState::Ready
        );
    }
}

#[test]
fn a_process_full_of_hanging_calls_is_replaced() {
    let engine = Engine::load_network(
        Isolation::Process,
        &failing("info", json!({"with": "hang"})),
    );
    let driver = engine.registry.network("mock").unwrap();
    let short = Call::new("test").with_timeout(Duration::from_millis(5));
    for _ in 0..8 {
        assert_eq!(
            driver.info(&short, ()).unwrap_err().code,
            ErrorCode::DeadlineExceeded
        );
    }
    assert!(comes_back(&engine, 1));
    driver.health(&call()).unwrap();
}

#[test]
fn a_late_reply_is_not_taken_for_another() {
    let options = failing("info", json!({"with": "slow", "millis": 500}));
    for isolation in BOTH {
        let engine = Engine::load_network(isolation, &options);
        let driver = engine.registry.network("mock").unwrap();
        let short = Call::new("test").with_timeout(Duration::from_millis(5));
        assert_eq!(
            driver.info(&short, ()).unwrap_err().code,
            ErrorCode::DeadlineExceeded
        );
        let after = Instant::now() + Duration::from_secs(1);
        while Instant::now() < after {
            assert!(driver.health(&call()).unwrap().healthy);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn calls_at_once_get_their_own_replies() {
    let engine = Engine::load_network(Isolation::Process, &json!({}));
    let driver = engine.registry.network("mock").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let driver = &driver;
            scope.spawn(move || {
                for round in 0..100 {
                    if (thread + round) % 2 == 0 {
                        assert!(driver.health(&call()).unwrap().healthy);
                    } else {
                        assert!(driver.info(&call(), ()).unwrap().own_namespace);
                    }
                }
            });
        }
    });
}

#[test]
fn large_messages_pass_both_ways() {
    for isolation in BOTH {
        let engine = Engine::new();
        engine.install("mock_registry", "libgantry_registry_mock.so");
        let document = "x".repeat(1_000_000);
        let options = json!({"manifests": {"a@latest": document}});
        engine.load(
            &json!({"registry": {"mock": {"isolation": isolation.as_str(), "options": options}}}),
        );
        let driver = engine.registry.registry("mock").unwrap();
        let request = json!({
            "at": {"endpoint": {"domain": "d", "url": "u", "ca_files": vec!["y".repeat(10); 20_000]}, "repository": "a"},
            "reference": "latest",
        });
        let request = serde_json::from_value(request).unwrap();
        let reply = driver.fetch_manifest(&call(), request).unwrap();
        assert_eq!(reply.bytes, document.as_bytes());
    }
}

#[test]
fn a_replacement_is_swapped_in_while_old_calls_end() {
    for isolation in BOTH {
        let options = failing("info", json!({"with": "slow", "millis": 500}));
        let engine = Engine::load_network(isolation, &options);
        let driver = engine.registry.network("mock").unwrap();
        std::thread::scope(|scope| {
            let (calls, called) = mpsc::channel();
            let driver = &driver;
            let old = scope.spawn(move || {
                calls.send(()).unwrap();
                let begun = Instant::now();
                driver.info(&call(), ()).map(|_| begun.elapsed())
            });
            called.recv().unwrap();
            std::thread::sleep(Duration::from_millis(200));
            engine.load(&json!({"network": {"mock": {"isolation": isolation.as_str()}}}));
            assert_eq!(engine.status(Kind::Network, "mock").generation, 2);
            driver.info(&call(), ()).unwrap();
            let took = old.join().unwrap().unwrap();
            assert!(
                took >= Duration::from_millis(500),
                "the old one's: {took:?}"
            );
        });
    }
}
