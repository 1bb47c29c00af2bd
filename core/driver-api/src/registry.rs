//! Registry drivers: one attempt at one endpoint. Mirrors, retry, resume and verification are core's loop.
//!
//! Failures are classified: `Unauthenticated` (401), `PermissionDenied` (403), `NotFound` (404),
//! `ResourceExhausted` (429), `Unavailable` (5xx, connection trouble), `InvalidArgument` (other 4xx).

use serde::{Deserialize, Serialize};

use crate::contract::contract;

/// What a client proves itself with. All empty: anonymous.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Credentials {
    /// User name.
    #[serde(default)]
    pub username: String,
    /// Password or personal token.
    #[serde(default)]
    pub password: String,
    /// OAuth2 refresh token (`identitytoken`), used instead of the password when set.
    #[serde(default)]
    pub identity_token: String,
    /// Bearer token to send as it is.
    #[serde(default)]
    pub registry_token: String,
}

impl std::fmt::Debug for Credentials {
    /// Secrets never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Proxies between the driver and registries, as `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` name them. Addresses of the
/// machine itself are always reached directly.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Proxies {
    /// URL of the proxy for plain HTTP; may hold a user and password.
    #[serde(default)]
    pub http: String,
    /// URL of the proxy for HTTPS.
    #[serde(default)]
    pub https: String,
    /// Hosts, domains and networks that are reached directly, separated by commas; `*` for all.
    #[serde(default)]
    pub except: String,
}

/// One server to ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The registry's name in references, `docker.io` or `127.0.0.1:5000`.
    pub domain: String,
    /// Where it is reached: scheme, host, port, optional path prefix (`https://registry-1.docker.io`).
    pub url: String,
    /// Accept certificates that do not verify.
    #[serde(default)]
    pub skip_verify: bool,
    /// PEM files of additional authorities.
    #[serde(default)]
    pub ca_files: Vec<std::path::PathBuf>,
    /// What to prove oneself with.
    #[serde(default)]
    pub credentials: Credentials,
    /// How it is reached.
    #[serde(default)]
    pub proxies: Proxies,
}

/// A repository at an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    /// Where.
    pub endpoint: Endpoint,
    /// Repository path, `library/busybox`.
    pub repository: String,
}

/// Ask for a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetManifest {
    /// Where.
    pub at: Repository,
    /// A tag or digest.
    pub reference: String,
}

/// A manifest or index, verbatim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestReply {
    /// `Content-Type`, or the document's own `mediaType`.
    pub media_type: String,
    /// `Docker-Content-Digest` as the server said it; not verified. Empty when absent.
    #[serde(default)]
    pub digest: String,
    /// The document; at most 4 MiB. Empty in the reply of `resolve`.
    #[serde(default, with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// Length of the document.
    #[serde(default)]
    pub size: u64,
    /// Rate-limit headers (`RateLimit-Limit`, `RateLimit-Remaining`) as given.
    #[serde(default)]
    pub rate_limit: Vec<(String, String)>,
}

/// Fetch a blob into descriptor 0 (a pipe or file, written from its current position).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchBlob {
    /// Where.
    pub at: Repository,
    /// The blob.
    pub digest: String,
    /// Bytes to skip (`Range`): what is written begins here. Where the server ignores the range, the driver drops what
    /// comes before.
    #[serde(default)]
    pub offset: u64,
}

/// How a fetch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchReply {
    /// Offset from which the server really sent: 0 when it ignored the range.
    pub offset: u64,
    /// Bytes written.
    pub written: u64,
}

/// What a login check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthReply {
    /// For people, `Login Succeeded`.
    pub status: String,
    /// Refresh token to store instead of the password; may be empty.
    #[serde(default)]
    pub identity_token: String,
}

/// The tags of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tags {
    /// In the server's order.
    pub tags: Vec<String>,
}

contract! {
    /// Access to registries. Connections and tokens may be kept between calls; credentials may not be stored.
    pub trait Registry: Driver {
        /// Checks credentials.
        required fn authenticate(Endpoint) -> AuthReply;
        /// Asks which manifest a reference names, without fetching it.
        required fn resolve(GetManifest) -> ManifestReply;
        /// Fetches a manifest.
        required fn fetch_manifest(GetManifest) -> ManifestReply;
        /// Fetches a blob into descriptor 0. Must notice that the reader went away (EPIPE) and stop: `Cancelled`.
        required fn fetch_blob(FetchBlob) -> FetchReply;
        /// Lists tags.
        optional fn list_tags(Repository) -> Tags;
    }
}
