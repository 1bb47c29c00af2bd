//! Names, resolved beneath the root.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Extractor;

/// Names longer than this are not even tried; the kernel's own limit is 4096.
const MAX_PATH: usize = 4096;

impl Extractor<'_> {
    /// The descriptor of an entry's directory, taken out of the cache or opened; missing ones are made.
    pub(super) fn take_parent(&mut self, path: &[u8]) -> io::Result<OwnedFd> {
        if let Some((cached, fd)) = self.parent.take()
            && cached == path
        {
            return Ok(fd);
        }
        match self.open_beneath(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let ends = path
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .map(|(at, _)| at)
            .chain([path.len()]);
        for end in ends {
            let (above, name) = split(&path[..end]).unwrap_or((b"", &path[..end]));
            let above = self.open_beneath(above)?;
            match fs::mkdirat(above, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.open_beneath(path)
    }

    /// Opens a directory of the tree; symlinks in `path` stay inside.
    pub(super) fn open_beneath(&self, path: &[u8]) -> io::Result<OwnedFd> {
        self.open(path, OFlags::empty())
    }

    pub(super) fn open(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let joined;
        let path = match (self.rules.base, path) {
            (b"", b"") => b".",
            (b"", path) => path,
            (base, b"") => base,
            (base, path) => {
                joined = [base, b"/", path].concat();
                &joined
            }
        };
        let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        if !self.rules.mounts {
            resolve |= ResolveFlags::NO_XDEV;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | flags;
        loop {
            match fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                // Somebody renames directories at the same time.
                Err(Errno::AGAIN | Errno::INTR) if self.rules.mounts => {}
                other => return Ok(other?),
            }
        }
    }
}

/// The path with `.`, `..`, doubled and outer slashes resolved as text, as Go's `filepath.Clean("/" + path)` does.
pub(super) fn clean(path: &[u8]) -> io::Result<Vec<u8>> {
    if path.len() > MAX_PATH {
        return Err(Errno::NAMETOOLONG.into());
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

/// Directory and last component; `None` for the root.
pub(super) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    })
}
