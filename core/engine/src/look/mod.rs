//! Looking into containers: copying files in and out, what has changed, and images made of it.
//!
//! A running container is looked at through its own mount namespace, without its turn. One that does not run is mounted
//! for the occasion where nobody else sees it ([`gantry_sys::view`]), with its turn held: nothing may mount its root
//! twice. Both are gone with the descriptors, however the daemon ends.

mod changes;
mod commit;
mod copy;
mod export;
mod path;
mod stream;

pub use commit::CommitQuery;
pub use copy::CopyInto;
pub use stream::{Archive, ByteStream};

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_driver_api::{Mount, MountPlan};
use gantry_image::{Delta, ImageService, OwnerRange, Owners};
use gantry_runtime::IdMap;
use gantry_sys::view::{self, Part};

use crate::container::Container;
use crate::container::record::{MountKind, MountPoint, Phase, Record};
use crate::create::images::view_key;
use crate::engine::blocking;
use crate::{Engine, EngineError, Result};

const PROC: &str = "/proc";

/// Paths that the engine makes in every container to mount something on them. They are no changes of the container's.
const GENERATED: [&str; 12] = [
    "/.dockerenv",
    "/dev",
    "/dev/console",
    "/dev/mqueue",
    "/dev/pts",
    "/dev/shm",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/proc",
    "/sys",
];

/// How much of a container is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Root and mounts, to read.
    Read,
    /// Root and mounts, to write.
    Write,
    /// The root alone, to read.
    Root,
}

/// A container's file system while it is looked at.
struct View {
    root: OwnedFd,
    /// Keeps the mounts of a running container in place.
    _mounts: Option<OwnedFd>,
    /// Volumes that were mounted for the occasion.
    volumes: Vec<String>,
}

/// A container's tree as work on it sees it.
struct Tree<'a> {
    root: &'a OwnedFd,
    /// How owners are numbered there, if not as in the container.
    owners: Option<Owners>,
}

impl Engine {
    /// Runs blocking work on a container's file system, off the event loop.
    async fn look_into<T: Send + 'static>(
        &self,
        container: &Arc<Container>,
        extent: Extent,
        work: impl FnOnce(Tree<'_>) -> T + Send + 'static,
    ) -> Result<T> {
        let record = container.record();
        if let Some(view) = running(container, extent).await? {
            return blocking(move || work(shifted(&view, &record))).await;
        }
        let turn = container.queue.lock().await;
        if let Some(view) = running(container, extent).await? {
            drop(turn);
            return blocking(move || work(shifted(&view, &record))).await;
        }
        let record = container.record();
        if record.state.phase == Phase::Removing || container.progress().removed {
            return Err(EngineError::conflict(format!(
                "container {} is marked to be removed",
                container.id
            )));
        }
        let view = self.stopped(&record, extent).await?;
        let volumes = view.volumes.clone();
        let whole = move || {
            work(Tree {
                root: &view.root,
                owners: None,
            })
        };
        let done = blocking(whole).await;
        self.release(&record, &volumes).await;
        done
    }

    /// Puts a stopped container's file system together.
    async fn stopped(&self, record: &Record, extent: Extent) -> Result<View> {
        let plan = self.root(record).await?;
        let mut volumes = Vec::new();
        let parts = match extent {
            Extent::Root => Vec::new(),
            _ => match self.parts(record, &mut volumes).await {
                Ok(parts) => parts,
                Err(error) => {
                    self.release(record, &volumes).await;
                    return Err(error);
                }
            },
        };
        let read_only_root = record.host_config.readonly_rootfs;
        let assembled = blocking(move || {
            if extent != Extent::Write
                && let Some(plan) = read_only(&plan)
                && let Ok(root) = view::assemble(&plan, true, &parts)
            {
                return Ok(root);
            }
            // Places to mount on are missing, as in a container that has never run.
            view::assemble(&plan, read_only_root, &parts)
        });
        match assembled.await? {
            Ok(root) => Ok(View {
                root,
                _mounts: None,
                volumes,
            }),
            Err(error) => {
                self.release(record, &volumes).await;
                Err(EngineError::io("mount the container's file system", &error))
            }
        }
    }

    /// What is mounted in a container, outer mounts before inner ones. Memory is not: it is empty anyway.
    async fn parts(&self, record: &Record, volumes: &mut Vec<String>) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        for point in &record.mounts {
            let plan = match point.kind {
                // What is missing now may be there at the next start.
                MountKind::Bind if Path::new(&point.source).exists() => bind(&point.source),
                MountKind::Volume => {
                    let plan = self.services.volumes.mount(&point.name, &record.id).await?;
                    volumes.push(point.name.clone());
                    plan
                }
                MountKind::Image => self.image_view(record, point).await?,
                MountKind::Bind | MountKind::Tmpfs => continue,
            };
            parts.push(Part {
                plan,
                subpath: point.subpath.clone().into(),
                target: point.destination.clone().into(),
                read_only: !point.rw,
            });
        }
        let directory = self.container_dir(&record.id);
        for name in ["hosts", "hostname", "resolv.conf"] {
            let (source, target) = (directory.join(name), PathBuf::from("/etc").join(name));
            let taken = parts.iter().any(|part| part.target == target);
            if source.exists() && !taken {
                parts.push(Part {
                    plan: bind(source),
                    subpath: PathBuf::new(),
                    target,
                    read_only: record.host_config.readonly_rootfs,
                });
            }
        }
        parts.sort_by_key(|part| part.target.components().count());
        Ok(parts)
    }

    /// The view of an image that a container mounts.
    async fn image_view(&self, record: &Record, point: &MountPoint) -> Result<MountPlan> {
        let (images, driver) = (self.services.images.clone(), point.driver.clone());
        let key = view_key(&record.id, point);
        Ok(blocking(move || images.container_mounts(&driver, &key)).await??)
    }

    async fn release(&self, record: &Record, volumes: &[String]) {
        for name in volumes {
            if let Err(error) = self.services.volumes.unmount(name, &record.id).await {
                tracing::warn!(container = %record.id, %error, "cannot give back a volume");
            }
        }
    }

    /// What a container has changed: the upper directory of its overlay with the merged tree below it, or its whole tree
    /// with its image's.
    pub(crate) async fn delta(&self, record: &Record) -> Result<Delta> {
        let (images, driver, id) = (
            self.services.images.clone(),
            record.storage_driver.clone(),
            record.id.clone(),
        );
        blocking(move || {
            let plan = images.container_mounts(&driver, id.as_str())?;
            delta_of(&images, &driver, id.as_str(), plan)
        })
        .await?
    }
}

/// What the container `id` has changed, whose root is mounted by `plan`.
fn delta_of(images: &ImageService, driver: &str, id: &str, plan: MountPlan) -> Result<Delta> {
    let failed = |e| EngineError::io("look at the container's changes", &e);
    if let Some((upper, below)) = split(&plan) {
        let upper = std::fs::File::open(upper).map_err(failed)?.into();
        return Ok(Delta::overlay(upper, listed(&below).map_err(failed)?));
    }
    let parent = images.container_parent(driver, id)?;
    let tree = listed(&read_only(&plan).unwrap_or(plan)).map_err(failed)?;
    let below = listed(&parent.plan).map_err(failed)?;
    Ok(Delta::trees(tree, below, parent))
}

/// A tree mounted nowhere, as a directory that can be listed.
pub(crate) fn listed(plan: &MountPlan) -> std::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let tree = gantry_sys::mount::detached(plan)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    gantry_sys::inroot::open(&tree, Path::new("."), flags, Mode::empty())
}

/// A running container's file system; none when it does not run.
async fn running(container: &Arc<Container>, extent: Extent) -> Result<Option<View>> {
    let Some(process) = container.process() else {
        return Ok(None);
    };
    let pid = process.pid();
    let opened = blocking(move || match extent {
        Extent::Root => view::root_of_process(Path::new(PROC), pid).map(|root| (root, None)),
        _ => view::of_process(Path::new(PROC), pid).map(|(root, ns)| (root, Some(ns))),
    });
    match opened.await? {
        // While it has not ended its identifier is its own.
        Ok((root, mounts)) if process.exited().is_none() => Ok(Some(View {
            root,
            _mounts: mounts,
            volumes: Vec::new(),
        })),
        Ok(_) => Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(EngineError::io("look into the container", &e)),
    }
}

/// A running container's mounts show its files with the numbers that its users have outside.
fn shifted<'a>(view: &'a View, record: &Record) -> Tree<'a> {
    let ranges = |maps: &[IdMap]| {
        let range = |map: &IdMap| OwnerRange {
            archive: map.inside,
            tree: map.outside,
            count: map.count,
        };
        maps.iter().map(range).collect()
    };
    Tree {
        root: &view.root,
        owners: record.userns.as_ref().map(|maps| Owners {
            users: ranges(&maps.uid),
            groups: ranges(&maps.gid),
        }),
    }
}

fn bind(source: impl Into<PathBuf>) -> MountPlan {
    MountPlan::single(Mount::Bind {
        source: source.into(),
        read_only: false,
    })
}

/// The same tree for reading alone: it makes no second user of the upper directory, and unmounting it flushes nothing.
pub(crate) fn read_only(plan: &MountPlan) -> Option<MountPlan> {
    let mount = match plan.mounts.as_slice() {
        [Mount::Bind { source, .. }] => Mount::Bind {
            source: source.clone(),
            read_only: true,
        },
        [
            Mount::Overlay {
                lower,
                upper: Some(upper),
                ..
            },
        ] => merged(std::iter::once(upper).chain(lower)),
        _ => return None,
    };
    Some(MountPlan::single(mount))
}

/// The directory with a container's changes, and what is below.
fn split(plan: &MountPlan) -> Option<(PathBuf, MountPlan)> {
    match plan.mounts.as_slice() {
        [
            Mount::Overlay {
                lower,
                upper: Some(upper),
                ..
            },
        ] => Some((upper.clone(), MountPlan::single(merged(lower)))),
        _ => None,
    }
}

/// Directories over each other, topmost first. The kernel wants two at least.
fn merged<'a>(lower: impl IntoIterator<Item = &'a PathBuf>) -> Mount {
    let lower: Vec<PathBuf> = lower.into_iter().cloned().collect();
    match <[PathBuf; 1]>::try_from(lower) {
        Ok([source]) => Mount::Bind {
            source,
            read_only: true,
        },
        Err(lower) => Mount::Overlay {
            lower,
            upper: None,
            work: None,
            options: Vec::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_to_read() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let plan = MountPlan::single(Mount::Overlay {
            lower: paths(&["/l"]),
            upper: Some("/u".into()),
            work: Some("/w".into()),
            options: vec!["volatile".into()],
        });
        let whole = read_only(&plan).unwrap();
        assert_eq!(
            whole.mounts,
            [Mount::Overlay {
                lower: paths(&["/u", "/l"]),
                upper: None,
                work: None,
                options: Vec::new()
            }]
        );
        let (upper, below) = split(&plan).unwrap();
        assert_eq!(upper, Path::new("/u"));
        assert!(matches!(
            below.mounts.as_slice(),
            [Mount::Bind {
                read_only: true,
                ..
            }]
        ));
        assert_eq!(split(&bind("/x")), None);
    }
}
