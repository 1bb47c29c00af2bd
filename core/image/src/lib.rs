//! Images: references, manifests, pull, unpack, load, import, commit; and archives of trees, in and out.
//!
//! An image is a configuration blob; its digest is the image's identifier, as in Docker. A record points to it, to
//! its layers and to the storage driver that holds them unpacked; reference records point to images. Invariants:
//! - nothing from outside is used before it has been verified against the digest that named it: manifests, configurations
//!   and compressed layers by their digest, unpacked layers by the configuration's diff IDs;
//! - an image record is committed only when all its blobs and snapshots are durable, together with its names and the
//!   event that tells of it: after a crash an image is there whole or not at all;
//! - a layer cannot write outside the directory it is unpacked into, whatever its entries say;
//! - snapshots are named by chain ID, so that images share layers, and are unpacked once, by whoever comes first;
//! - an image stays with the storage driver that unpacked it.
//!
//! The service is synchronous: every method blocks, most for a few reads, `pull`, `load`, `import` and `save` for as long
//! as their bytes take. Call them from threads that may. All of them may run concurrently.
//!
//! It does not know containers ([`ImageUse`] tells it what it must not remove), performs no mounts and holds no
//! credentials.

mod archive;
mod changes;
mod chunks;
mod commit;
mod config;
mod delta;
mod diff;
mod error;
mod extract;
mod filter;
mod fsck;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod gunzip;
mod hold;
mod hosts;
mod import;
mod inflate;
mod inspect;
mod install;
mod layers;
mod list;
mod load;
mod manifest;
mod mirror;
mod owners;
mod pack;
mod place;
mod progress;
mod pull;
mod push;
mod query;
mod record;
mod remote;
mod remove;
mod rootfs;
mod save;
mod search;
mod service;
mod settle;
mod sibling;
mod tree;
mod turns;
mod types;
mod unpack;

pub use changes::apply as apply_changes;
pub use commit::CommitOptions;
pub use config::{ContainerDefaults, History, ImageConfig, RootFs, chain_ids};
pub use delta::Delta;
pub use diff::{Change, ChangeKind};
pub use error::{Error, Result};
pub use fsck::{Finding, Flaw, FsckOptions, Outcome, Place, SnapshotUse, SnapshotUses, unreadable};
pub use owners::{OwnerRange, Owners};
pub use pack::{PackOptions, Packer, Selection, Sink};
pub use place::{PlaceOptions, place};
pub use progress::{Detail, Message, Progress, Silent};
pub use pull::RateLimit;
pub use remote::{RemoteImage, RemotePlatform};
pub use rootfs::ParentView;
pub use service::{EventEncoder, ImageService};
pub use settle::MountRoot;
pub use types::{
    ContainerRoot, GraphDriver, HistoryEntry, Image, ImageEvent, ImageInspect, ImageSummary,
    ImageUse, ImportOptions, InspectQuery, ListQuery, LoadOptions, Loaded, ManifestSummary,
    Metadata, NodeKind, PullOptions, Pulled, PushOptions, RemoveOptions, Removed, RootFsInspect,
    Settings,
};
