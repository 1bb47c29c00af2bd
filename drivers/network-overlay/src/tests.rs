//! Hosts in network namespaces of their own, with etcd on another. Needs root and `etcd`.

mod absence;
mod access;
mod backup;
mod host;
mod share;
mod traffic;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use gantry_plugin_sdk::network::{
    EndpointRef, EndpointSpec, NetworkRef, NetworkSpec, SharedNetwork, Subnet, Watch,
};
use gantry_plugin_sdk::{Call, Network};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::OverlayNetwork;
use gantry_fixtures::{Etcd, Hosts};
use host::Host;

/// Where etcd is: on the third host.
const STORE: &str = "192.0.2.3";

/// Three hosts, with etcd on the third.
fn lab() -> (Hosts, Etcd) {
    let hosts = Hosts::new(3);
    let etcd = Etcd::start(&[hosts.host(3)]);
    (hosts, etcd)
}

/// The drivers of the first two hosts.
fn two<'a>(hosts: &'a Hosts, options: &Value) -> [Host<'a>; 2] {
    [1, 2].map(|number| Host::new(hosts.host(number), options))
}

/// The drivers of the first two hosts, which have the network `n`.
fn sharing<'a>(hosts: &'a Hosts, options: &Value) -> [Host<'a>; 2] {
    let both = two(hosts, options);
    both[0].share(network_of("n")).unwrap();
    for host in &both {
        host.create("n");
    }
    both
}

fn call() -> Call<'static> {
    Call::new("test").with_timeout(Duration::from_secs(30))
}

/// Waits until something is so.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn network_of(id: &str) -> SharedNetwork {
    SharedNetwork {
        id: id.into(),
        name: format!("name-of-{id}"),
        created: "2026-01-01T00:00:00Z".into(),
        internal: false,
        attachable: true,
        enable_ipv4: true,
        enable_ipv6: true,
        pools: Vec::new(),
        options: BTreeMap::new(),
        labels: BTreeMap::from([("a".into(), "b".into())]),
    }
}

fn spec_of(network: &SharedNetwork) -> NetworkSpec {
    let subnets = network.pools.iter().map(|pool| Subnet {
        net: pool.subnet.unwrap(),
        gateway: pool.gateway,
    });
    NetworkSpec {
        id: network.id.clone(),
        name: network.name.clone(),
        subnets: subnets.collect(),
        internal: network.internal,
        options: network.options.clone(),
    }
}

fn endpoint_of(network: &str, id: &str, addresses: Vec<IpNet>) -> EndpointSpec {
    EndpointSpec {
        network: network.into(),
        id: id.into(),
        addresses,
        mac: None,
        link: "eth0".into(),
        options: BTreeMap::new(),
    }
}
