//! Images.

use std::collections::BTreeMap;

use gantry_model::Timestamp;
use gantry_model::container::{HealthConfig, StrSlice, StringSet};
use serde::{Deserialize, Serialize};

/// One element of the reply of `GET /images/json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageSummary {
    /// Containers that use it; -1 when it was not asked for.
    pub containers: i64,
    /// When it was created, seconds since the epoch.
    pub created: i64,
    /// Identifier, `sha256:...`.
    pub id: String,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// The image it was built from, empty when unknown.
    pub parent_id: String,
    /// Descriptor of the manifest or index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<Descriptor>,
    /// What is in the index; there when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Vec<ManifestSummary>>,
    /// `name@digest`.
    pub repo_digests: Vec<String>,
    /// `name:tag`.
    pub repo_tags: Vec<String>,
    /// Bytes shared with other images; -1 when it was not asked for.
    pub shared_size: i64,
    /// Bytes of all layers.
    pub size: i64,
}

/// Reply of `GET /images/{name}/json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageInspect {
    /// Identifier, `sha256:...`.
    pub id: String,
    /// `name:tag`.
    pub repo_tags: Vec<String>,
    /// `name@digest`.
    pub repo_digests: Vec<String>,
    /// The image it was built from, empty when unknown.
    pub parent: String,
    /// Message of a commit or import.
    pub comment: String,
    /// When it was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// Engine that built it.
    pub docker_version: String,
    /// Author.
    pub author: String,
    /// Defaults for its containers.
    pub config: ImageConfig,
    /// Architecture in Go's words.
    pub architecture: String,
    /// Variant of the architecture.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Operating system.
    pub os: String,
    /// Version of the operating system (Windows).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Bytes of all layers.
    pub size: i64,
    /// What the storage driver tells of its top layer.
    pub graph_driver: DriverData,
    /// Layers.
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    /// What is known of it here.
    pub metadata: ImageMetadata,
    /// Descriptor of the manifest or index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<Descriptor>,
    /// What is in the index; there when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Vec<ManifestSummary>>,
}

/// One manifest of an index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ManifestSummary {
    /// Digest of the manifest.
    #[serde(rename = "ID")]
    pub id: String,
    /// How the index names it.
    pub descriptor: Descriptor,
    /// Whether all that it names is here.
    pub available: bool,
    /// What of it is here.
    pub size: ManifestSize,
    /// `image`, `attestation` or `unknown`.
    pub kind: String,
    /// Of an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_data: Option<ManifestImage>,
    /// Of an attestation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attestation_data: Option<ManifestAttestation>,
}

/// Bytes that a manifest has here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ManifestSize {
    /// Blobs: itself, configuration, layers.
    pub content: i64,
    /// These, and layers unpacked.
    pub total: i64,
}

/// An image of an index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ManifestImage {
    /// What it runs on.
    pub platform: Option<ImagePlatform>,
    /// Identifiers of the containers made from it.
    pub containers: Vec<String>,
    /// What of it is unpacked here.
    pub size: ManifestImageSize,
}

/// Bytes that an image of an index takes, unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ManifestImageSize {
    /// All layers.
    pub unpacked: i64,
}

/// Statements on an image of an index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ManifestAttestation {
    /// Digest of the image's manifest.
    pub r#for: String,
}

/// Defaults that an image gives its containers. Members that are not set are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `user|uid[:group|gid]`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `port/protocol`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<StringSet>,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Executable and first arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<StrSlice>,
    /// Arguments, or the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<StrSlice>,
    /// Paths that become anonymous volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<StringSet>,
    /// Working directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Signal that `stop` sends.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// The command is already escaped (Windows).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// Triggers for builds on top of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    /// Shell of the shell forms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<StrSlice>,
}

/// What a storage driver tells of a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DriverData {
    /// Driver-specific, paths mostly.
    pub data: Option<BTreeMap<String, String>>,
    /// Driver.
    pub name: String,
}

/// Layers of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
}

/// What is known of an image on this engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageMetadata {
    /// When it was last tagged here; Go's zero time when never.
    pub last_tag_time: Timestamp,
}

/// An OCI content descriptor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Descriptor {
    /// Media type.
    pub media_type: String,
    /// `sha256:...`.
    pub digest: String,
    /// Bytes.
    pub size: i64,
    /// Where else it can be fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urls: Option<Vec<String>>,
    /// Annotations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// The content itself, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// What it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<ImagePlatform>,
    /// Type of an artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

/// What an image runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImagePlatform {
    /// Architecture in Go's words.
    pub architecture: String,
    /// Operating system.
    pub os: String,
    /// Version of the operating system (Windows).
    #[serde(rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the operating system (Windows).
    #[serde(rename = "os.features", skip_serializing_if = "Option::is_none")]
    pub os_features: Option<Vec<String>>,
    /// Variant of the architecture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// One element of the reply of `GET /images/search`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageSearchResult {
    /// Stars.
    pub star_count: u32,
    /// Whether the registry's owner vouches for it.
    pub is_official: bool,
    /// Repository.
    pub name: String,
    /// Always false: there are no automated builds any more.
    pub is_automated: bool,
    /// What its owner says of it.
    pub description: String,
}

/// One element of the reply of `GET /images/{name}/history`, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HistoryItem {
    /// Message.
    pub comment: String,
    /// Seconds since the epoch.
    pub created: i64,
    /// Command.
    pub created_by: String,
    /// Image identifier, or `<missing>`.
    pub id: String,
    /// Bytes of the layer; zero where none was made.
    pub size: i64,
    /// `name:tag`s of the image that ends here.
    pub tags: Option<Vec<String>>,
}

/// One element of the reply of `DELETE /images/{name}`; one of the two is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageDeleteItem {
    /// A layer or image that is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<String>,
    /// A name that is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untagged: Option<String>,
}
