//! Drivers: `/gantry/drivers`, which Docker does not have.

use serde::{Deserialize, Serialize};

/// One driver that is loaded, or a plugin file that could not be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DriverStatus {
    /// `storage`, `network`, `volume`, `registry` or `ipam`.
    pub kind: String,
    /// Name by which objects are made with it.
    pub name: String,
    /// Version of the plugin.
    pub version: String,
    /// Version of the plugin protocol in use.
    pub protocol: u32,
    /// Whether it can be used.
    pub state: DriverState,
    /// Why it cannot, or does worse than it should.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// `in-process` or `process`.
    pub isolation: String,
    /// How often this driver was loaded since the daemon's start.
    pub generation: u64,
    /// New objects of its kind get it when they do not name one.
    pub default: bool,
    /// Optional parts of the contract it implements.
    pub capabilities: Vec<String>,
    /// File it was loaded from.
    pub path: String,
    /// What it tells of itself, label and value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<[String; 2]>,
}

/// Whether a driver can be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverState {
    /// Yes.
    Ready,
    /// Yes: the first use loads it.
    Idle,
    /// Yes, with a reason to worry.
    Degraded,
    /// No: it panicked, crashed or broke the contract.
    Faulted,
    /// No: the file was not loaded.
    #[default]
    Refused,
}

/// What `POST /gantry/drivers/storage/migrate` is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DriverMigrate {
    /// The storage driver to take objects from; empty: every other than the default.
    pub from: String,
    /// The storage driver to bring them to: the default, or empty for it.
    pub to: String,
    /// Only tell what would be done.
    pub dry_run: bool,
}

/// What became of one object, in the `aux` of the reply's lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Migrated {
    /// `image` or `container`.
    pub kind: String,
    /// Its identifier.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name, or its short identifier.
    pub name: String,
    /// What was done with it.
    pub outcome: MigrationOutcome,
    /// Why it stays.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What was done with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationOutcome {
    /// It is with the other driver now.
    Moved,
    /// It would be moved.
    WouldMove,
    /// It stays where it is.
    Left,
}
