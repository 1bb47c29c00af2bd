//! A container's file system, looked at from outside.
//!
//! A running container is seen through its own mount namespace, with all that is mounted there. For one that does not run,
//! a tree of the same mounts is put together in a mount namespace that only a throwaway thread is in, and taken out of it
//! as a detached tree. No path of the host leads to either, and when the descriptors are closed (or their owner is
//! killed) nothing is left. Use [`crate::inroot`] on what is returned.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_driver_api::MountPlan;
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags};

use crate::{inroot, mount};

/// Something that is mounted inside a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What.
    pub plan: MountPlan,
    /// The path inside of it that is mounted; empty for all of it. Links never lead out of it.
    pub subpath: PathBuf,
    /// Where, inside the tree; made when it is missing.
    pub target: PathBuf,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// The root that a process has, seen through its mount namespace. Keep both descriptors: the second keeps the mounts in
/// place when the process ends meanwhile.
///
/// # Errors
/// `NotFound` when the process is gone.
pub fn of_process(proc: &Path, pid: i32) -> io::Result<(OwnedFd, OwnedFd)> {
    let dir = inroot::root(&proc.join(pid.to_string()))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::openat(&dir, "ns/mnt", flags, Mode::empty()).map_err(gone)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(&dir, "root", flags, Mode::empty()).map_err(gone)?;
    Ok((root, namespace))
}

/// The file system at a process's root without what is mounted inside of it, as a detached tree.
///
/// # Errors
/// `NotFound` when the process is gone; those of `setns(2)`.
pub fn root_of_process(proc: &Path, pid: i32) -> io::Result<OwnedFd> {
    let (_, namespace) = of_process(proc, pid)?;
    on_own_thread(move || {
        // A mount namespace may not be entered by one of several that share their current directory.
        unshare(CloneFlags::CLONE_FS)?;
        setns(&namespace, CloneFlags::CLONE_NEWNS)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok(rustix::mount::open_tree(CWD, "/", flags)?)
    })
}

/// Puts a tree together: a root, then the parts in their order.
///
/// # Errors
/// The first mount that cannot be made; then nothing is left of the others.
pub fn assemble(root: &MountPlan, read_only: bool, parts: &[Part]) -> io::Result<OwnedFd> {
    on_own_thread(move || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private)?;
        let tree = mount::detached(root)?;
        attach(&tree)?;
        for part in parts {
            add(&tree, part).map_err(|e| {
                io::Error::new(e.kind(), format!("mount at {}: {e}", part.target.display()))
            })?;
        }
        if read_only {
            // The root alone: what is mounted inside says for itself.
            mount::set_read_only(&tree, false)?;
        }
        Ok(clone(&tree, "")?)
    })
}

/// Over the root of this thread's mount namespace, where lookups from its root do not come across it. Only what is
/// attached somewhere can be mounted on and cloned.
fn attach(tree: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", CWD, "/", flags)?)
}

fn clone(from: &OwnedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(from, path, flags)
}

fn add(tree: &OwnedFd, part: &Part) -> io::Result<()> {
    let mut source = mount::detached(&part.plan)?;
    if !part.subpath.as_os_str().is_empty() {
        attach(&source)?;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let place = rustix::fs::openat2(&source, &part.subpath, flags, Mode::empty(), how)?;
        source = clone(&place, "")?;
    }
    if part.read_only {
        mount::set_read_only(&source, true)?;
    }
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&source)?.st_mode);
    let target = target(tree, &part.target, kind == FileType::Directory)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(source, "", &target, "", flags)?)
}

/// The place to mount on: a directory or a file, made when there is nothing.
fn target(tree: &OwnedFd, path: &Path, directory: bool) -> io::Result<OwnedFd> {
    match inroot::open(tree.as_fd(), path, OFlags::PATH, Mode::empty()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let mode = Mode::from_raw_mode(0o755);
    if directory {
        return inroot::mkdir_all(tree.as_fd(), path, mode);
    }
    let above = path.parent().unwrap_or(Path::new("/"));
    inroot::mkdir_all(tree.as_fd(), above, mode)?;
    let flags = OFlags::CREATE | OFlags::RDONLY;
    inroot::open(tree.as_fd(), path, flags, Mode::from_raw_mode(0o755))?;
    inroot::open(tree.as_fd(), path, OFlags::PATH, Mode::empty())
}

/// Whether the file system of a descriptor, as mounted there, refuses writes.
///
/// # Errors
/// Those of `fstatvfs(2)`.
pub fn is_read_only(file: impl AsFd) -> io::Result<bool> {
    let stat = rustix::fs::fstatvfs(file)?;
    Ok(stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Whether two descriptors are in the same mount.
///
/// # Errors
/// Those of `statx(2)`.
pub fn same_mount(one: impl AsFd, other: impl AsFd) -> io::Result<bool> {
    let id = |file: &dyn AsFd| {
        let mask = rustix::fs::StatxFlags::MNT_ID;
        rustix::fs::statx(file.as_fd(), "", AtFlags::EMPTY_PATH, mask).map(|s| s.stx_mnt_id)
    };
    Ok(id(&one)? == id(&other)?)
}

/// Runs work on files as another user and group that keep this process's privileges. Mounts that number their files
/// otherwise (idmapped ones) take new files only from users that they know.
///
/// # Errors
/// Those of `capset(2)`, and of the work.
pub fn as_owner<T: Send>(
    uid: u32,
    gid: u32,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    // Both belong to the thread alone, and end with it.
    on_own_thread(move || {
        nix::unistd::setfsgid(gid.into());
        nix::unistd::setfsuid(uid.into());
        let mut sets = rustix::thread::capabilities(None)?;
        sets.effective = sets.permitted;
        rustix::thread::set_capabilities(None, sets)?;
        work()
    })
}

/// A process that has ended and is not reaped yet has neither root nor namespaces.
fn gone(error: Errno) -> io::Error {
    match error {
        Errno::SRCH | Errno::ACCESS => io::ErrorKind::NotFound.into(),
        error => error.into(),
    }
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("mounts".into())
            .stack_size(256 * 1024)
            .spawn_scoped(scope, work)?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_driver_api::Mount;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn bind(path: PathBuf) -> MountPlan {
        MountPlan::single(Mount::Bind {
            source: path,
            read_only: false,
        })
    }

    fn read(tree: &OwnedFd, path: &str) -> io::Result<String> {
        inroot::read_to_string(tree, Path::new(path), 100)
    }

    fn write(tree: &OwnedFd, path: &str) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE;
        inroot::open(tree, Path::new(path), flags, Mode::from_raw_mode(0o644)).map(drop)
    }

    #[test]
    fn a_tree_of_mounts_that_nobody_else_sees() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["root/etc", "lower", "volume/sub/deep", "work"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(at("volume/sub/file"), "volume").unwrap();
        fs::write(at("single"), "single").unwrap();
        symlink("/etc", at("root/link")).unwrap();
        symlink("/", at("volume/out")).unwrap();
        let root = MountPlan::single(Mount::Overlay {
            lower: vec![at("lower")],
            upper: Some(at("root")),
            work: Some(at("work")),
            options: Vec::new(),
        });
        let part = |target: &str, plan, subpath: &str, read_only| Part {
            plan,
            subpath: subpath.into(),
            target: target.into(),
            read_only,
        };
        let parts = [
            part("/data", bind(at("volume")), "sub", false),
            part("/data/deep", bind(at("volume")), "", true),
            part("/link/hosts", bind(at("single")), "", false),
        ];
        let tree = assemble(&root, true, &parts).unwrap();
        assert_eq!(read(&tree, "/data/file").unwrap(), "volume");
        assert_eq!(read(&tree, "/data/deep/sub/file").unwrap(), "volume");
        assert_eq!(read(&tree, "/etc/hosts").unwrap(), "single");
        write(&tree, "/data/new").unwrap();
        assert!(at("volume/sub/new").exists());
        for refused in ["/data/deep/new", "/new"] {
            let error = write(&tree, refused).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{refused}");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&dir.path().display().to_string()));
        let data = inroot::open(&tree, Path::new("/data"), OFlags::PATH, Mode::empty()).unwrap();
        assert!(!same_mount(&tree, &data).unwrap());
        assert!(same_mount(&tree, &tree).unwrap());
        assert!(is_read_only(&tree).unwrap() && !is_read_only(&data).unwrap());
        drop((tree, data));
        let outside = [part("/data", bind(at("volume")), "out", false)];
        assert!(assemble(&root, false, &outside).is_err());
    }

    #[test]
    fn another_owner_with_the_same_privileges() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let made = as_owner(4242, 4343, || {
            // The directory is root's alone.
            fs::write(&path, "x")?;
            std::os::unix::fs::chown(&path, Some(7), None)?;
            fs::metadata(&path)
        });
        let made = made.unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!((made.uid(), made.gid()), (7, 4343));
        assert_eq!(fs::metadata(dir.path()).unwrap().uid(), 0);
    }

    #[test]
    fn a_process_is_seen_with_and_without_its_mounts() {
        let script = "mount -t tmpfs x /mnt && echo inside >/mnt/file && echo ready && read end";
        let mut child = std::process::Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let (proc, pid) = (Path::new("/proc"), child.id().cast_signed());
        let whole = of_process(proc, pid).unwrap();
        let bare = root_of_process(proc, pid).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(read(&whole.0, "/mnt/file").unwrap(), "inside\n");
        assert!(read(&bare, "/mnt/file").is_err());
        let same = inroot::open(&bare, Path::new("/etc/passwd"), OFlags::PATH, Mode::empty());
        assert!(same.is_ok());
        let gone = of_process(proc, pid).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }
}
