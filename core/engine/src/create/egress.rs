//! Egress lists, from the API's form to the network's.

use gantry_model::container::{ContainerConfig, HostConfig};
use gantry_network::EgressList;

use crate::{EngineError, Result};

/// Where a container may go; none: anywhere.
///
/// # Errors
/// Entries that are no networks and no names; network modes in which there is nothing of its own to rule.
pub(crate) fn list(config: &ContainerConfig, host: &HostConfig) -> Result<Option<EgressList>> {
    let Some(egress) = &host.egress else {
        return Ok(None);
    };
    let mode = host.network_mode.as_str();
    let shared = match mode.split(':').next() {
        _ if config.network_disabled => None,
        Some("host") => Some("host"),
        Some("container") => Some("container type"),
        _ => None,
    };
    if let Some(kind) = shared {
        return Err(EngineError::bad_request(format!(
            "conflicting options: egress allow-list and the {kind} network mode"
        )));
    }
    let entries = egress.allow.as_deref().unwrap_or_default();
    Ok(Some(EgressList::parse(entries)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::container::Egress;

    #[test]
    fn lists_and_modes() {
        let config = ContainerConfig::default();
        let mut host = HostConfig::default();
        assert_eq!(list(&config, &host).unwrap(), None);
        host.egress = Some(Egress { allow: None });
        assert_eq!(list(&config, &host).unwrap(), Some(EgressList::default()));
        host.network_mode = "container:x".into();
        assert_eq!(
            list(&config, &host).unwrap_err().message,
            "conflicting options: egress allow-list and the container type network mode"
        );
        host.network_mode = "app".into();
        host.egress = Some(Egress {
            allow: Some(vec!["10.0.0.0/99".into()]),
        });
        assert!(list(&config, &host).is_err());
    }
}
