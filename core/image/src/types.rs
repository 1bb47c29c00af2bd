//! Requests and replies of the image service. Replies serialise to the Engine API's JSON (1.51).

use std::collections::BTreeMap;
use std::path::PathBuf;

use gantry_driver_api::MountPlan;
use gantry_driver_api::registry::{Credentials, Proxies};
use gantry_model::{Digest, ImageId, Platform, Reference, Timestamp};
use serde::{Serialize, Serializer};
use serde_json::json;

use crate::{ContainerDefaults, ImageConfig};

pub use crate::tree::NodeKind;

/// How the service is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// By registry (`docker.io`): base URLs of its mirrors, asked before it and in order.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// `host[:port]` or CIDR of registries that may speak plain HTTP or show unverified certificates. Loopback
    /// addresses always may.
    pub insecure_registries: Vec<String>,
    /// Proxies between this machine and registries.
    pub proxies: Proxies,
    /// Directories with one directory a registry (`host[:port]`), which holds its authorities (`*.crt`), certificates to
    /// show to it (`X.cert` with `X.key`) and `hosts.toml` (`/etc/docker/certs.d`).
    pub certs_dirs: Vec<PathBuf>,
    /// Layers fetched at once by one pull.
    pub max_downloads: usize,
    /// Layers sent at once by one push.
    pub max_uploads: usize,
    /// Attempts at a layer without progress before the pull fails.
    pub max_attempts: u32,
    /// Wait before the second attempt; doubled for each further one.
    pub retry_base: std::time::Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mirrors: BTreeMap::new(),
            insecure_registries: Vec::new(),
            proxies: Proxies::default(),
            certs_dirs: vec!["/etc/docker/certs.d".into()],
            max_downloads: 3,
            max_uploads: 5,
            max_attempts: 5,
            retry_base: std::time::Duration::from_millis(500),
        }
    }
}

/// How to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// The platform wanted; the host's by default.
    pub platform: Option<Platform>,
    /// What to show the registry.
    pub credentials: Credentials,
}

/// How to push.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// The platform that is meant; the image must be of it.
    pub platform: Option<Platform>,
    /// What to show the registry.
    pub credentials: Credentials,
}

/// What a pull brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub id: ImageId,
    /// Digest of the manifest or index that the reference named.
    pub digest: Digest,
    /// Whether the reference names another image than before.
    pub newer: bool,
}

/// How to load.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Only images for these platforms; of each index the host's, and all others, by default.
    pub platforms: Vec<Platform>,
    /// Suppress progress of layers.
    pub quiet: bool,
}

/// One image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// The names it got.
    pub names: Vec<Reference>,
}

/// How to import a file system.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The name to give; an image without a name otherwise.
    pub name: Option<Reference>,
    /// Dockerfile instructions (`CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `LABEL`, `USER`, `VOLUME`, `WORKDIR`, `ONBUILD`,
    /// `STOPSIGNAL`, `HEALTHCHECK`, `SHELL`).
    pub changes: Vec<String>,
    /// For the history; `Imported from -` by default.
    pub message: String,
    /// The platform that the file system is for; the host's by default.
    pub platform: Option<Platform>,
    /// Bytes of an archive that is being fetched, 0 when not known: how far it has come is told.
    pub remote: Option<u64>,
}

/// Which images to list: `filters` of the API, already decoded to name and values.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Intermediate images too.
    pub all: bool,
    /// `dangling`, `label`, `label!`, `before`, `since`, `reference`, `until`.
    pub filters: BTreeMap<String, Vec<String>>,
    /// Compute `SharedSize`.
    pub shared_size: bool,
    /// Tell what is in the index or manifest that each image came as.
    pub manifests: bool,
    /// All containers: each image's are counted. Not counted where there are none given.
    pub uses: Option<Vec<ImageUse>>,
}

/// What to show of an image beside its configuration.
#[derive(Debug, Clone, Default)]
pub struct InspectQuery {
    /// The platform that is meant; whatever the name stands for by default.
    pub platform: Option<Platform>,
    /// Tell what is in the index or manifest that it came as.
    pub manifests: bool,
    /// All containers, for what is told of manifests.
    pub uses: Vec<ImageUse>,
}

/// How to remove.
#[derive(Debug, Clone, Default)]
pub struct RemoveOptions {
    /// Several names and stopped containers are no obstacle.
    pub force: bool,
    /// Leave images that only this one stood on.
    pub keep_parents: bool,
    /// The image must be for one of these.
    pub platforms: Vec<Platform>,
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageSummary {
    /// Identifier.
    pub id: ImageId,
    /// Parent identifier, or empty.
    pub parent_id: String,
    /// `name:tag`.
    pub repo_tags: Vec<String>,
    /// `name@digest`.
    pub repo_digests: Vec<String>,
    /// Seconds since the epoch.
    pub created: i64,
    /// Bytes of all layers, unpacked.
    pub size: u64,
    /// Bytes shared with other images; -1 when not computed.
    pub shared_size: i64,
    /// From the configuration.
    pub labels: BTreeMap<String, String>,
    /// -1: not computed.
    pub containers: i64,
    /// The OCI descriptor of the index or manifest that it came as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<serde_json::Value>,
    /// What is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Vec<ManifestSummary>>,
}

/// One manifest of what an image came as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestSummary {
    /// Digest of the manifest.
    pub id: Digest,
    /// The OCI descriptor by which the index names it.
    pub descriptor: serde_json::Value,
    /// Whether all that it names is here.
    pub available: bool,
    /// Bytes of it and its blobs that are here.
    pub content: u64,
    /// Bytes of its layers, unpacked.
    pub unpacked: u64,
    /// What it is.
    pub kind: NodeKind,
    /// The OCI platform of an image.
    pub platform: serde_json::Value,
    /// Identifiers of the containers made from an image.
    pub containers: Vec<String>,
}

impl Serialize for ManifestSummary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, data) = match &self.kind {
            NodeKind::Image => {
                let data = json!({
                    "Platform": self.platform, "Containers": self.containers, "Size": {"Unpacked": self.unpacked},
                });
                ("image", Some(("ImageData", data)))
            }
            NodeKind::Attestation(image) => (
                "attestation",
                Some(("AttestationData", json!({ "For": image }))),
            ),
            NodeKind::Unknown => ("unknown", None),
        };
        let mut shown = json!({
            "ID": self.id, "Descriptor": self.descriptor, "Available": self.available,
            "Size": {"Content": self.content, "Total": self.content + self.unpacked}, "Kind": kind,
        });
        if let Some((name, data)) = data {
            shown[name] = data;
        }
        shown.serialize(serializer)
    }
}

/// An image as containers are made from it.
#[derive(Debug, Clone)]
pub struct Image {
    /// Identifier.
    pub id: ImageId,
    /// The whole configuration.
    pub config: ImageConfig,
    /// Names with a tag.
    pub tags: Vec<Reference>,
    /// The storage driver that holds it.
    pub driver: String,
}

/// Everything `inspect` shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageInspect {
    /// Identifier.
    pub id: ImageId,
    /// `name:tag`.
    pub repo_tags: Vec<String>,
    /// `name@digest`.
    pub repo_digests: Vec<String>,
    /// Parent identifier, or empty.
    pub parent: String,
    /// Message of a commit or import.
    pub comment: String,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// The engine that built it.
    pub docker_version: String,
    /// By whom.
    pub author: String,
    /// Defaults of containers.
    pub config: ContainerDefaults,
    /// Architecture.
    pub architecture: String,
    /// Its variant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Operating system.
    pub os: String,
    /// Its version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Bytes of all layers, unpacked.
    pub size: u64,
    /// Where the layers are.
    pub graph_driver: GraphDriver,
    /// The layers.
    #[serde(rename = "RootFS")]
    pub root_fs: RootFsInspect,
    /// What is known here and not part of the image.
    pub metadata: Metadata,
    /// The OCI descriptor of the index or manifest that it came as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<serde_json::Value>,
    /// What is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Vec<ManifestSummary>>,
}

/// Which driver holds a root file system, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GraphDriver {
    /// Paths by name (`LowerDir`, `UpperDir`, `WorkDir`, `MergedDir`).
    pub data: BTreeMap<String, String>,
    /// The driver.
    pub name: String,
}

/// The layers, as inspect shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RootFsInspect {
    /// `layers`.
    pub r#type: String,
    /// Diff IDs, bottom first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Digest>,
}

/// What is known of an image here only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Metadata {
    /// When it last got a name; Go's zero time when never.
    pub last_tag_time: Timestamp,
}

/// One line of `history`, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HistoryEntry {
    /// The image's identifier for the newest, `<missing>` for the others.
    pub id: String,
    /// Seconds since the epoch.
    pub created: i64,
    /// The command.
    pub created_by: String,
    /// Names of the image, for the newest.
    pub tags: Option<Vec<String>>,
    /// Bytes of its layer, unpacked.
    pub size: u64,
    /// The message.
    pub comment: String,
}

/// One line of the reply to a removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Removed {
    /// A name is gone.
    Untagged(String),
    /// An image or a layer is gone.
    Deleted(String),
}

/// A container that uses an image, for those who ask whether it may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUse {
    /// The container's identifier.
    pub container: String,
    /// Its image.
    pub image: ImageId,
    /// Whether it runs.
    pub running: bool,
}

/// A container's writable root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRoot {
    /// The storage driver: belongs into the container's record.
    pub driver: String,
    /// What to mount.
    pub plan: MountPlan,
}

/// What happened to an image, for the event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageEvent {
    /// `pull`, `load`, `import`, `tag`, `untag`, `delete`, `save`.
    pub action: &'static str,
    /// The actor: an identifier, or for `pull` the reference.
    pub id: String,
    /// The `name` attribute.
    pub name: String,
    /// The image's labels, attributes too.
    pub labels: BTreeMap<String, String>,
    /// When.
    pub time: Timestamp,
}
