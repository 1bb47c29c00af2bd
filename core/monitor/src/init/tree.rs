//! Mounts as detached trees: new file systems, binds, overlays; and the container's root out of them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_driver_api::{Mount as Layer, MountPlan};
use gantry_monitor::plan::{Mount, MountSource, Plan};
use gantry_monitor::protocol::{Failure, Stage};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use crate::fault::{At, Step, failure, plain};
use crate::init::mounts::make_read_only;
use crate::init::overlay::{legacy_overlay, overlay};
use crate::init::root::{DIRECTORY, Root};
use crate::sys;

/// Mounts the plan's root at `at` in this mount namespace (over `/`, say). `staging` is a directory that may be covered.
pub(crate) fn mount_root(plan: &Plan, at: &Path, staging: &Path) -> Step<Root> {
    let mut root = None;
    for layer in layers(plan) {
        root = Some(match detached(layer) {
            Err(f) if f.errno == Errno::NAMETOOLONG.raw_os_error() => {
                Root::new(legacy_overlay(layer, staging)?)
            }
            other => attach_root(other?, at)?,
        });
    }
    root.ok_or_else(no_root)
}

/// The mounts of the plan's root, detached, to be attached from elsewhere by [`attach_root`].
pub(crate) fn detached_root(plan: &Plan) -> Step<Vec<OwnedFd>> {
    let trees: Vec<OwnedFd> = layers(plan).iter().map(detached).collect::<Step<_>>()?;
    if trees.is_empty() {
        return Err(no_root());
    }
    Ok(trees)
}

/// Attaches a tree at `at`, which it is the root of from then on.
pub(crate) fn attach_root(tree: OwnedFd, at: &Path) -> Step<Root> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&tree, "", CWD, at, flags)
        .at(Stage::Mount, || "mount the root file system".into())?;
    Ok(Root::new(tree))
}

/// The mounts of the plan's root.
pub(crate) fn layers(plan: &Plan) -> &[Layer] {
    plan.rootfs
        .as_ref()
        .map(|p| p.mounts.as_slice())
        .unwrap_or_default()
}

pub(crate) fn no_root() -> Failure {
    plain(Stage::Plan, "the plan has no root file system")
}

/// The tree that a plan's mounts make, detached: its last mount, which covers the others.
pub(crate) fn of_plan(plan: &MountPlan) -> Step<OwnedFd> {
    let last = plan.mounts.last();
    detached(last.ok_or_else(|| plain(Stage::Plan, "a mount plan is empty"))?)
}

/// One mount of a driver's plan, detached.
pub(crate) fn detached(layer: &Layer) -> Step<OwnedFd> {
    match layer {
        Layer::Bind { source, read_only } => {
            let fd = bind(source, true)?;
            if *read_only {
                make_read_only(fd.as_fd(), true).at(Stage::Mount, || {
                    format!("make {} read-only", source.display())
                })?;
            }
            Ok(fd)
        }
        Layer::Overlay {
            lower,
            upper,
            work,
            options,
        } => overlay(lower, upper.as_ref().zip(work.as_ref()), options),
        Layer::Filesystem {
            fstype,
            source,
            options,
        } => {
            let mount = Mount::parse(fstype, source, "/", options);
            match &mount.source {
                MountSource::Bind { source, recursive } => bind(source, *recursive),
                _ => filesystem(fstype, source, mount.attr_set, &mount.data),
            }
        }
    }
}

/// A copy of a mount of the host, or of a part of one; or of another container's, by `/proc/PID/root/...`.
pub(crate) fn bind(source: &Path, recursive: bool) -> Step<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let open = |path: &Path| rustix::mount::open_tree(CWD, path, flags);
    let tree = match of_container(source) {
        Some((pid, path)) => in_namespace_of(pid, || open(&path)),
        None => open(source),
    };
    tree.at(Stage::Mount, || {
        format!("bind source path {}", source.display())
    })
}

/// The process and the path in its root, of a path through `/proc`.
fn of_container(source: &Path) -> Option<(&str, PathBuf)> {
    let (pid, path) = source
        .to_str()?
        .strip_prefix("/proc/")?
        .split_once("/root/")?;
    let is_pid = !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
    is_pid.then(|| (pid, Path::new("/").join(path)))
}

/// Does something in the mount namespace of another process, since mounts are copied in their own namespace only.
fn in_namespace_of<T>(pid: &str, then: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    let open = |name: &str| {
        let path = format!("/proc/{name}/ns/mnt");
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    };
    let (own, other) = (open("self")?, open(pid)?);
    let root = rustix::fs::open("/", DIRECTORY, Mode::empty())?;
    sys::setns(other.as_fd(), libc::CLONE_NEWNS)?;
    let result = then();
    sys::setns(own.as_fd(), libc::CLONE_NEWNS)?;
    // Coming back one stands in what is mounted over the root by now: the container.
    rustix::process::fchdir(&root)?;
    rustix::process::chroot(".")?;
    result
}

/// A new instance of a file system.
pub(crate) fn filesystem(fstype: &str, source: &str, attrs: u64, data: &[String]) -> Step<OwnedFd> {
    let what = || format!("mount {fstype}");
    let fs = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).at(Stage::Mount, what)?;
    if !source.is_empty() {
        rustix::mount::fsconfig_set_string(&fs, "source", source).at(Stage::Mount, what)?;
    }
    set_options(&fs, fstype, data)?;
    create(&fs, attrs).map_err(|e| refused(&fs, e, what()))
}

/// Sets a file system's own options.
pub(crate) fn set_options(fs: &OwnedFd, fstype: &str, data: &[String]) -> Step<()> {
    for option in data {
        let set = match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(fs, key, value),
            None => rustix::mount::fsconfig_set_flag(fs, option.as_str()),
        };
        set.map_err(|e| refused(fs, e, format!("mount {fstype} with option {option}")))?;
    }
    Ok(())
}

/// Makes the file system that was described, and a mount of it.
pub(crate) fn create(fs: &OwnedFd, attrs: u64) -> Result<OwnedFd, Errno> {
    rustix::mount::fsconfig_create(fs)?;
    let attrs = MountAttrFlags::from_bits_retain(attrs as u32);
    rustix::mount::fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, attrs)
}

/// The failure with what the kernel has to say about it, when it says anything.
pub(crate) fn refused(fs: &OwnedFd, errno: Errno, what: String) -> Failure {
    let mut buffer = [0; 512];
    let mut what = what;
    while let Ok(n) = rustix::io::read(fs, &mut buffer) {
        let line = String::from_utf8_lossy(&buffer[..n]);
        let text = line.trim().trim_start_matches(['e', 'w', 'i']).trim();
        what = format!("{what}: {text}");
    }
    failure(Stage::Mount, errno, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_monitor::options::attr;

    #[test]
    fn attributes_reach_the_mount() {
        let fd = filesystem("tmpfs", "tmpfs", attr::RDONLY, &["size=64k".into()]).unwrap();
        let made = rustix::fs::mkdirat(&fd, "x", Mode::from_raw_mode(0o755));
        assert_eq!(made, Err(Errno::ROFS));
        let f = filesystem("tmpfs", "tmpfs", 0, &["siez=64k".into()]).unwrap_err();
        assert!(f.message.contains("siez"), "{}", f.message);
        assert!(
            filesystem("nosuchfs", "", 0, &[])
                .unwrap_err()
                .message
                .starts_with("mount nosuchfs:")
        );
    }
}
