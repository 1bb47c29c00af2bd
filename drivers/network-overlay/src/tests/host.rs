//! A host with a driver, and the sandboxes on it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_plugin_sdk::network::{JoinPlan, SharedEndpoint};
use gantry_plugin_sdk::sys::netlink::{Change, RouteSocket};
use gantry_plugin_sdk::sys::netns;
use gantry_plugin_sdk::{Driver, DriverConfig, DriverResult, Log};
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;

use super::*;

/// A host with a driver.
pub(super) struct Host<'a> {
    pub(super) driver: Option<OverlayNetwork>,
    pub(super) options: Value,
    pub(super) root: TempDir,
    /// What its drivers wrote to the log.
    pub(super) log: Arc<Mutex<Vec<String>>>,
    at: &'a gantry_fixtures::Host,
}

impl<'a> Host<'a> {
    /// The driver on a host, with options beside where etcd is.
    pub(super) fn new(at: &'a gantry_fixtures::Host, options: &Value) -> Self {
        // Nobody answers at the first one.
        let etcd = [1, 2379].map(|port| format!("http://{STORE}:{port}"));
        let mut all = json!({"etcd": etcd, "lease": 2});
        let more = options.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(more);
        Self::at_root(at, &all, tempfile::tempdir().unwrap())
    }

    /// The driver on a host, with what another one left there.
    pub(super) fn at_root(at: &'a gantry_fixtures::Host, options: &Value, root: TempDir) -> Self {
        let mut host = Self {
            driver: None,
            options: options.clone(),
            root,
            log: Arc::default(),
            at,
        };
        host.start();
        host
    }

    pub(super) fn start(&mut self) {
        let config = DriverConfig {
            name: "overlay".into(),
            root: self.root.path().to_owned(),
            run: self.root.path().to_owned(),
            tag: "0123abcd".into(),
            options: self.options.clone(),
        };
        let lines = Arc::clone(&self.log);
        let log = Log::to(move |line| lines.lock().push(line.to_owned()));
        let made = netns::inside(&self.at.namespace, || Ok(OverlayNetwork::new(config, log)));
        self.driver = Some(made.unwrap().unwrap());
    }

    /// Its address on the way between the hosts.
    pub(super) fn address(&self) -> IpAddr {
        self.at.address.into()
    }

    /// Runs a shell's commands on the host.
    pub(super) fn shell(&self, script: &str) -> String {
        self.at.namespace.shell(script)
    }

    /// Its name in the store.
    pub(super) fn id(&self) -> String {
        std::fs::read_to_string(self.root.path().join("host")).unwrap()
    }

    /// Asks etcd by hand.
    fn ask(&self, what: &str, request: &Value) -> Value {
        let ask = format!("curl -s http://{STORE}:2379/v3/kv/{what} -d '{request}'");
        serde_json::from_str(&self.at.namespace.shell(&ask)).unwrap()
    }

    /// The lease that this host's key in the store goes with.
    pub(super) fn lease(&self) -> String {
        let key = STANDARD.encode(format!("/gantry/overlay/live/{}", self.id()));
        let found = self.ask("range", &json!({"key": key}));
        let lease = found["kvs"][0]["lease"].as_str();
        lease.unwrap_or_default().to_owned()
    }

    /// The keys in the store that begin so, without that.
    pub(super) fn keys(&self, prefix: &str) -> Vec<String> {
        let prefix = format!("/gantry/overlay/{prefix}");
        let found = self.ask("range", &range(&prefix));
        let found = found["kvs"].as_array().cloned().unwrap_or_default();
        let keys = found.iter().map(|pair| {
            let key = STANDARD.decode(pair["key"].as_str().unwrap()).unwrap();
            String::from_utf8(key).unwrap().split_off(prefix.len())
        });
        keys.collect()
    }

    /// Removes all keys that begin so.
    pub(super) fn erase(&self, prefix: &str) {
        self.ask("deleterange", &range(&format!("/gantry/overlay/{prefix}")));
    }

    /// Writes or removes a key by hand.
    pub(super) fn forge(&self, key: &str, value: Option<&Value>) {
        let key = STANDARD.encode(format!("/gantry/overlay/{key}"));
        match value {
            Some(value) => {
                let value = STANDARD.encode(value.to_string());
                self.ask("put", &json!({"key": key, "value": value}))
            }
            None => self.ask("deleterange", &json!({"key": key})),
        };
    }

    /// Ends the driver without a word.
    pub(super) fn stop(&mut self) {
        self.driver = None;
    }

    pub(super) fn with<T: Send>(&self, work: impl FnOnce(&OverlayNetwork) -> T + Send) -> T {
        let driver = self.driver.as_ref().expect("it runs");
        netns::inside(&self.at.namespace, || Ok(work(driver))).unwrap()
    }

    pub(super) fn share(&self, wish: SharedNetwork) -> DriverResult<SharedNetwork> {
        self.with(|driver| driver.share(&call(), wish))
    }

    /// Waits until this host knows a network, and makes it here.
    pub(super) fn create(&self, id: &str) -> SharedNetwork {
        let find = || {
            let all = self.with(|driver| driver.shared(&call(), Watch::default()));
            all.ok()?.networks.into_iter().find(|n| n.id == id)
        };
        eventually("the network is known", || find().is_some());
        let network = find().unwrap();
        let spec = spec_of(&network);
        self.with(|driver| driver.create_network(&call(), spec))
            .unwrap();
        network
    }

    pub(super) fn allocate(
        &self,
        network: &str,
        endpoint: &str,
        wish: &[&str],
    ) -> DriverResult<Vec<IpNet>> {
        let mut spec = endpoint_of(network, endpoint, Vec::new());
        spec.addresses = wish
            .iter()
            .map(|ip| ip.parse::<IpAddr>().unwrap().into())
            .collect();
        let wish = SharedEndpoint {
            endpoint: spec,
            names: vec![format!("name-of-{endpoint}")],
        };
        self.with(|driver| driver.allocate(&call(), wish))
    }

    pub(super) fn release(&self, network: &str, endpoint: &str) {
        let endpoint = EndpointRef {
            network: network.into(),
            id: endpoint.into(),
        };
        self.with(|driver| driver.delete_endpoint(&call(), endpoint))
            .unwrap();
    }

    /// A sandbox on a network, with the addresses that the cluster chooses.
    pub(super) fn sandbox(&self, network: &str, endpoint: &str) -> Sandbox {
        let addresses = self.allocate(network, endpoint, &[]).unwrap();
        let spec = endpoint_of(network, endpoint, addresses);
        let (netns, ()) = netns::create(|| Ok(())).unwrap();
        let plan = self.with(|driver| {
            driver.create_endpoint(&call(), spec.clone()).unwrap();
            driver
                .join(&call().with_fds(&[netns.as_fd()]), spec)
                .unwrap()
        });
        netns::inside(&netns, || {
            let mut socket = RouteSocket::open()?;
            let index = socket.link(&plan.link)?.unwrap().index;
            let addresses = plan
                .addresses
                .iter()
                .map(|net| Change::address(index, *net));
            let mut changes: Vec<_> = addresses.collect();
            changes.extend([Change::up(1), Change::up(index)]);
            changes.extend(
                plan.gateways
                    .iter()
                    .map(|ip| Change::default_route(*ip, index)),
            );
            Ok(socket.apply(changes)?)
        })
        .unwrap();
        Sandbox { netns, plan }
    }

    /// The IDs of the endpoints that this host knows on others.
    pub(super) fn others(&self) -> Vec<String> {
        let all = self.with(|driver| driver.members(&call(), Watch::default()));
        let all = all.map(|all| all.members).unwrap_or_default();
        all.into_iter().map(|member| member.endpoint).collect()
    }

    /// A value of what the driver tells of itself.
    pub(super) fn status(&self, what: &str) -> String {
        let health = self.with(|driver| driver.health(&call())).unwrap();
        let all: BTreeMap<String, String> = health.status.into_iter().collect();
        all.get(what).cloned().unwrap_or_default()
    }

    pub(super) fn delete_network(&self, id: &str) {
        let network = NetworkRef { id: id.into() };
        self.with(|driver| driver.delete_network(&call(), network))
            .unwrap();
    }

    /// The links of the host that the driver made.
    pub(super) fn links(&self) -> Vec<String> {
        let links = netns::inside(&self.at.namespace, || RouteSocket::open()?.links()).unwrap();
        let names = links.into_iter().map(|link| link.name);
        names.filter(|name| name.contains("0123abcd")).collect()
    }
}

/// What asks for all keys that begin so; the prefix ends in a slash.
fn range(prefix: &str) -> Value {
    let end = format!("{}0", &prefix[..prefix.len() - 1]);
    json!({"key": STANDARD.encode(prefix), "range_end": STANDARD.encode(end)})
}

/// A namespace on a network.
pub(super) struct Sandbox {
    pub(super) netns: OwnedFd,
    pub(super) plan: JoinPlan,
}

impl Sandbox {
    pub(super) fn address(&self, v6: bool) -> IpAddr {
        let mut all = self.plan.addresses.iter().map(IpNet::addr);
        all.find(|ip| ip.is_ipv6() == v6).unwrap()
    }

    /// Sends a megabyte to another sandbox; who that one sees it come from.
    pub(super) fn send(&self, to: &Self, v6: bool) -> io::Result<IpAddr> {
        const SIZE: usize = 1 << 20;
        let ip = to.address(v6);
        let server = netns::inside(&to.netns, || TcpListener::bind((ip, 0)))?;
        let address = server.local_addr()?;
        let patience = Duration::from_secs(2);
        let mut out = netns::inside(&self.netns, || {
            TcpStream::connect_timeout(&address, patience)
        })?;
        out.set_write_timeout(Some(patience))?;
        let (mut seen, from) = server.accept()?;
        seen.set_read_timeout(Some(patience))?;
        std::thread::scope(|scope| {
            let sent = scope.spawn(move || out.write_all(&vec![7; SIZE]));
            let mut bytes = Vec::new();
            seen.read_to_end(&mut bytes)?;
            sent.join().unwrap()?;
            assert_eq!(bytes.len(), SIZE);
            Ok(from.ip())
        })
    }

    /// Whether another sandbox can be reached, and sees this one as itself.
    pub(super) fn reaches(&self, to: &Self) {
        for v6 in [false, true] {
            eventually("it is reached", || {
                self.send(to, v6).is_ok_and(|from| from == self.address(v6))
            });
        }
    }
}
