//! Pulling every tag of a repository.

use gantry_driver_api::registry::Repository;
use gantry_driver_api::{Call, Kind};
use gantry_model::Reference;

use super::resolve::translate;
use crate::service::Shared;
use crate::{Error, Progress, PullOptions, Pulled, Result};

/// Pulls all tags of `repository`, in the registry's order; the first failure ends it.
pub(crate) fn pull_all(
    shared: &Shared,
    repository: &Reference,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Vec<Pulled>> {
    let mut pulled = Vec::new();
    for tag in tags(shared, repository, options)? {
        // A registry may hold tags that are none; nobody can ask for them by name either.
        let Ok(reference) = repository.with_tag(&tag) else {
            continue;
        };
        pulled.push(super::pull(shared, &reference, options, progress)?);
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
    }
    Ok(pulled)
}

fn tags(shared: &Shared, repository: &Reference, options: &PullOptions) -> Result<Vec<String>> {
    let registry = shared
        .drivers
        .registry(&shared.drivers.default_name(Kind::Registry))?;
    let endpoints = shared.endpoints(repository.domain(), &options.credentials);
    let reply = shared.ask(endpoints, |endpoint| {
        let request = Repository {
            endpoint: endpoint.clone(),
            repository: repository.path().into(),
        };
        registry.list_tags(&Call::new("pull"), request)
    });
    match reply {
        Ok(reply) => Ok(reply.tags),
        Err(error) => Err(translate(error, repository)),
    }
}
