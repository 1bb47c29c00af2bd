//! Tar streams between our file system and the daemon, for `cp`.
//!
//! What a container sends is foreign input: entries are placed relative to directory descriptors that cannot be left,
//! whatever names and links the archive holds.

mod sparse;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes};
use hyper::body::Frame;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};
use tokio::sync::mpsc;

const CHUNK: usize = 256 << 10;

/// Packs `source` under the name `root` and sends the stream in pieces. Blocks; an error goes into the stream.
pub(crate) fn pack(source: &Path, root: &str, pieces: mpsc::Sender<io::Result<Frame<Bytes>>>) {
    let sink = Pieces {
        pieces: pieces.clone(),
        piece: Vec::with_capacity(CHUNK),
    };
    let packed = write_tree(source, root, sink);
    if let Err(error) = packed {
        // A receiver that is gone has its own reason, which is the one to tell.
        let _ = pieces.blocking_send(Err(error));
    }
}

fn write_tree(source: &Path, root: &str, sink: impl Write) -> io::Result<()> {
    let mut builder = tar::Builder::new(sink);
    builder.follow_symlinks(false);
    let kind = source.symlink_metadata()?.file_type();
    if kind.is_dir() {
        builder.append_dir_all(root, source)?;
    } else {
        builder.append_path_with_name(source, root)?;
    }
    builder.into_inner()?.flush()
}

/// Collects what is written and sends it in pieces that are not copied again.
struct Pieces {
    pieces: mpsc::Sender<io::Result<Frame<Bytes>>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.piece.capacity() - self.piece.len();
        let count = bytes.len().min(room);
        self.piece.extend_from_slice(&bytes[..count]);
        if count == room {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(CHUNK));
        self.pieces
            .blocking_send(Ok(Frame::data(Bytes::from(piece))))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// A reply's body as a blocking reader.
pub(crate) struct Incoming {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Incoming {
    pub(crate) fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self {
            pieces,
            current: Bytes::new(),
        }
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Where an archive goes.
pub(crate) struct Target {
    /// A directory that exists.
    pub(crate) directory: PathBuf,
    /// What the archive's topmost entry is called in it; none if its contents go straight into the directory.
    pub(crate) name: Option<String>,
    /// Keep owners.
    pub(crate) owners: bool,
}

/// Unpacks a stream and returns how many bytes of files it held.
pub(crate) fn unpack(stream: impl Read, target: &Target) -> Result<u64> {
    let directory =
        File::open(&target.directory).with_context(|| target.directory.display().to_string())?;
    let root = OwnedFd::from(directory);
    let mut archive = Archive::new(stream);
    let mut bytes = 0;
    let mut directories = Vec::new();
    // Most entries are where the one before was.
    let mut last: Option<(PathBuf, OwnedFd)> = None;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let holes = sparse::of(&mut entry)?;
        let name = match &holes {
            Some(holes) => holes.name.clone(),
            None => entry.path()?.into_owned(),
        };
        let Some(path) = rebased(&name, target.name.as_deref())? else {
            continue;
        };
        bytes += entry.size();
        let holes = holes.map(|holes| holes.size);
        let context = || path.display().to_string();
        let above = path.parent().unwrap_or(Path::new(""));
        let parent = match last.take() {
            Some((path, parent)) if path == above => parent,
            _ => beneath(&root, above).with_context(context)?,
        };
        place(&root, &parent, &path, &mut entry, holes, target).with_context(context)?;
        last = Some((above.to_owned(), parent));
        if entry.header().entry_type().is_dir() {
            directories.push((path, entry.header().mtime().unwrap_or(0)));
        }
    }
    // Last, because what is placed in a directory changes its time.
    for (path, mtime) in directories.into_iter().rev() {
        if let Ok(directory) = beneath(&root, &path) {
            rustix::fs::utimensat(directory, ".", &times(mtime), AtFlags::empty())?;
        }
    }
    Ok(bytes)
}

/// An entry's path below the target directory: the first component is replaced by `name`.
fn rebased(entry: &Path, name: Option<&str>) -> Result<Option<PathBuf>> {
    let mut parts = Vec::new();
    for component in entry.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::CurDir | Component::RootDir => {}
            _ => bail!("invalid path in archive: {}", entry.display()),
        }
    }
    let path: PathBuf = match name {
        Some(name) => std::iter::once(name.as_ref())
            .chain(parts.into_iter().skip(1))
            .collect(),
        None => parts.into_iter().collect(),
    };
    Ok((!path.as_os_str().is_empty()).then_some(path))
}

/// Opens a directory below `root`; links may not lead out of it.
fn beneath(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    rustix::fs::openat2(
        root,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    )
}

fn times(seconds: u64) -> Timestamps {
    let at = Timespec {
        tv_sec: seconds as i64,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: at,
        last_modification: at,
    }
}

fn place(
    root: &OwnedFd,
    parent: &OwnedFd,
    path: &Path,
    entry: &mut Entry<'_, impl Read>,
    holes: Option<u64>,
    target: &Target,
) -> Result<()> {
    let name = path.file_name().unwrap_or_default();
    let header = entry.header().clone();
    let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
    match header.entry_type() {
        EntryType::Directory => place_directory(parent, name, mode)?,
        EntryType::Symlink => {
            let link = entry.link_name()?.unwrap_or_default();
            replace(parent, name)?;
            rustix::fs::symlinkat(&*link, parent, name)?;
        }
        EntryType::Link => {
            let link = entry.link_name()?.unwrap_or_default();
            // It shares owner, mode and time with what it links to.
            return match rebased(&link, target.name.as_deref())? {
                Some(source) => Ok(place_link(root, &source, parent, name)?),
                None => Ok(()),
            };
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            place_file(parent, name, mode, entry, holes)?;
        }
        // Devices, pipes and what else there may be are not for our file system.
        _ => return Ok(()),
    }
    if target.owners {
        let (uid, gid) = (
            Uid::from_raw(header.uid()? as u32),
            Gid::from_raw(header.gid()? as u32),
        );
        rustix::fs::chownat(
            parent,
            name,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        // A new owner takes the file's set-ID bits away.
        if !header.entry_type().is_symlink() && mode.intersects(Mode::SUID | Mode::SGID) {
            rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
        }
    }
    rustix::fs::utimensat(
        parent,
        name,
        &times(header.mtime()?),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    Ok(())
}

fn place_directory(parent: &OwnedFd, name: &OsStr, mode: Mode) -> rustix::io::Result<()> {
    match rustix::fs::mkdirat(parent, name, mode) {
        Err(Errno::EXIST) => {
            // What is there must be a directory, and not a link to one elsewhere.
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::PATH | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::empty()).map(drop)
        }
        Err(error) => Err(error),
        Ok(()) => rustix::fs::chmodat(parent, name, mode, AtFlags::empty()),
    }
}

fn place_link(
    root: &OwnedFd,
    source: &Path,
    parent: &OwnedFd,
    name: &OsStr,
) -> rustix::io::Result<()> {
    let from = beneath(root, source.parent().unwrap_or(Path::new("")))?;
    replace(parent, name)?;
    rustix::fs::linkat(
        from,
        source.file_name().unwrap_or_default(),
        parent,
        name,
        AtFlags::empty(),
    )
}

/// `holes` is the size of a file that has some.
fn place_file(
    parent: &OwnedFd,
    name: &OsStr,
    mode: Mode,
    content: &mut impl Read,
    holes: Option<u64>,
) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(parent, name, flags, mode) {
        Err(Errno::EXIST) => {
            replace(parent, name)?;
            rustix::fs::openat(parent, name, flags, mode)?
        }
        file => file?,
    };
    let mut file = File::from(file);
    match holes {
        Some(size) => sparse::copy(content, &file, size)?,
        None => drop(io::copy(content, &mut file)?),
    }
    rustix::fs::fchmod(&file, mode)?;
    Ok(())
}

/// Makes room for an entry; a directory in its place stays and is an error later.
fn replace(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(directory: &Path, name: Option<&str>) -> Target {
        Target {
            directory: directory.to_owned(),
            name: name.map(str::to_owned),
            owners: false,
        }
    }

    fn packed(source: &Path, root: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_tree(source, root, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_tree_goes_there_and_back() {
        let here = tempfile::tempdir().unwrap();
        let source = here.path().join("src");
        std::fs::create_dir_all(source.join("sub")).unwrap();
        std::fs::write(source.join("sub/file"), b"text").unwrap();
        std::os::unix::fs::symlink("sub/file", source.join("link")).unwrap();
        let bytes = packed(&source, "src");
        let out = here.path().join("out");
        std::fs::create_dir(&out).unwrap();
        assert_eq!(unpack(&bytes[..], &target(&out, Some("copy"))).unwrap(), 4);
        assert_eq!(std::fs::read(out.join("copy/link")).unwrap(), b"text");
        assert!(out.join("copy/link").is_symlink());
        // A second time over the first.
        unpack(&bytes[..], &target(&out, Some("copy"))).unwrap();
        unpack(&packed(&source, ".")[..], &target(&out, None)).unwrap();
        assert_eq!(std::fs::read(out.join("sub/file")).unwrap(), b"text");
    }

    #[test]
    fn nothing_is_placed_outside_of_the_target() {
        let here = tempfile::tempdir().unwrap();
        let (out, outside) = (here.path().join("out"), here.path().join("outside"));
        std::fs::create_dir(&out).unwrap();
        std::fs::create_dir(&outside).unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        builder
            .append_link(&mut header, "x/escape", &outside)
            .unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, "x/escape/file", &b"!"[..])
            .unwrap();
        let bytes = builder.into_inner().unwrap();
        std::fs::create_dir(out.join("x")).unwrap();
        assert!(unpack(&bytes[..], &target(&out, Some("x"))).is_err());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        assert!(rebased(Path::new("a/../../b"), None).is_err());
    }
}
