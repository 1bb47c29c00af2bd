//! What plugins say they have made.

use std::net::IpAddr;

use gantry_plugin_sdk::ipnet::IpNet;
use gantry_plugin_sdk::network::JoinPlan;
use gantry_plugin_sdk::serde_json::{self, Value, json};
use gantry_plugin_sdk::{DriverError, DriverResult};
use serde::Deserialize;

/// A result of ADD, of any version of the specification.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Outcome {
    interfaces: Vec<Interface>,
    ips: Vec<Ip>,
    routes: Vec<Route>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Interface {
    name: String,
    sandbox: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Ip {
    address: IpNet,
    gateway: Option<IpAddr>,
    interface: Option<usize>,
}

#[derive(Debug, Clone, Deserialize)]
struct Route {
    dst: IpNet,
    gw: Option<IpAddr>,
}

impl Outcome {
    pub(crate) fn parse(result: &Value) -> DriverResult<Self> {
        serde_json::from_value(result.clone()).map_err(|e| {
            DriverError::internal(format!("a CNI plugin's result cannot be read: {e}"))
        })
    }

    /// The links on the host, in order.
    pub(crate) fn on_host(&self) -> impl Iterator<Item = &str> {
        let links = self
            .interfaces
            .iter()
            .filter(|link| link.sandbox.is_empty());
        links.map(|link| link.name.as_str())
    }

    /// The addresses of a link inside the sandbox.
    fn of<'a>(&'a self, link: &'a str) -> impl Iterator<Item = &'a Ip> {
        let is_its = move |ip: &&Ip| match ip.interface.and_then(|at| self.interfaces.get(at)) {
            Some(interface) => !interface.sandbox.is_empty() && interface.name == link,
            None => true,
        };
        self.ips.iter().filter(is_its)
    }

    /// The addresses of a link inside the sandbox, with prefix lengths.
    pub(crate) fn addresses(&self, link: &str) -> Vec<IpNet> {
        self.of(link).map(|ip| ip.address).collect()
    }

    /// What the engine is told of a link that is set up already.
    pub(crate) fn plan(&self, link: &str, mac: String) -> JoinPlan {
        let gateway = |route: &Route| {
            let of_family = |ip: &IpAddr| ip.is_ipv6() == route.dst.addr().is_ipv6();
            let near = self.of(link).filter_map(|ip| ip.gateway).find(of_family);
            route.gw.or(near).filter(|_| route.dst.prefix_len() == 0)
        };
        JoinPlan {
            link: link.to_owned(),
            mac,
            addresses: self.addresses(link),
            gateways: self.routes.iter().filter_map(gateway).collect(),
            configured: true,
            ..JoinPlan::default()
        }
    }
}

/// A result whose namespaces are found at another path than when it was made.
pub(crate) fn moved(mut result: Value, netns: Option<&str>) -> Value {
    let interfaces = result.get_mut("interfaces").and_then(Value::as_array_mut);
    for interface in interfaces.into_iter().flatten() {
        let inside = interface["sandbox"]
            .as_str()
            .is_some_and(|path| !path.is_empty());
        if let Some(netns) = netns.filter(|_| inside) {
            interface["sandbox"] = json!(netns);
        }
    }
    result
}
