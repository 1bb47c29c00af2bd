//! The mount namespace of a running process: mounts put into it and taken out again, with nothing executed inside.
//!
//! The work is done by a throwaway thread that enters the namespace; a tree made outside (see [`crate::mount`]) is moved
//! in. Paths are resolved below the process's root ([`crate::inroot`]): what the process has put there leads nowhere
//! else, and what is taken away is the very mount that was looked at.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, StatxAttributes, StatxFlags, fstat, openat, readlinkat,
    statx,
};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::inroot;

/// The magic number of tmpfs, see `statfs(2)`.
const TMPFS: i64 = 0x0102_1994;

/// The mount namespace of a process. It stays what it is when the process ends.
#[derive(Debug)]
pub struct MountSpace {
    space: OwnedFd,
    root: OwnedFd,
    /// The caller's `/proc`: that of the namespace does not know this process.
    proc: OwnedFd,
    users: Option<OwnedFd>,
    uid: u32,
    gid: u32,
}

/// What is mounted at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Where it is, without symbolic links.
    pub path: PathBuf,
    /// The file system's device number, as `stat(2)` tells it.
    pub device: u64,
    /// The inode of the mount's root.
    pub inode: u64,
    /// Whether it is a tmpfs.
    pub tmpfs: bool,
}

/// A mount that was taken away.
#[derive(Debug)]
pub struct Detached {
    /// The same tree, to be attached again; let go of, it is gone.
    pub tree: OwnedFd,
}

impl MountSpace {
    /// The namespace and the root of a process.
    ///
    /// # Errors
    /// When the process is not there, or ends meanwhile.
    pub fn of(pid: i32) -> io::Result<Self> {
        let target = rustix::process::Pid::from_raw(pid).ok_or(Errno::SRCH)?;
        let alive = rustix::process::pidfd_open(target, rustix::process::PidfdFlags::empty())?;
        let proc = openat(CWD, "/proc", directory(), Mode::empty())?;
        let open = |name: &str| File::open(format!("/proc/{pid}/ns/{name}")).map(OwnedFd::from);
        let users = open("user")?;
        let own = File::open("/proc/self/ns/user")?;
        let shifted = fstat(&users)?.st_ino != fstat(&own)?.st_ino;
        let space = Self {
            space: open("mnt")?,
            root: openat(CWD, format!("/proc/{pid}/root"), directory(), Mode::empty())?,
            proc,
            users: shifted.then_some(users),
            uid: root_of(&std::fs::read_to_string(format!("/proc/{pid}/uid_map"))?),
            gid: root_of(&std::fs::read_to_string(format!("/proc/{pid}/gid_map"))?),
        };
        // What was opened by number is of this process only if that has not ended meanwhile.
        let mut ended = [PollFd::new(&alive, PollFlags::IN)];
        match rustix::event::poll(&mut ended, Some(&Timespec::default()))? {
            0 => Ok(space),
            _ => Err(Errno::SRCH.into()),
        }
    }

    /// Its user namespace, when that is not the caller's.
    #[must_use]
    pub fn users(&self) -> Option<BorrowedFd<'_>> {
        self.users.as_ref().map(AsFd::as_fd)
    }

    /// The process's root directory.
    #[must_use]
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// What the user and the group 0 of the namespace are outside.
    #[must_use]
    pub fn owner(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// Attaches a detached tree; returns whether a place for it had to be made. Directories on the way are made as well.
    ///
    /// # Errors
    /// `ENOTDIR` for a directory onto a file or the reverse; `InvalidInput` below `/proc`; those of `move_mount(2)`.
    /// Nothing but directories on the way is left then.
    pub fn attach(&self, tree: impl AsFd, target: &Path) -> io::Result<bool> {
        let tree = tree.as_fd();
        self.inside(|| {
            let is_dir = is_directory(tree)?;
            let (place, made) = self.place(target, is_dir)?;
            let attach = || -> io::Result<()> {
                let path = self.path_of(&place)?;
                if path.starts_with("/proc") {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        format!(
                            "{} cannot be mounted because it is inside /proc",
                            path.display()
                        ),
                    ));
                }
                if is_directory(place.as_fd())? != is_dir {
                    return Err(Errno::NOTDIR.into());
                }
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
                    | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
                Ok(rustix::mount::move_mount(tree, "", &place, "", flags)?)
            };
            if let Err(error) = attach() {
                if made && let Ok((parent, name)) = inroot::open_parent(&self.root, target) {
                    unmake(parent.as_fd(), &name, is_dir);
                }
                return Err(error);
            }
            Ok(made)
        })
    }

    /// Takes the mount at `target` away if `is_it` says so; with `made`, an empty place is removed as well. Mounts that
    /// came with it go too, and then it is not waited for who still uses it.
    ///
    /// # Errors
    /// `NotFound` when nothing is mounted there, or something else; `EBUSY` while it is in use.
    pub fn detach(
        &self,
        target: &Path,
        made: bool,
        is_it: impl FnOnce(&Mounted) -> bool + Send,
    ) -> io::Result<Detached> {
        self.inside(|| {
            let nothing = || io::Error::new(io::ErrorKind::NotFound, "nothing is mounted there");
            let fd = inroot::open(&self.root, target, OFlags::PATH, Mode::empty())?;
            let facts = statx(&fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
            if !facts.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
                return Err(nothing());
            }
            let stat = fstat(&fd)?;
            let mounted = Mounted {
                path: self.path_of(&fd)?,
                device: stat.st_dev,
                inode: stat.st_ino,
                tmpfs: rustix::fs::fstatfs(&fd)?.f_type == TMPFS,
            };
            if !is_it(&mounted) {
                return Err(nothing());
            }
            let is_dir = is_directory(fd.as_fd())?;
            let copy = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_RECURSIVE
                | OpenTreeFlags::AT_EMPTY_PATH;
            let tree = rustix::mount::open_tree(&fd, "", copy)?;
            drop(fd);
            let (parent, name) = inroot::open_parent(&self.root, &mounted.path)?;
            let now = statx(
                &parent,
                &name,
                AtFlags::SYMLINK_NOFOLLOW,
                StatxFlags::MNT_ID,
            )?;
            if now.stx_mnt_id != facts.stx_mnt_id {
                return Err(nothing());
            }
            // A mount point cannot be renamed: the name in this directory is the mount that was looked at.
            rustix::process::fchdir(&parent)?;
            let mut flags = UnmountFlags::NOFOLLOW;
            if self.has_mounts_below(facts.stx_mnt_id)? {
                flags |= UnmountFlags::DETACH;
            }
            rustix::mount::unmount(&name, flags)?;
            if made {
                unmake(parent.as_fd(), &name, is_dir);
            }
            Ok(Detached { tree })
        })
    }

    /// Opens a mount's place, or makes it.
    fn place(&self, target: &Path, is_dir: bool) -> io::Result<(OwnedFd, bool)> {
        match inroot::open(&self.root, target, OFlags::PATH, Mode::empty()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            found => return Ok((found?, false)),
        }
        let name = target.file_name().ok_or(Errno::INVAL)?;
        self.as_owner(|| {
            let parent = target.parent().unwrap_or(Path::new("/"));
            let parent = inroot::mkdir_all(&self.root, parent, Mode::from_raw_mode(0o755))?;
            if is_dir {
                rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
            } else {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                openat(&parent, name, flags, Mode::from_raw_mode(0o644))?;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok((openat(&parent, name, flags, Mode::empty())?, true))
        })
    }

    /// Makes files as the namespace's root user. Only on a thread of its own.
    fn as_owner<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        rustix::process::umask(Mode::from_raw_mode(0o022));
        if self.users.is_none() {
            return work();
        }
        file_ids(self.uid, self.gid);
        let outcome = work();
        file_ids(0, 0);
        outcome
    }

    /// Where a descriptor is, seen from the namespace's root.
    fn path_of(&self, fd: &OwnedFd) -> io::Result<PathBuf> {
        let link = format!("thread-self/fd/{}", fd.as_raw_fd());
        let path = readlinkat(&self.proc, link, Vec::new())?;
        Ok(PathBuf::from(OsString::from_vec(path.into_bytes())))
    }

    fn has_mounts_below(&self, mount: u64) -> io::Result<bool> {
        let table = openat(
            &self.proc,
            "thread-self/mountinfo",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let table = io::read_to_string(File::from(table))?;
        let parent = |line: &str| line.split(' ').nth(1)?.parse::<u64>().ok();
        Ok(table.lines().any(|line| parent(line) == Some(mount)))
    }

    /// Runs `work` on a thread inside the namespace.
    fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("mount".into())
                .stack_size(256 * 1024)
                .spawn_scoped(scope, || {
                    // A thread may change its mount namespace only if nobody shares its root directory.
                    unshare(CloneFlags::CLONE_FS)?;
                    setns(&self.space, CloneFlags::CLONE_NEWNS)?;
                    work()
                })?
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
        })
    }
}

fn directory() -> OFlags {
    OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC
}

fn is_directory(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}

/// Removes an empty directory or file; what is in use by now stays.
fn unmake(parent: BorrowedFd<'_>, name: &std::ffi::OsStr, is_dir: bool) {
    let flags = if is_dir {
        AtFlags::REMOVEDIR
    } else {
        let empty = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| stat.st_size == 0);
        if !empty {
            return;
        }
        AtFlags::empty()
    };
    let _ = rustix::fs::unlinkat(parent, name, flags);
}

/// What 0 is outside, of the lines of a `uid_map`.
fn root_of(map: &str) -> u32 {
    let zero = map.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "0").then(|| words.next()?.parse().ok())?
    });
    zero.unwrap_or(0)
}

/// Sets the IDs that the calling thread makes files with.
fn file_ids(uid: u32, gid: u32) {
    // SAFETY: these calls take numbers and change nothing but the calling thread's credentials.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::{Child, Command};

    /// A process in a mount namespace of its own.
    struct Other(Child);

    impl Other {
        fn start() -> Self {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "sleep", "1000"]);
            let other = Self(command.spawn().unwrap());
            let exe = format!("/proc/{}/comm", other.0.id());
            while fs::read_to_string(&exe).unwrap() != "sleep\n" {
                std::thread::yield_now();
            }
            other
        }
        fn space(&self) -> MountSpace {
            MountSpace::of(self.0.id().cast_signed()).unwrap()
        }
        fn sees(&self, path: &Path) -> PathBuf {
            let relative = path.strip_prefix("/").unwrap();
            Path::new("/proc")
                .join(self.0.id().to_string())
                .join("root")
                .join(relative)
        }
    }

    impl Drop for Other {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    fn tree(dir: &Path) -> OwnedFd {
        fs::create_dir_all(dir.join("source/below")).unwrap();
        fs::write(dir.join("source/file"), "here").unwrap();
        crate::mount::tree(&dir.join("source"), true).unwrap()
    }

    #[test]
    fn a_mount_comes_and_goes_in_the_other_namespace_alone() {
        let dir = tempfile::tempdir().unwrap();
        let other = Other::start();
        let space = other.space();
        let target = dir.path().join("x/y");
        assert!(space.attach(tree(dir.path()), &target).unwrap());
        let file = other.sees(&target).join("file");
        assert_eq!(fs::read_to_string(&file).unwrap(), "here");
        assert!(!target.join("file").exists());
        let held = File::open(&file).unwrap();
        let busy = space.detach(&target, true, |_| true).unwrap_err();
        assert_eq!(busy.raw_os_error(), Some(libc::EBUSY));
        drop(held);
        let refused = space.detach(&target, true, |_| false).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        let gone = space
            .detach(&target, true, |mounted| {
                mounted.path == target && !mounted.tmpfs
            })
            .unwrap();
        assert!(!target.exists() && dir.path().join("x").exists());
        // And back again.
        space.attach(&gone.tree, &target).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "here");
        assert!(
            space
                .detach(Path::new(&target).parent().unwrap(), false, |_| true)
                .is_err()
        );
    }

    #[test]
    fn places_are_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let other = Other::start();
        let space = other.space();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let wrong = space.attach(tree(dir.path()), &file).unwrap_err();
        assert_eq!(wrong.raw_os_error(), Some(libc::ENOTDIR));
        let inside = space
            .attach(tree(dir.path()), Path::new("/proc/self"))
            .unwrap_err();
        assert_eq!(inside.kind(), io::ErrorKind::InvalidInput);
        // A file onto a file that is missing.
        let source = crate::mount::tree(&dir.path().join("source/file"), false).unwrap();
        let target = dir.path().join("made");
        assert!(space.attach(source, &target).unwrap());
        assert_eq!(fs::read_to_string(other.sees(&target)).unwrap(), "here");
        space.detach(&target, true, |_| true).unwrap();
        assert!(!target.exists());
    }

    #[test]
    fn who_root_is() {
        assert_eq!(root_of("         0     100000      65536\n"), 100_000);
        assert_eq!(root_of("1 5 1\n0 7 1\n"), 7);
        assert_eq!(root_of(""), 0);
    }
}
