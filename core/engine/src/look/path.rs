//! Paths that clients name in containers. Docker cleans them as text and lets a slash or `/.` at the end follow a link.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use gantry_model::Timestamp;
use gantry_sys::inroot;
use gantry_wire::PathStat;
use rustix::fs::{FileType, Mode, OFlags, Stat};

use crate::create::mounts::clean;

/// How many links are followed before it is taken for a circle, as the kernel does.
const MAX_LINKS: usize = 40;

/// A path in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// Absolute, without `.`, `..` and a slash at the end.
    pub(super) path: PathBuf,
    /// What the archive's topmost entry is called.
    pub(super) name: String,
    /// Whether it must be a directory, and a link to one is followed.
    pub(super) directory: bool,
}

impl Asked {
    pub(super) fn new(text: &str) -> Self {
        let path = clean(text);
        let dot = text == "." || text.ends_with("/.");
        let name = match path.rsplit_once('/') {
            _ if dot => ".",
            Some((_, "")) | None => "/",
            Some((_, base)) => base,
        };
        Self {
            name: name.to_owned(),
            directory: dot || text.ends_with('/') || path == "/",
            path: path.into(),
        }
    }

    /// Whether the whole of the container is meant.
    pub(super) fn is_root(&self) -> bool {
        self.path == Path::new("/")
    }

    /// What is there.
    pub(super) fn stat(&self, root: &OwnedFd) -> io::Result<PathStat> {
        let last = match self.directory {
            true => OFlags::DIRECTORY,
            false => OFlags::NOFOLLOW,
        };
        let file = inroot::open(root, &self.path, OFlags::PATH | last, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        let link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        Ok(PathStat {
            name: self.name.clone(),
            size: stat.st_size,
            mode: go_mode(&stat),
            mtime: Timestamp::from_unix(
                stat.st_mtime,
                i32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            ),
            link_target: match link {
                true => follow(root, &self.path)?.to_string_lossy().into_owned(),
                false => String::new(),
            },
        })
    }
}

/// Where a path leads when all links are followed within the root; what is missing at its end is kept as it is. This is
/// told, never opened.
fn follow(root: &OwnedFd, path: &Path) -> io::Result<PathBuf> {
    let mut done = PathBuf::from("/");
    let mut left: Vec<PathBuf> = vec![path.to_owned()];
    let mut links = 0;
    while let Some(next) = left.pop() {
        let mut parts = next.components();
        let Some(part) = parts.next() else { continue };
        let rest = parts.as_path();
        if !rest.as_os_str().is_empty() {
            left.push(rest.to_owned());
        }
        match part {
            std::path::Component::Normal(name) => done.push(name),
            std::path::Component::ParentDir => {
                done.pop();
                continue;
            }
            _ => continue,
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let Ok(file) = inroot::open(root, &done, flags, Mode::empty()) else {
            continue;
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::Symlink {
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(rustix::io::Errno::LOOP.into());
        }
        let target = rustix::fs::readlinkat(&file, "", Vec::new())?;
        let target = PathBuf::from(std::ffi::OsStr::from_bytes(target.as_bytes()));
        match target.is_absolute() {
            true => done = PathBuf::from("/"),
            false => drop(done.pop()),
        }
        left.push(target);
    }
    Ok(done)
}

/// Go's `os.FileMode`.
fn go_mode(stat: &Stat) -> u32 {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special = special
        .iter()
        .filter(|(bit, _)| stat.st_mode & bit != 0)
        .map(|(_, bit)| bit)
        .sum::<u32>();
    (stat.st_mode & 0o777) | kind | special
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn dockers_reading_of_paths() {
        for (text, path, name, directory) in [
            ("/", "/", "/", true),
            (".", "/", ".", true),
            ("/etc", "/etc", "etc", false),
            ("etc/", "/etc", "etc", true),
            ("/etc/.", "/etc", ".", true),
            ("/a/../../b", "/b", "b", false),
            ("/..", "/", "/", true),
        ] {
            let asked = Asked::new(text);
            assert_eq!(asked.path, Path::new(path), "{text}");
            assert_eq!(
                (asked.name.as_str(), asked.directory),
                (name, directory),
                "{text}"
            );
        }
    }

    #[test]
    fn links_are_told_as_they_lead_inside() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::write(at("a/b/file"), "text").unwrap();
        for (target, link) in [
            ("/a/b", "absolute"),
            ("../../../a/./b/file", "a/up"),
            ("absolute/file", "two"),
            ("/none/x", "dangling"),
            ("circle", "circle"),
        ] {
            symlink(target, at(link)).unwrap();
        }
        let root = inroot::root(dir.path()).unwrap();
        let stat = |path: &str| Asked::new(path).stat(&root);
        for (path, target) in [
            ("/absolute", "/a/b"),
            ("/a/up", "/a/b/file"),
            ("/two", "/a/b/file"),
            ("/absolute/../two", "/a/b/file"),
            ("/dangling", "/none/x"),
            ("/a", ""),
        ] {
            assert_eq!(stat(path).unwrap().link_target, target, "{path}");
        }
        assert!(stat("/circle").is_err());
        let link = stat("/absolute").unwrap();
        assert_eq!((link.mode, link.size), (1 << 27 | 0o777, 4));
        let through = stat("/absolute/").unwrap();
        assert_eq!(
            (through.mode & 1 << 31, through.name.as_str()),
            (1 << 31, "absolute")
        );
        let missing = stat("/none").unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert_eq!(
            stat("/a/b/file/").unwrap_err().kind(),
            io::ErrorKind::NotADirectory
        );
    }

    #[test]
    fn modes_in_gos_bits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "").unwrap();
        let mode = |bits| {
            rustix::fs::chmod(&path, Mode::from_raw_mode(bits)).unwrap();
            go_mode(&rustix::fs::stat(&path).unwrap())
        };
        assert_eq!(mode(0o644), 0o644);
        assert_eq!(mode(0o6755), 0o755 | 1 << 23 | 1 << 22);
        assert_eq!(mode(0o1777), 0o777 | 1 << 20);
        let null = rustix::fs::stat("/dev/null").unwrap();
        assert_eq!(go_mode(&null) & !0o777, 1 << 26 | 1 << 21);
    }
}
