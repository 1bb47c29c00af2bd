//! Blobs that are there.

use std::os::fd::{AsFd, BorrowedFd};

use gantry_plugin_sdk::registry::{BlobStat, FetchReply};
use gantry_plugin_sdk::{Call, DriverError, DriverResult, ErrorCode};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{self, AtFlags, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::layout::Layout;
use crate::{doing, unknown_blob};

/// Bytes that are sent at once.
const PIECE: usize = 1 << 20;

/// Says whether a blob is there. Who asks is about to push what names it: it counts as new, and is not collected.
pub(crate) fn stat(layout: &Layout, digest: &str, call: &Call<'_>) -> DriverResult<BlobStat> {
    let digest: Digest = digest.parse()?;
    // On a medium that cannot be written to nothing is collected.
    let _lock = layout.lock(call).ok();
    let file = open(layout, &digest)?;
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    let _ = fs::futimens(&file, &times);
    Ok(BlobStat {
        size: size(&file, &digest)?,
    })
}

/// Writes a blob from `offset` on to `target`.
pub(crate) fn fetch(
    layout: &Layout,
    digest: &str,
    offset: u64,
    target: BorrowedFd<'_>,
) -> DriverResult<FetchReply> {
    let digest: Digest = digest.parse()?;
    let file = open(layout, &digest)?;
    let size = size(&file, &digest)?;
    if offset > size {
        return Err(DriverError::invalid(format!(
            "blob {digest} has {size} bytes, not {offset}"
        )));
    }
    let mut at = offset;
    while at < size {
        match fs::sendfile(target, &file, Some(&mut at), PIECE) {
            Ok(0) => {
                return Err(DriverError::new(
                    ErrorCode::DataLoss,
                    format!("blob {digest} is shorter than it was"),
                ));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut ready = [PollFd::from_borrowed_fd(target, PollFlags::OUT)];
                let _ = poll(&mut ready, None);
            }
            Err(Errno::PIPE) => {
                return Err(DriverError::new(
                    ErrorCode::Cancelled,
                    "the reader has gone",
                ));
            }
            Err(error) => return Err(doing("sending a blob", error)),
        }
    }
    Ok(FetchReply {
        offset,
        written: at - offset,
    })
}

/// Gives a layout a blob of another without copying it; says whether that could be done.
pub(crate) fn link(from: &Layout, to: &Layout, digest: &Digest) -> bool {
    if open(from, digest).is_err() {
        return false;
    }
    let path = digest.path();
    let linked = fs::linkat(from.dir(), &path, to.dir(), &path, AtFlags::empty());
    let there = match linked {
        Ok(()) => true,
        Err(Errno::EXIST) => open(to, digest).is_ok(),
        // Another file system, or one without links.
        Err(_) => false,
    };
    there
        && to
            .sync_directory(&format!("blobs/{}", digest.algorithm()))
            .is_ok()
}

pub(crate) fn open(layout: &Layout, digest: &Digest) -> DriverResult<std::os::fd::OwnedFd> {
    layout
        .open_file(&digest.path(), OFlags::RDONLY)
        .map_err(|error| match error.code {
            ErrorCode::NotFound => unknown_blob(&digest.to_string()),
            _ => error,
        })
}

fn size(file: impl AsFd, digest: &Digest) -> DriverResult<u64> {
    let stat =
        fs::fstat(file).map_err(|error| doing(&format!("looking at blob {digest}"), error))?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}
