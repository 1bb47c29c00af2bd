//! Every shipped driver keeps its contract, in process and isolated. Needs root and a built workspace.

use gantry_driver_registry::Isolation;
use gantry_plugin_conformance::{Run, driver_host, run, shipped};

fn verify(driver: &str, isolation: Isolation) {
    let plan = Run {
        plugin: shipped(driver).expect("the plugin is built"),
        isolation,
        options: serde_json::json!({}),
        driver_host: driver_host().expect("gantry-driver-host is built"),
        fixture: None,
    };
    let report = run(&plan).unwrap();
    assert_eq!(report.failed().count(), 0, "\n{report}");
    assert!(report.checks.len() >= 5, "\n{report}");
}

macro_rules! verified {
    ($($driver:ident)*) => { $(
        mod $driver {
            use super::*;

            #[test]
            fn in_process() {
                verify(stringify!($driver), Isolation::None);
            }

            #[test]
            fn isolated() {
                verify(stringify!($driver), Isolation::Process);
            }
        }
    )* };
}

verified! { storage_overlayfs storage_native network_bridge network_host network_none volume_local registry_hub }
