//! Writes a directory tree as a tar archive.
//!
//! The tree is walked by descriptors: no path is joined and no link followed, so nothing outside of it gets into the
//! archive, whatever is done to it meanwhile. Headers and data are collected in large pieces which the [`Sink`] may keep,
//! and data is read right into them. Entries are sorted by name, so that a tree has one archive.
//!
//! Written are ustar headers, with extended ones where they are needed: long or large values, extended attributes, maps of
//! sparse files (GNU version 1.0). Sockets are left out, as other engines do, and so is what the kernel shows of itself in
//! `/proc` and its like, when it is met on the way.

mod data;
mod header;

pub(crate) use header::xattrs;

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use gantry_sys::copy;
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::Owners;
use crate::extract::whiteout;
use header::Meta;

/// Bytes that are handed to the sink at once.
const CHUNK: usize = 256 << 10;

/// Where the pieces of an archive go.
pub trait Sink {
    /// Takes a piece, in order. It may take the buffer itself and leave an empty one.
    ///
    /// # Errors
    /// End the walk.
    fn take(&mut self, piece: &mut Vec<u8>) -> io::Result<()>;
}

/// What is special about a tree.
#[derive(Debug, Clone, Copy, Default)]
pub struct PackOptions<'a> {
    /// The tree is the upper directory of an overlay: its marks of deletions are written as layers tell them.
    pub layer: bool,
    /// Names in the archive that are left out, with all below them.
    pub skip: Option<&'a HashSet<Vec<u8>>>,
    /// The name of a directory (without slash at the end) whose contents are left out.
    pub hollow: Option<&'a [u8]>,
    /// How the tree's owners are numbered, if not as they are.
    pub owners: Option<&'a Owners>,
    /// The only names in the archive that are written, and deletions to tell of.
    pub only: Option<&'a Selection>,
}

/// A part of a tree, as a layer tells of it.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Names in the archive, the directories above each among them.
    pub names: HashSet<Vec<u8>>,
    /// What is gone, by the name of the directory that it was in (empty: the top).
    pub deleted: HashMap<Vec<u8>, Vec<Vec<u8>>>,
}

/// An archive that is being written.
pub struct Packer<'a> {
    sink: &'a mut dyn Sink,
    options: PackOptions<'a>,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are filled.
    filled: usize,
    /// The first name of each file with several.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Bytes of regular files.
    bytes: u64,
}

/// A directory on the way.
struct Level {
    directory: Rc<OwnedFd>,
    names: std::vec::IntoIter<(CString, FileType)>,
    /// Length of its name in the archive.
    prefix: usize,
    /// The device that it is on.
    device: u64,
}

impl<'a> Packer<'a> {
    /// An archive with nothing in it yet.
    pub fn new(sink: &'a mut dyn Sink, options: PackOptions<'a>) -> Self {
        Self {
            sink,
            options,
            buffer: vec![0; CHUNK],
            filled: 0,
            links: HashMap::new(),
            bytes: 0,
        }
    }

    /// Adds what `parent` has under `name`, with all below it, as `shown`.
    ///
    /// # Errors
    /// `NotFound` when it is not there; those of reading and of the sink.
    pub fn entry(&mut self, parent: BorrowedFd<'_>, name: &[u8], shown: &[u8]) -> io::Result<()> {
        let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut shown = shown.to_vec();
        let name = CString::new(name)?;
        if let Some(directory) = self.one(parent, &name, kind, &mut shown)? {
            self.children(directory, &mut shown)?;
        }
        Ok(())
    }

    /// Adds a directory as `shown`, with all below it; an empty name means that only what is below is added.
    ///
    /// # Errors
    /// Those of reading and of the sink.
    pub fn tree(&mut self, directory: OwnedFd, shown: &[u8]) -> io::Result<()> {
        let mut shown = shown.to_vec();
        if !shown.is_empty() {
            let stat = fs::fstat(&directory)?;
            self.directory(&directory, &stat, &mut shown)?;
        }
        self.children(directory, &mut shown)
    }

    /// Ends the archive; returns how many bytes of regular files it holds.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish(mut self) -> io::Result<u64> {
        self.write(&[0; 1024])?;
        self.flush()?;
        Ok(self.bytes)
    }

    fn children(&mut self, directory: OwnedFd, shown: &mut Vec<u8>) -> io::Result<()> {
        let device = fs::fstat(&directory)?.st_dev;
        let mut levels = vec![self.level(directory, shown, device)?];
        while let Some(top) = levels.last_mut() {
            let Some((name, kind)) = top.names.next() else {
                levels.pop();
                continue;
            };
            let (parent, above) = (Rc::clone(&top.directory), top.device);
            shown.truncate(top.prefix);
            if !shown.is_empty() && !shown.ends_with(b"/") {
                shown.push(b'/');
            }
            shown.extend_from_slice(name.to_bytes());
            if self.options.skip.is_some_and(|skip| skip.contains(shown)) {
                continue;
            }
            match self.one(parent.as_fd(), &name, kind, shown) {
                Ok(Some(directory)) => {
                    let device = fs::fstat(&directory)?.st_dev;
                    let inside = device == above || has_contents(&directory)?;
                    if inside && !self.is_hollow(shown) {
                        levels.push(self.level(directory, shown, device)?);
                    }
                }
                Ok(None) => {}
                // It went between the list and the look.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What of a directory is to be written; its deletions are, at once.
    fn level(&mut self, directory: OwnedFd, shown: &[u8], device: u64) -> io::Result<Level> {
        let mut names = entries(&directory)?;
        if let Some(only) = self.options.only {
            let above = shown.strip_suffix(b"/").unwrap_or(shown);
            names.retain(|(name, _)| only.names.contains(&copy::join(above, name.to_bytes())));
            let stat = fs::fstat(&directory)?;
            for gone in only.deleted.get(above).into_iter().flatten() {
                let name = [whiteout::PREFIX, gone.as_slice()].concat();
                self.deletion(&stat, &copy::join(above, &name))?;
            }
        }
        Ok(Level {
            directory: Rc::new(directory),
            names: names.into_iter(),
            prefix: shown.len(),
            device,
        })
    }

    fn is_hollow(&self, shown: &[u8]) -> bool {
        self.options.hollow == shown.strip_suffix(b"/")
    }

    /// Adds one entry; for a directory its descriptor is returned, to go on with.
    fn one(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CString,
        kind: FileType,
        shown: &mut Vec<u8>,
    ) -> io::Result<Option<OwnedFd>> {
        // Regular files and directories are looked at through their own descriptors: one look-up.
        let flags = match kind {
            FileType::RegularFile => OFlags::NONBLOCK,
            FileType::Directory => OFlags::DIRECTORY,
            _ => return self.special(parent, name, shown).map(|()| None),
        };
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match fs::openat(parent, name, flags, Mode::empty()) {
            Ok(file) => file,
            // Something else has taken its place.
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return self.special(parent, name, shown).map(|()| None);
            }
            Err(error) => return Err(error.into()),
        };
        let stat = fs::fstat(&file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(&file, &stat, shown).map(|()| None),
            FileType::Directory => {
                self.directory(&file, &stat, shown)?;
                Ok(Some(file))
            }
            _ => self.special(parent, name, shown).map(|()| None),
        }
    }

    fn directory(
        &mut self,
        directory: &OwnedFd,
        stat: &Stat,
        shown: &mut Vec<u8>,
    ) -> io::Result<()> {
        if !shown.ends_with(b"/") {
            shown.push(b'/');
        }
        let mut meta = self.meta(stat, shown, b'5');
        meta.xattrs = header::xattrs(directory.as_fd())?;
        self.header(&meta)?;
        if self.options.layer && whiteout::is_opaque(directory.as_fd())? {
            self.deletion(stat, &[shown.as_slice(), whiteout::OPAQUE].concat())?;
        }
        Ok(())
    }

    fn file(&mut self, file: &OwnedFd, stat: &Stat, shown: &[u8]) -> io::Result<()> {
        if self.is_link(stat, shown)? {
            return Ok(());
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.bytes += size;
        let mut meta = self.meta(stat, shown, b'0');
        meta.xattrs = header::xattrs(file.as_fd())?;
        match data::segments(file, stat, size)? {
            Some(segments) => self.sparse(file, meta, size, &segments),
            None => {
                meta.size = size;
                self.header(&meta)?;
                self.copy(file, 0, size)?;
                self.pad()
            }
        }
    }

    /// Links, devices, pipes: what has no data of its own.
    fn special(&mut self, parent: BorrowedFd<'_>, name: &CString, shown: &[u8]) -> io::Result<()> {
        let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.options.layer && whiteout::is_whiteout(&stat) {
            let cut = shown.len() - name.to_bytes().len();
            let shown = [&shown[..cut], whiteout::PREFIX, &shown[cut..]].concat();
            return self.deletion(&stat, &shown);
        }
        let letter = match kind {
            FileType::Symlink => b'2',
            FileType::CharacterDevice => b'3',
            FileType::BlockDevice => b'4',
            FileType::Fifo => b'6',
            _ => return Ok(()),
        };
        if self.is_link(&stat, shown)? {
            return Ok(());
        }
        let target = match kind {
            FileType::Symlink => fs::readlinkat(parent, name, Vec::new())?.into_bytes(),
            _ => Vec::new(),
        };
        let mut meta = self.meta(&stat, shown, letter);
        meta.link = &target;
        if letter != b'2' {
            meta.device = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
        }
        self.header(&meta)
    }

    /// Writes a second name of a file as a link to the first.
    fn is_link(&mut self, stat: &Stat, shown: &[u8]) -> io::Result<bool> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        let key = (stat.st_dev, stat.st_ino);
        let Some(first) = self.links.get(&key).cloned() else {
            self.links.insert(key, shown.to_vec());
            return Ok(false);
        };
        let mut meta = self.meta(stat, shown, b'1');
        meta.link = &first;
        self.header(&meta)?;
        Ok(true)
    }

    /// An empty file whose name tells of a deletion.
    fn deletion(&mut self, stat: &Stat, shown: &[u8]) -> io::Result<()> {
        let mut meta = self.meta(stat, shown, b'0');
        meta.mode = 0;
        self.header(&meta)
    }

    fn meta<'n>(&self, stat: &Stat, name: &'n [u8], letter: u8) -> Meta<'n> {
        let mut meta = Meta::new(stat, name, letter);
        if let Some(owners) = self.options.owners {
            (meta.uid, meta.gid) = owners.to_archive((meta.uid, meta.gid));
        }
        meta
    }

    fn header(&mut self, meta: &Meta<'_>) -> io::Result<()> {
        let bytes = meta.encode();
        self.write(&bytes)
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = self.room()?;
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Fills up the block.
    fn pad(&mut self) -> io::Result<()> {
        // Pieces are whole blocks long.
        let rest = self.filled.next_multiple_of(header::BLOCK) - self.filled;
        self.write(&[0; header::BLOCK][..rest])
    }

    /// The free part of the buffer, which is not empty.
    fn room(&mut self) -> io::Result<&mut [u8]> {
        if self.filled == self.buffer.len() {
            self.flush()?;
        }
        Ok(&mut self.buffer[self.filled..])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.buffer.truncate(self.filled);
        self.sink.take(&mut self.buffer)?;
        self.buffer.resize(CHUNK, 0);
        self.filled = 0;
        Ok(())
    }
}

/// Whether a file system that was met on the way holds files: the kernel's windows on itself do not.
fn has_contents(directory: &OwnedFd) -> io::Result<bool> {
    // linux/magic.h: proc, sysfs, cgroup, cgroup2, devpts, mqueue, debugfs, tracefs, securityfs, bpf, configfs,
    // binfmt_misc, efivarfs, pstore.
    const WINDOWS: [u64; 14] = [
        0x9fa0,
        0x6265_6572,
        0x0027_e0eb,
        0x6367_7270,
        0x1cd1,
        0x1980_0202,
        0x6462_6720,
        0x7472_6163,
        0x7363_6673,
        0xcafe_4a11,
        0x6265_6570,
        0x4249_4e4d,
        0xde5e_81e4,
        0x6165_676c,
    ];
    let kind = fs::fstatfs(directory)?.f_type as u64 & 0xffff_ffff;
    Ok(!WINDOWS.contains(&kind))
}

/// The names in a directory, sorted, with what they are.
fn entries(directory: &OwnedFd) -> io::Result<Vec<(CString, FileType)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    // File systems that do not say what an entry is are rare enough to be asked one by one.
    for (name, kind) in names.iter_mut().filter(|(_, k)| *k == FileType::Unknown) {
        if let Ok(stat) = fs::statat(directory, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            *kind = FileType::from_raw_mode(stat.st_mode);
        }
    }
    names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(names)
}

#[cfg(test)]
mod tests;
