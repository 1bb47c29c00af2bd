//! Mounts as detached trees: new file systems, binds, overlays; and the container's root out of them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_driver_api::{Mount as Layer, MountPlan};
use gantry_monitor::plan::{Mount, MountSource, Plan};
use gantry_monitor::protocol::{Failure, Stage};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
};

use crate::fault::{At, Step, failure, plain};
use crate::init::mounts::make_read_only;
use crate::init::root::{DIRECTORY, Root};
use crate::sys;

/// The longest value that `fsconfig(2)` takes.
const MAX_VALUE: usize = 255;

/// The longest options that `mount(2)` takes: a page.
const MAX_OPTIONS: usize = 4096;

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

fn layers(plan: &Plan) -> &[Layer] {
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

fn detached(layer: &Layer) -> Step<OwnedFd> {
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
    for option in data {
        let set = match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(&fs, key, value),
            None => rustix::mount::fsconfig_set_flag(&fs, option.as_str()),
        };
        set.map_err(|e| refused(&fs, e, format!("mount {fstype} with option {option}")))?;
    }
    create(&fs, attrs).map_err(|e| refused(&fs, e, what()))
}

fn create(fs: &OwnedFd, attrs: u64) -> Result<OwnedFd, Errno> {
    rustix::mount::fsconfig_create(fs)?;
    let attrs = MountAttrFlags::from_bits_retain(attrs as u32);
    rustix::mount::fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, attrs)
}

/// The failure with what the kernel has to say about it, when it says anything.
fn refused(fs: &OwnedFd, errno: Errno, what: String) -> Failure {
    let mut buffer = [0; 512];
    let mut what = what;
    while let Ok(n) = rustix::io::read(fs, &mut buffer) {
        let line = String::from_utf8_lossy(&buffer[..n]);
        let text = line.trim().trim_start_matches(['e', 'w', 'i']).trim();
        what = format!("{what}: {text}");
    }
    failure(Stage::Mount, errno, what)
}

/// An overlay. `NAMETOOLONG` when only the old system call can make it ([`legacy_overlay`]).
fn overlay(
    lower: &[PathBuf],
    upper: Option<(&PathBuf, &PathBuf)>,
    options: &[String],
) -> Step<OwnedFd> {
    let too_long = || failure(Stage::Mount, Errno::NAMETOOLONG, "mount overlay".into());
    let what = || "mount overlay".to_owned();
    // Kernels before 6.5 take the words below one by one, and then refuse the whole.
    if kernel_version() < (6, 5) {
        return Err(too_long());
    }
    let fs =
        rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).at(Stage::Mount, what)?;
    let set = |key: &str, path: &Path| -> Step<()> {
        if path.as_os_str().len() > MAX_VALUE {
            return Err(too_long());
        }
        rustix::mount::fsconfig_set_string(&fs, key, path).map_err(|e| {
            // Kernels before 6.5 know no "lowerdir+".
            if e == Errno::INVAL && key == "lowerdir+" && !path_missing(path) {
                too_long()
            } else {
                refused(&fs, e, format!("mount overlay: {key} {}", path.display()))
            }
        })
    };
    for dir in lower {
        set("lowerdir+", dir)?;
    }
    if let Some((upper, work)) = upper {
        set("upperdir", upper)?;
        set("workdir", work)?;
    }
    let mount = Mount::parse("overlay", "overlay", "/", options);
    for option in &mount.data {
        let set = match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(&fs, key, value),
            None => rustix::mount::fsconfig_set_flag(&fs, option.as_str()),
        };
        set.map_err(|e| refused(&fs, e, format!("mount overlay with option {option}")))?;
    }
    create(&fs, mount.attr_set).map_err(|e| refused(&fs, e, what()))
}

/// Major and minor version of the running kernel.
fn kernel_version() -> (u32, u32) {
    let uts = rustix::system::uname();
    let release = uts.release().to_string_lossy();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn path_missing(path: &Path) -> bool {
    rustix::fs::stat(path).is_err()
}

/// An overlay through `mount(2)`, whose options may be longer; attached at `staging`.
fn legacy_overlay(layer: &Layer, staging: &Path) -> Step<OwnedFd> {
    let Layer::Overlay {
        lower,
        upper,
        work,
        options,
    } = layer
    else {
        return Err(plain(Stage::Mount, "path too long to mount"));
    };
    let what = || "mount overlay".to_owned();
    // Paths are given relative to what they share, or the options of many layers would exceed a page.
    let base = common_base(lower.iter().chain(upper).chain(work));
    rustix::process::chdir(&base).at(Stage::Mount, what)?;
    let mount = Mount::parse("overlay", "overlay", "/", options);
    let data = legacy_data(
        &base,
        lower,
        upper.as_deref().zip(work.as_deref()),
        &mount.data,
    );
    if data.len() >= MAX_OPTIONS {
        return Err(plain(
            Stage::Mount,
            format!("mount overlay: too many layers ({})", lower.len()),
        ));
    }
    let mount_data =
        std::ffi::CString::new(data).map_err(|_| failure(Stage::Mount, Errno::INVAL, what()))?;
    // Staging is opened first, for it may be a relative of the working directory.
    let target = rustix::fs::open(staging, DIRECTORY, Mode::empty()).at(Stage::Mount, what)?;
    let target = format!("/proc/self/fd/{}", target.as_raw_fd());
    let flags = MountFlags::empty();
    rustix::mount::mount(
        "overlay",
        target.as_str(),
        "overlay",
        flags,
        mount_data.as_c_str(),
    )
    .at(Stage::Mount, what)?;
    rustix::fs::open(staging, DIRECTORY, Mode::empty()).at(Stage::Mount, what)
}

/// The option string of `mount(2)`: `:` separates layers and `,` options, so both are escaped in names.
fn legacy_data(
    base: &Path,
    lower: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    options: &[String],
) -> String {
    let name = |path: &Path, layer: bool| {
        let path = path.strip_prefix(base).unwrap_or(path).to_string_lossy();
        let path = path.replace('\\', "\\\\").replace(',', "\\,");
        if layer {
            path.replace(':', "\\:")
        } else {
            path
        }
    };
    let layers: Vec<String> = lower.iter().map(|l| name(l, true)).collect();
    let mut data = format!("lowerdir={}", layers.join(":"));
    if let Some((upper, work)) = upper {
        data += &format!(
            ",upperdir={},workdir={}",
            name(upper, false),
            name(work, false)
        );
    }
    for option in options {
        data.push(',');
        data.push_str(option);
    }
    data
}

fn common_base<'a>(mut paths: impl Iterator<Item = &'a PathBuf>) -> PathBuf {
    let first = paths.next().and_then(|p| p.parent());
    let mut base = first.unwrap_or(Path::new("/")).to_owned();
    for path in paths {
        while !path.starts_with(&base) || *path == base {
            if !base.pop() {
                return PathBuf::from("/");
            }
        }
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_monitor::options::attr;

    #[test]
    fn legacy_options_are_relative_and_escaped() {
        let lower = [PathBuf::from("/s/a:b/fs"), PathBuf::from("/s/2/fs")];
        let (upper, work) = (PathBuf::from("/s/3/u,p"), PathBuf::from("/s/3/w"));
        let base = common_base(lower.iter().chain([&upper, &work]));
        assert_eq!(base, Path::new("/s"));
        let data = legacy_data(&base, &lower, Some((&upper, &work)), &["volatile".into()]);
        assert_eq!(
            data,
            r"lowerdir=a\:b/fs:2/fs,upperdir=3/u\,p,workdir=3/w,volatile"
        );
        assert_eq!(common_base([PathBuf::from("/x")].iter()), Path::new("/"));
    }

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
