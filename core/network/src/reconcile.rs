//! What drivers are told to have here, at the start and when another generation takes a driver's place.

use std::sync::Arc;

use gantry_driver_api::{Call, Kind, Reconcile};

use crate::inner::{Inner, Network};

impl Inner {
    /// Tells every network driver what lives; it removes the rest.
    pub(crate) fn reconcile_drivers(&self, endpoints: &[String]) {
        for status in self.registry.list() {
            if status.kind != Kind::Network {
                continue;
            }
            let request = Reconcile {
                live: self.networks_of(&status.name),
                endpoints: endpoints.to_vec(),
            };
            let told = self
                .driver(&status.name)
                .and_then(|driver| Ok(driver.reconcile(&Call::new("reconcile"), request)?));
            if let Err(error) = told {
                tracing::warn!(driver = status.name, %error, "reconciling");
            }
        }
    }

    /// The IDs of a driver's networks.
    fn networks_of(&self, driver: &str) -> Vec<String> {
        let networks = self.networks.read();
        let records = networks.values().map(|network| &network.record);
        let of_driver =
            records.filter(|r| r.driver == driver || (r.driver == "null" && driver == "none"));
        of_driver.map(|record| record.id.to_string()).collect()
    }

    /// Calls back with what a driver has; no network and no attachment of this host's is made or removed meanwhile. An
    /// attachment that is under way is among them.
    pub(crate) fn with_objects(&self, driver: &str, then: impl FnOnce(Reconcile)) {
        let _changing = self.changing.lock();
        let networks: Vec<Arc<Network>> = self.networks.read().values().cloned().collect();
        let holders: Vec<_> = networks.iter().map(|n| n.holders.lock()).collect();
        let endpoints = holders.iter().flat_map(|held| held.iter().flatten());
        then(Reconcile {
            live: self.networks_of(driver),
            endpoints: endpoints.map(ToString::to_string).collect(),
        });
    }
}
