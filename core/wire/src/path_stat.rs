//! What is told of a path in a container: the header `X-Docker-Container-Path-Stat`, as base64 of this JSON.

use gantry_model::Timestamp;
use serde::{Deserialize, Serialize};

/// A path in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathStat {
    /// Its last component, as asked for.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Go's `os.FileMode`.
    pub mode: u32,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Where a link leads, all links followed; empty for anything else.
    pub link_target: String,
}
