//! Network namespaces that traffic is sent between: of containers, and made by hand.

use std::sync::Arc;

use anyhow::{Context, Result};
use gantry_fixtures::Namespace;
use serde_json::{Value, json};

use crate::direct::{create, remove, start};
use crate::http::Api;
use crate::peers::{Engine, shell};

/// Where traffic begins or ends.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) namespace: Arc<Namespace>,
    /// Its IPv4 address.
    pub(crate) address: String,
}

impl Place {
    fn new(namespace: Namespace, address: &str) -> Self {
        Self {
            namespace: Arc::new(namespace),
            address: address.to_owned(),
        }
    }

    /// The benchmark's own namespace, in which the engines are.
    pub(crate) fn host(address: &str) -> Self {
        Self::new(Namespace::of_process(std::process::id()), address)
    }

    /// A new namespace behind a bridge in `host`, by hand.
    pub(crate) fn behind(host: &Namespace, bridge: &str, link: &str, address: &str) -> Self {
        let place = Self::new(Namespace::new(), address);
        let path = place.namespace.path();
        host.shell(&format!(
            "ip link add {link} type veth peer name eth0 netns {}; ip link set {link} master {bridge} up",
            path.display()
        ));
        place.namespace.shell(&format!(
            "ip addr add {address}/24 dev eth0; ip link set eth0 up"
        ));
        place
    }

    /// A container's.
    pub(crate) fn of_container(api: &mut Api, id: &str, network: &str) -> Result<Self> {
        let seen = api.json("GET", &format!("/containers/{id}/json"), &Value::Null)?;
        let pid = seen["State"]["Pid"].as_u64().context("no Pid")?;
        let address = seen["NetworkSettings"]["Networks"][network]["IPAddress"].as_str();
        let address = address
            .filter(|address| !address.is_empty())
            .context("no address")?;
        Ok(Self::new(
            Namespace::of_process(u32::try_from(pid)?),
            address,
        ))
    }
}

/// Two namespaces on a bridge, as one makes them by hand, and one that stands for another machine.
pub(crate) struct Handmade {
    pub(crate) pair: [Place; 2],
    /// Its neighbour is the benchmark's namespace, at [`Self::HOST`].
    pub(crate) outside: Place,
}

impl Handmade {
    /// The host as seen from outside.
    pub(crate) const HOST: &str = "192.0.2.1";

    pub(crate) fn new() -> Result<Self> {
        shell(
            "ip link add hand0 type bridge && ip addr add 172.31.0.1/24 dev hand0 && ip link set hand0 up",
        )?;
        shell(
            "ip link add out0 type bridge && ip addr add 192.0.2.1/24 dev out0 && ip link set out0 up",
        )?;
        shell("echo 1 >/proc/sys/net/ipv4/ip_forward")?;
        // dockerd drops what it does not know.
        shell("! command -v iptables >/dev/null || iptables -P FORWARD ACCEPT")?;
        let host = Namespace::of_process(std::process::id());
        let place = |bridge: &str, link: &str, address: &str, gateway: &str| {
            let place = Place::behind(&host, bridge, link, address);
            place
                .namespace
                .shell(&format!("ip route add default via {gateway}"));
            place
        };
        Ok(Self {
            pair: [
                place("hand0", "hand1", "172.31.0.2", "172.31.0.1"),
                place("hand0", "hand2", "172.31.0.3", "172.31.0.1"),
            ],
            outside: place("out0", "out1", "192.0.2.2", Self::HOST),
        })
    }
}

impl Drop for Handmade {
    fn drop(&mut self) {
        let _ = shell("for link in hand0 hand1 hand2 out0 out1; do ip link delete $link; done");
    }
}

/// Two containers of an engine on one network, removed with it when dropped.
pub(crate) struct Pair {
    api: Api,
    containers: Vec<String>,
    pub(crate) places: [Place; 2],
}

impl Pair {
    /// On a network of their own; the second one publishes its port 5201 as `port`.
    pub(crate) fn new(engine: &Engine<'_>, port: u16) -> Result<Self> {
        let mut api = Api::connect(engine.host())?;
        let body = json!({"Name": "pair", "CheckDuplicate": true});
        api.json("POST", "/networks/create", &body)?;
        let published = json!({"5201/tcp": [{"HostPort": port.to_string()}]});
        let configs = [
            json!({"NetworkMode": "pair"}),
            json!({"NetworkMode": "pair", "PortBindings": published}),
        ];
        let (mut containers, mut places) = (Vec::new(), Vec::new());
        for (name, config) in ["pair-one", "pair-two"].into_iter().zip(configs) {
            let id = create(&mut api, name, &["sleep", "100000"], &config)?;
            start(&mut api, &id)?;
            places.push(Place::of_container(&mut api, &id, "pair")?);
            containers.push(id);
        }
        let places = <[Place; 2]>::try_from(places).expect("two were made");
        Ok(Self {
            api,
            containers,
            places,
        })
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for id in &self.containers {
            let _ = remove(&mut self.api, id);
        }
        let _ = self.api.json("DELETE", "/networks/pair", &Value::Null);
    }
}
