//! Contents of regular files.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{SeekFrom, Stat, seek};
use rustix::io::Errno;

use super::Packer;
use super::header::{BLOCK, Meta};
use crate::archive::Segment;

/// Files of fewer bytes, and holes of fewer, are not worth a map.
const WORTH: u64 = 1 << 20;
/// A file of more runs is written out in full.
const MAX_SEGMENTS: usize = 4096;

/// The runs of data in a file with large holes; none for other files.
pub(super) fn segments(file: &OwnedFd, stat: &Stat, size: u64) -> io::Result<Option<Vec<Segment>>> {
    let held = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
    if size < WORTH || held + WORTH > size {
        return Ok(None);
    }
    let mut segments = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            // The file system does not tell.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let end = seek(file, SeekFrom::Hole(start))?.min(size);
        if start >= size || segments.len() == MAX_SEGMENTS {
            break;
        }
        segments.push(Segment {
            offset: start,
            length: end - start,
        });
        at = end;
    }
    Ok((segments.len() < MAX_SEGMENTS).then_some(segments))
}

impl Packer<'_> {
    /// A sparse file: its map before its data.
    pub(super) fn sparse(
        &mut self,
        file: &OwnedFd,
        mut meta: Meta<'_>,
        size: u64,
        segments: &[Segment],
    ) -> io::Result<()> {
        let mut map = format!("{}\n", segments.len());
        for segment in segments {
            map += &format!("{}\n{}\n", segment.offset, segment.length);
        }
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(BLOCK), 0);
        let data: u64 = segments.iter().map(|segment| segment.length).sum();
        meta.real_size = Some(size);
        meta.size = map.len() as u64 + data;
        self.header(&meta)?;
        self.write(&map)?;
        for segment in segments {
            self.copy(file, segment.offset, segment.length)?;
        }
        self.pad()
    }

    /// Writes `length` bytes of a file from `offset` on. What it has lost meanwhile is zeros: the header has been written.
    pub(super) fn copy(
        &mut self,
        file: &OwnedFd,
        mut offset: u64,
        mut length: u64,
    ) -> io::Result<()> {
        let mut ended = false;
        while length > 0 {
            let room = self.room()?;
            let want = room
                .len()
                .min(usize::try_from(length).unwrap_or(usize::MAX));
            let room = &mut room[..want];
            let count = match ended {
                true => {
                    room.fill(0);
                    want
                }
                false => match rustix::io::pread(file, &mut *room, offset) {
                    Ok(count) => count,
                    Err(Errno::INTR) => continue,
                    Err(error) => return Err(error.into()),
                },
            };
            ended = count == 0;
            self.filled += count;
            offset += count as u64;
            length -= count as u64;
        }
        Ok(())
    }
}
