//! The data of files: holes for zeros, and writing that begins before the commit asks for it.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gantry_sys::writeback;
use rustix::fs::{self, Mode, OFlags};

use super::{Extractor, metadata};
use crate::archive::{Entry, TarReader};

/// Buffer for file data.
pub(super) const BUFFER: usize = 128 << 10;
/// So many bytes of a file are sent on their way to the disk at once; smaller files wait for the commit.
const FLUSH: u64 = 1 << 20;
/// Smaller ends of files wait for it too.
const MIN_FLUSH: u64 = 64 << 10;
/// Zeros that are worth a hole, when they come in one piece.
const HOLE: usize = 32 << 10;
static ZEROS: [u8; BUFFER] = [0; BUFFER];

impl Extractor<'_> {
    pub(super) fn file<R: Read>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        archive: &mut TarReader<R>,
    ) -> io::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
        self.fill(&file, entry, archive)
    }

    /// Writes a file that is there.
    pub(super) fn overwrite<R: Read>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        archive: &mut TarReader<R>,
    ) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(parent, name, flags | OFlags::NONBLOCK, Mode::empty())?;
        self.fill(&file, entry, archive)
    }

    fn fill<R: Read>(
        &mut self,
        file: &OwnedFd,
        entry: &Entry,
        archive: &mut TarReader<R>,
    ) -> io::Result<()> {
        match &entry.sparse {
            None => {
                self.done.bytes += entry.size;
                self.copy(file, 0, entry.size, archive)?;
            }
            Some(sparse) => {
                self.done.bytes += sparse.real_size;
                fs::ftruncate(file, sparse.real_size)?;
                for segment in &sparse.segments {
                    self.copy(file, segment.offset, segment.length, archive)?;
                }
            }
        }
        metadata::apply(file.as_fd(), entry)
    }

    /// Copies `length` bytes of the archive to `offset` of the file, which has nothing there yet. Long runs of zeros become
    /// holes: most clients write files with holes out in full.
    fn copy<R: Read>(
        &mut self,
        file: &OwnedFd,
        mut offset: u64,
        mut length: u64,
        archive: &mut TarReader<R>,
    ) -> io::Result<()> {
        let mut hole = false;
        let mut flushing = offset;
        while length > 0 {
            let want = self
                .buffer
                .len()
                .min(usize::try_from(length).unwrap_or(usize::MAX));
            archive.read_exact(&mut self.buffer[..want])?;
            let mut bytes = &self.buffer[..want];
            length -= want as u64;
            hole = want >= HOLE && bytes == &ZEROS[..want];
            if hole {
                offset += want as u64;
                continue;
            }
            while !bytes.is_empty() {
                let written = rustix::io::pwrite(file, bytes, offset)?;
                offset += written as u64;
                bytes = &bytes[written..];
            }
            // A layer must be on the disk when it is committed; what is copied into a container need not.
            let waiting = match self.rules.whiteouts {
                Some(_) => offset - flushing,
                None => 0,
            };
            if waiting >= FLUSH || (length == 0 && waiting >= MIN_FLUSH) {
                writeback::begin(file, flushing, waiting);
                flushing = offset;
            }
        }
        if hole {
            fs::ftruncate(file, offset.max(fs::fstat(file)?.st_size as u64))?;
        }
        Ok(())
    }
}
