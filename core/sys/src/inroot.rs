//! Paths inside a directory that someone else has filled: a container's root file system, a volume.
//!
//! Every path is resolved by the kernel with `openat2(RESOLVE_IN_ROOT)`: absolute links and `..` end at the root
//! descriptor, however the tree changes meanwhile. Magic links (`/proc/self/fd/1`) are refused.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How often a lookup is repeated that a concurrent rename has spoilt (`EAGAIN`).
const RETRIES: u32 = 64;

/// Opens the root itself, as a descriptor for the other functions.
///
/// # Errors
/// Those of `open(2)`; the path itself is the host's and trusted.
pub fn root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens a path inside `root`; close-on-exec is added to the flags.
///
/// # Errors
/// Those of `openat2(2)`; `ELOOP` for a magic link.
pub fn open(root: impl AsFd, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = relative(path);
    let mut last = Errno::AGAIN;
    for _ in 0..RETRIES {
        match rustix::fs::openat2(root.as_fd(), &path, flags | OFlags::CLOEXEC, mode, how) {
            Err(e @ (Errno::AGAIN | Errno::INTR)) => last = e,
            other => return Ok(other?),
        }
    }
    Err(last.into())
}

/// `openat2` takes the root itself as `.`.
fn relative(path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() {
        return PathBuf::from(".");
    }
    path.to_owned()
}

/// The text of a regular file inside `root`, at most `max` bytes of it.
///
/// # Errors
/// Those of `openat2(2)`; `InvalidData` for what is no regular file, too long or not UTF-8.
pub fn read_to_string(root: impl AsFd, path: &Path, max: u64) -> io::Result<String> {
    // Without waiting for the writer of a named pipe.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = std::fs::File::from(open(root, path, flags, Mode::empty())?);
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    if !file.metadata()?.is_file() {
        return Err(wrong("not a regular file"));
    }
    let mut text = String::new();
    let read = file.take(max + 1).read_to_string(&mut text)?;
    if read as u64 > max {
        return Err(wrong("too long"));
    }
    Ok(text)
}

/// Opens a directory inside `root` (`O_PATH`), making it and those above it where they are missing.
///
/// # Errors
/// Those of `openat2(2)` and `mkdirat(2)`; `ENOTDIR` when something else is in the way, `ENOENT` for a dangling link.
pub fn mkdir_all(root: impl AsFd, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let mut at = PathBuf::new();
    let mut dir = open(root.as_fd(), Path::new("."), flags, Mode::empty())?;
    for component in path.components() {
        at.push(component);
        dir = match open(root.as_fd(), &at, flags, Mode::empty()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let Component::Normal(name) = component else {
                    return Err(e);
                };
                match rustix::fs::mkdirat(&dir, name, mode) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                open(root.as_fd(), &at, flags, Mode::empty())?
            }
            other => other?,
        };
    }
    Ok(dir)
}

/// The directory that holds the last component of a path inside `root`, and that component, for calls that make,
/// rename or remove it. The component itself may be a link or missing.
///
/// # Errors
/// Those of `openat2(2)`; `EINVAL` for a path that ends in `..` or names the root.
pub fn open_parent(root: impl AsFd, path: &Path) -> io::Result<(OwnedFd, OsString)> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from(Errno::INVAL))?;
    let parent = path.parent().unwrap_or(Path::new("."));
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    Ok((open(root, parent, flags, Mode::empty())?, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/etc")).unwrap();
        fs::write(dir.path().join("root/etc/passwd"), "inside").unwrap();
        fs::write(dir.path().join("passwd"), "outside").unwrap();
        dir
    }

    #[test]
    fn links_and_dots_stay_inside() {
        let dir = tree();
        let top = root(&dir.path().join("root")).unwrap();
        symlink("/etc", dir.path().join("root/absolute")).unwrap();
        symlink("../../..", dir.path().join("root/etc/up")).unwrap();
        symlink("/proc/self/root", dir.path().join("root/magic")).unwrap();
        for path in [
            "/etc/passwd",
            "etc/passwd",
            "../../etc/passwd",
            "absolute/passwd",
            "etc/up/etc/passwd",
        ] {
            let text = read_to_string(&top, Path::new(path), 100).unwrap();
            assert_eq!(text, "inside", "{path}");
        }
        assert!(read_to_string(&top, Path::new("../passwd"), 100).is_err());
        assert!(read_to_string(&top, Path::new("magic/etc/passwd"), 100).is_err());
        assert!(read_to_string(&top, Path::new("etc/passwd"), 3).is_err());
        assert!(read_to_string(&top, Path::new("etc"), 100).is_err());
    }

    #[test]
    fn directories_are_made_inside() {
        let dir = tree();
        let top = root(&dir.path().join("root")).unwrap();
        let mode = Mode::from_raw_mode(0o755);
        symlink("/var/real", dir.path().join("root/link")).unwrap();
        assert!(mkdir_all(&top, Path::new("/link/a"), mode).is_err());
        mkdir_all(&top, Path::new("/var/real"), mode).unwrap();
        mkdir_all(&top, Path::new("/link/a/b"), mode).unwrap();
        assert!(dir.path().join("root/var/real/a/b").is_dir());
        mkdir_all(&top, Path::new("../../x"), mode).unwrap();
        assert!(dir.path().join("root/x").is_dir());
        assert!(mkdir_all(&top, Path::new("etc/passwd/x"), mode).is_err());
        let (parent, name) = open_parent(&top, Path::new("/link/new")).unwrap();
        rustix::fs::mkdirat(&parent, name, mode).unwrap();
        assert!(dir.path().join("root/var/real/new").is_dir());
        assert!(open_parent(&top, Path::new("/")).is_err());
    }
}
