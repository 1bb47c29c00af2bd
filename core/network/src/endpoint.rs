//! An attachment's facts: what it is called, what it was given, what stands in its way.

use gantry_driver_api::network::NetworkInfo;
use gantry_model::EndpointId;
use ipnet::IpNet;

use crate::inner::Network;
use crate::ipam::TakeError;
use crate::place::Place;
use crate::{EndpointConfig, EndpointInfo, NetworkError, NetworkRecord, Result, SandboxMode};

/// Whether a sandbox can be attached to a network at all.
pub(crate) fn check_mode(place: &Place, network: &Network, info: &NetworkInfo) -> Result<()> {
    let record = &network.record;
    let spec = place.spec();
    if place
        .endpoints()
        .iter()
        .any(|e| e.info.network == record.id)
    {
        return Err(NetworkError::forbidden(format!(
            "endpoint with name {} already exists in network {}",
            spec.name, record.name
        )));
    }
    match (&spec.mode, info.own_namespace) {
        (SandboxMode::Own, true) | (SandboxMode::Host, false) => Ok(()),
        (SandboxMode::Container(_), _) => Err(NetworkError::conflict(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        )),
        _ => Err(NetworkError::conflict(
            "container cannot be disconnected from host network or connected to host network",
        )),
    }
}

pub(crate) fn empty_info(
    network: &Network,
    endpoint: EndpointId,
    config: EndpointConfig,
) -> EndpointInfo {
    EndpointInfo {
        network: network.record.id.clone(),
        network_name: network.record.name.clone(),
        endpoint,
        link: String::new(),
        mac: String::new(),
        ipv4: None,
        ipv4_prefix: 0,
        gateway: None,
        ipv6: None,
        ipv6_prefix: 0,
        gateway_v6: None,
        dns_names: Vec::new(),
        config,
    }
}

pub(crate) fn note_address(info: &mut EndpointInfo, net: IpNet) {
    match net {
        IpNet::V4(net) => {
            info.ipv4 = Some(net.addr().into());
            info.ipv4_prefix = net.prefix_len();
        }
        IpNet::V6(net) => {
            info.ipv6 = Some(net.addr().into());
            info.ipv6_prefix = net.prefix_len();
        }
    }
}

/// Link-local addresses that the user wishes, with the prefix lengths of their ranges.
pub(crate) fn link_local(config: &EndpointConfig) -> impl Iterator<Item = IpNet> {
    config
        .link_local
        .iter()
        .filter_map(|ip| IpNet::new(*ip, if ip.is_ipv4() { 16 } else { 64 }).ok())
}

/// Name, aliases, short ID and host name, each once.
pub(crate) fn dns_names(place: &Place, config: &EndpointConfig) -> Vec<String> {
    let spec = place.spec();
    let mut names = vec![spec.name.clone()];
    names.extend(config.aliases.iter().cloned());
    names.push(spec.container.short().to_owned());
    names.push(spec.hostname.clone());
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    names
}

/// Docker's words for an address that is not to be had.
pub(crate) fn no_address(record: &NetworkRecord, v6: bool, error: TakeError) -> NetworkError {
    let name = &record.name;
    match error {
        TakeError::Outside(address) => NetworkError::invalid(format!(
            "invalid endpoint settings:\nno configured subnet or ip-range contain the IP address {address}"
        )),
        TakeError::Taken => NetworkError::forbidden("Address already in use"),
        TakeError::Exhausted => NetworkError::internal(format!(
            "no available {} addresses on this network's address pools: {name} ({})",
            if v6 { "IPv6" } else { "IPv4" },
            record.id
        )),
    }
}
