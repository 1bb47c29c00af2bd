//! The options that users know from Docker's bridge driver.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gantry_plugin_sdk::links::{self, MTU, link_name};
use gantry_plugin_sdk::network::EndpointSpec;
use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode};

const PREFIX: &str = "com.docker.network.bridge.";
const INNER_PREFIX: &str = "com.docker.network.container_iface_prefix";

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
}

/// What Go's `strconv.ParseBool` takes.
fn boolean(key: &str, value: &str) -> DriverResult<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(DriverError::invalid(format!(
            "invalid value for {key}: strconv.ParseBool: parsing {value:?}: invalid syntax"
        ))),
    }
}

fn refuse(key: &str, value: &str) -> DriverError {
    DriverError::new(
        ErrorCode::NotImplemented,
        format!("{key}={value} is not supported"),
    )
}

impl Options {
    pub(crate) fn parse(given: &BTreeMap<String, String>) -> DriverResult<Self> {
        let mut options = Self {
            link: None,
            icc: true,
            masquerade: true,
            mtu: 0,
            inner_prefix: None,
        };
        for (key, value) in given {
            match key.as_str() {
                MTU => options.mtu = links::mtu(value)?,
                INNER_PREFIX => {
                    link_name(key, &format!("{value}0"))?;
                    options.inner_prefix = Some(value.clone());
                }
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
            "host_binding_ipv4" | "host_binding_ipv6" => {
                value.parse::<IpAddr>().map_err(|_| {
                    DriverError::invalid(format!(
                        "invalid value for {key}: invalid IP address: {value}"
                    ))
                })?;
            }
            "gateway_mode_ipv4" | "gateway_mode_ipv6" if !matches!(value, "" | "nat") => {
                return Err(refuse(key, value));
            }
            "inhibit_ipv4" if boolean(key, value)? => return Err(refuse(key, value)),
            _ => {}
        }
        Ok(())
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
        assert_eq!(
            parse("com.docker.network.bridge.gateway_mode_ipv4", "routed")
                .unwrap_err()
                .code,
            ErrorCode::NotImplemented
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
