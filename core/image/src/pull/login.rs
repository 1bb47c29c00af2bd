//! Checking credentials.

use gantry_driver_api::registry::{AuthReply, Credentials};
use gantry_driver_api::{Call, Kind};

use crate::Result;
use crate::service::Shared;

/// Checks credentials at the servers of a registry; the first that can be reached decides.
pub(crate) fn authenticate(
    shared: &Shared,
    domain: &str,
    credentials: &Credentials,
) -> Result<AuthReply> {
    let registry = shared
        .drivers
        .registry(&shared.drivers.default_name(Kind::Registry))?;
    // Mirrors are asked without credentials, so they cannot check any.
    let endpoints = shared
        .endpoints(domain, credentials)
        .into_iter()
        .filter(|endpoint| endpoint.credentials == *credentials);
    let reply = shared.ask(endpoints, |endpoint| {
        registry.authenticate(&Call::new("login"), endpoint.clone())
    });
    Ok(reply?)
}
