//! What a registry driver is asked for.

use gantry_driver_api::registry::{Endpoint, Repository};

/// An image that is there, at a registry that can be reached.
#[derive(Debug, Clone)]
pub struct RegistryFixture {
    /// Where.
    pub repository: Repository,
    /// A tag, whose manifest has a config blob or layers.
    pub tag: String,
    /// `sha256:...` of a blob of more than one byte.
    pub blob: String,
}

impl RegistryFixture {
    /// An anonymous registry over HTTP or HTTPS.
    #[must_use]
    pub fn new(url: &str, repository: &str, tag: &str, blob: &str) -> Self {
        let domain = url.split("://").last().unwrap_or(url).trim_end_matches('/');
        Self {
            repository: Repository {
                endpoint: Endpoint {
                    domain: domain.to_owned(),
                    url: url.to_owned(),
                    ..Endpoint::default()
                },
                repository: repository.to_owned(),
            },
            tag: tag.to_owned(),
            blob: blob.to_owned(),
        }
    }
}
