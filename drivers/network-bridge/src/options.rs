//! The options that users know from Docker's bridge driver.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gantry_plugin_sdk::links::{self, MTU, link_name};
use gantry_plugin_sdk::network::{BridgeWays, EndpointSpec, GatewayMode, NetworkSpec};
use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode};

const PREFIX: &str = "com.docker.network.bridge.";
const INNER_PREFIX: &str = "com.docker.network.container_iface_prefix";
const HOST_V4: &str = "com.docker.network.host_ipv4";
const HOST_V6: &str = "com.docker.network.host_ipv6";

/// Options of one network. Unknown keys are ignored, as Docker does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// The bridge's name.
    pub(crate) link: Option<String>,
    /// Members may talk to each other.
    pub(crate) icc: bool,
    /// Source addresses are translated on the way out.
    pub(crate) masquerade: bool,
    /// MTU, 0 for the kernel's.
    pub(crate) mtu: u32,
    /// What links inside sandboxes are called, before the number.
    pub(crate) inner_prefix: Option<String>,
    /// The bridge gets no IPv4 address; somebody else has the gateway's.
    pub(crate) inhibit_ipv4: bool,
    /// Gateway modes, source addresses and trusted links.
    pub(crate) ways: BridgeWays,
}

fn wrong(key: &str, value: &str, why: impl std::fmt::Display) -> DriverError {
    DriverError::invalid(format!("failed to parse {key} value: {value} ({why})"))
}

/// What Go's `strconv.ParseBool` takes.
fn boolean(key: &str, value: &str) -> DriverResult<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(wrong(
            key,
            value,
            format_args!("strconv.ParseBool: parsing {value:?}: invalid syntax"),
        )),
    }
}

fn address(key: &str, value: &str) -> DriverResult<IpAddr> {
    value.parse().map_err(|_| wrong(key, value, "nil ip"))
}

fn mode(key: &str, value: &str) -> DriverResult<GatewayMode> {
    match value {
        "nat" => Ok(GatewayMode::Nat),
        "nat-unprotected" => Ok(GatewayMode::NatUnprotected),
        "routed" => Ok(GatewayMode::Routed),
        "isolated" => Ok(GatewayMode::Isolated),
        _ => Err(wrong(
            key,
            value,
            format_args!("unknown gateway mode {value}"),
        )),
    }
}

impl Options {
    /// The options of a network, checked against what else is said of it.
    pub(crate) fn of(spec: &NetworkSpec) -> DriverResult<Self> {
        let options = Self::parse(&spec.options)?;
        let modes = [options.ways.ipv4, options.ways.ipv6];
        if modes.contains(&GatewayMode::Isolated) && !spec.internal {
            return Err(DriverError::internal(
                "gateway mode 'isolated' can only be used for an internal network",
            ));
        }
        for v6 in [false, true] {
            let of_family = |s: &&gantry_plugin_sdk::network::Subnet| s.net.addr().is_ipv6() == v6;
            if spec.subnets.iter().filter(of_family).count() > 1 {
                return Err(DriverError::new(
                    ErrorCode::PermissionDenied,
                    "bridge driver doesn't support multiple subnets",
                ));
            }
        }
        Ok(options)
    }

    pub(crate) fn parse(given: &BTreeMap<String, String>) -> DriverResult<Self> {
        let mut options = Self {
            link: None,
            icc: true,
            masquerade: true,
            mtu: 0,
            inner_prefix: None,
            inhibit_ipv4: false,
            ways: BridgeWays::default(),
        };
        for (key, value) in given {
            match key.as_str() {
                MTU => options.mtu = links::mtu(value)?,
                INNER_PREFIX => {
                    link_name(key, &format!("{value}0"))?;
                    options.inner_prefix = Some(value.clone());
                }
                HOST_V4 | HOST_V6 => options.ways.sources.push(address(key, value)?),
                _ => {
                    if let Some(name) = key.strip_prefix(PREFIX) {
                        options.set(name, key, value)?;
                    }
                }
            }
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, key: &str, value: &str) -> DriverResult<()> {
        match name {
            "name" => self.link = Some(link_name(key, value)?),
            "enable_icc" => self.icc = boolean(key, value)?,
            "enable_ip_masquerade" => self.masquerade = boolean(key, value)?,
            // Core publishes there; it is only checked here.
            "host_binding_ipv4" | "host_binding_ipv6" => drop(address(key, value)?),
            "gateway_mode_ipv4" => self.ways.ipv4 = mode(key, value)?,
            "gateway_mode_ipv6" => self.ways.ipv6 = mode(key, value)?,
            "inhibit_ipv4" => self.inhibit_ipv4 = boolean(key, value)?,
            "trusted_host_interfaces" => {
                let links = value.split(':').filter(|link| !link.is_empty());
                let links: DriverResult<_> = links.map(|link| link_name(key, link)).collect();
                self.ways.trusted = links?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the bridge bears the gateway's address of a family.
    pub(crate) fn has_address(&self, v6: bool) -> bool {
        self.ways.mode(v6) != GatewayMode::Isolated && (v6 || !self.inhibit_ipv4)
    }

    /// The name of an endpoint's link inside its sandbox: what the endpoint's own option says, else the network's
    /// prefix with the number that core chose.
    pub(crate) fn inner_link(&self, endpoint: &EndpointSpec) -> String {
        if let Some(name) = links::inner_name(endpoint) {
            return name;
        }
        match &self.inner_prefix {
            Some(prefix) => format!(
                "{prefix}{}",
                endpoint
                    .link
                    .trim_start_matches(|c: char| !c.is_ascii_digit())
            ),
            None => endpoint.link.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use gantry_plugin_sdk::links::INNER_NAME;

    use super::*;

    fn parse(key: &str, value: &str) -> DriverResult<Options> {
        Options::parse(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn options_are_checked() {
        assert_eq!(parse(MTU, "1400").unwrap().mtu, 1400);
        assert!(
            !parse("com.docker.network.bridge.enable_icc", "false")
                .unwrap()
                .icc
        );
        let name = "com.docker.network.bridge.name";
        assert_eq!(parse(name, "br7").unwrap().link.as_deref(), Some("br7"));
        assert!(parse("com.example.other", "x").is_ok());
        for (key, value) in [
            (MTU, "12"),
            (MTU, "x"),
            (name, "much-too-long-name"),
            (name, "a/b"),
            ("com.docker.network.bridge.enable_icc", "maybe"),
            ("com.docker.network.bridge.host_binding_ipv4", "here"),
        ] {
            assert_eq!(
                parse(key, value).unwrap_err().code,
                ErrorCode::InvalidArgument,
                "{key}"
            );
        }
        let modes = "com.docker.network.bridge.gateway_mode_ipv6";
        assert_eq!(
            parse(modes, "routed").unwrap().ways.ipv6,
            GatewayMode::Routed
        );
        assert_eq!(
            parse(modes, "bridged").unwrap_err().message,
            format!("failed to parse {modes} value: bridged (unknown gateway mode bridged)")
        );
        let trusted = parse(
            "com.docker.network.bridge.trusted_host_interfaces",
            "eth1:vxlan.7",
        );
        assert_eq!(trusted.unwrap().ways.trusted, ["eth1", "vxlan.7"]);
        assert_eq!(
            parse(HOST_V4, "x").unwrap_err().message,
            format!("failed to parse {HOST_V4} value: x (nil ip)")
        );
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let mut spec = NetworkSpec {
            id: "a".repeat(64),
            name: "n".into(),
            subnets: Vec::new(),
            internal: false,
            options: BTreeMap::from([(format!("{PREFIX}gateway_mode_ipv4"), "isolated".into())]),
        };
        let error = Options::of(&spec).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (
                ErrorCode::Internal,
                "gateway mode 'isolated' can only be used for an internal network"
            )
        );
        spec.internal = true;
        let options = Options::of(&spec).unwrap();
        assert!(!options.has_address(false) && options.has_address(true));
        for net in ["10.9.0.0/24", "10.9.1.0/24"] {
            spec.subnets.push(gantry_plugin_sdk::network::Subnet {
                net: net.parse().unwrap(),
                gateway: None,
            });
        }
        assert_eq!(
            Options::of(&spec).unwrap_err().code,
            ErrorCode::PermissionDenied
        );
    }

    #[test]
    fn inner_links_are_named_by_endpoint_network_and_core() {
        let mut endpoint = EndpointSpec {
            network: String::new(),
            id: String::new(),
            addresses: Vec::new(),
            mac: None,
            link: "eth1".into(),
            options: BTreeMap::new(),
        };
        assert_eq!(parse(MTU, "0").unwrap().inner_link(&endpoint), "eth1");
        let prefixed = parse(INNER_PREFIX, "net").unwrap();
        assert_eq!(prefixed.inner_link(&endpoint), "net1");
        endpoint.options.insert(INNER_NAME.into(), "lan".into());
        assert_eq!(prefixed.inner_link(&endpoint), "lan");
    }
}
