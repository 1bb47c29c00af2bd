//! One entry, with what extended headers before it said.

use std::io;

use tar::{EntryType, Header};

use super::sparse::Sparse;
use super::{invalid, number, pax, signed};

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// An entry's description. Names are bytes, as they stand in the archive.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits with set-id and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub(crate) mtime: (i64, u32),
    /// Bytes of data in the archive.
    pub(crate) size: u64,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: Option<Sparse>,
    /// The sparse map stands before the data.
    pub(super) sparse_in_data: bool,
}

/// What extended headers have said about the entry to come.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) name: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    records: Option<pax::Records>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.name.is_none() && self.link.is_none() && self.records.is_none()
    }

    pub(super) fn pax(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.records = Some(pax::parse(bytes)?);
        Ok(())
    }

    pub(super) fn size(&self) -> Option<u64> {
        self.records.as_ref().and_then(|records| records.size)
    }

    pub(super) fn entry(self, header: &Header, size: u64) -> io::Result<Entry> {
        let records = self.records.unwrap_or_default();
        let path = records
            .path
            .or(self.name)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = records
            .link
            .or(self.link)
            .or_else(|| header.link_name_bytes().map(|link| link.into_owned()))
            .unwrap_or_default();
        let kind = kind(header.entry_type(), &path)?;
        if path.contains(&0) || link.contains(&0) {
            return Err(invalid("a name contains a null byte"));
        }
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => device(header)?,
            _ => (0, 0),
        };
        // Times of odd archives are not worth failing for; owners and modes are.
        let old = header.as_old();
        Ok(Entry {
            path,
            link,
            kind,
            mode: (number(&old.mode)? & 0o7777) as u32,
            uid: identity(records.uid, &old.uid)?,
            gid: identity(records.gid, &old.gid)?,
            mtime: records
                .mtime
                .unwrap_or((signed(&old.mtime).unwrap_or(0), 0)),
            size,
            device,
            xattrs: records.xattrs,
            sparse: records.sparse,
            sparse_in_data: records.sparse_in_data,
        })
    }
}

fn device(header: &Header) -> io::Result<(u32, u32)> {
    let Some(fields) = header.as_ustar() else {
        return match header.as_gnu() {
            Some(fields) => both(&fields.dev_major, &fields.dev_minor),
            None => Err(invalid("a device without numbers")),
        };
    };
    both(&fields.dev_major, &fields.dev_minor)
}

fn both(major: &[u8], minor: &[u8]) -> io::Result<(u32, u32)> {
    let read = |field| {
        let value = number(field)?;
        u32::try_from(value).map_err(|_| invalid("a device number is out of range"))
    };
    Ok((read(major)?, read(minor)?))
}

fn identity(pax: Option<u64>, header: &[u8]) -> io::Result<u32> {
    let id = match pax {
        Some(id) => id,
        None => number(header)?,
    };
    // The last value means "leave alone" to chown.
    u32::try_from(id)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| invalid(format!("owner {id} is out of range")))
}

fn kind(entry_type: EntryType, path: &[u8]) -> io::Result<Kind> {
    Ok(match entry_type {
        // Before directories had a type of their own, a trailing slash made one.
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Link => Kind::HardLink,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Char => Kind::CharDevice,
        EntryType::Block => Kind::BlockDevice,
        EntryType::Directory => Kind::Directory,
        EntryType::Fifo => Kind::Fifo,
        other => {
            return Err(invalid(format!(
                "unhandled tar header type {}",
                other.as_byte()
            )));
        }
    })
}
