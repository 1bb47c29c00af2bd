//! Networks that are configurations for others: kept and shown, never made.

use std::sync::Arc;

use gantry_driver_api::network::Scope;
use gantry_model::{NetworkId, Timestamp};

use crate::inner::{Inner, Network};
use crate::{NetworkCreate, NetworkError, NetworkRecord, Result};

/// The driver that a configuration is shown with.
const NO_DRIVER: &str = "null";

/// Whether a request keeps to what a configuration, or a network that takes its configuration from one, can say.
pub(crate) fn check_configuration(wanted: &NetworkCreate) -> Result<()> {
    let refuse = |why: &str| Err(NetworkError::forbidden(why));
    if wanted.config_only && (wanted.internal || wanted.attachable || !wanted.scope.is_empty()) {
        return refuse(
            "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.",
        );
    }
    if wanted.config_from.is_empty() {
        return Ok(());
    }
    if wanted.config_only {
        return refuse("a configuration network cannot depend on another configuration network");
    }
    let ipam = &wanted.ipam;
    let says_more = !matches!(ipam.driver.as_str(), "" | "default")
        || wanted.enable_ipv4 == Some(false)
        || wanted.enable_ipv6
        || !wanted.labels.is_empty()
        || !ipam.options.is_empty()
        || !ipam.pools.is_empty();
    if says_more {
        return refuse(
            "user specified configurations are not supported if the network depends on a configuration network",
        );
    }
    if !wanted.options.is_empty() {
        return refuse(
            "network driver options are not supported if the network depends on a configuration network",
        );
    }
    Ok(())
}

impl Inner {
    /// Keeps a configuration.
    pub(crate) fn create_configuration(&self, wanted: NetworkCreate) -> Result<NetworkRecord> {
        let record = NetworkRecord {
            id: NetworkId::generate(),
            name: wanted.name,
            created: Timestamp::now(),
            driver: NO_DRIVER.into(),
            scope: Scope::Local,
            enable_ipv4: wanted.enable_ipv4.unwrap_or(true),
            enable_ipv6: wanted.enable_ipv6,
            internal: false,
            attachable: false,
            ipam: wanted.ipam,
            options: wanted.options,
            labels: wanted.labels,
            predefined: false,
            config_only: true,
            config_from: String::new(),
        };
        let _changing = self.changing.lock();
        self.check_free(&record.name)?;
        self.records.put(record.id.as_str(), &record)?;
        let network = Network::new(record.clone());
        self.networks
            .write()
            .insert(record.id.clone(), Arc::new(network));
        Ok(record)
    }

    /// A request with what it takes from a configuration.
    pub(crate) fn configured(&self, mut wanted: NetworkCreate) -> Result<NetworkCreate> {
        let name = &wanted.config_from;
        if name.is_empty() {
            return Ok(wanted);
        }
        let found = {
            let networks = self.networks.read();
            let found = networks
                .values()
                .find(|n| n.record.config_only && n.record.name == *name);
            found.map(|n| n.record.clone())
        };
        let found = found.ok_or_else(|| {
            NetworkError::new(
                crate::ErrorKind::NotFound,
                format!("configuration network {name:?} does not exist"),
            )
        })?;
        wanted.enable_ipv4 = Some(found.enable_ipv4);
        wanted.enable_ipv6 = found.enable_ipv6;
        wanted.ipam = found.ipam;
        wanted.options = found.options;
        wanted.labels = found.labels;
        Ok(wanted)
    }

    /// Whether a network is no configuration, or nobody's.
    pub(crate) fn check_unused(&self, record: &NetworkRecord) -> Result<()> {
        let networks = self.networks.read();
        let mut others = networks.values().map(|n| &n.record.config_from);
        match record.config_only && others.any(|from| *from == record.name) {
            true => Err(NetworkError::forbidden(format!(
                "error while removing network: configuration network {:?} is in use",
                record.name
            ))),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(wanted: NetworkCreate) -> String {
        check_configuration(&wanted)
            .err()
            .map_or_else(String::new, |e| e.message)
    }

    #[test]
    fn what_configurations_and_their_users_may_say() {
        let only = NetworkCreate {
            config_only: true,
            ..NetworkCreate::default()
        };
        let from = NetworkCreate {
            config_from: "conf".into(),
            ..NetworkCreate::default()
        };
        let label = || [("a".to_owned(), "b".to_owned())].into();
        assert_eq!(refusal(only.clone()), "");
        assert_eq!(refusal(from.clone()), "");
        let internal = NetworkCreate {
            internal: true,
            ..only.clone()
        };
        assert!(
            refusal(internal)
                .starts_with("configuration network can only contain network specific fields.")
        );
        let chained = NetworkCreate {
            config_from: "conf".into(),
            ..only
        };
        assert_eq!(
            refusal(chained),
            "a configuration network cannot depend on another configuration network"
        );
        let labelled = NetworkCreate {
            labels: label(),
            ..from.clone()
        };
        assert!(refusal(labelled).starts_with("user specified configurations are not supported"));
        let with_options = NetworkCreate {
            options: label(),
            ..from
        };
        assert!(refusal(with_options).starts_with("network driver options are not supported"));
    }
}
