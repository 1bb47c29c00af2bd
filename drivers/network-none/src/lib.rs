//! No network but loopback.
//!
//! The sandbox keeps a namespace of its own, in which core brings loopback up; there is nothing to make and nothing
//! to publish. It holds no state.

use gantry_plugin_sdk::network::{
    EndpointRef, EndpointSpec, FirewallIntent, JoinPlan, NetworkInfo, NetworkPlan, NetworkRef,
    NetworkSpec, Scope, SetExternal,
};
use gantry_plugin_sdk::{Call, Driver, DriverConfig, DriverResult, Log, Network};

/// The driver.
#[derive(Debug)]
pub struct NoNetwork;

impl NoNetwork {
    /// Takes no options.
    ///
    /// # Errors
    /// Never.
    pub fn new(_config: DriverConfig, _log: Log) -> DriverResult<Self> {
        Ok(Self)
    }
}

impl Driver for NoNetwork {}

impl Network for NoNetwork {
    fn info(&self, _: &Call<'_>, (): ()) -> DriverResult<NetworkInfo> {
        Ok(NetworkInfo {
            scope: Scope::Local,
            own_namespace: true,
            addressed: false,
            singleton: true,
        })
    }

    fn validate(&self, _: &Call<'_>, _: NetworkSpec) -> DriverResult<()> {
        Ok(())
    }

    fn create_network(&self, _: &Call<'_>, _: NetworkSpec) -> DriverResult<NetworkPlan> {
        Ok(NetworkPlan::default())
    }

    fn delete_network(&self, _: &Call<'_>, _: NetworkRef) -> DriverResult<()> {
        Ok(())
    }

    fn create_endpoint(&self, _: &Call<'_>, _: EndpointSpec) -> DriverResult<()> {
        Ok(())
    }

    fn delete_endpoint(&self, _: &Call<'_>, _: EndpointRef) -> DriverResult<()> {
        Ok(())
    }

    fn join(&self, _: &Call<'_>, _: EndpointSpec) -> DriverResult<JoinPlan> {
        Ok(JoinPlan::default())
    }

    fn leave(&self, _: &Call<'_>, _: EndpointRef) -> DriverResult<()> {
        Ok(())
    }

    fn set_external(&self, _: &Call<'_>, _: SetExternal) -> DriverResult<Vec<FirewallIntent>> {
        Ok(Vec::new())
    }
}

gantry_plugin_sdk::plugin! { kind: network, driver: NoNetwork, name: "none" }
