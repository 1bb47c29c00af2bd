//! Fills a new mount with what the image has at its target, as Docker does for volumes and `tmpfs` with `tmpcopyup`.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use gantry_monitor::protocol::Stage;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::fault::{At, Step};
use crate::init::root::{Root, kind_of};

/// Deeper trees are refused: each level holds two descriptors.
const MAX_DEPTH: u32 = 256;

/// Copies `root`'s directory at `target` into the mount, if that is an empty directory.
pub(crate) fn fill(root: &Root, target: &Path, mount: BorrowedFd<'_>) -> Step<()> {
    let copy = || -> Result<(), Errno> {
        if kind_of(mount)? != FileType::Directory {
            return Ok(());
        }
        let from = match root.open(target, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            other => other?,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let to = rustix::fs::openat(mount, ".", flags, Mode::empty())?;
        if names(&to)?.next().is_some() {
            return Ok(());
        }
        directory(&from, &to, 0)
    };
    copy().at(Stage::Mount, || {
        format!("copy {} into its new mount", target.display())
    })
}

/// The entries of a directory.
fn names(
    dir: &OwnedFd,
) -> Result<impl Iterator<Item = Result<rustix::fs::DirEntry, Errno>>, Errno> {
    Ok(Dir::read_from(dir)?.filter(|e| {
        e.as_ref()
            .map_or(true, |e| !matches!(e.file_name().to_bytes(), b"." | b".."))
    }))
}

fn directory(from: &OwnedFd, to: &OwnedFd, depth: u32) -> Result<(), Errno> {
    if depth > MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    for entry in names(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        copy(from, to, name, &stat, depth)?;
    }
    attributes(from, to, &rustix::fs::fstat(from)?)
}

fn copy(from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &Stat, depth: u32) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(stat.st_mode);
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, mode)?;
            let flags = read | OFlags::DIRECTORY;
            let from = rustix::fs::openat(from, name, flags, Mode::empty())?;
            let to = rustix::fs::openat(to, name, flags, Mode::empty())?;
            directory(&from, &to, depth + 1)
        }
        FileType::RegularFile => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let from = rustix::fs::openat(from, name, read, Mode::empty())?;
            let to = rustix::fs::openat(to, name, flags, mode)?;
            while rustix::fs::sendfile(&to, &from, None, 1 << 30)? > 0 {}
            attributes(&from, &to, stat)
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(&link, to, name)?;
            owner(to, name, stat)
        }
        FileType::Unknown => Ok(()),
        kind => {
            rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
            owner(to, name, stat)
        }
    }
}

fn owner(dir: &OwnedFd, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let ids = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(
        dir,
        name,
        Some(ids.0),
        Some(ids.1),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

/// Owner, mode, extended attributes and times, in the order in which none undoes another.
fn attributes(from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
    let ids = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(to, Some(ids.0), Some(ids.1))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut list = [0; 64 << 10];
    let n = rustix::fs::flistxattr(from, &mut list).unwrap_or(0);
    for name in list[..n].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = [0; 64 << 10];
        let n = rustix::fs::fgetxattr(from, name, &mut value)?;
        match rustix::fs::fsetxattr(to, name, &value[..n], XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    let time = |sec, nsec| Timespec {
        tv_sec: sec,
        tv_nsec: nsec as _,
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::futimens(to, &times)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    #[test]
    fn a_tree_is_copied_once_with_its_attributes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        std::fs::create_dir_all(at("image/data/sub")).unwrap();
        std::fs::create_dir(at("volume")).unwrap();
        std::fs::write(at("image/data/sub/file"), "hello").unwrap();
        std::fs::set_permissions(
            at("image/data/sub/file"),
            std::fs::Permissions::from_mode(0o640),
        )
        .unwrap();
        chown(at("image/data"), Some(33), Some(44)).unwrap();
        symlink("/etc/passwd", at("image/data/link")).unwrap();
        let open = |p: &str| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(at(p), flags, Mode::empty()).unwrap()
        };
        let (root, volume) = (Root::new(open("image")), open("volume"));
        fill(&root, Path::new("/data"), volume.as_fd()).unwrap();
        assert_eq!(std::fs::read(at("volume/sub/file")).unwrap(), b"hello");
        assert_eq!(
            at("volume/sub/file").metadata().unwrap().mode() & 0o7777,
            0o640
        );
        let top = at("volume").metadata().unwrap();
        assert_eq!((top.uid(), top.gid()), (33, 44));
        assert_eq!(
            std::fs::read_link(at("volume/link")).unwrap(),
            Path::new("/etc/passwd")
        );

        std::fs::write(at("image/data/new"), "later").unwrap();
        fill(&root, Path::new("/data"), volume.as_fd()).unwrap();
        assert!(
            !at("volume/new").exists(),
            "a volume with content is left alone"
        );
    }
}
