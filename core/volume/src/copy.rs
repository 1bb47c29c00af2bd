//! Copying a directory tree between descriptors: how a new volume gets what the image has at its place.
//!
//! Nothing is looked up by a joined path and no symbolic link is followed, so neither tree can lead out of itself.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs as sys;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, XattrFlags,
};

/// Deeper trees are refused: each level holds two descriptors.
const MAX_DEPTH: usize = 512;

/// Whether a directory has no entries.
///
/// # Errors
/// Reading it.
pub fn is_empty(directory: BorrowedFd<'_>) -> io::Result<bool> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Fills `volume` with what is at `path` inside `root`, and gives it that directory's owner, mode and times. Does nothing
/// when there is no directory there, or when the volume has content.
///
/// # Errors
/// Of any read or write; the volume may then be filled in part.
pub fn copy_up(root: BorrowedFd<'_>, path: &str, volume: BorrowedFd<'_>) -> io::Result<()> {
    let source = match sys::openat2(
        root,
        path.trim_start_matches('/'),
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    ) {
        Ok(source) => source,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !is_empty(volume)? {
        return Ok(());
    }
    let mut copier = Copier {
        links: HashMap::new(),
        top: volume,
    };
    let stat = sys::fstat(&source)?;
    copier.directory(source.as_fd(), volume, Vec::new(), 0)?;
    attributes(source.as_fd(), volume, &stat)
}

struct Copier<'a> {
    /// First place of each file with several links, from the top.
    links: HashMap<(u64, u64), Vec<u8>>,
    top: BorrowedFd<'a>,
}

impl Copier<'_> {
    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        place: Vec<u8>,
        depth: usize,
    ) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("directory tree is too deep"));
        }
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let mut inner = place.clone();
            if !inner.is_empty() {
                inner.push(b'/');
            }
            inner.extend_from_slice(name.to_bytes());
            self.entry(from, to, name, inner, depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        place: Vec<u8>,
        depth: usize,
    ) -> io::Result<()> {
        let stat = sys::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let identity = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&identity) {
                let first = CString::new(first.clone())?;
                sys::linkat(self.top, &first, to, name, AtFlags::empty())?;
                return Ok(());
            }
            self.links.insert(identity, place.clone());
        }
        match kind {
            FileType::Directory => {
                sys::mkdirat(to, name, Mode::RWXU)?;
                let (source, target) = (open_directory(from, name)?, open_directory(to, name)?);
                self.directory(source.as_fd(), target.as_fd(), place, depth + 1)?;
                attributes(source.as_fd(), target.as_fd(), &stat)
            }
            FileType::RegularFile => file(from, to, name, &stat),
            FileType::Symlink => symlink(from, to, name, &stat),
            // Sockets mean nothing without the process that made them.
            FileType::Socket => Ok(()),
            other => {
                sys::mknodat(to, name, other, Mode::RWXU, stat.st_rdev)?;
                own(to, name, &stat)?;
                sys::chmodat(
                    to,
                    name,
                    Mode::from_raw_mode(stat.st_mode),
                    AtFlags::empty(),
                )?;
                times(to, name, &stat)
            }
        }
    }
}

fn open_directory(at: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(sys::openat(at, name, flags, Mode::empty())?)
}

fn file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let source = sys::openat(from, name, read, Mode::empty())?;
    let target = sys::openat(to, name, write, Mode::RUSR | Mode::WUSR)?;
    // std copies with copy_file_range where it can.
    let (mut source, mut target) = (std::fs::File::from(source), std::fs::File::from(target));
    io::copy(&mut source, &mut target)?;
    attributes(source.as_fd(), target.as_fd(), stat)
}

fn symlink(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let target = sys::readlinkat(from, name, Vec::new())?;
    sys::symlinkat(&target, to, name)?;
    own(to, name, stat)?;
    times(to, name, stat)
}

fn own(at: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = ids(stat);
    Ok(sys::chownat(at, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn times(at: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    Ok(sys::utimensat(
        at,
        name,
        &timestamps(stat),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn ids(stat: &Stat) -> (Option<sys::Uid>, Option<sys::Gid>) {
    (
        Some(sys::Uid::from_raw(stat.st_uid)),
        Some(sys::Gid::from_raw(stat.st_gid)),
    )
}

fn timestamps(stat: &Stat) -> Timestamps {
    let spec = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: spec(stat.st_atime, stat.st_atime_nsec),
        last_modification: spec(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Owner, extended attributes, mode and times of an open file or directory; the mode after the owner, because changing
/// the owner clears the set-id bits.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = ids(stat);
    sys::fchown(to, uid, gid)?;
    extended(from, to)?;
    sys::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    sys::futimens(to, &timestamps(stat))?;
    Ok(())
}

fn extended(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut names = vec![0u8; 4096];
    let length = match sys::flistxattr(from, &mut names) {
        Ok(length) => length,
        // More than any sane image carries, or a file system without them.
        Err(rustix::io::Errno::RANGE | rustix::io::Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut value = vec![0u8; 64 << 10];
    for name in names[..length].split_inclusive(|b| *b == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        // The layers' bookkeeping is not content.
        if name.to_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        let length = sys::fgetxattr(from, name, &mut value)?;
        match sys::fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    fn open(path: &Path) -> OwnedFd {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        sys::openat(CWD, path, flags, Mode::empty()).unwrap()
    }

    #[test]
    fn copies_everything_and_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("volume"));
        let www = root.join("var/www");
        std::fs::create_dir_all(www.join("sub")).unwrap();
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(www.join("index"), "hello").unwrap();
        std::fs::hard_link(www.join("index"), www.join("sub/same")).unwrap();
        symlink("/etc/passwd", www.join("link")).unwrap();
        std::fs::set_permissions(&www, std::fs::Permissions::from_mode(0o2751)).unwrap();
        std::os::unix::fs::chown(&www, Some(33), Some(34)).unwrap();

        copy_up(open(&root).as_fd(), "/var/www", open(&volume).as_fd()).unwrap();
        let meta = std::fs::metadata(&volume).unwrap();
        assert_eq!(
            (meta.mode() & 0o7777, meta.uid(), meta.gid()),
            (0o2751, 33, 34)
        );
        assert_eq!(std::fs::read(volume.join("sub/same")).unwrap(), b"hello");
        let ino = |name: &str| std::fs::metadata(volume.join(name)).unwrap().ino();
        assert_eq!(ino("index"), ino("sub/same"));
        let link = std::fs::read_link(volume.join("link")).unwrap();
        assert_eq!(link, Path::new("/etc/passwd"));

        std::fs::write(www.join("later"), "").unwrap();
        copy_up(open(&root).as_fd(), "/var/www", open(&volume).as_fd()).unwrap();
        assert!(!volume.join("later").exists());
    }

    #[test]
    fn a_link_in_the_image_stays_in_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("volume"));
        std::fs::create_dir_all(root.join("inside")).unwrap();
        std::fs::create_dir_all(dir.path().join("outside")).unwrap();
        std::fs::write(dir.path().join("outside/secret"), "").unwrap();
        std::fs::create_dir(&volume).unwrap();
        symlink("../outside", root.join("data")).unwrap();
        copy_up(open(&root).as_fd(), "/data", open(&volume).as_fd()).unwrap();
        assert!(is_empty(open(&volume).as_fd()).unwrap());
    }
}
