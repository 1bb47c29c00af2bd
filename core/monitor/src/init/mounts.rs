//! The plan's mounts inside the container's root, in their order; then what is hidden and what is read-only.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_monitor::options::attr;
use gantry_monitor::plan::{Cgroup, Mount, MountSource, Plan, Propagation};
use gantry_monitor::protocol::{Failure, Stage};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, StatVfsMountFlags, StatxAttributes, StatxFlags,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, OpenTreeFlags};

use crate::fault::{At, Step, failure, plain};
use crate::init::root::{Kind, Root, attach_at, kind_of};
use crate::init::{copy_up, tree};
use crate::sys::{self, MountAttr};

/// What mounting needs to know of the container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) root: &'a Root,
    pub(crate) cgroup: &'a Cgroup,
    /// The container has a user namespace of its own.
    pub(crate) user_ns: bool,
}

/// Performs one mount. `source` is its tree if that was cloned from the host's already (see `userns`).
pub(crate) fn mount(context: &Context<'_>, mount: &Mount, source: Option<OwnedFd>) -> Step<()> {
    match &mount.source {
        MountSource::Bind {
            source: path,
            recursive,
        } => {
            let wrap = |f| in_words(f, &path.display().to_string(), &mount.target);
            let fd = match source {
                Some(fd) => fd,
                None => tree::bind(path, *recursive).map_err(wrap)?,
            };
            place(context, mount, fd, true).map_err(wrap)
        }
        MountSource::Filesystem { fstype, source } => {
            let wrap = |f| in_words(f, fstype, &mount.target);
            let late = if mount.copy_up { attr::RDONLY } else { 0 };
            let attrs = mount.attr_set & !late;
            let mut rest = mount.clone();
            rest.attr_clear = 0;
            let fd = match tree::filesystem(fstype, source, attrs, &mount.data) {
                // The namespace that is shown belongs to another user namespace: the host's view has to do.
                Err(f) if context.user_ns && fstype == "sysfs" && is_permission(&f) => {
                    tree::bind(Path::new("/sys"), true)
                }
                Err(f) if context.user_ns && fstype == "mqueue" && is_permission(&f) => {
                    tree::bind(Path::new("/dev/mqueue"), true)
                }
                other => {
                    rest.attr_set &= late;
                    other
                }
            };
            let fd = fd.map_err(wrap)?;
            if matches!(fstype.as_str(), "proc" | "sysfs") {
                return place_plainly(context, &rest, fd, fstype);
            }
            place(context, &rest, fd, false).map_err(wrap)
        }
        MountSource::Tree(plan) => {
            let wrap = |f| in_words(f, "volume", &mount.target);
            let fd = match source {
                Some(fd) => fd,
                None => tree::of_plan(plan).map_err(wrap)?,
            };
            place(context, mount, fd, true).map_err(wrap)
        }
        MountSource::Cgroup => {
            cgroups(context, mount).map_err(|f| in_words(f, "cgroup", &mount.target))
        }
    }
}

fn is_permission(failure: &Failure) -> bool {
    failure.errno == Errno::PERM.raw_os_error()
}

fn in_words(failure: Failure, source: &str, target: &Path) -> Failure {
    let target = target.display();
    let mut message = format!(
        "error mounting {source:?} to rootfs at \"{target}\": {}",
        failure.message
    );
    if failure.errno == Errno::NOTDIR.raw_os_error() {
        message += ": Are you trying to mount a directory onto a file (or vice-versa)? \
                    Check if the specified host path exists and is the expected type";
    }
    Failure { message, ..failure }
}

/// Fills, adorns and attaches a detached mount.
fn place(context: &Context<'_>, mount: &Mount, fd: OwnedFd, bound: bool) -> Step<()> {
    let target = &mount.target;
    if mount.copy_up {
        copy_up::fill(context.root, target, fd.as_fd())?;
    }
    let late = match adorn(fd.as_fd(), mount) {
        // Before Linux 5.12.
        Err(Errno::NOSYS) if !mount.attr_recursive => true,
        other => {
            other.at(Stage::Mount, || "set mount attributes".into())?;
            false
        }
    };
    context
        .root
        .attach(fd.as_fd(), target)
        .at(Stage::Mount, || format!("attach to {}", target.display()))?;
    if late && bound {
        remount(fd.as_fd(), mount).at(Stage::Mount, || "remount".into())?;
    }
    Ok(())
}

/// Attaches `/proc` or `/sys`, whose other mounts and masks rely on their being where they seem to be.
fn place_plainly(context: &Context<'_>, mount: &Mount, fd: OwnedFd, fstype: &str) -> Step<()> {
    let target = &mount.target;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let dir = match context.root.open_plain(target, flags) {
        Err(Errno::NOENT) => context.root.ensure(target, Kind::Directory),
        Err(Errno::LOOP | Errno::NOTDIR) => {
            let message = format!("filesystem {fstype:?} must be mounted on ordinary directory");
            return Err(in_words(plain(Stage::Mount, message), fstype, target));
        }
        other => other,
    };
    let attach = || {
        let dir = dir?;
        adorn(fd.as_fd(), mount)?;
        attach_at(fd.as_fd(), dir.as_fd())
    };
    attach()
        .at(Stage::Mount, || "attach".into())
        .map_err(|f| in_words(f, fstype, target))
}

/// Sets attributes and propagation of a mount that is not attached yet.
fn adorn(fd: BorrowedFd<'_>, mount: &Mount) -> Result<(), Errno> {
    let mut attrs = MountAttr {
        set: mount.attr_set,
        clear: mount.attr_clear,
        ..MountAttr::default()
    };
    let mut below = mount.attr_recursive;
    if let Some((kind, recursive)) = mount.propagation {
        let kind = propagation(kind);
        if recursive == below || attrs.set | attrs.clear == 0 {
            attrs.propagation = kind;
            below = recursive;
        } else {
            let only = MountAttr {
                propagation: kind,
                ..MountAttr::default()
            };
            sys::mount_setattr(fd, recursive, &only)?;
        }
    }
    if attrs.set | attrs.clear | attrs.propagation == 0 {
        return Ok(());
    }
    sys::mount_setattr(fd, below, &attrs)
}

fn propagation(kind: Propagation) -> u64 {
    match kind {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Shared => libc::MS_SHARED,
        Propagation::Unbindable => libc::MS_UNBINDABLE,
    }
}

/// The attributes of an attached bind mount through `mount(2)`.
fn remount(fd: BorrowedFd<'_>, mount: &Mount) -> Result<(), Errno> {
    const PAIRS: [(u64, StatVfsMountFlags, MountFlags); 4] = [
        (attr::RDONLY, StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (attr::NOSUID, StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (attr::NODEV, StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (attr::NOEXEC, StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ];
    let now = rustix::fs::fstatvfs(fd)?.f_flag;
    let mut flags = MountFlags::BIND;
    for (bit, is, then) in PAIRS {
        if mount.attr_set & bit != 0 || (now.contains(is) && mount.attr_clear & bit == 0) {
            flags |= then;
        }
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::mount::mount_remount(path.as_str(), flags, c"")?;
    if let Some((kind, recursive)) = mount.propagation {
        use rustix::mount::MountPropagationFlags as P;
        let below = if recursive { P::REC } else { P::empty() };
        let kind = P::from_bits_retain(propagation(kind) as u32);
        rustix::mount::mount_change(path.as_str(), kind | below)?;
    }
    Ok(())
}

/// Takes a mount, and none below it, out of its peer group.
pub(crate) fn make_private(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let attrs = MountAttr {
        propagation: libc::MS_PRIVATE,
        ..MountAttr::default()
    };
    match sys::mount_setattr(fd, false, &attrs) {
        // Before Linux 5.12.
        Err(Errno::NOSYS) => {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let private = rustix::mount::MountPropagationFlags::PRIVATE;
            rustix::mount::mount_change(path.as_str(), private)
        }
        other => other,
    }
}

/// Makes a mount read-only, with the ones below or alone.
pub(crate) fn make_read_only(fd: BorrowedFd<'_>, below: bool) -> Result<(), Errno> {
    let attrs = MountAttr {
        set: attr::RDONLY,
        ..MountAttr::default()
    };
    match sys::mount_setattr(fd, below, &attrs) {
        Err(Errno::NOSYS) => {
            let mount = Mount {
                attr_set: attr::RDONLY,
                ..Mount::default()
            };
            remount(fd, &mount)
        }
        other => other,
    }
}

/// Shows the container its own cgroups: as binds of their directories, which a cgroup namespace shows as roots.
fn cgroups(context: &Context<'_>, mount: &Mount) -> Step<()> {
    let mut each = mount.clone();
    each.data.clear();
    if context.cgroup.v1.is_empty() {
        let Some(dir) = &context.cgroup.v2 else {
            return Err(plain(Stage::Plan, "the container has no cgroup"));
        };
        each.attr_set &= !attr::ATIME;
        return place(context, &each, tree::bind(dir, false)?, true);
    }
    let data = ["mode=755".to_owned(), "size=64k".to_owned()];
    let flags = attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let top = tree::filesystem("tmpfs", "cgroup", flags, &data)?;
    let what = || "attach cgroup hierarchies".to_owned();
    context
        .root
        .attach(top.as_fd(), &mount.target)
        .at(Stage::Mount, what)?;
    for dir in &context.cgroup.v1 {
        let name = hierarchy(dir)?;
        let fd = tree::bind(dir, false)?;
        adorn(fd.as_fd(), &each).at(Stage::Mount, what)?;
        let make = || -> Result<(), Errno> {
            rustix::fs::mkdirat(&top, &name, Mode::from_raw_mode(0o755))?;
            let target =
                rustix::fs::openat(&top, &name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            attach_at(fd.as_fd(), target.as_fd())?;
            let text = name.to_string_lossy();
            for controller in text.split(',').filter(|c| *c != text) {
                rustix::fs::symlinkat(&name, &top, controller)?;
            }
            Ok(())
        };
        make().at(Stage::Mount, what)?;
    }
    if mount.attr_set & attr::RDONLY != 0 {
        make_read_only(top.as_fd(), false).at(Stage::Mount, what)?;
    }
    Ok(())
}

/// The name of the hierarchy that a v1 cgroup belongs to: that of its mount point.
fn hierarchy(dir: &Path) -> Step<PathBuf> {
    for dir in dir.ancestors() {
        let stat = rustix::fs::statx(CWD, dir, AtFlags::empty(), StatxFlags::TYPE)
            .at(Stage::Cgroup, || format!("stat {}", dir.display()))?;
        if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
            && let Some(name) = dir.file_name()
        {
            return Ok(name.into());
        }
    }
    Err(failure(
        Stage::Cgroup,
        Errno::NOENT,
        format!("find the hierarchy of {}", dir.display()),
    ))
}

/// Covers masked paths and makes others read-only.
pub(crate) fn hide(root: &Root, plan: &Plan) -> Step<()> {
    let mut empty = None;
    for path in &plan.masked_paths {
        let what = || format!("mask {}", path.display());
        let Some(target) = existing(root, path).at(Stage::Mount, what)? else {
            continue;
        };
        let is_dir = kind_of(target.as_fd()).at(Stage::Mount, what)? == FileType::Directory;
        let cover = match &empty {
            // One empty file system serves for all; kernels before 6.15 copy it only once it is attached.
            Some(first) if is_dir => copy_of(first).at(Stage::Mount, what)?,
            None if is_dir => tree::filesystem("tmpfs", "tmpfs", attr::RDONLY, &["size=0".into()])?,
            _ => tree::bind(Path::new("/dev/null"), false)?,
        };
        attach_at(cover.as_fd(), target.as_fd()).at(Stage::Mount, what)?;
        if is_dir && empty.is_none() {
            empty = Some(cover);
        }
    }
    for path in &plan.readonly_paths {
        let what = || format!("make {} read-only", path.display());
        let Some(target) = existing(root, path).at(Stage::Mount, what)? else {
            continue;
        };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::AT_EMPTY_PATH;
        let copy = rustix::mount::open_tree(&target, "", flags).at(Stage::Mount, what)?;
        make_read_only(copy.as_fd(), true).at(Stage::Mount, what)?;
        attach_at(copy.as_fd(), target.as_fd()).at(Stage::Mount, what)?;
    }
    Ok(())
}

fn copy_of(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(fd, "", flags)
}

/// What is at a path, if anything is.
fn existing(root: &Root, path: &Path) -> Result<Option<OwnedFd>, Errno> {
    match root.open(path, OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        other => other.map(Some),
    }
}
