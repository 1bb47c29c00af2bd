//! Published ports of a container, changed while it runs or for its next start.

use std::collections::{HashMap, HashSet};

use gantry_model::container::{ContainerConfig, EmptyObject, HostConfig, PortBinding, PortMap};
use gantry_network::{PortBinding as Published, PortRequest, Protocol};
use gantry_wire::PortsUpdate;

use crate::container::record::Record;
use crate::create::ports::{bindings, container_port};
use crate::{EngineError, Result};

/// A port inside, as the network knows it.
type Key = (Protocol, u16);

/// What is to be done, and what the record says afterwards.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// To publish.
    pub(super) add: Vec<PortRequest>,
    /// To withdraw first.
    pub(super) remove: Vec<Key>,
    bindings: PortMap,
    exposed: Vec<String>,
    publish_all: bool,
}

fn key(port: &str) -> Result<Key> {
    container_port(port).map(|(port, protocol)| (protocol, port))
}

/// The one way in which the record writes a port.
fn word((protocol, port): Key) -> String {
    format!("{port}/{}", protocol.as_str())
}

/// Plans a change of ports; `published` is what is published now.
///
/// # Errors
/// Ports that are none, or that are not published; network modes without ports of their own.
pub(super) fn plan(record: &Record, wish: &PortsUpdate, published: &[Published]) -> Result<Plan> {
    plan_of(
        &record.config,
        &record.host_config,
        &record.name,
        wish,
        published,
    )
}

fn plan_of(
    config: &ContainerConfig,
    host: &HostConfig,
    name: &str,
    wish: &PortsUpdate,
    published: &[Published],
) -> Result<Plan> {
    let mode = host.network_mode.as_str();
    if mode == "host" || mode.starts_with("container:") || config.network_disabled {
        let kind = match mode.split(':').next().unwrap_or(mode) {
            "container" => "container type",
            _ if config.network_disabled => "disabled",
            kind => kind,
        };
        return Err(EngineError::bad_request(format!(
            "conflicting options: port publishing and the {kind} network mode"
        )));
    }
    let mut plan = Plan {
        bindings: host.port_bindings.clone(),
        publish_all: host.publish_all_ports,
        ..Plan::default()
    };
    let known = Known {
        exposed: written(config.exposed_ports.keys()),
        published: published
            .iter()
            .map(|p| (p.protocol, p.container_port))
            .collect(),
    };
    let mut bound = written(plan.bindings.keys());
    for port in &wish.remove {
        plan.withdraw(key(port)?, &known, &mut bound, name)?;
    }
    let mut add = PortMap::new();
    for (port, wanted) in wish.add.iter() {
        let inside = key(&port)?;
        let mut wanted = wanted.unwrap_or_default();
        if wanted.is_empty() {
            wanted.push(PortBinding::default());
        }
        add.update(&word(inside), |all| {
            all.get_or_insert_default().extend(wanted);
        });
        if !known.exposed.contains_key(&inside) {
            plan.exposed.push(word(inside));
        }
    }
    plan.add = bindings(&add)?;
    for (port, wanted) in add.iter() {
        let words = bound.get(&key(&port)?);
        let known = words.and_then(|words| words.first());
        plan.bindings.update(known.unwrap_or(&port), |all| {
            all.get_or_insert_default()
                .extend(wanted.unwrap_or_default());
        });
    }
    Ok(plan)
}

/// What is so before the change. There may be ten thousand of each.
struct Known {
    exposed: Written,
    published: HashSet<Key>,
}

/// How ports are written, which may be in several ways.
type Written = HashMap<Key, Vec<String>>;

fn written(ports: impl Iterator<Item = String>) -> Written {
    let mut written = Written::new();
    for port in ports {
        if let Ok(key) = key(&port) {
            written.entry(key).or_default().push(port);
        }
    }
    written
}

impl Plan {
    fn withdraw(&mut self, key: Key, known: &Known, bound: &mut Written, name: &str) -> Result<()> {
        let words = bound.remove(&key).unwrap_or_default();
        let by_all = self.publish_all && known.exposed.contains_key(&key);
        if words.is_empty() && !by_all && !known.published.contains(&key) {
            return Err(EngineError::bad_request(format!(
                "no public port '{}' published for {name}",
                word(key)
            )));
        }
        for port in words {
            self.bindings.remove(&port);
        }
        if by_all {
            // All but this one, by name.
            self.publish_all = false;
            for other in known.exposed.keys().filter(|other| **other != key) {
                self.bindings.update(&word(*other), |all| {
                    let all = all.get_or_insert_default();
                    if all.is_empty() {
                        all.push(PortBinding::default());
                    }
                });
            }
            *bound = written(self.bindings.keys());
        }
        self.remove.push(key);
        Ok(())
    }

    /// Says in the record what is so by now.
    pub(super) fn apply(&self, config: &mut ContainerConfig, host: &mut HostConfig) {
        host.port_bindings.clone_from(&self.bindings);
        host.publish_all_ports = self.publish_all;
        for port in &self.exposed {
            config.exposed_ports.insert(port, EmptyObject {});
        }
    }

    /// The change that takes this one back, given what was published before.
    pub(super) fn inverse(&self, before: &[Published]) -> (Vec<PortRequest>, Vec<Key>) {
        let mut touched = self.remove.clone();
        touched.extend(self.add.iter().map(|r| (r.protocol, r.container_port)));
        let of_these = |p: &&Published| touched.contains(&(p.protocol, p.container_port));
        let again = before.iter().filter(of_these).map(|p| PortRequest {
            protocol: p.protocol,
            container_port: p.container_port,
            host_ip: Some(p.host_ip),
            host_port: p.host_port,
            host_port_end: p.host_port,
        });
        (again.collect(), touched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(ports: &[(&str, &str)]) -> HostConfig {
        let binding = |host_port: &str| PortBinding {
            host_ip: String::new(),
            host_port: host_port.into(),
        };
        let map = ports
            .iter()
            .map(|(port, at)| ((*port).to_owned(), Some(vec![binding(at)])));
        HostConfig {
            port_bindings: map.collect(),
            ..HostConfig::default()
        }
    }

    fn changed(
        config: &mut ContainerConfig,
        host: &mut HostConfig,
        add: &[(&str, &str)],
        remove: &[&str],
    ) -> Result<Plan> {
        let wish = PortsUpdate {
            add: self::host(add).port_bindings,
            remove: remove.iter().map(|p| (*p).to_owned()).collect(),
        };
        let plan = plan_of(config, host, "web", &wish, &[])?;
        plan.apply(config, host);
        Ok(plan)
    }

    #[test]
    fn ports_come_and_go() {
        let mut config = ContainerConfig::default();
        let mut host = host(&[("80", "8080")]);
        let plan = changed(
            &mut config,
            &mut host,
            &[("80/tcp", "8081"), ("53/udp", "53")],
            &[],
        );
        assert_eq!(plan.unwrap().add.len(), 2);
        assert_eq!(host.port_bindings.get("80").flatten().unwrap().len(), 2);
        assert!(config.exposed_ports.contains_key("53/udp"));
        let plan = changed(
            &mut config,
            &mut host,
            &[("80", "9000")],
            &["80/tcp", "53/udp"],
        )
        .unwrap();
        assert_eq!(plan.remove, [(Protocol::Tcp, 80), (Protocol::Udp, 53)]);
        assert_eq!(host.port_bindings.len(), 1);
        assert_eq!(
            host.port_bindings.get("80/tcp").flatten().unwrap()[0].host_port,
            "9000"
        );
        let error = changed(&mut config, &mut host, &[], &["81"]).unwrap_err();
        assert_eq!(error.message, "no public port '81/tcp' published for web");
    }

    #[test]
    fn all_ports_but_one() {
        let mut config = ContainerConfig {
            exposed_ports: ["80/tcp", "81/tcp"]
                .map(|p| (p.to_owned(), EmptyObject {}))
                .into(),
            ..ContainerConfig::default()
        };
        let mut host = HostConfig {
            publish_all_ports: true,
            ..HostConfig::default()
        };
        changed(&mut config, &mut host, &[], &["80"]).unwrap();
        assert!(!host.publish_all_ports);
        assert_eq!(host.port_bindings.keys().collect::<Vec<_>>(), ["81/tcp"]);
    }

    #[test]
    fn thousands_at_once() {
        let mut config = ContainerConfig::default();
        let mut host = host(&[]);
        let ports: Vec<String> = (10_000..20_000).map(|port| format!("{port}/udp")).collect();
        let all: Vec<_> = ports.iter().map(|port| (port.as_str(), "")).collect();
        let names: Vec<_> = ports.iter().map(String::as_str).collect();
        let begun = std::time::Instant::now();
        let plan = changed(&mut config, &mut host, &all, &[]).unwrap();
        assert_eq!((plan.add.len(), host.port_bindings.len()), (10_000, 10_000));
        let plan = changed(&mut config, &mut host, &[], &names[1..]).unwrap();
        assert_eq!((plan.remove.len(), host.port_bindings.len()), (9999, 1));
        // A sort of all for each would take minutes.
        assert!(begun.elapsed().as_secs() < 20);
    }

    #[test]
    fn modes_without_ports() {
        for (mode, word) in [("host", "host"), ("container:x", "container type")] {
            let mut host = host(&[]);
            host.network_mode = mode.into();
            let error = changed(
                &mut ContainerConfig::default(),
                &mut host,
                &[("80", "80")],
                &[],
            );
            assert_eq!(
                error.unwrap_err().message,
                format!("conflicting options: port publishing and the {word} network mode")
            );
        }
    }
}
