//! Published ports, from the API's form to the network's.

use std::collections::HashSet;
use std::net::IpAddr;

use gantry_model::container::{ContainerConfig, HostConfig, PortMap};
use gantry_network::{PortRequest, Protocol};

use crate::{EngineError, Result};

fn invalid<T>(message: String) -> Result<T> {
    Err(EngineError::bad_request(message))
}

/// `80/tcp`, `80`.
pub(crate) fn container_port(text: &str) -> Result<(u16, Protocol)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" | "" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => return invalid(format!("invalid proto: {other}")),
    };
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok((port, protocol)),
        _ => invalid(format!("invalid port specification: {text:?}")),
    }
}

/// `8080`, `8000-8010`, empty or `0`.
fn host_ports(text: &str) -> Result<(u16, u16)> {
    if text.is_empty() {
        return Ok((0, 0));
    }
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (from.parse::<u16>(), to.parse::<u16>()) {
        (Ok(from), Ok(to)) if from <= to => Ok((from, to)),
        _ => invalid(format!("invalid port specification: {text:?}")),
    }
}

/// Every port to publish.
///
/// # Errors
/// Ports, ranges or addresses that are none.
pub(crate) fn requests(config: &ContainerConfig, host: &HostConfig) -> Result<Vec<PortRequest>> {
    let mut requests = bindings(&host.port_bindings)?;
    if host.publish_all_ports {
        let bound: HashSet<_> = requests
            .iter()
            .map(|r| (r.container_port, r.protocol))
            .collect();
        for exposed in config.exposed_ports.keys() {
            let (container_port, protocol) = container_port(&exposed)?;
            if !bound.contains(&(container_port, protocol)) {
                requests.push(PortRequest {
                    protocol,
                    container_port,
                    host_ip: None,
                    host_port: 0,
                    host_port_end: 0,
                });
            }
        }
    }
    Ok(requests)
}

/// Every port of a map.
///
/// # Errors
/// As [`requests`].
pub(crate) fn bindings(map: &PortMap) -> Result<Vec<PortRequest>> {
    let mut requests = Vec::new();
    for (port, bindings) in map.iter() {
        let (container_port, protocol) = container_port(&port)?;
        for binding in bindings.iter().flatten() {
            let (host_port, host_port_end) = host_ports(&binding.host_port)?;
            let address = binding
                .host_ip
                .trim_start_matches('[')
                .trim_end_matches(']');
            let host_ip: Option<IpAddr> = match address {
                "" => None,
                text => match text.parse() {
                    Ok(address) => Some(address),
                    Err(_) => return invalid(format!("invalid IP address: {text}")),
                },
            };
            requests.push(PortRequest {
                protocol,
                container_port,
                host_ip,
                host_port,
                host_port_end,
            });
        }
    }
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::container::{EmptyObject, PortBinding};

    fn host(port: &str, ip: &str, host_port: &str) -> HostConfig {
        HostConfig {
            port_bindings: [(
                port.to_owned(),
                Some(vec![PortBinding {
                    host_ip: ip.into(),
                    host_port: host_port.into(),
                }]),
            )]
            .into(),
            ..HostConfig::default()
        }
    }

    #[test]
    fn forms() {
        let config = ContainerConfig::default();
        let one = requests(&config, &host("53/udp", "127.0.0.1", "8000-8010")).unwrap();
        assert_eq!(
            one,
            [PortRequest {
                protocol: Protocol::Udp,
                container_port: 53,
                host_ip: Some([127, 0, 0, 1].into()),
                host_port: 8000,
                host_port_end: 8010,
            }]
        );
        for (port, ip, host_port) in [
            ("x", "", ""),
            ("80", "a", ""),
            ("80", "", "9-8"),
            ("80/xtp", "", ""),
        ] {
            assert!(requests(&config, &host(port, ip, host_port)).is_err());
        }
    }

    #[test]
    fn publishing_all() {
        let config = ContainerConfig {
            exposed_ports: ["80/tcp", "443/tcp"]
                .map(|p| (p.to_owned(), EmptyObject {}))
                .into(),
            ..ContainerConfig::default()
        };
        let host = HostConfig {
            publish_all_ports: true,
            ..host("80/tcp", "", "8080")
        };
        let all = requests(&config, &host).unwrap();
        assert_eq!(
            all.iter().map(|r| r.host_port).collect::<Vec<_>>(),
            [8080, 0]
        );
    }
}
