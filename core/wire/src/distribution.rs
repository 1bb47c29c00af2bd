//! What a registry holds.

use serde::{Deserialize, Serialize};

use crate::image::{Descriptor, ImagePlatform};

/// Reply of `GET /distribution/{name}/json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DistributionInspect {
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// What it is for.
    pub platforms: Option<Vec<ImagePlatform>>,
}
