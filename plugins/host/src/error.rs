//! Why a plugin cannot be used, one line each.

use std::path::PathBuf;

use gantry_driver_api::{DriverError, Kind};

/// Why a plugin cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// A system call failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// The failure.
        source: std::io::Error,
    },
    /// Somebody else could have written the file.
    #[error("{path} is not trusted: {why}")]
    Untrusted {
        /// The file or directory.
        path: PathBuf,
        /// Its owner or mode.
        why: String,
    },
    /// The file is no ELF library, or a damaged one.
    #[error("{path} is not a plugin: {why}")]
    NotAPlugin {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file is a plugin for something else than its name says.
    #[error("{path} holds driver {kind}/{name}: file name and manifest disagree")]
    Misnamed {
        /// The file.
        path: PathBuf,
        /// The manifest's kind.
        kind: Kind,
        /// The manifest's name.
        name: String,
    },
    /// Built for another generation of the contracts.
    #[error("speaks protocol versions {min} to {max}, this engine speaks {ours_min} to {ours_max}")]
    Protocol {
        /// The plugin's oldest.
        min: u32,
        /// The plugin's newest.
        max: u32,
        /// The engine's oldest.
        ours_min: u32,
        /// The engine's newest.
        ours_max: u32,
    },
    /// The dynamic linker or the binary interface refused it.
    #[error("{path} {why}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// Their words.
        why: String,
    },
    /// The driver's constructor failed.
    #[error("does not start: {0}")]
    Create(DriverError),
    /// The child process could not be started or did not answer.
    #[error("its process does not start: {0}")]
    Child(String),
}

impl PluginError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
