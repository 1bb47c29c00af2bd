//! What is kept of a container.

use std::collections::BTreeMap;

use gantry_model::container::{ContainerConfig, EndpointSettings, HealthConfig, HostConfig};
use gantry_model::{ContainerId, ImageId, Timestamp};
use gantry_runtime::UserNs;
use serde::{Deserialize, Serialize};

use super::restart::Backoff;

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Never started, or its first start failed.
    #[default]
    Created,
    /// Between the decision to start and the acknowledgement; only on disk, for recovery.
    Starting,
    /// Its process runs.
    Running,
    /// Frozen.
    Paused,
    /// Ended, and waiting for its restart policy's delay.
    Restarting,
    /// Ended.
    Exited,
    /// Being removed; goes on after a crash.
    Removing,
}

impl Phase {
    /// Docker's word.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Created | Self::Starting => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
        }
    }
    /// Whether Docker calls the container running: a restarting one is.
    #[must_use]
    pub(crate) fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
    /// Whether a client may start it.
    #[must_use]
    pub(crate) fn can_start(self) -> bool {
        !self.has_process() && self != Self::Removing
    }
    /// Whether there is a process.
    #[must_use]
    pub(crate) fn has_process(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// One result of a health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HealthResult {
    /// When it began.
    pub(crate) start: Timestamp,
    /// When it ended.
    pub(crate) end: Timestamp,
    /// Its exit code; -1 when it could not be run or took too long.
    pub(crate) exit_code: i32,
    /// What it printed, at most 4096 bytes.
    pub(crate) output: String,
}

/// A verdict on a container's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HealthStatus {
    /// No check has decided yet.
    #[default]
    Starting,
    /// The last check succeeded, or too few have failed since.
    Healthy,
    /// Too many checks in a row have failed; also of a container that is not checked because it does not run.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What is known of a container's health.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Health {
    /// The verdict.
    pub(crate) status: HealthStatus,
    /// Failures in a row.
    pub(crate) failing_streak: u32,
    /// The last five results, also those of earlier runs.
    pub(crate) log: Vec<HealthResult>,
    /// Whether it has been healthy in this run.
    #[serde(default)]
    pub(crate) was_healthy: bool,
}

/// The changing part of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// Where it is in its life.
    pub(crate) phase: Phase,
    /// Its process in the host's PID namespace, 0 without.
    pub(crate) pid: i32,
    /// How it last ended.
    pub(crate) exit_code: i32,
    /// Whether memory ran out.
    pub(crate) oom_killed: bool,
    /// Why the last start failed.
    pub(crate) error: String,
    /// Last start; never: zero.
    pub(crate) started_at: Timestamp,
    /// Last end; never: zero.
    pub(crate) finished_at: Timestamp,
    /// Health, when it is checked.
    pub(crate) health: Option<Health>,
    /// The delays of its restart policy.
    pub(crate) backoff: Backoff,
}

/// What kind of thing is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MountKind {
    /// A path of the host.
    Bind,
    /// A volume.
    Volume,
    /// Memory.
    Tmpfs,
    /// An image's file system.
    Image,
}

impl MountKind {
    /// Docker's word.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
            Self::Image => "image",
        }
    }
}

/// A mount of a container, with everything decided that can be before it starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MountPoint {
    /// What is mounted.
    pub(crate) kind: MountKind,
    /// Volume name.
    #[serde(default)]
    pub(crate) name: String,
    /// Host path; for a volume where its driver keeps it.
    #[serde(default)]
    pub(crate) source: String,
    /// Absolute path in the container.
    pub(crate) destination: String,
    /// Volume driver.
    #[serde(default)]
    pub(crate) driver: String,
    /// The options as written (`z`, `ro`), for inspect.
    #[serde(default)]
    pub(crate) mode: String,
    /// Whether it can be written to.
    pub(crate) rw: bool,
    /// Propagation word; empty for volumes and tmpfs.
    #[serde(default)]
    pub(crate) propagation: String,
    /// Options of a tmpfs.
    #[serde(default)]
    pub(crate) tmpfs: Vec<String>,
    /// Leave out mounts below the source.
    #[serde(default)]
    pub(crate) non_recursive: bool,
    /// See the API's `BindOptions`.
    #[serde(default)]
    pub(crate) read_only_non_recursive: bool,
    /// See the API's `BindOptions`.
    #[serde(default)]
    pub(crate) read_only_force_recursive: bool,
    /// Make the host path when it is missing at start.
    #[serde(default)]
    pub(crate) create_source: bool,
    /// Do not fill a new volume from the image.
    #[serde(default)]
    pub(crate) no_copy: bool,
    /// Path inside the volume.
    #[serde(default)]
    pub(crate) subpath: String,
    /// The volume's name was drawn: it goes with `rm -v` and `--rm`.
    #[serde(default)]
    pub(crate) anonymous: bool,
    /// Its place in the container was made for it while the container ran.
    #[serde(default)]
    pub(crate) made: bool,
}

impl MountPoint {
    /// Whether a path of the host is shown with the owners that the container's user namespace maps (`idmap`).
    #[must_use]
    pub(crate) fn is_idmapped(&self) -> bool {
        self.kind == MountKind::Bind && self.mode.split(',').any(|word| word == "idmap")
    }
}

/// All of a container. Immutable once published: a change makes a new one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Identifier.
    pub(crate) id: ContainerId,
    /// Name, without slash.
    pub(crate) name: String,
    /// When it was made.
    pub(crate) created: Timestamp,
    /// The image's identifier.
    pub(crate) image: ImageId,
    /// `os/architecture` of the image.
    pub(crate) platform: String,
    /// Image and request merged.
    pub(crate) config: ContainerConfig,
    /// As requested, with defaults filled in.
    pub(crate) host_config: HostConfig,
    /// Storage driver of its root file system.
    pub(crate) storage_driver: String,
    /// What is wished of each network.
    pub(crate) networks: BTreeMap<String, EndpointSettings>,
    /// Its mounts.
    pub(crate) mounts: Vec<MountPoint>,
    /// Times its policy restarted it.
    #[serde(default)]
    pub(crate) restart_count: u32,
    /// Stopped by a client; its policy waits for the next start.
    #[serde(default)]
    pub(crate) manually_stopped: bool,
    /// The numbers of its user namespace; without: the host's.
    #[serde(default)]
    pub(crate) userns: Option<UserNs>,
    /// The changing part.
    pub(crate) state: State,
}

impl Record {
    /// Entry point and command.
    #[must_use]
    pub(crate) fn argv(&self) -> Vec<String> {
        let words = |list: &Option<gantry_model::container::StrSlice>| {
            list.as_ref().map(|l| l.0.clone()).unwrap_or_default()
        };
        let mut argv = words(&self.config.entrypoint);
        argv.extend(words(&self.config.cmd));
        argv
    }
    /// The health check, unless there is none.
    #[must_use]
    pub(crate) fn health_check(&self) -> Option<&HealthConfig> {
        let check = self.config.healthcheck.as_ref()?;
        match check.test.first().map(String::as_str) {
            None | Some("" | "NONE") => None,
            Some(_) => Some(check),
        }
    }
    /// Whether its record dies with the boot.
    #[must_use]
    pub(crate) fn is_transient(&self) -> bool {
        self.host_config.auto_remove
    }
}

/// A record that says no more than its name.
#[cfg(test)]
pub(crate) fn test_record(name: &str) -> Record {
    Record {
        id: ContainerId::generate(),
        name: name.into(),
        created: Timestamp::now(),
        image: gantry_model::Digest::sha256(&[1; 32]),
        platform: "linux".into(),
        config: ContainerConfig::default(),
        host_config: HostConfig::default(),
        storage_driver: "overlayfs".into(),
        networks: BTreeMap::new(),
        mounts: Vec::new(),
        restart_count: 0,
        manually_stopped: false,
        userns: None,
        state: State::default(),
    }
}
