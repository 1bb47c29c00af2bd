//! Docker Hub and any OCI distribution registry.
//!
//! One attempt at one endpoint: this driver sends requests, answers authentication challenges, follows redirects and
//! classifies failures in the words of Docker's client. Mirrors, retries, resumption and verification are core's.
//! Source: OCI distribution specification; distribution's token authentication documents.
//!
//! - Credentials are sent to the endpoint itself when it asks for them, or to the token server that it names; never along
//!   a redirect, and never from TLS to a server without it. An endpoint's own headers go to its own server only.
//! - Tokens are kept in memory until they expire; credentials are not kept.
//! - Calls come from any thread at once and share connections. A call runs on its caller's thread; two threads of the
//!   driver's own, started with the first call, serve sockets.

mod auth;
mod blob;
mod challenge;
mod client;
mod error;
mod http_call;
mod proxy;
mod search;
mod tls;
mod upload;

use std::sync::OnceLock;
use std::time::Duration;

use gantry_plugin_sdk::registry::{
    AuthReply, BeginUpload, BlobStat, Endpoint, FetchBlob, FetchReply, FinishUpload, GetManifest,
    GetReferrers, ManifestReply, PutManifest, PutReply, Repository, Search, SearchReply, StatBlob,
    Tags, Upload, UploadChunk, UploadStatus,
};
use gantry_plugin_sdk::{
    Call, Driver, DriverConfig, DriverError, DriverResult, ErrorCode, Log, Registry,
};
use http::Method;
use tokio::runtime::Runtime;

use crate::auth::Tokens;
use crate::client::Clients;
use crate::http_call::Wanted;

/// What registries tell of their limits.
const RATE_LIMIT: [&str; 3] = [
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "Docker-RateLimit-Source",
];
/// A manifest of more bytes is refused.
const MAX_MANIFEST: usize = 4 << 20;
/// A list of more tags is cut off.
const MAX_TAGS: usize = 100_000;
/// Media types of manifests, the wanted ones first.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
                      */*;q=0.1";

/// The driver.
pub struct Hub {
    runtime: OnceLock<Runtime>,
    clients: Clients,
    tokens: Tokens,
    log: Log,
}

impl Hub {
    /// Starts nothing yet.
    ///
    /// # Errors
    /// None; the form is the plugin's.
    pub fn new(_config: DriverConfig, log: Log) -> DriverResult<Self> {
        Ok(Self {
            runtime: OnceLock::new(),
            clients: Clients::default(),
            tokens: Tokens::default(),
            log,
        })
    }

    /// Runs a call to its end, on this thread, within its deadline.
    fn run<T>(
        &self,
        call: &Call<'_>,
        work: impl Future<Output = DriverResult<T>>,
    ) -> DriverResult<T> {
        let runtime = self.runtime()?;
        let Some(timeout) = call.timeout else {
            return runtime.block_on(work);
        };
        runtime.block_on(async {
            tokio::time::timeout(timeout, work)
                .await
                .unwrap_or_else(|_| {
                    Err(DriverError::new(
                        ErrorCode::DeadlineExceeded,
                        "context deadline exceeded",
                    ))
                })
        })
    }

    fn runtime(&self) -> DriverResult<&Runtime> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(4)
            .thread_name("registry-hub")
            .thread_stack_size(512 << 10)
            .enable_all()
            .build()
            .map_err(|e| DriverError::io("starting the registry client", &e))?;
        // Of two first calls one wins; the other's runtime ends here.
        if let Err(extra) = self.runtime.set(runtime) {
            extra.shutdown_background();
        }
        self.runtime
            .get()
            .ok_or_else(|| DriverError::internal("no runtime"))
    }

    async fn manifest(&self, request: GetManifest, method: Method) -> DriverResult<ManifestReply> {
        let path = format!("manifests/{}", request.reference);
        let mut wanted = Wanted::pull(method, &request.at.repository);
        wanted
            .headers
            .insert(http::header::ACCEPT, http::HeaderValue::from_static(ACCEPT));
        let response = self
            .request(&request.at, &path, wanted)
            .await?
            .succeeded()
            .await?;
        let header = |name: &str| response.header(name).unwrap_or_default().to_owned();
        let rate_limit = RATE_LIMIT
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), response.header(name)?.to_owned())))
            .collect();
        let size = header("content-length").parse().unwrap_or(0);
        let mut reply = ManifestReply {
            media_type: header("content-type"),
            digest: header("docker-content-digest"),
            bytes: Vec::new(),
            size,
            rate_limit,
        };
        if !response.is_head() {
            reply.bytes = response.body(MAX_MANIFEST).await?;
            reply.size = reply.bytes.len() as u64;
        }
        Ok(reply)
    }

    async fn tags(&self, at: Repository) -> DriverResult<Tags> {
        #[derive(serde::Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut path = "tags/list".to_owned();
        let mut tags = Vec::new();
        loop {
            let response = self
                .request(&at, &path, Wanted::pull(Method::GET, &at.repository))
                .await?
                .succeeded()
                .await?;
            let next = response.header("link").and_then(next_page);
            let page: Page = serde_json::from_slice(&response.body(MAX_MANIFEST).await?)
                .map_err(|e| DriverError::internal(format!("invalid list of tags: {e}")))?;
            let page = page.tags.unwrap_or_default();
            let empty = page.is_empty();
            tags.extend(page);
            match next {
                Some(query) if !empty && tags.len() < MAX_TAGS => {
                    path = format!("tags/list?{query}");
                }
                _ => return Ok(Tags { tags }),
            }
        }
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").finish_non_exhaustive()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_millis(100));
        }
    }
}

/// The query of the next page in a `Link` header (RFC 8288); only that part of it is believed.
fn next_page(link: &str) -> Option<String> {
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    if !rest.contains("next") {
        return None;
    }
    Some(target.split_once('?')?.1.to_owned())
}

impl Driver for Hub {}

impl Registry for Hub {
    fn authenticate(&self, call: &Call<'_>, request: Endpoint) -> DriverResult<AuthReply> {
        self.run(call, self.login(request))
    }
    fn resolve(&self, call: &Call<'_>, request: GetManifest) -> DriverResult<ManifestReply> {
        self.run(call, self.manifest(request, Method::HEAD))
    }
    fn fetch_manifest(&self, call: &Call<'_>, request: GetManifest) -> DriverResult<ManifestReply> {
        self.run(call, self.manifest(request, Method::GET))
    }
    fn fetch_blob(&self, call: &Call<'_>, request: FetchBlob) -> DriverResult<FetchReply> {
        let Some(target) = call.fds.first() else {
            return Err(DriverError::invalid("no descriptor to write to"));
        };
        self.run(call, self.blob(request, *target))
    }
    fn list_tags(&self, call: &Call<'_>, request: Repository) -> DriverResult<Tags> {
        self.run(call, self.tags(request))
    }
    fn stat_blob(&self, call: &Call<'_>, request: StatBlob) -> DriverResult<BlobStat> {
        self.run(call, self.stat(request))
    }
    fn begin_upload(&self, call: &Call<'_>, request: BeginUpload) -> DriverResult<Upload> {
        self.run(call, self.begin(request))
    }
    fn upload_chunk(&self, call: &Call<'_>, request: UploadChunk) -> DriverResult<Upload> {
        let source = source(call)?;
        self.run(call, self.chunk(request, source))
    }
    fn upload_status(&self, call: &Call<'_>, request: UploadStatus) -> DriverResult<Upload> {
        self.run(call, self.status(request))
    }
    fn finish_upload(&self, call: &Call<'_>, request: FinishUpload) -> DriverResult<()> {
        let source = match request.size {
            0 => None,
            _ => Some(source(call)?),
        };
        self.run(call, self.finish(request, source))
    }
    fn put_manifest(&self, call: &Call<'_>, request: PutManifest) -> DriverResult<PutReply> {
        self.run(call, self.put(request))
    }
    fn delete_manifest(&self, call: &Call<'_>, request: GetManifest) -> DriverResult<()> {
        self.run(call, self.delete(request))
    }
    fn referrers(&self, call: &Call<'_>, request: GetReferrers) -> DriverResult<ManifestReply> {
        self.run(call, self.list_referrers(request))
    }
    fn search(&self, call: &Call<'_>, request: Search) -> DriverResult<SearchReply> {
        self.run(call, self.find(request))
    }
}

/// The descriptor that bytes to send come from, as one of this driver's own.
fn source(call: &Call<'_>) -> DriverResult<std::os::fd::OwnedFd> {
    let Some(source) = call.fds.first() else {
        return Err(DriverError::invalid("no descriptor to read from"));
    };
    source
        .try_clone_to_owned()
        .map_err(|e| DriverError::io("keeping a descriptor", &e))
}

gantry_plugin_sdk::plugin! {
    kind: registry,
    driver: Hub,
    name: "hub",
    capabilities: [
        "list_tags", "stat_blob", "begin_upload", "upload_chunk", "upload_status", "finish_upload", "put_manifest",
        "delete_manifest", "referrers", "search"
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_pages() {
        assert_eq!(
            next_page("</v2/x/tags/list?last=b&n=2>; rel=\"next\"").as_deref(),
            Some("last=b&n=2")
        );
        assert_eq!(next_page("</v2/x?last=b>; rel=\"prev\""), None);
        assert_eq!(next_page("nonsense"), None);
    }
}
