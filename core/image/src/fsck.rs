//! Finding and mending what does not fit together: blobs, snapshots, images, names.
//!
//! Nothing that is referenced is removed, with one exception: bytes under a digest that they do not have. A layer whose
//! snapshot is lost or damaged is unpacked again from its blob; where the blob is lost too, [`ImageService::pull`] brings
//! what is missing, and only that: an image that has lost something is no image that is up to date.
//!
//! It may run beside other operations: what they have under way is not garbage.

mod compare;
mod content;
mod images;
mod layers;
mod places;

pub use places::Place;

use gantry_model::ImageId;
use gantry_store::{Store, Unreadable};

use crate::record::{Descriptor, ImageRecord, LayerRecord, ReferenceRecord};
use crate::service::Shared;
use crate::{ImageService, Result};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The file under a digest's name has other bytes.
    BlobDamaged,
    /// A blob that nobody wants.
    BlobUnreferenced,
    /// A download that nobody will go on with.
    DownloadAbandoned,
    /// A lease that no operation has, on blobs of an image that is whole.
    LeaseStale,
    /// A layer without its snapshot.
    LayerMissing,
    /// A layer whose snapshot is not what its blob unpacks to.
    LayerDamaged,
    /// A layer that no image and no container needs.
    LayerUnreferenced,
    /// A snapshot that nobody knows; also of a layer that was being unpacked.
    SnapshotUnknown,
    /// Files of a storage driver that belong to no snapshot.
    SnapshotLeftover,
    /// A container without its own file system.
    RootMissing,
    /// An image that lacks something only a registry has.
    ImageIncomplete,
    /// A name that stands for no image.
    NameDangling,
}

impl Flaw {
    /// The word for it in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobDamaged => "blob-damaged",
            Self::BlobUnreferenced => "blob-unreferenced",
            Self::DownloadAbandoned => "download-abandoned",
            Self::LeaseStale => "lease-stale",
            Self::LayerMissing => "layer-missing",
            Self::LayerDamaged => "layer-damaged",
            Self::LayerUnreferenced => "layer-unreferenced",
            Self::SnapshotUnknown => "snapshot-unknown",
            Self::SnapshotLeftover => "snapshot-leftover",
            Self::RootMissing => "root-missing",
            Self::ImageIncomplete => "image-incomplete",
            Self::NameDangling => "name-dangling",
        }
    }

    /// What a repair does about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::LayerMissing | Self::LayerDamaged => "unpack",
            Self::ImageIncomplete => "pull",
            Self::RootMissing => "recreate",
            _ => "remove",
        }
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Repairs were not asked for.
    Found,
    /// Mended.
    Repaired,
    /// Not mended, and why.
    Left(String),
}

/// One inconsistency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub flaw: Flaw,
    /// With what: a digest, name, key or path.
    pub object: String,
    /// For people.
    pub detail: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What to check, and whether to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsckOptions {
    /// Mend what can be mended.
    pub repair: bool,
    /// Do not read contents: blobs are not hashed, and snapshots not compared with their blobs.
    pub quick: bool,
}

/// A container's snapshot, or a view of an image for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotUse {
    /// The storage driver.
    pub driver: String,
    /// The snapshot's key.
    pub key: String,
    /// What it stands on.
    pub image: ImageId,
    /// Whether it is a read-only view.
    pub view: bool,
    /// Whether the container runs, or may run: what it stands on is not touched.
    pub running: bool,
}

/// Containers, as seen by the check; asked more than once, for they come and go.
pub trait SnapshotUses: Sync {
    /// All snapshots of containers that exist.
    fn all(&self) -> Vec<SnapshotUse>;
    /// Whether a snapshot of this key is, or is about to become, a container's.
    fn is_wanted(&self, key: &str) -> bool;
}

/// A check under way.
struct Check<'a> {
    shared: &'a Shared,
    options: FsckOptions,
    uses: &'a dyn SnapshotUses,
    findings: Vec<Finding>,
}

impl Check<'_> {
    /// Notes a flaw, and mends it with `mend` if that is asked for.
    fn found(
        &mut self,
        flaw: Flaw,
        object: impl Into<String>,
        detail: impl Into<String>,
        mend: impl FnOnce() -> Result<()>,
    ) {
        let outcome = match self.options.repair {
            false => Outcome::Found,
            true => match mend() {
                Ok(()) => Outcome::Repaired,
                Err(error) => Outcome::Left(error.to_string()),
            },
        };
        self.findings.push(Finding {
            flaw,
            object: object.into(),
            detail: detail.into(),
            outcome,
        });
    }
}

/// For findings that one call mends together; one that fails is tried again.
fn once(done: &mut bool, mend: impl FnOnce() -> Result<()>) -> Result<()> {
    if !*done {
        mend()?;
        *done = true;
    }
    Ok(())
}

impl ImageService {
    /// Looks for what does not fit together, and mends it if `options` say so. Records must be readable: see
    /// [`unreadable`].
    ///
    /// # Errors
    /// What cannot even be looked at: [`crate::Error::Store`], [`crate::Error::Content`], [`crate::Error::Driver`].
    pub fn fsck(&self, options: FsckOptions, uses: &dyn SnapshotUses) -> Result<Vec<Finding>> {
        let mut check = Check {
            shared: &self.shared,
            options,
            uses,
            findings: Vec::new(),
        };
        // In this order: what damage takes away is missing for what comes next, and what nobody needs is known last.
        if !options.quick {
            check.damaged_blobs()?;
        }
        check.dangling_names()?;
        check.lost_layers()?;
        check.unreferenced_layers()?;
        check.snapshots()?;
        check.incomplete_images()?;
        check.garbage()?;
        Ok(check.findings)
    }
}

/// The records of images and leases that cannot be read.
///
/// # Errors
/// [`crate::Error::Store`].
pub fn unreadable(store: &Store) -> Result<Vec<Unreadable>> {
    let mut all = store.table::<ImageRecord>("images").unreadable()?;
    all.extend(store.table::<LayerRecord>("layers").unreadable()?);
    all.extend(store.table::<ReferenceRecord>("references").unreadable()?);
    all.extend(store.table::<Descriptor>("compressed").unreadable()?);
    all.extend(gantry_content::unreadable_leases(store)?);
    Ok(all)
}
