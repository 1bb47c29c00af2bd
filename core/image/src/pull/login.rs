//! Checking credentials.

use gantry_driver_api::registry::{AuthReply, Credentials};
use gantry_driver_api::{Call, DriverError, Kind};

use super::retry;
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
    let mut last = DriverError::internal("no registry to ask");
    for endpoint in shared.endpoints(domain, credentials) {
        // Mirrors are asked without credentials, so they cannot check any.
        if endpoint.credentials != *credentials {
            continue;
        }
        match registry.authenticate(&Call::new("login"), endpoint.clone()) {
            Ok(reply) => {
                shared.answered(&endpoint);
                return Ok(reply);
            }
            Err(error) => {
                let decided = !retry::is_transient(&error);
                last = error;
                if decided {
                    break;
                }
            }
        }
    }
    Err(last.into())
}
