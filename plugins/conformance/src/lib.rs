//! Conformance suite per driver kind, and the `driver-verify` binary.
//!
//! [`run`] takes a plugin file through everything that its kind's contract promises, over the very path that an
//! engine takes: the file is put into a plugin directory, checked, copied, loaded with the isolation asked for, and
//! called through the registry. It runs as root, in directories and namespaces of its own, and leaves nothing behind.
//!
//! A contract's promise without a check here is not kept for long: add the check with the promise.

mod base;
pub mod bench;
mod fixture;
mod network;
mod paths;
mod registry;
mod report;
mod storage;
mod subject;
mod volume;

use std::os::fd::AsFd;
use std::path::PathBuf;

use gantry_driver_api::Kind;
use gantry_driver_registry::Isolation;
use serde_json::Value;

pub use fixture::RegistryFixture;
pub use paths::{driver_host, example, shipped};
pub use report::{Check, Outcome, Report};
pub use subject::{Subject, SubjectError};

/// What to verify, and how.
#[derive(Debug, Clone)]
pub struct Run {
    /// The plugin file.
    pub plugin: PathBuf,
    /// Where its code runs.
    pub isolation: Isolation,
    /// The driver's options.
    pub options: Value,
    /// The program that hosts isolated plugins; see [`driver_host`].
    pub driver_host: PathBuf,
    /// For registry drivers: what there is to fetch. Without it those checks are skipped.
    pub fixture: Option<RegistryFixture>,
}

/// Loads the plugin and runs every check that applies. Network drivers are loaded and checked in a network namespace of
/// their own.
///
/// # Errors
/// When the driver does not start.
pub fn run(run: &Run) -> Result<Report, SubjectError> {
    if subject::kind(&run.plugin)? != Kind::Network {
        return all(run);
    }
    // Threads and processes that are started from the thread in the namespace are in it, too.
    let (_, report) = gantry_sys::netns::create(|| Ok(all(run)))?;
    report
}

/// As [`run`], in a network namespace that is there, for drivers that need something in it.
///
/// # Errors
/// When the driver does not start.
pub fn run_inside(run: &Run, netns: impl AsFd) -> Result<Report, SubjectError> {
    gantry_sys::netns::inside(netns, || Ok(all(run)))?
}

fn all(run: &Run) -> Result<Report, SubjectError> {
    let subject = Subject::load(run)?;
    let mut report = Report::default();
    base::verify(&subject, &mut report);
    match subject.kind() {
        Kind::Storage => storage::verify(&subject, &mut report),
        Kind::Network => network::verify(&subject, &mut report),
        Kind::Volume => volume::verify(&subject, &mut report),
        Kind::Registry => registry::verify(&subject, run.fixture.as_ref(), &mut report),
    }
    Ok(report)
}
