//! Checking credentials.

use gantry_driver_api::Call;
use gantry_driver_api::registry::{AuthReply, Credentials};

use crate::Result;
use crate::service::Shared;

/// Checks credentials at the servers of a registry; the first that can be reached decides.
pub(crate) fn authenticate(
    shared: &Shared,
    domain: &str,
    credentials: &Credentials,
) -> Result<AuthReply> {
    let registry = shared.drivers.registry_for(domain, "")?;
    // Mirrors are asked without credentials, so they cannot check any.
    let reply = shared.ask(shared.own_servers(domain, credentials)?, |endpoint| {
        registry.authenticate(&Call::new("login"), endpoint.clone())
    });
    Ok(reply?)
}
