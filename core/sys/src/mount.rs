//! Mounts that the engine itself makes: a driver's plan at a path, or as a detached tree that no path leads to.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_driver_api::{Mount, MountPlan};
use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

/// Options that are attributes of the mount, not of the file system.
const ATTRIBUTES: [(&str, MountAttrFlags); 7] = [
    ("ro", MountAttrFlags::MOUNT_ATTR_RDONLY),
    ("nosuid", MountAttrFlags::MOUNT_ATTR_NOSUID),
    ("nodev", MountAttrFlags::MOUNT_ATTR_NODEV),
    ("noexec", MountAttrFlags::MOUNT_ATTR_NOEXEC),
    ("noatime", MountAttrFlags::MOUNT_ATTR_NOATIME),
    ("strictatime", MountAttrFlags::MOUNT_ATTR_STRICTATIME),
    ("nodiratime", MountAttrFlags::MOUNT_ATTR_NODIRATIME),
];

/// Options that say what is so anyway.
const WITHOUT_MEANING: [&str; 5] = ["", "rw", "defaults", "relatime", "async"];

/// The tree that a plan makes, detached: it is gone when the descriptor and all that was opened through it are closed.
///
/// # Errors
/// The kernel's; what it has to say about a file system's option is in the message.
pub fn detached(plan: &MountPlan) -> io::Result<OwnedFd> {
    let last = plan.mounts.last();
    one(last.ok_or_else(|| io::Error::from(Errno::INVAL))?)
}

/// Mounts a plan at a directory of this mount namespace.
///
/// # Errors
/// As [`detached`]; then nothing of the plan is mounted.
pub fn attach(plan: &MountPlan, target: &Path) -> io::Result<()> {
    for (done, mount) in plan.mounts.iter().enumerate() {
        let attached = one(mount).and_then(|tree| {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            Ok(rustix::mount::move_mount(&tree, "", CWD, target, flags)?)
        });
        if let Err(e) = attached {
            for _ in 0..done {
                rustix::mount::unmount(target, UnmountFlags::DETACH)?;
            }
            return Err(e);
        }
    }
    Ok(())
}

/// Takes everything away that is mounted at a path; nothing there is fine. What still uses it keeps it until it ends.
///
/// # Errors
/// Those of `umount2(2)`.
pub fn detach(target: &Path) -> io::Result<()> {
    loop {
        match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

fn one(mount: &Mount) -> io::Result<OwnedFd> {
    match mount {
        Mount::Bind { source, read_only } => bind(source, *read_only),
        Mount::Overlay {
            lower,
            upper,
            work,
            options,
        } => overlay(lower, upper.as_ref().zip(work.as_ref()), options),
        Mount::Filesystem {
            fstype,
            source,
            options,
        } => {
            let fs = rustix::mount::fsopen(fstype.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
            if !source.is_empty() {
                rustix::mount::fsconfig_set_string(&fs, "source", source.as_str())?;
            }
            finish(&fs, options)
        }
    }
}

fn bind(source: &Path, read_only: bool) -> io::Result<OwnedFd> {
    let tree = tree(source, true)?;
    if read_only {
        set_read_only(&tree, true)?;
    }
    Ok(tree)
}

/// Makes a mount read-only; `below`: with all that is mounted in it.
pub(crate) fn set_read_only(tree: &OwnedFd, below: bool) -> io::Result<()> {
    let attributes = Attributes {
        read_only: true,
        ..Attributes::default()
    };
    set_attributes(tree, below, &attributes)
}

/// What is at a path, as a detached tree of its own; `recursive`: with all that is mounted below.
///
/// # Errors
/// Those of `open_tree(2)`.
pub fn tree(source: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(CWD, source, flags)?)
}

/// How a mount and its peers learn of mounts in each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// They do not.
    Private,
    /// It learns of its peers'.
    Slave,
    /// Both learn of the other's.
    Shared,
}

/// What can be changed of a mount.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    /// No writes.
    pub read_only: bool,
    /// How mounts spread.
    pub spread: Option<Spread>,
    /// Owners are shifted as this user namespace says.
    pub users: Option<BorrowedFd<'a>>,
}

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes a tree; `below`: with all that is mounted in it. Needs Linux 5.12.
///
/// # Errors
/// Those of `mount_setattr(2)`.
pub fn set_attributes(tree: impl AsFd, below: bool, attributes: &Attributes<'_>) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let mut attr = MountAttr::default();
    if attributes.read_only {
        attr.attr_set |= u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
    }
    attr.propagation = match attributes.spread {
        None => 0,
        Some(Spread::Private) => libc::MS_PRIVATE,
        Some(Spread::Slave) => libc::MS_SLAVE,
        Some(Spread::Shared) => libc::MS_SHARED,
    };
    if let Some(users) = attributes.users {
        attr.attr_set |= u64::from(MountAttrFlags::MOUNT_ATTR_IDMAP.bits());
        attr.userns_fd = u64::from(users.as_raw_fd().cast_unsigned());
    }
    let mut flags = AtFlags::EMPTY_PATH.bits();
    if below {
        flags |= libc::AT_RECURSIVE.cast_unsigned();
    }
    // SAFETY: the path is a string, the attribute is of the size told, and both outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn overlay(
    lower: &[PathBuf],
    upper: Option<(&PathBuf, &PathBuf)>,
    options: &[String],
) -> io::Result<OwnedFd> {
    // Older kernels take these words and refuse the whole afterwards.
    if crate::host::kernel_version() < (6, 5) {
        return old_overlay(lower, upper, options);
    }
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, path: &Path| {
        rustix::mount::fsconfig_set_string(&fs, key, path).map_err(|e| explained(&fs, e, key))
    };
    lower.iter().try_for_each(|dir| set("lowerdir+", dir))?;
    if let Some((upper, work)) = upper {
        set("upperdir", upper)?;
        set("workdir", work)?;
    }
    finish(&fs, options)
}

/// An overlay by `mount(2)`, for Linux before 6.5: mounted by a thread in a mount namespace of its own, where nobody
/// sees it, and taken from there as a detached tree.
fn old_overlay(
    lower: &[PathBuf],
    upper: Option<(&PathBuf, &PathBuf)>,
    options: &[String],
) -> io::Result<OwnedFd> {
    let layers: Vec<String> = lower.iter().map(|l| escape(l)).collect();
    let mut data = format!("lowerdir={}", layers.join(":"));
    if let Some((upper, work)) = upper {
        data += &format!(",upperdir={},workdir={}", escape(upper), escape(work));
    }
    let mut flags = MountFlags::empty();
    for option in options {
        if let Some((_, bits)) = ATTRIBUTES.iter().find(|(word, _)| word == option) {
            flags |= old_flags(*bits);
        } else if !WITHOUT_MEANING.contains(&option.as_str()) {
            data += &format!(",{option}");
        }
    }
    let data = std::ffi::CString::new(data)?;
    let at = lower.first().ok_or_else(|| io::Error::from(Errno::INVAL))?;
    let mounted = std::thread::scope(|scope| {
        scope
            .spawn(|| -> io::Result<OwnedFd> {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
                let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
                rustix::mount::mount_change("/", private)?;
                rustix::mount::mount("overlay", at, "overlay", flags, data.as_c_str())?;
                let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                Ok(rustix::mount::open_tree(CWD, at, clone)?)
            })
            .join()
    });
    mounted.map_err(|_| io::Error::other("the mounting thread failed"))?
}

/// The same attribute for `mount(2)`.
fn old_flags(attribute: MountAttrFlags) -> MountFlags {
    match attribute {
        MountAttrFlags::MOUNT_ATTR_RDONLY => MountFlags::RDONLY,
        MountAttrFlags::MOUNT_ATTR_NOSUID => MountFlags::NOSUID,
        MountAttrFlags::MOUNT_ATTR_NODEV => MountFlags::NODEV,
        MountAttrFlags::MOUNT_ATTR_NOEXEC => MountFlags::NOEXEC,
        MountAttrFlags::MOUNT_ATTR_NOATIME => MountFlags::NOATIME,
        MountAttrFlags::MOUNT_ATTR_STRICTATIME => MountFlags::STRICTATIME,
        MountAttrFlags::MOUNT_ATTR_NODIRATIME => MountFlags::NODIRATIME,
        _ => MountFlags::empty(),
    }
}

/// Colons, commas and backslashes mean something in the options.
fn escape(path: &Path) -> String {
    path.to_string_lossy()
        .replace('\\', "\\\\")
        .replace(':', "\\:")
        .replace(',', "\\,")
}

/// Sets the options and makes the mount.
fn finish(fs: &OwnedFd, options: &[String]) -> io::Result<OwnedFd> {
    let mut attributes = MountAttrFlags::empty();
    for option in options {
        if let Some((_, bits)) = ATTRIBUTES.iter().find(|(word, _)| word == option) {
            attributes |= *bits;
        } else if !WITHOUT_MEANING.contains(&option.as_str()) {
            match option.split_once('=') {
                Some((key, value)) => rustix::mount::fsconfig_set_string(fs, key, value),
                None => rustix::mount::fsconfig_set_flag(fs, option.as_str()),
            }
            .map_err(|e| explained(fs, e, option))?;
        }
    }
    rustix::mount::fsconfig_create(fs).map_err(|e| explained(fs, e, "mount"))?;
    let mounted = rustix::mount::fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes);
    Ok(mounted?)
}

/// The error, with what the kernel wrote about it to the context. Keeps the error's number.
fn explained(fs: &OwnedFd, e: Errno, what: &str) -> io::Error {
    let mut buffer = [0; 512];
    while let Ok(n) = rustix::io::read(fs, &mut buffer) {
        let line = String::from_utf8_lossy(&buffer[..n]);
        tracing::warn!("{what}: {}", line.trim());
    }
    e.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn layers() -> (tempfile::TempDir, MountPlan) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "upper", "work", "at"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("a/file"), "top").unwrap();
        fs::write(dir.path().join("b/file"), "bottom").unwrap();
        let plan = MountPlan::single(Mount::Overlay {
            lower: vec![dir.path().join("a"), dir.path().join("b")],
            upper: Some(dir.path().join("upper")),
            work: Some(dir.path().join("work")),
            options: vec!["volatile".into(), "nosuid".into()],
        });
        (dir, plan)
    }

    #[test]
    fn a_plan_is_read_without_being_seen() {
        let (dir, plan) = layers();
        let tree = detached(&plan).unwrap();
        let text = crate::inroot::read_to_string(&tree, Path::new("/file"), 10).unwrap();
        assert_eq!(text, "top");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&dir.path().display().to_string()));
    }

    #[test]
    fn the_old_way_gives_the_same() {
        let (dir, plan) = layers();
        let [Mount::Overlay { lower, options, .. }] = plan.mounts.as_slice() else {
            unreachable!()
        };
        let upper = (dir.path().join("upper"), dir.path().join("work"));
        let tree = old_overlay(lower, Some((&upper.0, &upper.1)), options).unwrap();
        let text = crate::inroot::read_to_string(&tree, Path::new("/file"), 10).unwrap();
        assert_eq!(text, "top");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&dir.path().display().to_string()));
    }

    #[test]
    fn a_plan_is_mounted_and_taken_away() {
        let (dir, plan) = layers();
        let at = dir.path().join("at");
        attach(&plan, &at).unwrap();
        assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "top");
        fs::write(at.join("new"), "x").unwrap();
        detach(&at).unwrap();
        detach(&at).unwrap();
        assert!(!at.join("file").exists());
        assert!(dir.path().join("upper/new").exists());
        let read_only = MountPlan::single(Mount::Bind {
            source: dir.path().join("a"),
            read_only: true,
        });
        attach(&read_only, &at).unwrap();
        let refused = fs::write(at.join("new"), "x").unwrap_err();
        detach(&at).unwrap();
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
        let missing = MountPlan::single(Mount::Bind {
            source: dir.path().join("none"),
            read_only: false,
        });
        let half = MountPlan {
            mounts: [read_only.mounts, missing.mounts].concat(),
        };
        assert!(attach(&half, &at).is_err());
        assert!(!at.join("file").exists());
    }
}
