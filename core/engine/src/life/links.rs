//! Legacy links: what a container on the default network is told of others in its environment.

use std::net::IpAddr;

use gantry_network::Protocol;

use crate::container::record::Record;
use crate::create::ports::container_port;
use crate::{Engine, EngineError, Result};

/// The network on which links are more than names.
const DEFAULT: &str = "bridge";

impl Engine {
    /// Takes a link off the container that has it: `parent/alias`.
    ///
    /// # Errors
    /// No such link, in dockerd's words.
    pub async fn container_unlink(&self, path: &str) -> Result<()> {
        let path = path.trim_matches('/');
        let Some((parent, alias)) = path.split_once('/') else {
            self.find(path)?;
            return Err(EngineError::internal(
                "Conflict, cannot remove the default link name of the container",
            ));
        };
        let missing = || EngineError::not_found(format!("No such container: {path}"));
        let parent = self.find(parent).map_err(|_| missing())?;
        let alias = alias.to_owned();
        if !links_of(&parent.record()).any(|link| alias_of(link) == alias) {
            return Err(missing());
        }
        self.to_the_end(|engine| async move {
            let _turn = parent.queue.lock().await;
            let mut new = Record::clone(&parent.record());
            forget(&mut new, &alias);
            engine.records.save(&new).await?;
            parent.update(|record| forget(record, &alias));
            Ok(engine.services.networks.unlink(&parent.id, &alias).await?)
        })
        .await
    }

    /// The variables of a container's links, those of Docker's.
    pub(super) fn link_env(&self, record: &Record) -> Result<Vec<String>> {
        let mut env = Vec::new();
        if !record.networks.contains_key(DEFAULT) {
            return Ok(env);
        }
        for link in record.host_config.links.iter().flatten() {
            let name = link.split(':').next().unwrap_or(link);
            let other = self.find(name)?;
            let other = other.record();
            let alias = alias_of(link);
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

/// Everything that a container calls others, on whatever network.
fn links_of(record: &Record) -> impl Iterator<Item = &String> {
    let wishes = record.networks.values().map(|wish| &wish.links);
    let all = std::iter::once(&record.host_config.links).chain(wishes);
    all.flatten().flatten()
}

/// What `container[:alias]` is called.
fn alias_of(link: &str) -> &str {
    let alias = link.split_once(':').map_or(link, |(_, alias)| alias);
    alias.rsplit('/').next().unwrap_or(alias)
}

fn forget(record: &mut Record, alias: &str) {
    let wishes = record.networks.values_mut().map(|wish| &mut wish.links);
    let all = std::iter::once(&mut record.host_config.links).chain(wishes);
    for links in all.flatten() {
        links.retain(|link| alias_of(link) != alias);
    }
}

fn variables(path: &str, alias: &str, address: IpAddr, other: &Record) -> Vec<String> {
    let prefix = alias.to_uppercase().replace('-', "_");
    let mut ports: Vec<(Protocol, u16)> = other
        .config
        .exposed_ports
        .keys()
        .filter_map(|port| container_port(&port).ok())
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
