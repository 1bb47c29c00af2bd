//! A place in a mount namespace of this process's own, where trees with mapped IDs and device nodes are put together.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_driver_api::Mount as Layer;
use gantry_monitor::plan::{Device, DeviceKind, Launch, Plan};
use gantry_monitor::protocol::Stage;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags};

use crate::fault::{At, Step, failure, plain};
use crate::init::overlay::{legacy_overlay, overlay};
use crate::init::root::{DIRECTORY, attach_at};
use crate::init::tree;
use crate::init::userns::{cannot_map, idmap, outside};
use crate::sys;

const MOUNT: Stage = Stage::Mount;

/// An empty file system at a path that only this process has it at.
#[derive(Debug)]
pub(crate) struct Bench {
    path: PathBuf,
    root: OwnedFd,
}

impl Bench {
    /// Covers `path` in a mount namespace that this process gets for it.
    pub(crate) fn open(path: &Path) -> Step<Self> {
        let what = || "set up a place for mounts".to_owned();
        sys::unshare(libc::CLONE_NEWNS).at(Stage::Namespace, what)?;
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", slave).at(MOUNT, what)?;
        let root = tree::filesystem("tmpfs", "gantry", 0, &["mode=700".into()])?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&root, "", CWD, path, flags).at(MOUNT, what)?;
        Ok(Self {
            path: path.to_owned(),
            root,
        })
    }

    /// A new directory.
    fn directory(&self, name: &str) -> Step<PathBuf> {
        let what = || "set up a place for mounts".to_owned();
        rustix::fs::mkdirat(&self.root, name, Mode::from_raw_mode(0o755)).at(MOUNT, what)?;
        Ok(self.path.join(name))
    }

    /// Shows a tree under a name.
    fn show(&self, name: &str, tree: &OwnedFd) -> Step<PathBuf> {
        let at = self.directory(name)?;
        let what = || "set up a place for mounts".to_owned();
        let target = rustix::fs::open(&at, DIRECTORY, Mode::empty()).at(MOUNT, what)?;
        attach_at(tree.as_fd(), target.as_fd()).at(MOUNT, what)?;
        Ok(at)
    }
}

/// One mount of a root, of trees whose files' owners are mapped to the container's numbers: on the disk they stay as they
/// are.
#[derive(Debug)]
pub(crate) enum Mapped {
    Tree(OwnedFd),
    /// An overlay cannot be mapped itself: its layers are.
    Overlay {
        lower: Vec<OwnedFd>,
        changes: Option<Changes>,
        options: Vec<String>,
    },
}

/// A tree with an overlay's upper and work directory in it: both have to lie in the same mount.
#[derive(Debug)]
pub(crate) struct Changes {
    tree: OwnedFd,
    upper: PathBuf,
    work: PathBuf,
}

/// Clones and maps what a plan's root consists of.
pub(crate) fn mapped_root(plan: &Plan, userns: BorrowedFd<'_>) -> Step<Vec<Mapped>> {
    let layers = tree::layers(plan);
    if layers.is_empty() {
        return Err(tree::no_root());
    }
    layers.iter().map(|layer| mapped(layer, userns)).collect()
}

fn mapped(layer: &Layer, userns: BorrowedFd<'_>) -> Step<Mapped> {
    let clone = |dir: &Path| {
        let tree = tree::bind(dir, false)?;
        idmap(tree.as_fd(), userns, false)
            .map_err(|e| cannot_map(e, format!("map the IDs of {}", dir.display())))?;
        Ok(tree)
    };
    match layer {
        Layer::Overlay {
            lower,
            upper,
            work,
            options,
        } => {
            let changes = match upper.as_ref().zip(work.as_ref()) {
                None => None,
                Some((upper, work)) => {
                    let base = common_parent(upper, work);
                    let below = |path: &Path| path.strip_prefix(&base).unwrap_or(path).to_owned();
                    Some(Changes {
                        tree: clone(&base)?,
                        upper: below(upper),
                        work: below(work),
                    })
                }
            };
            Ok(Mapped::Overlay {
                lower: lower.iter().map(|dir| clone(dir)).collect::<Step<_>>()?,
                changes,
                options: options.clone(),
            })
        }
        Layer::Bind { .. } => {
            let tree = tree::detached(layer)?;
            idmap(tree.as_fd(), userns, true)
                .map_err(|e| cannot_map(e, "map the IDs of the root file system".into()))?;
            Ok(Mapped::Tree(tree))
        }
        Layer::Filesystem { fstype, .. } => Err(plain(
            MOUNT,
            format!("a root of type {fstype} cannot be given to a user namespace"),
        )),
    }
}

impl Mapped {
    /// The mount, detached; `n` tells it from the others on the bench, `owner` is root of the user namespace.
    pub(crate) fn mount(self, bench: &Bench, n: usize, owner: (u32, u32)) -> Step<OwnedFd> {
        let (lower, changes, options) = match self {
            Self::Tree(tree) => return Ok(tree),
            Self::Overlay {
                lower,
                changes,
                options,
            } => (lower, changes, options),
        };
        let numbered = lower.iter().enumerate();
        let lower = numbered
            .map(|(l, tree)| bench.show(&format!("{n}l{l}"), tree))
            .collect::<Step<Vec<_>>>()?;
        let shown = match &changes {
            None => None,
            Some(changes) => {
                let base = bench.show(&format!("{n}u"), &changes.tree)?;
                Some((base.join(&changes.upper), base.join(&changes.work)))
            }
        };
        let (upper, work) = shown.unzip();
        let made = as_owner(owner, || {
            overlay(&lower, upper.as_ref().zip(work.as_ref()), &options)
        })?;
        match made {
            Err(f) if f.errno == Errno::NAMETOOLONG.raw_os_error() => {
                let layer = Layer::Overlay {
                    lower,
                    upper,
                    work,
                    options,
                };
                let at = bench.directory(&format!("{n}o"))?;
                let attached = as_owner(owner, || legacy_overlay(&layer, &at))??;
                let flags = OpenTreeFlags::OPEN_TREE_CLONE
                    | OpenTreeFlags::OPEN_TREE_CLOEXEC
                    | OpenTreeFlags::AT_EMPTY_PATH;
                rustix::mount::open_tree(&attached, "", flags)
                    .at(MOUNT, || "clone the overlay".into())
            }
            other => other,
        }
    }
}

/// Mounts an overlay as one whom its layers know: what the file system itself makes in them (work directories,
/// whiteouts) belongs to who mounted it, and the host's root has no number in mapped layers.
fn as_owner<T>((uid, gid): (u32, u32), mount: impl FnOnce() -> T) -> Step<T> {
    let what = || "mount an overlay for a user namespace".to_owned();
    let caps = rustix::thread::capabilities(None).at(MOUNT, what)?;
    sys::set_fs_ids(uid, gid);
    let kept = rustix::thread::set_capabilities(None, caps);
    let mounted = kept.at(MOUNT, what).map(|()| mount());
    sys::set_fs_ids(0, 0);
    mounted
}

/// The deepest directory that holds both.
fn common_parent(a: &Path, b: &Path) -> PathBuf {
    let parents = a.ancestors().skip(1);
    let shared = parents.into_iter().find(|p| b.starts_with(p) && *p != b);
    shared.unwrap_or(Path::new("/")).to_owned()
}

/// The plan's device nodes, made by the host's root, to be bound in a container that may make none. None each where this
/// process may not either (its own user namespace is not the first).
pub(crate) fn devices(bench: &Bench, plan: &Plan, launch: &Launch) -> Step<Vec<Option<OwnedFd>>> {
    let numbered = plan.devices.iter().enumerate();
    numbered
        .map(|(n, device)| {
            let what = || format!("make device {}", device.path.display());
            match node(&bench.root, &format!("d{n}"), device, launch) {
                Ok(fd) => Ok(Some(fd)),
                Err(Errno::PERM) if device.kind != DeviceKind::Fifo => Ok(None),
                Err(e) => Err(failure(MOUNT, e, what())),
            }
        })
        .collect()
}

fn node(dir: &OwnedFd, name: &str, device: &Device, launch: &Launch) -> Result<OwnedFd, Errno> {
    let number = rustix::fs::makedev(device.major, device.minor);
    let mode = Mode::from_raw_mode(device.mode);
    rustix::fs::mknodat(dir, name, file_type(device.kind), mode, number)?;
    let uid = outside(&launch.uid_map, device.uid).map(Uid::from_raw);
    let gid = outside(&launch.gid_map, device.gid).map(Gid::from_raw);
    rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(dir, name, flags)
}

/// The kind of node.
pub(crate) fn file_type(kind: DeviceKind) -> FileType {
    match kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
        DeviceKind::Fifo => FileType::Fifo,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents() {
        let parent = |a: &str, b: &str| common_parent(Path::new(a), Path::new(b));
        assert_eq!(parent("/s/1/fs", "/s/1/work"), Path::new("/s/1"));
        assert_eq!(parent("/s/1/fs", "/s/2/work/x"), Path::new("/s"));
        assert_eq!(parent("/a", "/b"), Path::new("/"));
        assert_eq!(parent("/a/b/c", "/a/b"), Path::new("/a"));
    }
}
