//! The container's root as a directory descriptor: every path of an image is resolved below it, symbolic links included.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::MoveMountFlags;

/// For directories that are only walked from.
pub(crate) const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// How deep missing paths and dangling links are followed.
const MAX_DEPTH: u32 = 64;

/// What a missing mount target is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
}

/// The root of a mount tree.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Root {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The root's descriptor.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Opens what is there; links lead nowhere outside.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.open_with(path, flags, ResolveFlags::IN_ROOT)
    }

    /// Opens what is there, with no symbolic link on the way.
    pub(crate) fn open_plain(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.open_with(
            path,
            flags,
            ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
        )
    }

    fn open_with(&self, path: &Path, flags: OFlags, how: ResolveFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() {
            Path::new("/")
        } else {
            path
        };
        loop {
            // EAGAIN: something was renamed or mounted elsewhere while ".." was walked.
            match rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
    }

    /// Opens (as `O_PATH`) what is at `path`; makes it, and directories on the way, when missing. A dangling link is
    /// followed inside the root and its target made.
    pub(crate) fn ensure(&self, path: &Path, kind: Kind) -> Result<OwnedFd, Errno> {
        self.ensure_at(path, kind, 0)
    }

    fn ensure_at(&self, path: &Path, kind: Kind, depth: u32) -> Result<OwnedFd, Errno> {
        match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT) if depth < MAX_DEPTH => {}
            Err(Errno::NOENT) => return Err(Errno::LOOP),
            other => return other,
        }
        let (parent, name) = split(path).ok_or(Errno::NOENT)?;
        let dir = self.ensure_at(&parent, Kind::Directory, depth + 1)?;
        let Some(name) = name else {
            return self.open(path, OFlags::PATH);
        };
        if let Ok(link) = rustix::fs::readlinkat(&dir, name, Vec::new()) {
            use std::os::unix::ffi::OsStrExt;
            let link = parent.join(OsStr::from_bytes(link.to_bytes()));
            return self.ensure_at(&link, kind, depth + 1);
        }
        let made = match kind {
            Kind::Directory => rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)),
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::openat(&dir, name, flags, Mode::from_raw_mode(0o644)).map(drop)
            }
        };
        match made {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&dir, name, flags, Mode::empty())
    }

    /// Attaches a detached mount at `path`, made when missing as what the mount's root is.
    pub(crate) fn attach(&self, mount: BorrowedFd<'_>, path: &Path) -> Result<(), Errno> {
        let kind = match kind_of(mount)? {
            FileType::Directory => Kind::Directory,
            _ => Kind::File,
        };
        let target = self.ensure(path, kind)?;
        let is_directory = kind_of(target.as_fd())? == FileType::Directory;
        if is_directory != (kind == Kind::Directory) {
            // The kernel would say EINVAL.
            return Err(Errno::NOTDIR);
        }
        attach_at(mount, target.as_fd())
    }
}

/// Attaches a detached mount on top of what is open.
pub(crate) fn attach_at(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags)
}

/// The type of an open file.
pub(crate) fn kind_of(fd: BorrowedFd<'_>) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}

/// A path's parent and its last component (`None` when that is `..`); `None` for the root.
fn split(path: &Path) -> Option<(PathBuf, Option<&OsStr>)> {
    let mut components = path.components();
    match components.next_back()? {
        Component::Normal(name) => Some((components.as_path().to_owned(), Some(name))),
        Component::ParentDir => Some((components.as_path().to_owned(), None)),
        Component::CurDir => split(components.as_path()),
        Component::RootDir | Component::Prefix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        let fd = rustix::fs::open(dir.path().join("root"), DIRECTORY, Mode::empty()).unwrap();
        (dir, Root::new(fd))
    }

    #[test]
    fn missing_paths_are_made() {
        let (dir, root) = tree();
        root.ensure(Path::new("/a/b/../c/f"), Kind::File).unwrap();
        assert!(dir.path().join("root/a/c/f").is_file());
        assert!(dir.path().join("root/a/b").is_dir());
        root.ensure(Path::new("/a/c"), Kind::Directory).unwrap();
    }

    #[test]
    fn links_stay_inside() {
        let (dir, root) = tree();
        let at = |p: &str| dir.path().join(p);
        std::fs::create_dir(at("outside")).unwrap();
        symlink(at("outside"), at("root/abs")).unwrap();
        symlink("../../../../outside", at("root/up")).unwrap();
        symlink("../run/x/resolv", at("root/dangling")).unwrap();
        symlink("loop", at("root/loop")).unwrap();
        root.ensure(Path::new("/abs/f"), Kind::File).unwrap();
        root.ensure(Path::new("/up/g"), Kind::Directory).unwrap();
        root.ensure(Path::new("dangling"), Kind::File).unwrap();
        assert_eq!(std::fs::read_dir(at("outside")).unwrap().count(), 0);
        let inside = dir.path().strip_prefix("/").unwrap().join("outside/f");
        assert!(at("root").join(inside).is_file());
        assert!(at("root/outside/g").is_dir());
        assert!(at("root/run/x/resolv").is_file());
        assert!(root.ensure(Path::new("/loop/x"), Kind::File).is_err());
    }
}
