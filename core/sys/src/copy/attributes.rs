//! What a file is like beside its data.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

/// The kernel's limit, of a list of names and of a value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 64 << 10;

/// Owner, extended attributes, mode and times of an open file or directory; the mode after the owner, because changing
/// the owner clears the set-id bits. `stat` is that of `from`.
///
/// # Errors
/// Of any read or write. Attributes that the file system below `to` does not know are left out.
pub fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = ids(stat);
    fs::fchown(to, uid, gid)?;
    let wanted = extended(from)?;
    for name in extended(to)?.keys().filter(|n| !wanted.contains_key(*n)) {
        fs::fremovexattr(to, name.as_c_str())?;
    }
    for (name, value) in &wanted {
        match fs::fsetxattr(to, name.as_c_str(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    fs::futimens(to, &times(stat))?;
    Ok(())
}

/// Owner, mode and times of what cannot be opened.
pub(super) fn of_name(at: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = ids(stat);
    fs::chownat(at, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        let mode = Mode::from_raw_mode(stat.st_mode);
        fs::chmodat(at, name, mode, AtFlags::empty())?;
    }
    Ok(fs::utimensat(
        at,
        name,
        &times(stat),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Whether two files of one kind are alike in owner, mode, length, time of the last write and device number.
#[must_use]
pub fn same_attributes(a: &Stat, b: &Stat) -> bool {
    let of = |stat: &Stat| {
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        (
            (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev),
            (stat.st_mtime, stat.st_mtime_nsec),
            // A directory's length is the file system's own business.
            (!directory).then_some(stat.st_size),
        )
    };
    of(a) == of(b)
}

/// The extended attributes of an open file that are content.
///
/// # Errors
/// Those of the calls; a file system without them has none.
pub fn extended(file: BorrowedFd<'_>) -> io::Result<BTreeMap<CString, Vec<u8>>> {
    let mut found = BTreeMap::new();
    // Most files have none or few: then nothing is allocated.
    let (mut short, mut long) = ([0; 256], Vec::new());
    let list = match fs::flistxattr(file, &mut short) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(found),
        Ok(length) => &short[..length],
        Err(Errno::RANGE) => {
            long.resize(XATTR_MAX, 0);
            let length = fs::flistxattr(file, &mut long)?;
            &long[..length]
        }
        Err(error) => return Err(error.into()),
    };
    let mut value = vec![0; XATTR_MAX];
    for name in list.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        if name.to_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        match fs::fgetxattr(file, name, &mut value) {
            Ok(length) => found.insert(name.to_owned(), value[..length].to_vec()),
            // Removed meanwhile.
            Err(Errno::NODATA) => None,
            Err(error) => return Err(error.into()),
        };
    }
    Ok(found)
}

fn ids(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )
}

fn times(stat: &Stat) -> Timestamps {
    let spec = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: spec(stat.st_atime, stat.st_atime_nsec),
        last_modification: spec(stat.st_mtime, stat.st_mtime_nsec),
    }
}
