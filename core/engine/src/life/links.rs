//! Legacy links: what a container on the default network is told of others in its environment.

use std::net::IpAddr;

use gantry_network::Protocol;

use crate::container::record::Record;
use crate::create::ports::container_port;
use crate::{Engine, EngineError, Result};

/// The network on which links are more than names.
const DEFAULT: &str = "bridge";

impl Engine {
    /// The variables of a container's links, those of Docker's.
    pub(super) fn link_env(&self, record: &Record) -> Result<Vec<String>> {
        let mut env = Vec::new();
        if !record.networks.contains_key(DEFAULT) {
            return Ok(env);
        }
        for link in record.host_config.links.iter().flatten() {
            let (name, alias) = link.split_once(':').unwrap_or((link, link));
            let other = self.find(name)?;
            let other = other.record();
            let alias = alias.rsplit('/').next().unwrap_or(alias);
            let path = format!("/{}/{alias}", record.name);
            if !other.state.phase.is_running() {
                return Err(EngineError::internal(format!(
                    "Cannot link to a non running container: /{} AS {path}",
                    other.name
                )));
            }
            let endpoints = self.services.networks.endpoints(&other.id);
            let there = endpoints.into_iter().find(|e| e.network_name == DEFAULT);
            let Some(address) = there.and_then(|endpoint| endpoint.ipv4) else {
                return Err(EngineError::internal(format!(
                    "container {} not attached to default bridge network",
                    other.id
                )));
            };
            env.extend(variables(&path, alias, address, &other));
        }
        Ok(env)
    }
}

fn variables(path: &str, alias: &str, address: IpAddr, other: &Record) -> Vec<String> {
    let prefix = alias.to_uppercase().replace('-', "_");
    let mut ports: Vec<(Protocol, u16)> = other
        .config
        .exposed_ports
        .keys()
        .filter_map(|port| container_port(port).ok())
        .map(|(port, protocol)| (protocol, port))
        .collect();
    ports.sort_unstable();
    let url =
        |(protocol, port): &(Protocol, u16)| format!("{}://{address}:{port}", protocol.as_str());
    let mut env = Vec::new();
    env.extend(
        ports
            .first()
            .map(|first| format!("{prefix}_PORT={}", url(first))),
    );
    for one in &ports {
        let protocol = one.0.as_str();
        let name = format!("{prefix}_PORT_{}_{}", one.1, protocol.to_uppercase());
        env.push(format!("{name}={}", url(one)));
        env.push(format!("{name}_ADDR={address}"));
        env.push(format!("{name}_PORT={}", one.1));
        env.push(format!("{name}_PROTO={protocol}"));
    }
    env.push(format!("{prefix}_NAME={path}"));
    // Those that every container has of its own mean nothing here.
    let own = |variable: &&String| !variable.starts_with("HOME=") && !variable.starts_with("PATH=");
    let of_other = other.config.env.iter().flatten().filter(own);
    env.extend(
        of_other
            .filter(|variable| variable.contains('='))
            .map(|variable| format!("{prefix}_ENV_{variable}")),
    );
    env
}
