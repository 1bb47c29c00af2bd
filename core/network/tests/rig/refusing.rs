//! The bridge driver, which refuses what it is told to refuse.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use gantry_network_bridge::BridgeNetwork;
use gantry_plugin_sdk::network::{
    EndpointRef, EndpointSpec, FirewallIntent, JoinPlan, NetworkInfo, NetworkPlan, NetworkRef,
    NetworkSpec, SetExternal,
};
use gantry_plugin_sdk::{Call, Driver, DriverError, DriverResult, ErrorCode, Network, Reconcile};

/// The methods that are refused.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refused(Arc<Mutex<HashSet<&'static str>>>);

impl Refused {
    pub(crate) fn add(&self, method: &'static str) {
        self.0.lock().unwrap().insert(method);
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    fn gate(&self, method: &'static str) -> DriverResult<()> {
        match self.0.lock().unwrap().contains(method) {
            true => Err(DriverError::new(
                ErrorCode::Unavailable,
                format!("{method} is refused"),
            )),
            false => Ok(()),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Refusing {
    pub(crate) driver: BridgeNetwork,
    pub(crate) refused: Refused,
}

impl Driver for Refusing {
    fn reconcile(&self, call: &Call<'_>, live: Reconcile) -> DriverResult<()> {
        self.driver.reconcile(call, live)
    }
}

impl Network for Refusing {
    fn info(&self, call: &Call<'_>, (): ()) -> DriverResult<NetworkInfo> {
        self.driver.info(call, ())
    }

    fn validate(&self, call: &Call<'_>, spec: NetworkSpec) -> DriverResult<()> {
        self.driver.validate(call, spec)
    }

    fn create_network(&self, call: &Call<'_>, spec: NetworkSpec) -> DriverResult<NetworkPlan> {
        self.driver.create_network(call, spec)
    }

    fn delete_network(&self, call: &Call<'_>, network: NetworkRef) -> DriverResult<()> {
        self.driver.delete_network(call, network)
    }

    fn create_endpoint(&self, call: &Call<'_>, spec: EndpointSpec) -> DriverResult<()> {
        self.driver.create_endpoint(call, spec)
    }

    fn delete_endpoint(&self, call: &Call<'_>, endpoint: EndpointRef) -> DriverResult<()> {
        self.driver.delete_endpoint(call, endpoint)
    }

    fn join(&self, call: &Call<'_>, spec: EndpointSpec) -> DriverResult<JoinPlan> {
        self.refused.gate("join")?;
        self.driver.join(call, spec)
    }

    fn leave(&self, call: &Call<'_>, endpoint: EndpointRef) -> DriverResult<()> {
        self.driver.leave(call, endpoint)
    }

    fn set_external(
        &self,
        call: &Call<'_>,
        request: SetExternal,
    ) -> DriverResult<Vec<FirewallIntent>> {
        self.refused.gate("set_external")?;
        self.driver.set_external(call, request)
    }
}
