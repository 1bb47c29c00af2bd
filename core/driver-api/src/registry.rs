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

/// Names and values of headers.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Headers(pub Vec<(String, String)>);

impl std::fmt::Debug for Headers {
    /// Secrets never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

/// Proxies between the driver and registries, as `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` name them. Addresses of the
/// machine itself are always reached directly.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
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

impl std::fmt::Debug for Proxies {
    /// Secrets never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxies")
            .field("except", &self.except)
            .finish_non_exhaustive()
    }
}

/// A certificate to show to a server that asks for one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClientCertificate {
    /// PEM file of the certificate, followed by what it is signed by.
    pub certificate: std::path::PathBuf,
    /// PEM file of its key; may be the same file.
    pub key: std::path::PathBuf,
}

/// One server to ask.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Endpoint {
    /// The registry's name in references, `docker.io` or `127.0.0.1:5000`.
    pub domain: String,
    /// Where it is reached: scheme, host, port, optional path prefix (`https://registry-1.docker.io`).
    pub url: String,
    /// The path prefix is the whole root of the API: `/v2` does not follow it.
    #[serde(default)]
    pub override_path: bool,
    /// A copy of several registries: requests say whose repository is meant (`?ns=` and `domain`).
    #[serde(default)]
    pub namespaced: bool,
    /// Further headers of every request to this server, and to no other. Secret: they may authorize.
    #[serde(default)]
    pub headers: Headers,
    /// Accept certificates that do not verify.
    #[serde(default)]
    pub skip_verify: bool,
    /// PEM files of additional authorities.
    #[serde(default)]
    pub ca_files: Vec<std::path::PathBuf>,
    /// What to show where a client certificate is asked for; the first that suits.
    #[serde(default)]
    pub client_certificates: Vec<ClientCertificate>,
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
    /// Rate-limit headers as given: `RateLimit-Limit` and `RateLimit-Remaining` (draft-polli-ratelimit-headers-02, with
    /// `;w=SECONDS`), and `Docker-RateLimit-Source`.
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
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthReply {
    /// For people, `Login Succeeded`.
    pub status: String,
    /// Refresh token to store instead of the password; may be empty.
    #[serde(default)]
    pub identity_token: String,
}

impl std::fmt::Debug for AuthReply {
    /// Secrets never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthReply")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// The tags of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tags {
    /// In the server's order.
    pub tags: Vec<String>,
}

/// A blob of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatBlob {
    /// Where.
    pub at: Repository,
    /// The blob.
    pub digest: String,
}

/// A blob that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobStat {
    /// Bytes; 0 where the server does not say.
    pub size: u64,
}

/// Begin to upload a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginUpload {
    /// Where to.
    pub at: Repository,
    /// The blob that will come.
    pub digest: String,
    /// A repository of the same registry that may have it: the server is asked to take it from there. Empty: none.
    #[serde(default)]
    pub mount_from: String,
}

/// An upload that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// Where its bytes go, as the server said last; opaque. Empty when there is nothing to send any more.
    pub location: String,
    /// The server took the blob from the other repository.
    #[serde(default)]
    pub mounted: bool,
    /// Bytes of the blob that the server has.
    #[serde(default)]
    pub offset: u64,
}

/// Ask how far an upload has come that was cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadStatus {
    /// Where to.
    pub at: Repository,
    /// From [`Upload`].
    pub location: String,
}

/// Bytes of an upload, read from descriptor 0 (a pipe or file, from its current position).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadChunk {
    /// Where to.
    pub at: Repository,
    /// From [`Upload`].
    pub location: String,
    /// Bytes of the blob that the server has.
    pub offset: u64,
    /// How many to send.
    pub size: u64,
}

/// The end of an upload, with the bytes that are still to send, if any, in descriptor 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishUpload {
    /// Where to.
    pub at: Repository,
    /// From [`Upload`].
    pub location: String,
    /// What the whole blob must be.
    pub digest: String,
    /// How many bytes come with this call; 0: all are there.
    #[serde(default)]
    pub size: u64,
}

/// Store a manifest or index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutManifest {
    /// Where to.
    pub at: Repository,
    /// A tag, or the digest of the document.
    pub reference: String,
    /// Its type.
    pub media_type: String,
    /// The document, verbatim.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// A manifest that was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutReply {
    /// What the server calls it; empty where it does not say.
    pub digest: String,
}

/// Ask for what refers to a manifest: signatures, attestations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetReferrers {
    /// Where.
    pub at: Repository,
    /// The manifest.
    pub digest: String,
}

/// Ask an index of repositories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// Where.
    pub endpoint: Endpoint,
    /// What to look for.
    pub term: String,
    /// How many at most.
    pub limit: u32,
}

/// A repository that was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SearchResult {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// What its owner says of it.
    #[serde(default)]
    pub description: String,
    /// How many like it.
    #[serde(default)]
    pub star_count: u32,
    /// Docker's own.
    #[serde(default)]
    pub is_official: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SearchReply {
    /// In the server's order.
    pub results: Vec<SearchResult>,
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
        /// Whether a blob is there: `NotFound` when it is not.
        optional fn stat_blob(StatBlob) -> BlobStat;
        /// Begins an upload, or has the server take the blob from another repository. What is begun and not finished
        /// is the server's to clear away.
        optional fn begin_upload(BeginUpload) -> Upload;
        /// Sends bytes; the reply says where the next ones go.
        optional fn upload_chunk(UploadChunk) -> Upload;
        /// How much of an upload the server has, and where the rest goes; `NotFound` or `InvalidArgument` when it has to
        /// begin anew.
        optional fn upload_status(UploadStatus) -> Upload;
        /// Sends the last bytes and ends the upload; the server verifies the digest.
        optional fn finish_upload(FinishUpload) -> ();
        /// Stores a manifest; what it names must be there.
        optional fn put_manifest(PutManifest) -> PutReply;
        /// Deletes a manifest by its digest, or a tag. What is absent is `NotFound`.
        optional fn delete_manifest(GetManifest) -> ();
        /// An index of the manifests that refer to another; empty where there are none or the server has no such list.
        optional fn referrers(GetReferrers) -> ManifestReply;
        /// Looks for repositories by name.
        optional fn search(Search) -> SearchReply;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let secret = || "hush".to_owned();
        let credentials = Credentials {
            password: secret(),
            identity_token: secret(),
            registry_token: secret(),
            ..Credentials::default()
        };
        let proxies = Proxies {
            http: "http://me:hush@proxy".into(),
            https: secret(),
            ..Proxies::default()
        };
        let reply = AuthReply {
            status: "fine".into(),
            identity_token: secret(),
        };
        let headers = Headers(vec![("Authorization".into(), secret())]);
        let text = format!("{credentials:?} {proxies:?} {reply:?} {headers:?}");
        assert!(text.contains("fine") && !text.contains("hush"), "{text}");
    }
}
