use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use gantry_driver_api::{
    Call, Driver, DriverError, DriverResult, ErrorCode, Health, Invoke, Kind, Reconcile, encode,
};
use parking_lot::Mutex;

use crate::{Backend, DriverRegistry, DriverState, Isolation, Origin, RegistryError};

/// A backend that answers `health` with its name, and notes what it is asked.
struct Named {
    name: &'static str,
    asked: Mutex<Vec<String>>,
    restarts: AtomicU32,
    unlimited: bool,
    /// The last call's deadline.
    limit: Mutex<Option<Duration>>,
    /// `health` waits for it, when there is one.
    gate: Mutex<Option<mpsc::Receiver<()>>>,
}

impl Named {
    fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name,
            asked: Mutex::default(),
            restarts: AtomicU32::new(0),
            unlimited: false,
            limit: Mutex::default(),
            gate: Mutex::new(None),
        })
    }
}

impl Invoke for Named {
    fn invoke(
        &self,
        method: &str,
        call: &Call<'_>,
        _: &[u8],
        reply: &mut Vec<u8>,
    ) -> DriverResult<()> {
        *self.limit.lock() = call.timeout;
        let gate = self.gate.lock().take();
        if let Some(gate) = gate {
            let _ = gate.recv();
        }
        self.asked.lock().push(method.to_owned());
        match method {
            "health" => encode(
                &Health {
                    healthy: true,
                    message: self.name.to_owned(),
                    status: Vec::new(),
                },
                reply,
            ),
            "reconcile" => Err(DriverError::new(ErrorCode::Panicked, "it fell over")),
            _ => encode(&(), reply),
        }
    }
}

impl Backend for Named {
    fn unlimited(&self) -> bool {
        self.unlimited
    }

    fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed).into()
    }
}

fn origin() -> Origin {
    Origin {
        version: "1".to_owned(),
        source: None,
        isolation: Isolation::None,
        capabilities: Vec::new(),
    }
}

fn says(driver: &Arc<dyn Driver>) -> String {
    driver.health(&Call::new("test")).unwrap().message
}

#[test]
fn aliases_and_defaults() {
    let registry = DriverRegistry::new();
    assert!(
        registry
            .register(Kind::Storage, "overlayfs", origin(), Named::new("a"))
            .is_none()
    );
    registry.storage("overlay2").unwrap();
    assert_eq!(registry.default_name(Kind::Storage), "overlayfs");
    registry.set_default(Kind::Storage, "overlay2");
    assert!(registry.status(Kind::Storage, "overlay2").unwrap().default);
    registry.set_default(Kind::Network, "none");
    assert_eq!(registry.default_name(Kind::Network), "none");
    // An alias belongs to its kind.
    assert!(matches!(
        registry.volume("overlay2"),
        Err(RegistryError::Unknown { .. })
    ));
}

#[test]
fn a_held_handle_follows_the_swap_and_the_old_one_is_shut_down() {
    let registry = DriverRegistry::new();
    let (old, new) = (Named::new("old"), Named::new("new"));
    old.restarts.store(2, Ordering::Relaxed);
    registry.register(Kind::Volume, "x", origin(), old.clone());
    let handle = registry.driver(Kind::Volume, "x").unwrap();
    assert_eq!(says(&handle), "old");
    assert_eq!(registry.status(Kind::Volume, "x").unwrap().generation, 3);
    let retired = registry.register(Kind::Volume, "x", origin(), new).unwrap();
    assert_eq!(says(&handle), "new");
    assert_eq!(registry.status(Kind::Volume, "x").unwrap().generation, 4);
    assert!(retired.finish(Duration::from_secs(5)));
    assert_eq!(*old.asked.lock(), ["health", "drain", "shutdown"]);
}

#[test]
fn a_swap_waits_for_the_calls_under_way() {
    let registry = DriverRegistry::new();
    let old = Named::new("old");
    let (open, gate) = mpsc::channel();
    *old.gate.lock() = Some(gate);
    registry.register(Kind::Volume, "x", origin(), old.clone());
    let handle = registry.driver(Kind::Volume, "x").unwrap();
    let under_way = std::thread::spawn(move || says(&handle));
    while old.gate.lock().is_some() {
        std::thread::yield_now();
    }
    let retired = registry
        .register(Kind::Volume, "x", origin(), Named::new("new"))
        .unwrap();
    let finishing = std::thread::spawn(move || retired.finish(Duration::from_secs(60)));
    assert!(old.asked.lock().is_empty());
    open.send(()).unwrap();
    assert_eq!(under_way.join().unwrap(), "old");
    assert!(finishing.join().unwrap());
    assert_eq!(*old.asked.lock(), ["health", "drain", "shutdown"]);
}

#[test]
fn a_call_without_a_deadline_gets_one() {
    let registry = DriverRegistry::new();
    let backend = Named::new("a");
    registry.register(Kind::Network, "x", origin(), backend.clone());
    let driver = registry.driver(Kind::Network, "x").unwrap();
    let second = Duration::from_secs(1);
    for (given, got) in [
        (None, Some(60 * second)),
        (Some(second), Some(second)),
        (Some(Duration::MAX), None),
    ] {
        let call = Call {
            timeout: given,
            ..Call::new("test")
        };
        driver.health(&call).unwrap();
        assert_eq!(*backend.limit.lock(), got);
    }
    let mut own = Arc::into_inner(Named::new("b")).unwrap();
    own.unlimited = true;
    let own = Arc::new(own);
    let _old = registry.register(Kind::Network, "x", origin(), own.clone());
    driver.health(&Call::new("test")).unwrap();
    assert_eq!(*own.limit.lock(), None);
}

#[test]
fn faults_name_the_driver() {
    let registry = DriverRegistry::new();
    registry.register(Kind::Volume, "x", origin(), Named::new("a"));
    let driver = registry.driver(Kind::Volume, "x").unwrap();
    let error = driver
        .reconcile(&Call::new("test"), Reconcile::default())
        .unwrap_err();
    assert_eq!(error.message, "driver volume/x: it fell over");
}

#[test]
fn what_is_not_there_is_listed_with_its_reason_and_can_come() {
    let registry = DriverRegistry::new();
    registry.unavailable(Kind::Volume, "x", origin(), "it is broken".to_owned());
    let status = registry.status(Kind::Volume, "x").unwrap();
    assert_eq!(
        (status.state, status.generation),
        (DriverState::Unavailable, 0)
    );
    let error = registry.volume("x").err().unwrap();
    assert_eq!(
        error.to_string(),
        "driver volume/x is not available: it is broken"
    );
    assert_eq!(DriverError::from(error).code, ErrorCode::Unavailable);
    let error = registry.volume("y").err().unwrap();
    assert_eq!(DriverError::from(error).code, ErrorCode::NotFound);
    registry.register(Kind::Volume, "x", origin(), Named::new("a"));
    registry.unavailable(
        Kind::Volume,
        "x",
        origin(),
        "the new one is worse".to_owned(),
    );
    assert_eq!(
        registry.status(Kind::Volume, "x").unwrap().state,
        DriverState::Ready
    );
    assert_eq!(registry.list().len(), 1);
}

#[test]
fn registries_by_the_longest_route() {
    let registry = DriverRegistry::new();
    let routes = [("a.b", "x"), ("a.b/team", "y"), ("c.d/team/app", "z")];
    registry.set_routes(
        routes
            .map(|(host, driver)| (host.into(), driver.into()))
            .into(),
    );
    for (domain, repository, driver) in [
        ("a.b", "app", "x"),
        ("a.b", "", "x"),
        ("a.b", "team/app", "y"),
        ("a.b", "team", "y"),
        ("a.b", "teams/app", "x"),
        ("a.b.c", "team", "hub"),
        ("c.d", "team", "hub"),
        ("c.d", "team/app/more", "z"),
        ("docker.io", "library/busybox", "hub"),
    ] {
        assert_eq!(
            registry.registry_of(domain, repository),
            driver,
            "{domain}/{repository}"
        );
    }
}
