//! The check of everything against everything, with or without a daemon.
//!
//! Images, layers and blobs are `core/image`'s to judge, volumes `core/volume`'s; here containers are added, and the files of
//! the data-root counted.

mod containers;
mod usage;

use std::path::PathBuf;
use std::sync::Arc;

use gantry_image::{Finding, FsckOptions, ImageService, Outcome};
use gantry_store::{Batch, Store};
use gantry_volume::{VolumeFlaw, VolumeRecord, Volumes};
use gantry_wire::{FsckFinding, FsckReport};

use crate::container::persist::Records;
use crate::container::record::Record;
use crate::engine::blocking;
use crate::{Engine, Result};
use containers::{Containers, Live, Resting};

/// What a check without a daemon works on.
pub struct Offline {
    /// Durable state, with every record readable: see [`set_aside_unreadable`].
    pub store: Store,
    /// Images.
    pub images: ImageService,
    /// Volumes.
    pub volumes: Arc<Volumes>,
    /// The data-root.
    pub data_root: PathBuf,
    /// The exec-root.
    pub exec_root: PathBuf,
    /// Changes whenever the machine boots.
    pub boot_id: String,
}

/// One check.
struct Job {
    images: ImageService,
    volumes: Arc<Volumes>,
    data_root: PathBuf,
    containers: Arc<dyn Containers>,
    options: FsckOptions,
}

impl Engine {
    /// Looks for what does not fit together, and mends it with `repair`; with `quick` without reading contents.
    ///
    /// # Errors
    /// What cannot even be looked at.
    pub async fn fsck(&self, repair: bool, quick: bool) -> Result<FsckReport> {
        let options = FsckOptions { repair, quick };
        let store = self.services.store.clone();
        let findings = blocking(move || set_aside_unreadable(&store, options.repair)).await??;
        if !findings.is_empty() {
            return Ok(unreadable(findings, repair));
        }
        let job = Job {
            images: self.services.images.clone(),
            volumes: self.services.volumes.clone(),
            data_root: self.config.load().data_root.clone(),
            containers: Arc::new(Live(self.clone())),
            options,
        };
        job.run().await
    }
}

impl Offline {
    /// As [`Engine::fsck`], where no daemon runs. Containers may run.
    ///
    /// # Errors
    /// What cannot even be looked at.
    pub async fn fsck(self, repair: bool, quick: bool) -> Result<FsckReport> {
        let options = FsckOptions { repair, quick };
        let records = Records::open(&self.store, self.exec_root.join("state"), self.boot_id)?;
        let job = Job {
            images: self.images,
            volumes: self.volumes,
            data_root: self.data_root,
            containers: Arc::new(Resting(records.load()?)),
            options,
        };
        job.run().await
    }
}

impl Job {
    async fn run(self) -> Result<FsckReport> {
        let options = self.options;
        let (images, containers) = (self.images.clone(), self.containers.clone());
        let found = blocking(move || images.fsck(options, &*containers)).await??;
        let mut findings: Vec<FsckFinding> = found.into_iter().map(shown).collect();
        let (containers, data_root) = (self.containers.clone(), self.data_root.clone());
        findings.extend(
            blocking(move || containers::directories(&*containers, &data_root, options.repair))
                .await??,
        );
        let volumes = self.volumes.check(&self.data_root, options.repair).await?;
        findings.extend(volumes.into_iter().map(shown_volume));
        let mut report = report(findings, options);
        report.usage =
            blocking(move || usage::measure(&self.data_root, &self.images.places()?)).await??;
        Ok(report)
    }
}

/// The report where some records cannot be read: nothing else is known.
#[must_use]
pub fn unreadable(findings: Vec<FsckFinding>, repair: bool) -> FsckReport {
    let options = FsckOptions {
        repair,
        quick: true,
    };
    FsckReport {
        clean: false,
        ..report(findings, options)
    }
}

fn report(findings: Vec<FsckFinding>, options: FsckOptions) -> FsckReport {
    FsckReport {
        clean: findings.iter().all(|finding| finding.outcome == "repaired"),
        repair: options.repair,
        quick: options.quick,
        findings,
        usage: Vec::new(),
    }
}

fn shown(finding: Finding) -> FsckFinding {
    let (outcome, reason) = match finding.outcome {
        Outcome::Found => ("found", String::new()),
        Outcome::Repaired => ("repaired", String::new()),
        Outcome::Left(reason) => ("left", reason),
    };
    FsckFinding {
        kind: finding.flaw.as_str().into(),
        object: finding.object,
        detail: finding.detail,
        remedy: finding.flaw.remedy().into(),
        outcome: outcome.into(),
        reason,
    }
}

fn shown_volume(flaw: VolumeFlaw) -> FsckFinding {
    let (kind, remedy, detail) = match flaw.lost {
        true => ("volume-missing", "recreate", "its data is lost"),
        false => ("volume-unknown", "adopt", "it has data, and no record"),
    };
    let (outcome, reason) = outcome(flaw.repaired);
    FsckFinding {
        kind: kind.into(),
        object: flaw.name,
        detail: format!("{detail} (driver {})", flaw.driver),
        remedy: remedy.into(),
        outcome: outcome.into(),
        reason,
    }
}

/// What became of a finding, with the reason where it was left.
fn outcome<E: std::fmt::Display>(
    repaired: Option<std::result::Result<(), E>>,
) -> (&'static str, String) {
    match repaired {
        None => ("found", String::new()),
        Some(Ok(())) => ("repaired", String::new()),
        Some(Err(error)) => ("left", error.to_string()),
    }
}

/// The records that cannot be read. A daemon does not start with one of a container or volume, and as long as there are any,
/// nobody can tell what is garbage. With `repair` they are set aside, out of everybody's way; the next check sees what they
/// leave behind.
///
/// # Errors
/// A state file that cannot be read at all.
pub fn set_aside_unreadable(store: &Store, repair: bool) -> Result<Vec<FsckFinding>> {
    let mut unreadable = gantry_image::unreadable(store)?;
    unreadable.extend(store.table::<Record>("containers").unreadable()?);
    unreadable.extend(store.table::<VolumeRecord>("volumes").unreadable()?);
    let mut batch = Batch::new();
    let mut findings = Vec::new();
    for record in unreadable {
        batch.set_aside(&record);
        findings.push(FsckFinding {
            kind: "record-unreadable".into(),
            object: format!("{}/{}", record.table, record.key),
            detail: record.detail,
            remedy: "set-aside".into(),
            outcome: if repair { "repaired" } else { "found" }.into(),
            reason: String::new(),
        });
    }
    if repair && !batch.is_empty() {
        store.commit(batch).wait()?;
    }
    Ok(findings)
}
