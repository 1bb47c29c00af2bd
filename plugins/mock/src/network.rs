//! A network driver that makes no links. With the options `store` (a file) and `host` (a name), its networks are shared
//! by every engine whose driver has the same file.

use std::collections::{HashMap, HashSet};

use gantry_plugin_sdk::network::{
    EndpointRef, EndpointSpec, FirewallIntent, JoinPlan, Members, NetworkInfo, NetworkPlan,
    NetworkRef, NetworkSpec, Scope, SetExternal, SharedEndpoint, SharedNetwork, SharedNetworks,
    Watch,
};
use gantry_plugin_sdk::{
    Call, Driver, DriverConfig, DriverError, DriverResult, ErrorCode, Health, Log, Network,
    Reconcile, serde_json,
};
use ipnet::IpNet;
use parking_lot::Mutex;

use crate::Script;
use crate::store::Store;

/// The driver. Networks and endpoints are in memory.
pub struct MockNetwork {
    script: Script,
    log: Log,
    store: Option<Store>,
    networks: Mutex<HashSet<String>>,
    endpoints: Mutex<HashMap<String, String>>,
}

impl MockNetwork {
    /// See [`Script`].
    ///
    /// # Errors
    /// What the script says.
    pub fn new(config: DriverConfig, log: Log) -> DriverResult<Self> {
        let store = match config.options.get("store") {
            None => None,
            Some(_) => serde_json::from_value(config.options.clone())
                .map(Some)
                .map_err(|e| DriverError::invalid(format!("options: {e}")))?,
        };
        Ok(Self {
            script: Script::parse(&config.options)?,
            log,
            store,
            networks: Mutex::default(),
            endpoints: Mutex::default(),
        })
    }

    fn store(&self) -> DriverResult<&Store> {
        self.store.as_ref().ok_or_else(|| {
            DriverError::new(ErrorCode::FailedPrecondition, "no store is configured")
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
        match &self.store {
            Some(store) => store.free(|id| !request.endpoints.iter().any(|live| live == id)),
            None => Ok(()),
        }
    }
}

impl Network for MockNetwork {
    fn info(&self, _: &Call<'_>, (): ()) -> DriverResult<NetworkInfo> {
        self.script.gate("info")?;
        Ok(NetworkInfo {
            scope: match self.store {
                Some(_) => Scope::Global,
                None => Scope::Local,
            },
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
        match &self.store {
            Some(store) => store.free(|id| id == request.id),
            None => Ok(()),
        }
    }

    fn join(&self, call: &Call<'_>, request: EndpointSpec) -> DriverResult<JoinPlan> {
        self.script.gate("join")?;
        self.exists(&request.network)?;
        if call.fds.len() != 1 {
            return Err(DriverError::invalid(
                "join needs the namespace's descriptor",
            ));
        }
        Ok(JoinPlan {
            addresses: request.addresses,
            ..JoinPlan::default()
        })
    }

    fn leave(&self, _: &Call<'_>, _: EndpointRef) -> DriverResult<()> {
        self.script.gate("leave")
    }

    fn set_external(&self, _: &Call<'_>, _: SetExternal) -> DriverResult<Vec<FirewallIntent>> {
        self.script.gate("set_external")?;
        Ok(Vec::new())
    }

    fn share(&self, _: &Call<'_>, request: SharedNetwork) -> DriverResult<SharedNetwork> {
        self.script.gate("share")?;
        let shared = self.store()?.share(request)?;
        // What was done is told of as failed.
        self.script.gate("share_done")?;
        Ok(shared)
    }

    fn unshare(&self, _: &Call<'_>, request: NetworkRef) -> DriverResult<()> {
        self.script.gate("unshare")?;
        self.store()?.unshare(&request.id)
    }

    fn shared(&self, call: &Call<'_>, request: Watch) -> DriverResult<SharedNetworks> {
        self.script.gate("shared")?;
        self.store()?.shared(call, request)
    }

    fn allocate(&self, _: &Call<'_>, request: SharedEndpoint) -> DriverResult<Vec<IpNet>> {
        self.script.gate("allocate")?;
        self.store()?.allocate(request)
    }

    fn members(&self, call: &Call<'_>, request: Watch) -> DriverResult<Members> {
        self.script.gate("members")?;
        self.store()?.members(call, request)
    }
}
