//! What the driver and its networks can be told.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_plugin_sdk::links::{self, MTU};
use gantry_plugin_sdk::{DriverError, DriverResult};
use http::Uri;
use ipnet::IpNet;
use serde::Deserialize;

/// A network's number among all networks, under the key that users know from Docker.
pub(crate) const VNI: &str = "com.docker.network.driver.overlay.vxlanid_list";
const ENCRYPTED: &str = "encrypted";

/// The driver's options.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Options {
    /// Where etcd answers: `http://` or `https://`, host, port.
    pub(crate) etcd: Vec<String>,
    /// The address that other hosts send to; none: the one that etcd sees.
    pub(crate) advertise: Option<IpAddr>,
    /// What all keys begin with.
    pub(crate) prefix: String,
    /// What subnets are chosen from.
    pub(crate) pools: Vec<PoolOption>,
    /// The UDP port of all hosts.
    pub(crate) port: u16,
    /// The UDP port of encrypted networks.
    pub(crate) encrypted_port: u16,
    /// Seconds until a silent host is away.
    lease: u64,
    /// Seconds until what a host had that is away is given to others.
    forget: u64,
    /// How to know etcd, and to be known.
    pub(crate) tls: TlsOptions,
    /// Who this host is for an etcd with users.
    user: Option<String>,
    /// The file with that user's password.
    password_file: Option<PathBuf>,
}

/// A range that subnets are chosen from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoolOption {
    pub(crate) base: IpNet,
    pub(crate) size: u8,
}

/// Files in PEM form.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TlsOptions {
    /// Authorities; none: the system's.
    pub(crate) ca: Option<PathBuf>,
    /// What this host shows, and its key.
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            etcd: Vec::new(),
            advertise: None,
            prefix: "/gantry".into(),
            pools: vec![PoolOption {
                base: IpNet::new_assert(IpAddr::from([10, 64, 0, 0]), 10),
                size: 24,
            }],
            port: 4789,
            encrypted_port: 4790,
            lease: 10,
            forget: 300,
            tls: TlsOptions::default(),
            user: None,
            password_file: None,
        }
    }
}

fn invalid(text: impl std::fmt::Display) -> DriverError {
    DriverError::invalid(format!("overlay: {text}"))
}

impl Options {
    pub(crate) fn parse(value: serde_json::Value) -> DriverResult<Self> {
        let mut options: Self = serde_json::from_value(value).map_err(invalid)?;
        for endpoint in &mut options.etcd {
            if endpoint.contains('@') {
                // It would be shown, and is not what etcd's users are known by.
                return Err(invalid(
                    "an etcd endpoint with a user or password in it: use the options user and password_file",
                ));
            }
            let uri: Uri = endpoint
                .parse()
                .map_err(|e| invalid(format!("invalid etcd endpoint {endpoint:?}: {e}")))?;
            let known = matches!(uri.scheme_str(), Some("http" | "https"));
            if !known || uri.authority().is_none() || uri.path() != "/" {
                return Err(invalid(format!(
                    "invalid etcd endpoint {endpoint:?}: it should be like http://10.0.0.1:2379"
                )));
            }
            let length = endpoint.trim_end_matches('/').len();
            endpoint.truncate(length);
        }
        for PoolOption { base, size } in &options.pools {
            let sizes = base.prefix_len()..=base.max_prefix_len() - 2;
            if base.trunc() != *base || !sizes.contains(size) {
                return Err(invalid(format!("invalid pool {base} of size {size}")));
            }
        }
        if options.port == options.encrypted_port {
            return Err(invalid("port and encrypted_port must differ"));
        }
        // etcd makes shorter leases longer without saying so.
        if options.lease < 2 || options.forget < options.lease {
            return Err(invalid(
                "lease must be 2 seconds at least, and forget not less than lease",
            ));
        }
        if options.tls.certificate.is_some() != options.tls.key.is_some() {
            return Err(invalid("tls: certificate and key go together"));
        }
        if options.user.is_some() != options.password_file.is_some() {
            return Err(invalid("user and password_file go together"));
        }
        let length = options.prefix.trim_end_matches('/').len();
        options.prefix.truncate(length);
        Ok(options)
    }

    /// The port of networks that are encrypted, or not.
    pub(crate) fn port_of(&self, encrypted: bool) -> u16 {
        match encrypted {
            true => self.encrypted_port,
            false => self.port,
        }
    }

    /// This host's user at etcd, and the file with the password.
    pub(crate) fn login(&self) -> Option<(&str, &Path)> {
        Some((self.user.as_deref()?, self.password_file.as_deref()?))
    }

    pub(crate) fn lease(&self) -> Duration {
        Duration::from_secs(self.lease)
    }

    pub(crate) fn forget(&self) -> Duration {
        Duration::from_secs(self.forget)
    }
}

/// Options of one network. Unknown keys are ignored, as Docker does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NetworkOptions {
    /// MTU, 0 for what the way between the hosts allows.
    pub(crate) mtu: u32,
    /// The network's number, once it has one.
    pub(crate) vni: Option<u32>,
    /// Whether what goes from host to host is encrypted.
    pub(crate) encrypted: bool,
}

impl NetworkOptions {
    pub(crate) fn parse(given: &BTreeMap<String, String>) -> DriverResult<Self> {
        let mut options = Self::default();
        if let Some(value) = given.get(MTU) {
            options.mtu = links::mtu(value)?;
        }
        if let Some(value) = given.get(VNI) {
            let vni = value.parse().ok().filter(|vni| (1..1 << 24).contains(vni));
            let Some(vni) = vni else {
                return Err(DriverError::invalid(format!(
                    "invalid value for {VNI}: {value:?} is not one number from 1 to 16777215"
                )));
            };
            options.vni = Some(vni);
        }
        // Without a value it is meant, as in Docker's examples.
        options.encrypted = match given.get(ENCRYPTED).map(String::as_str) {
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
            Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => true,
            Some(value) => {
                return Err(DriverError::invalid(format!(
                    "invalid value for {ENCRYPTED}: {value}"
                )));
            }
        };
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use gantry_plugin_sdk::ErrorCode;
    use serde_json::json;

    use super::*;

    #[test]
    fn options_are_checked() {
        let options = Options::parse(json!({})).unwrap();
        assert_eq!((options.port, options.prefix.as_str()), (4789, "/gantry"));
        assert_eq!(options.pools[0].base.to_string(), "10.64.0.0/10");
        let options = Options::parse(json!({
            "etcd": ["http://10.0.0.1:2379/", "https://[fd00::1]:2379"], "prefix": "/a/", "lease": 2, "forget": 2,
            "pools": [{"base": "fd00:1::/48", "size": 64}], "advertise": "10.0.0.9"
        }));
        let options = options.unwrap();
        assert_eq!(
            options.etcd,
            ["http://10.0.0.1:2379", "https://[fd00::1]:2379"]
        );
        assert_eq!(options.prefix, "/a");
        for bad in [
            json!({"etcd": ["10.0.0.1:2379"]}),
            json!({"etcd": ["http://10.0.0.1:2379/v3"]}),
            json!({"pools": [{"base": "10.64.0.1/10", "size": 24}]}),
            json!({"pools": [{"base": "10.64.0.0/10", "size": 31}]}),
            json!({"pools": [{"base": "10.64.0.0/10", "size": 9}]}),
            json!({"port": 4790}),
            json!({"lease": 1}),
            json!({"lease": 10, "forget": 5}),
            json!({"tls": {"key": "/k"}}),
            json!({"user": "u"}),
            json!({"etcd": ["http://u:p@10.0.0.1:2379"]}),
            json!({"etcd": ["http://u:p w@10.0.0.1:2379"]}),
            json!({"etdc": []}),
        ] {
            let error = Options::parse(bad.clone()).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{bad}");
            assert!(!error.message.contains("u:p"), "{error}");
        }
    }

    #[test]
    fn options_of_networks_are_checked() {
        let parse = |key: &str, value: &str| {
            NetworkOptions::parse(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
        };
        assert_eq!(parse(MTU, "1400").unwrap().mtu, 1400);
        assert_eq!(parse(VNI, "4097").unwrap().vni, Some(4097));
        for (value, encrypted) in [("", true), ("true", true), ("false", false)] {
            assert_eq!(parse(ENCRYPTED, value).unwrap().encrypted, encrypted);
        }
        for (key, value, code) in [
            (MTU, "12", ErrorCode::InvalidArgument),
            (VNI, "4097,4098", ErrorCode::InvalidArgument),
            (VNI, "16777216", ErrorCode::InvalidArgument),
            (ENCRYPTED, "maybe", ErrorCode::InvalidArgument),
        ] {
            assert_eq!(parse(key, value).unwrap_err().code, code, "{key}={value}");
        }
    }
}
