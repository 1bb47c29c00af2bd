//! Blobs on their way in: a file below `.gantry/uploads` that becomes the blob when its digest is right.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime};

use gantry_plugin_sdk::registry::{FinishUpload, Upload, UploadChunk};
use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode};
use rustix::fs::{self, AtFlags, Dir, OFlags};

use crate::digest::{Digest, Hasher};
use crate::doing;
use crate::layout::{Layout, UPLOADS, unique};

/// Bytes read at once.
const PIECE: usize = 256 << 10;
/// What was begun and not gone on with for longer is cleared away.
pub(crate) const UNFINISHED: Duration = Duration::from_secs(24 * 3600);

/// Begins an upload. Its location is the name of its file.
pub(crate) fn begin(layout: &Layout) -> DriverResult<Upload> {
    clear(layout, SystemTime::now());
    let location = unique()?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    layout.open_file(&path(&location)?, flags)?;
    Ok(Upload {
        location,
        mounted: false,
        offset: 0,
    })
}

/// Adds bytes; what an attempt that failed has left after `offset` is written over.
pub(crate) fn chunk(
    layout: &Layout,
    request: &UploadChunk,
    source: BorrowedFd<'_>,
) -> DriverResult<Upload> {
    let mut file = open(layout, &request.location)?;
    let there = length(&file)?;
    if there < request.offset {
        return Err(DriverError::invalid(format!(
            "range invalid: {there} bytes of the upload are there, not {}",
            request.offset
        )));
    }
    file.set_len(request.offset)
        .and_then(|()| file.seek(SeekFrom::End(0)))
        .map_err(|e| DriverError::io("going on with an upload", &e))?;
    copy(source, request.size, &mut file, |_| {})?;
    Ok(Upload {
        location: request.location.clone(),
        mounted: false,
        offset: request.offset + request.size,
    })
}

/// How many bytes of an upload are there.
pub(crate) fn status(layout: &Layout, location: String) -> DriverResult<Upload> {
    let offset = length(&open(layout, &location)?)?;
    Ok(Upload {
        location,
        mounted: false,
        offset,
    })
}

/// Adds the last bytes, checks the digest, and gives the blob its name. An upload with another digest is gone.
pub(crate) fn finish(
    layout: &Layout,
    request: &FinishUpload,
    source: Option<BorrowedFd<'_>>,
) -> DriverResult<()> {
    let digest: Digest = request.digest.parse()?;
    let mut file = open(layout, &request.location)?;
    let mut hasher = digest.hasher();
    // What is there was hashed by nobody, or by an engine that has ended since.
    hash_rest(&mut file, &mut hasher)?;
    if let Some(source) = source {
        let before = length(&file)?;
        let copied = copy(source, request.size, &mut file, |bytes| {
            hasher.update(bytes);
        });
        if let Err(error) = copied {
            // The next attempt finds what this one found.
            let _ = file.set_len(before);
            return Err(error);
        }
    }
    let path = path(&request.location)?;
    let found = hasher.finish();
    if found != digest {
        let _ = fs::unlinkat(layout.dir(), &path, AtFlags::empty());
        return Err(DriverError::invalid(format!(
            "digest invalid: provided digest did not match uploaded content: {found}, not {digest}"
        )));
    }
    file.sync_all()
        .map_err(|e| DriverError::io("flushing a blob", &e))?;
    layout.place(&path, &digest.path())
}

/// Removes uploads that nobody goes on with.
pub(crate) fn clear(layout: &Layout, now: SystemTime) {
    remove_old(layout, UPLOADS, now, |_| true);
}

/// Removes the unwanted files of a directory that have not been touched for [`UNFINISHED`]. What cannot be removed is
/// tried again the next time.
pub(crate) fn remove_old(
    layout: &Layout,
    path: &str,
    now: SystemTime,
    unwanted: impl Fn(&CStr) -> bool,
) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(directory) = fs::openat(layout.dir(), path, flags, fs::Mode::empty()) else {
        return;
    };
    let Ok(entries) = Dir::read_from(&directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if unwanted(name) && is_old(directory.as_fd(), name, now) {
            let _ = fs::unlinkat(&directory, name, AtFlags::empty());
        }
    }
}

/// Whether a file has not been touched for [`UNFINISHED`].
fn is_old(directory: BorrowedFd<'_>, name: &CStr, now: SystemTime) -> bool {
    let Ok(stat) = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
        return false;
    };
    let modified = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
    now.duration_since(SystemTime::UNIX_EPOCH + modified)
        .is_ok_and(|age| age > UNFINISHED)
}

/// A location comes back from outside.
fn path(location: &str) -> DriverResult<String> {
    if location.len() == 32 && location.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(format!("{UPLOADS}/{location}"));
    }
    Err(unknown())
}

fn open(layout: &Layout, location: &str) -> DriverResult<File> {
    let file = layout.open_file(&path(location)?, OFlags::RDWR);
    file.map(File::from).map_err(|error| match error.code {
        ErrorCode::NotFound => unknown(),
        _ => error,
    })
}

fn unknown() -> DriverError {
    DriverError::not_found("blob upload unknown: blob upload unknown to registry")
}

fn length(file: &File) -> DriverResult<u64> {
    let metadata = file.metadata();
    metadata
        .map(|m| m.len())
        .map_err(|e| DriverError::io("looking at an upload", &e))
}

fn hash_rest(file: &mut File, hasher: &mut Hasher) -> DriverResult<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(DriverError::io("reading an upload", &error)),
        }
    }
}

/// Copies exactly `size` bytes from the caller's descriptor.
fn copy(
    source: BorrowedFd<'_>,
    size: u64,
    file: &mut File,
    mut see: impl FnMut(&[u8]),
) -> DriverResult<()> {
    let mut buffer = vec![0; PIECE];
    let mut left = size;
    while left > 0 {
        let want = PIECE.min(usize::try_from(left).unwrap_or(PIECE));
        let count = match rustix::io::read(source, &mut buffer[..want]) {
            Ok(0) => {
                return Err(DriverError::new(ErrorCode::Unavailable, "unexpected EOF"));
            }
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(doing("reading what to upload", error)),
        };
        see(&buffer[..count]);
        file.write_all(&buffer[..count])
            .map_err(|e| DriverError::io("writing an upload", &e))?;
        left -= count as u64;
    }
    Ok(())
}
