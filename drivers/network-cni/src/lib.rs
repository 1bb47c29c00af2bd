//! Networks made by the plugins of CNI, the Container Network Interface.
//!
//! A network is a network configuration list, from the directory of such files or the driver's options. Attaching a
//! sandbox runs ADD of the list's plugins, detaching it DEL; links, addresses and routes are theirs, so the engine is
//! told that the sandbox is set up already. Published ports and names remain the engine's.
//!
//! Invariants:
//! - What a plugin may have made is noted before it is run, with the list that it was run from: an attachment is undone
//!   as it was made, whatever became of the files meanwhile, and by the next process if this one is killed.
//! - A plugin that does not end in time is killed with its children.
//! - A bridge that a plugin made goes with the last network that it was made for; plugins leave theirs behind.

mod bridges;
mod conf;
mod endpoint;
mod exec;
mod outcome;

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use gantry_plugin_sdk::network::{
    EndpointRef, EndpointSpec, FirewallIntent, JoinPlan, NetworkInfo, NetworkPlan, NetworkRef,
    NetworkSpec, PortLease, Scope, SetExternal,
};
use gantry_plugin_sdk::notes::Notes;
use gantry_plugin_sdk::sys::netlink::{LinkFacts, RouteSocket};
use gantry_plugin_sdk::sys::netns;
use gantry_plugin_sdk::{
    Call, Driver, DriverConfig, DriverError, DriverResult, Health, Log, Network, Reconcile,
    serde_json,
};
use serde::{Deserialize, Serialize};

use bridges::links_of_host;
use conf::{List, Settings};
use endpoint::Endpoint;
use exec::Plugins;
use outcome::Outcome;

/// The driver.
#[derive(Debug)]
pub struct CniNetwork {
    settings: Settings,
    plugins: Plugins,
    networks: Notes<Made>,
    endpoints: Notes<Endpoint>,
    log: Log,
}

/// What is kept of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    spec: NetworkSpec,
    /// Bridges that its plugins made.
    bridges: Vec<String>,
}

impl CniNetwork {
    /// A driver for the network namespace of the calling thread.
    ///
    /// # Errors
    /// Options that cannot be read; when the driver's directory cannot be used.
    pub fn new(config: DriverConfig, log: Log) -> DriverResult<Self> {
        let settings: Settings = serde_json::from_value(config.options)
            .map_err(|e| DriverError::invalid(format!("invalid options: {e}")))?;
        Ok(Self {
            plugins: Plugins::new(settings.bin.clone()),
            settings,
            networks: Notes::open(config.root.join("networks"))?,
            endpoints: Notes::open(config.root.join("endpoints"))?,
            log,
        })
    }

    fn network(&self, id: &str) -> DriverResult<Made> {
        let known = self.networks.get(id);
        known.ok_or_else(|| DriverError::not_found(format!("network {id} is not known")))
    }

    /// The list of a network, with every plugin there.
    fn list(&self, network: &NetworkSpec) -> DriverResult<List> {
        let list = self.settings.list(network)?;
        for plugin in &list.plugins {
            self.plugins.find(List::kind(plugin))?;
        }
        Ok(list)
    }

    /// When plugins that are run now must have ended.
    fn until(&self, call: &Call<'_>) -> Instant {
        let now = Instant::now();
        let limit = now + Duration::from_secs(self.settings.timeout.clamp(1, 3600));
        call.expires(now).map_or(limit, |end| end.min(limit))
    }

    /// Has the plugins attach a sandbox; on failure nothing is left of it.
    fn add(
        &self,
        call: &Call<'_>,
        id: &str,
        endpoint: &mut Endpoint,
        path: &str,
    ) -> DriverResult<Outcome> {
        self.endpoints.put(id, endpoint.clone())?;
        let added = endpoint
            .add(&self.plugins, id, path, self.until(call))
            .and_then(|result| {
                let outcome = Outcome::parse(&result)?;
                endpoint.result = Some(result);
                self.endpoints.put(id, endpoint.clone())?;
                Ok(outcome)
            });
        if added.is_err()
            && let Err(error) = self.undo(id, endpoint, Some(path))
        {
            self.log
                .warn(format!("undoing a failed attachment: {error}"));
        }
        added
    }

    /// Has the plugins detach a sandbox and forgets it.
    fn undo(&self, id: &str, endpoint: &Endpoint, path: Option<&str>) -> DriverResult<()> {
        let until = self.until(&Call::default());
        endpoint.delete(&self.plugins, id, path, until)?;
        self.endpoints.remove(id).map(drop)
    }

    fn forget(&self, id: &str) -> DriverResult<()> {
        match self.networks.remove(id)? {
            Some(gone) => self
                .remove_bridges(&gone)
                .map_err(|e| DriverError::io("removing a CNI plugin's bridge", &e)),
            None => Ok(()),
        }
    }
}

/// The link that plugins made inside a sandbox.
fn link_inside(netns: BorrowedFd<'_>, name: &str) -> DriverResult<LinkFacts> {
    let found = netns::inside(netns, || RouteSocket::open()?.link(name));
    let found = found.map_err(|e| DriverError::io("looking into the sandbox", &e))?;
    found.ok_or_else(|| DriverError::internal(format!("the CNI plugins made no link {name}")))
}

impl Driver for CniNetwork {
    fn health(&self, _: &Call<'_>) -> DriverResult<Health> {
        let dirs = self.settings.bin.iter().filter(|dir| dir.is_dir());
        let dirs: Vec<_> = dirs.map(|dir| dir.display().to_string()).collect();
        Ok(Health {
            healthy: true,
            message: String::new(),
            status: vec![("CNI plugins".into(), dirs.join(", "))],
        })
    }

    fn reconcile(&self, _: &Call<'_>, live: Reconcile) -> DriverResult<()> {
        for (id, endpoint) in self.endpoints.all() {
            if !live.endpoints.contains(&id)
                && let Err(error) = self.undo(&id, &endpoint, None)
            {
                // It stays noted, and is tried again at the next start.
                self.log.warn(format!("undoing attachment {id}: {error}"));
            }
        }
        for (id, _) in self.networks.all() {
            if !live.live.contains(&id) {
                self.log.info(format!("forgetting network {id}"));
                self.forget(&id)?;
            }
        }
        Ok(())
    }
}

impl Network for CniNetwork {
    fn info(&self, _: &Call<'_>, (): ()) -> DriverResult<NetworkInfo> {
        Ok(NetworkInfo {
            scope: Scope::Local,
            own_namespace: true,
            addressed: false,
            singleton: false,
        })
    }

    fn validate(&self, _: &Call<'_>, spec: NetworkSpec) -> DriverResult<()> {
        conf::check_options(&spec)?;
        if !spec.subnets.is_empty() {
            return Err(DriverError::invalid(
                "a CNI network has the subnets of its configuration: others cannot be given",
            ));
        }
        if spec.internal {
            return Err(DriverError::invalid(
                "a CNI network leads where its plugins lead: it cannot be internal",
            ));
        }
        self.list(&spec).map(drop)
    }

    fn create_network(&self, _: &Call<'_>, spec: NetworkSpec) -> DriverResult<NetworkPlan> {
        self.list(&spec)?;
        let id = spec.id.clone();
        let bridges = self.networks.get(&id).map(|made| made.bridges);
        let bridges = bridges.unwrap_or_default();
        self.networks.put(&id, Made { spec, bridges })?;
        Ok(NetworkPlan::default())
    }

    fn delete_network(&self, _: &Call<'_>, network: NetworkRef) -> DriverResult<()> {
        self.forget(&network.id)
    }

    fn create_endpoint(&self, _: &Call<'_>, spec: EndpointSpec) -> DriverResult<()> {
        let network = self.network(&spec.network)?;
        Endpoint::new(&spec, self.list(&network.spec)?).map(drop)
    }

    fn delete_endpoint(&self, _: &Call<'_>, endpoint: EndpointRef) -> DriverResult<()> {
        match self.endpoints.get(&endpoint.id) {
            Some(left) => self.undo(&endpoint.id, &left, None),
            None => Ok(()),
        }
    }

    fn join(&self, call: &Call<'_>, spec: EndpointSpec) -> DriverResult<JoinPlan> {
        let Some(netns) = call.fds.first() else {
            return Err(DriverError::invalid("join needs the sandbox's namespace"));
        };
        let network = self.network(&spec.network)?;
        let path = path_of(*netns);
        let mut outcome = None;
        if let Some(before) = self.endpoints.get(&spec.id) {
            outcome = before.check(&self.plugins, &spec.id, &path, self.until(call));
            if outcome.is_none() {
                self.undo(&spec.id, &before, Some(&path))?;
            }
        }
        let mut endpoint = Endpoint::new(&spec, self.list(&network.spec)?)?;
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => {
                let before = links_of_host().map_err(|e| DriverError::io("listing links", &e))?;
                let outcome = self.add(call, &spec.id, &mut endpoint, &path)?;
                self.note_bridges(&spec.network, &outcome, &before)?;
                outcome
            }
        };
        let link = link_inside(*netns, &endpoint.link)?;
        let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
        Ok(outcome.plan(&endpoint.link, mac))
    }

    fn leave(&self, call: &Call<'_>, endpoint: EndpointRef) -> DriverResult<()> {
        let path = call.fds.first().map(|netns| path_of(*netns));
        match self.endpoints.get(&endpoint.id) {
            Some(known) => self.undo(&endpoint.id, &known, path.as_deref()),
            None => Ok(()),
        }
    }

    fn set_external(
        &self,
        _: &Call<'_>,
        request: SetExternal,
    ) -> DriverResult<Vec<FirewallIntent>> {
        let Some(endpoint) = self.endpoints.get(&request.endpoint.id) else {
            return Ok(Vec::new());
        };
        let outcome = endpoint.outcome()?;
        // Without a link on the host it has no way to the container, whose ports are seen on the network outside.
        let Some(link) = outcome.on_host().next() else {
            return Ok(Vec::new());
        };
        let addresses = outcome.addresses(&endpoint.link);
        let publish = |lease: PortLease| {
            let of_family = |ip: &std::net::IpAddr| ip.is_ipv4() == lease.host.is_ipv4();
            let target = addresses.iter().map(|net| net.addr()).find(of_family)?;
            Some(FirewallIntent::Publish {
                protocol: lease.protocol,
                host: lease.host,
                target: SocketAddr::new(target, lease.container_port),
                link: link.to_owned(),
            })
        };
        Ok(request.ports.into_iter().filter_map(publish).collect())
    }
}

/// A path by which other processes find a namespace while this one has it open.
fn path_of(netns: BorrowedFd<'_>) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd())
}

gantry_plugin_sdk::plugin! {
    kind: network,
    driver: CniNetwork,
    name: "cni",
    options: r#"{
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "bin": {"type": "array", "items": {"type": "string"}},
            "conf": {"type": "string"},
            "networks": {"type": "object", "additionalProperties": {"type": "object"}},
            "timeout": {"type": "integer", "minimum": 1, "maximum": 3600}
        }
    }"#,
}

#[cfg(test)]
mod tests;
