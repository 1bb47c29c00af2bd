//! Events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One line of `GET /events`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventMessage {
    /// `container`, `image`, `network`, `volume`, `daemon` ...
    #[serde(rename = "Type")]
    pub kind: String,
    /// `create`, `start`, `die`, `exec_start: ls` ...
    #[serde(rename = "Action")]
    pub action: String,
    /// The object.
    #[serde(rename = "Actor")]
    pub actor: EventActor,
    /// `local` or `swarm`.
    pub scope: String,
    /// Seconds since the epoch.
    pub time: i64,
    /// Nanoseconds since the epoch.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
    /// Its number in the engine's log, for clients that asked for numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
}

/// The object that an event tells of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventActor {
    /// Identifier; an image's is the name it was used by.
    #[serde(rename = "ID")]
    pub id: String,
    /// Labels and whatever the action adds.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}
