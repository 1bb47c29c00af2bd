//! What is wrong, or of no effect, with a container's wishes for networks.

use std::fs;

use gantry_model::container::{ContainerConfig, HostConfig};

use super::invalid;
use crate::Result;

/// Options that contradict the network namespace's owner. Of the request alone: what the image exposes does not.
pub(crate) fn network_mode(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    let shared = host.network_mode.starts_with("container:");
    let is_host = host.network_mode == "host";
    let has = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
    let conflict = |what: &str| invalid(format!("conflicting options: {what}"));
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return conflict("hostname and the UTS mode");
    }
    if is_host && has(&host.links) {
        return conflict(
            "host type networking can't be used with links. This would result in undefined behavior",
        );
    }
    if !shared {
        return Ok(());
    }
    if host.network_mode == "container:" {
        return invalid("invalid network mode: invalid container format container:<name|id>");
    }
    for (given, what) in [
        (!config.hostname.is_empty(), "hostname and the network mode"),
        (
            has(&host.links),
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (has(&host.dns), "dns and the network mode"),
        (
            has(&host.extra_hosts),
            "custom host-to-IP mapping and the network mode",
        ),
        (
            !config.mac_address.is_empty(),
            "mac-address and the network mode",
        ),
        (
            !host.port_bindings.is_empty() || host.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (
            !config.exposed_ports.is_empty(),
            "port exposing and the container type network mode",
        ),
    ] {
        if given {
            return conflict(what);
        }
    }
    Ok(())
}

/// What is asked for and has no effect, in Docker's words.
pub(crate) fn network_warnings(host: &HostConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    let mode = host.network_mode.as_str();
    let forwarded = fs::read_to_string("/proc/sys/net/ipv4/ip_forward");
    if !matches!(mode, "host" | "none") && forwarded.is_ok_and(|value| value.trim() == "0") {
        warnings.push("IPv4 forwarding is disabled. Networking will not work.".to_owned());
    }
    if mode == "host" && !host.port_bindings.is_empty() {
        let text = "Published ports are discarded when using host network mode";
        warnings.push(text.to_owned());
    }
    warnings
}
