//! Header blocks.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{self, Stat};
use rustix::io::Errno;
use tar::Header;

pub(super) const BLOCK: usize = 512;

/// The largest value of a numeric field of eight bytes, of twelve bytes.
const SHORT: u64 = 0o7_777_777;
const LONG: u64 = 0o77_777_777_777;

/// What is written of an entry.
pub(super) struct Meta<'a> {
    pub(super) name: &'a [u8],
    pub(super) link: &'a [u8],
    /// The type's letter.
    pub(super) letter: u8,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
    /// Bytes of data that follow.
    pub(super) size: u64,
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Total size of a sparse file.
    pub(super) real_size: Option<u64>,
}

impl<'a> Meta<'a> {
    pub(super) fn new(stat: &Stat, name: &'a [u8], letter: u8) -> Self {
        Self {
            name,
            link: b"",
            letter,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: stat.st_mtime,
            size: 0,
            device: (0, 0),
            xattrs: Vec::new(),
            real_size: None,
        }
    }

    /// The header, after an extended one if it takes one.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut records = Vec::new();
        let mut name = self.name;
        let stand_in;
        if let Some(size) = self.real_size {
            record(&mut records, b"GNU.sparse.major", b"1");
            record(&mut records, b"GNU.sparse.minor", b"0");
            record(&mut records, b"GNU.sparse.name", self.name);
            let size = size.to_string();
            record(&mut records, b"GNU.sparse.realsize", size.as_bytes());
            // What programs see that know nothing of sparse files.
            let cut = self
                .name
                .iter()
                .rposition(|b| *b == b'/')
                .map_or(0, |at| at + 1);
            stand_in = [&self.name[..cut], b"GNUSparseFile.0/", &self.name[cut..]].concat();
            name = &stand_in;
        }
        let mut header = Header::new_ustar();
        text(&mut header.as_old_mut().name, name, b"path", &mut records);
        let old = header.as_old_mut();
        text(&mut old.linkname, self.link, b"linkpath", &mut records);
        old.linkflag = [self.letter];
        octal(&mut old.mode, u64::from(self.mode));
        number(
            &mut old.uid,
            u64::from(self.uid),
            SHORT,
            b"uid",
            &mut records,
        );
        number(
            &mut old.gid,
            u64::from(self.gid),
            SHORT,
            b"gid",
            &mut records,
        );
        number(&mut old.size, self.size, LONG, b"size", &mut records);
        match u64::try_from(self.mtime) {
            Ok(time) => number(&mut old.mtime, time, LONG, b"mtime", &mut records),
            Err(_) => record(&mut records, b"mtime", self.mtime.to_string().as_bytes()),
        }
        if let Some(ustar) = header.as_ustar_mut() {
            octal(&mut ustar.dev_major, u64::from(self.device.0));
            octal(&mut ustar.dev_minor, u64::from(self.device.1));
        }
        for (name, value) in &self.xattrs {
            record(
                &mut records,
                &[b"SCHILY.xattr.", name.as_slice()].concat(),
                value,
            );
        }
        header.set_cksum();
        if records.is_empty() {
            return header.as_bytes().to_vec();
        }
        let mut bytes = extended(records.len(), self.name);
        bytes.extend_from_slice(&records);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes.extend_from_slice(header.as_bytes());
        bytes
    }
}

/// The block before records.
fn extended(length: usize, name: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    let old = header.as_old_mut();
    let base = name.strip_suffix(b"/").unwrap_or(name);
    let base = base.rsplit(|byte| *byte == b'/').next().unwrap_or(base);
    let mut shown = b"PaxHeaders.0/".to_vec();
    shown.extend(base.iter().filter(|byte| byte.is_ascii()));
    shown.truncate(old.name.len());
    old.name[..shown.len()].copy_from_slice(&shown);
    old.linkflag = *b"x";
    octal(&mut old.mode, 0o644);
    octal(&mut old.uid, 0);
    octal(&mut old.gid, 0);
    octal(&mut old.size, length as u64);
    octal(&mut old.mtime, 0);
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// Puts a name in its field, or in a record when it does not fit or is not ASCII.
fn text(field: &mut [u8; 100], value: &[u8], key: &[u8], records: &mut Vec<u8>) {
    if value.len() > field.len() || !value.is_ascii() {
        record(records, key, value);
    }
    let count = value.len().min(field.len());
    field[..count].copy_from_slice(&value[..count]);
}

fn number<const N: usize>(
    field: &mut [u8; N],
    value: u64,
    most: u64,
    key: &[u8],
    records: &mut Vec<u8>,
) {
    if value > most {
        record(records, key, value.to_string().as_bytes());
        octal(field, 0);
    } else {
        octal(field, value);
    }
}

/// Digits with leading zeros, and a null byte at the end.
fn octal<const N: usize>(field: &mut [u8; N], mut value: u64) {
    field[N - 1] = 0;
    for digit in field[..N - 1].iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

/// `length key=value\n`, the length with its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// The attributes that belong to a file wherever it goes: capabilities, access lists, the user's own.
pub(crate) fn xattrs(file: BorrowedFd<'_>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut small = [0; 1024];
    let mut large = Vec::new();
    let names: &[u8] = match fs::flistxattr(file, &mut small) {
        Ok(length) => &small[..length],
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(Errno::RANGE) => {
            // The kernel's own limit.
            large.resize(64 << 10, 0);
            let length = fs::flistxattr(file, large.as_mut_slice())?;
            &large[..length]
        }
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| wanted(name)) {
        let mut value = vec![0; 64 << 10];
        match fs::fgetxattr(file, name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                found.push((name.to_vec(), value));
            }
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

fn wanted(name: &[u8]) -> bool {
    matches!(
        name,
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default"
    ) || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}
