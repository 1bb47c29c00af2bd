//! A network driver that makes no links.

use std::collections::{HashMap, HashSet};

use gantry_plugin_sdk::network::{
    EndpointRef, EndpointSpec, FirewallIntent, JoinPlan, NetworkInfo, NetworkPlan, NetworkRef,
    NetworkSpec, Scope, SetExternal,
};
use gantry_plugin_sdk::{
    Call, Driver, DriverConfig, DriverError, DriverResult, Health, Log, Network, Reconcile,
};
use parking_lot::Mutex;

use crate::Script;

/// The driver. Networks and endpoints are in memory.
pub struct MockNetwork {
    script: Script,
    log: Log,
    networks: Mutex<HashSet<String>>,
    endpoints: Mutex<HashMap<String, String>>,
}

impl MockNetwork {
    /// See [`Script`].
    ///
    /// # Errors
    /// What the script says.
    pub fn new(config: DriverConfig, log: Log) -> DriverResult<Self> {
        Ok(Self {
            script: Script::parse(&config.options)?,
            log,
            networks: Mutex::default(),
            endpoints: Mutex::default(),
        })
    }

    fn exists(&self, network: &str) -> DriverResult<()> {
        if self.networks.lock().contains(network) {
            return Ok(());
        }
        Err(DriverError::not_found(format!(
            "network {network} not found"
        )))
    }
}

impl Driver for MockNetwork {
    fn health(&self, _: &Call<'_>) -> DriverResult<Health> {
        self.script.gate("health")?;
        self.log.info("health was asked for");
        Ok(Health {
            healthy: true,
            message: String::new(),
            status: Vec::new(),
        })
    }

    fn reconcile(&self, _: &Call<'_>, request: Reconcile) -> DriverResult<()> {
        self.script.gate("reconcile")?;
        self.networks.lock().retain(|id| request.live.contains(id));
        self.endpoints
            .lock()
            .retain(|id, _| request.endpoints.contains(id));
        Ok(())
    }
}

impl Network for MockNetwork {
    fn info(&self, _: &Call<'_>, (): ()) -> DriverResult<NetworkInfo> {
        self.script.gate("info")?;
        Ok(NetworkInfo {
            scope: Scope::Local,
            own_namespace: true,
            addressed: false,
            singleton: false,
        })
    }

    fn validate(&self, _: &Call<'_>, _: NetworkSpec) -> DriverResult<()> {
        self.script.gate("validate")
    }

    fn create_network(&self, _: &Call<'_>, request: NetworkSpec) -> DriverResult<NetworkPlan> {
        self.script.gate("create_network")?;
        self.networks.lock().insert(request.id);
        Ok(NetworkPlan::default())
    }

    fn delete_network(&self, _: &Call<'_>, request: NetworkRef) -> DriverResult<()> {
        self.script.gate("delete_network")?;
        self.networks.lock().remove(&request.id);
        Ok(())
    }

    fn create_endpoint(&self, _: &Call<'_>, request: EndpointSpec) -> DriverResult<()> {
        self.script.gate("create_endpoint")?;
        self.exists(&request.network)?;
        self.endpoints.lock().insert(request.id, request.network);
        Ok(())
    }

    fn delete_endpoint(&self, _: &Call<'_>, request: EndpointRef) -> DriverResult<()> {
        self.script.gate("delete_endpoint")?;
        self.endpoints.lock().remove(&request.id);
        Ok(())
    }

    fn join(&self, call: &Call<'_>, request: EndpointSpec) -> DriverResult<JoinPlan> {
        self.script.gate("join")?;
        self.exists(&request.network)?;
        if call.fds.len() != 1 {
            return Err(DriverError::invalid(
                "join needs the namespace's descriptor",
            ));
        }
        Ok(JoinPlan::default())
    }

    fn leave(&self, _: &Call<'_>, _: EndpointRef) -> DriverResult<()> {
        self.script.gate("leave")
    }

    fn set_external(&self, _: &Call<'_>, _: SetExternal) -> DriverResult<Vec<FirewallIntent>> {
        self.script.gate("set_external")?;
        Ok(Vec::new())
    }
}
