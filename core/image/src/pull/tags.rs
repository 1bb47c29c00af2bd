//! Pulling every tag of a repository.

use gantry_driver_api::Call;
use gantry_driver_api::registry::{Credentials, Repository};
use gantry_model::Reference;

use super::resolve::{ATTEMPTS, translate};
use super::retry;
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
    for tag in tags(shared, repository, &options.credentials, || {
        progress.cancelled()
    })
    .map_err(super::without_prompt)?
    {
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

/// The tags of a repository, as its registry or a mirror lists them.
pub(crate) fn tags(
    shared: &Shared,
    repository: &Reference,
    credentials: &Credentials,
    unwanted: impl Fn() -> bool,
) -> Result<Vec<String>> {
    let registry = shared
        .drivers
        .registry_for(repository.domain(), repository.path())?;
    let mut servers = shared.servers(repository.domain(), credentials)?;
    servers.retain(|server| server.resolves);
    let base = shared.settings().retry_base;
    let reply = shared.ask(servers, |endpoint| {
        let request = Repository {
            endpoint: endpoint.clone(),
            repository: repository.path().into(),
        };
        retry::persist(ATTEMPTS, base, &unwanted, || {
            registry.list_tags(&Call::new("pull"), request.clone())
        })
    });
    match reply {
        Ok(reply) => Ok(reply.tags),
        Err(error) => Err(translate(error, repository)),
    }
}
