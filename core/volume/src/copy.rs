//! How a new volume gets what the image has at its place.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use gantry_sys::copy;
use rustix::fs as sys;
use rustix::fs::{Dir, Mode, OFlags, ResolveFlags};

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
    copy::tree(source.as_fd(), volume)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::os::fd::OwnedFd;
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
