//! A store that drivers of several engines share: one file, changed under a lock.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gantry_plugin_sdk::network::{
    EndpointSpec, Member, Members, SharedEndpoint, SharedNetwork, SharedNetworks, SharedPool, Watch,
};
use gantry_plugin_sdk::{Call, DriverError, DriverResult, ErrorCode, serde_json};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

/// How long a question for news waits when its caller said nothing.
const WAIT: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(5);

/// Where the store is, and who asks. It is away while a file `<store>.away` is there. Nobody is told who is on networks
/// while a file `<store>.late` is there, until it has refused to remove one.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Store {
    /// The file.
    store: PathBuf,
    /// This host's name.
    #[serde(default)]
    host: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    revision: u64,
    networks: BTreeMap<String, SharedNetwork>,
    endpoints: BTreeMap<String, Held>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Held {
    host: String,
    spec: EndpointSpec,
    names: Vec<String>,
}

impl Store {
    fn file(&self, suffix: &str) -> PathBuf {
        let mut name = self.store.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    fn is_away(&self) -> bool {
        self.file(".away").exists()
    }

    fn read(&self) -> DriverResult<Content> {
        if self.is_away() {
            let text = "the store does not answer";
            return Err(DriverError::new(ErrorCode::Unavailable, text));
        }
        match fs::read(&self.store) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| wrong(&e)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Content::default()),
            Err(error) => Err(DriverError::io("reading the store", &error)),
        }
    }

    /// Changes the store, unless `change` fails.
    fn change<T>(&self, change: impl FnOnce(&mut Content) -> DriverResult<T>) -> DriverResult<T> {
        let failed = |e: std::io::Error| DriverError::io("changing the store", &e);
        let lock = File::create(self.file(".lock")).map_err(failed)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
        let mut content = self.read()?;
        let done = change(&mut content)?;
        content.revision += 1;
        let bytes = serde_json::to_vec(&content).map_err(|e| wrong(&e))?;
        let temporary = self.file(".new");
        fs::write(&temporary, bytes)
            .and_then(|()| fs::rename(&temporary, &self.store))
            .map_err(failed)?;
        Ok(done)
    }

    /// Waits for another revision than the one that is known.
    fn news(&self, call: &Call<'_>, watch: Watch) -> DriverResult<Content> {
        let end = Instant::now() + call.timeout.unwrap_or(WAIT);
        loop {
            let mut content = self.read()?;
            // An empty store has a revision as well.
            content.revision += 1;
            if content.revision != watch.since || Instant::now() + TICK >= end {
                return Ok(content);
            }
            std::thread::sleep(TICK);
        }
    }

    pub(crate) fn share(&self, mut network: SharedNetwork) -> DriverResult<SharedNetwork> {
        self.change(|content| {
            if let Some(known) = content.networks.get(&network.id) {
                return Ok(known.clone());
            }
            if content.networks.values().any(|n| n.name == network.name) {
                let text = format!("a network named {} exists", network.name);
                return Err(DriverError::new(ErrorCode::AlreadyExists, text));
            }
            complete(content, &mut network)?;
            let key = "mock.number".to_owned();
            network.options.insert(key, content.revision.to_string());
            content.networks.insert(network.id.clone(), network.clone());
            Ok(network)
        })
    }

    pub(crate) fn unshare(&self, id: &str) -> DriverResult<()> {
        self.change(|content| {
            if content.endpoints.values().any(|e| e.spec.network == id) {
                // What is not late cannot be told any sooner.
                let _ = fs::remove_file(self.file(".late"));
                let text = "the network has endpoints";
                return Err(DriverError::new(ErrorCode::FailedPrecondition, text));
            }
            content.networks.remove(id);
            Ok(())
        })
    }

    pub(crate) fn shared(&self, call: &Call<'_>, watch: Watch) -> DriverResult<SharedNetworks> {
        let content = self.news(call, watch)?;
        Ok(SharedNetworks {
            revision: content.revision,
            networks: content.networks.into_values().collect(),
        })
    }

    pub(crate) fn members(&self, call: &Call<'_>, watch: Watch) -> DriverResult<Members> {
        let end = Instant::now() + call.timeout.unwrap_or(WAIT);
        let content = self.news(call, watch)?;
        while self.file(".late").exists() {
            if Instant::now() >= end {
                return Ok(Members {
                    revision: watch.since,
                    members: Vec::new(),
                });
            }
            std::thread::sleep(TICK);
        }
        let others = content.endpoints.into_iter();
        let others = others.filter(|(_, held)| held.host != self.host);
        let member = |(endpoint, held): (String, Held)| Member {
            network: held.spec.network,
            endpoint,
            names: held.names,
            addresses: held.spec.addresses.iter().map(|net| net.addr()).collect(),
            host: held.host,
            host_address: None,
        };
        Ok(Members {
            revision: content.revision,
            members: others.map(member).collect(),
        })
    }

    pub(crate) fn allocate(&self, wanted: SharedEndpoint) -> DriverResult<Vec<ipnet::IpNet>> {
        self.change(|content| {
            let mut spec = wanted.endpoint;
            if let Some(held) = content.endpoints.get_mut(&spec.id) {
                held.names = wanted.names;
                return Ok(held.spec.addresses.clone());
            }
            let network = content.networks.get(&spec.network);
            let network = network.ok_or_else(|| absent(&spec.network))?;
            let mut given = Vec::new();
            for v6 in [false, true] {
                let enabled = if v6 {
                    network.enable_ipv6
                } else {
                    network.enable_ipv4
                };
                let wished = spec.addresses.iter().map(|net| net.addr());
                let wished = wished.into_iter().find(|ip| ip.is_ipv6() == v6);
                if enabled || wished.is_some() {
                    given.push(address(content, network, v6, wished)?);
                }
            }
            spec.addresses.clone_from(&given);
            let held = Held {
                host: self.host.clone(),
                names: wanted.names,
                spec,
            };
            content.endpoints.insert(held.spec.id.clone(), held);
            Ok(given)
        })
    }

    /// Frees endpoints of this host; while the store is away they stay until the next reconciliation.
    pub(crate) fn free(&self, is_gone: impl Fn(&str) -> bool) -> DriverResult<()> {
        if self.is_away() {
            return Ok(());
        }
        self.change(|content| {
            content
                .endpoints
                .retain(|id, held| held.host != self.host || !is_gone(id));
            Ok(())
        })
    }
}

fn wrong(error: &serde_json::Error) -> DriverError {
    DriverError::new(ErrorCode::DataLoss, format!("the store: {error}"))
}

fn absent(network: &str) -> DriverError {
    DriverError::not_found(format!("network {network} not found"))
}

/// Gives a network the pools that it leaves open.
fn complete(content: &Content, network: &mut SharedNetwork) -> DriverResult<()> {
    for (enabled, v6) in [(network.enable_ipv4, false), (network.enable_ipv6, true)] {
        let mut pools = network.pools.iter().filter_map(|pool| pool.subnet);
        if enabled && !pools.any(|subnet| subnet.addr().is_ipv6() == v6) {
            let number = content.networks.len() + 1;
            let subnet = match v6 {
                false => format!("10.99.{number}.0/24"),
                true => format!("fd99:{number}::/64"),
            };
            network.pools.push(SharedPool {
                subnet: subnet.parse().ok(),
                ..SharedPool::default()
            });
        }
    }
    for pool in &mut network.pools {
        let subnet = pool.subnet.ok_or_else(|| {
            DriverError::invalid("a pool with a range or a gateway needs a subnet")
        })?;
        pool.gateway = pool.gateway.or_else(|| subnet.hosts().next());
    }
    Ok(())
}

/// A free address of a network, or the wished one.
fn address(
    content: &Content,
    network: &SharedNetwork,
    v6: bool,
    wished: Option<IpAddr>,
) -> DriverResult<ipnet::IpNet> {
    let others = content.endpoints.values();
    let others = others.filter(|held| held.spec.network == network.id);
    let taken: Vec<IpAddr> = others
        .flat_map(|held| held.spec.addresses.iter().map(|net| net.addr()))
        .collect();
    for pool in &network.pools {
        let Some(subnet) = pool.subnet.filter(|net| net.addr().is_ipv6() == v6) else {
            continue;
        };
        let is_free = |ip: &IpAddr| {
            !taken.contains(ip)
                && pool.gateway != Some(*ip)
                && !pool.reserved.values().any(|held| held == ip)
        };
        let found = match wished {
            Some(ip) if !subnet.contains(&ip) => continue,
            Some(ip) if !is_free(&ip) => {
                let text = format!("address {ip} is taken");
                return Err(DriverError::new(ErrorCode::Conflict, text));
            }
            Some(ip) => Some(ip),
            None => pool.range.unwrap_or(subnet).hosts().find(is_free),
        };
        if let Some(ip) = found {
            return ipnet::IpNet::new(ip, subnet.prefix_len())
                .map_err(|e| DriverError::internal(e.to_string()));
        }
    }
    Err(match wished {
        Some(ip) => DriverError::invalid(format!("no subnet has the address {ip}")),
        None => DriverError::new(ErrorCode::ResourceExhausted, "no address is left"),
    })
}
