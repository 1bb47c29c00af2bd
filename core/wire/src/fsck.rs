//! The engine's check of itself (`POST /gantry/fsck`), an extension of the API.

use serde::{Deserialize, Serialize};

/// What a check found, and what the data-root holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FsckReport {
    /// Whether nothing is left to mend: nothing was found, or all of it was repaired.
    pub clean: bool,
    /// Whether repairs were asked for.
    pub repair: bool,
    /// Whether contents were left unread.
    pub quick: bool,
    /// What was found, in the order in which it is mended.
    pub findings: Vec<FsckFinding>,
    /// Every file of the data-root, by what it belongs to; taken after the repairs.
    pub usage: Vec<FsckUsage>,
}

/// One inconsistency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FsckFinding {
    /// What is wrong, one of the words in docs/repair.md: `blob-damaged`.
    pub kind: String,
    /// Digest, name, identifier or path.
    pub object: String,
    /// For people.
    pub detail: String,
    /// What a repair does: `remove`, `unpack`, `pull`, `recreate`, `adopt`, `set-aside`.
    pub remedy: String,
    /// `found` without repair, `repaired`, or `left`.
    pub outcome: String,
    /// Why it was left.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What belongs together in the data-root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FsckUsage {
    /// `blobs`, `downloads`, `layers`, `containers`, `volumes`, `networks`, `drivers`, `state`, `other`.
    pub category: String,
    /// Everything but directories; files with several names count once.
    pub files: u64,
    /// Sum of the files' lengths.
    pub bytes: u64,
    /// Bytes that the file system has given to files and directories.
    pub allocated: u64,
}
