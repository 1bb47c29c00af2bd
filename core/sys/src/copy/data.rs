//! The bytes of regular files.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{self, SeekFrom, Stat};
use rustix::io::{Errno, pread, pwrite};

/// Bytes that are moved through this process at once, where the kernel cannot copy by itself.
const BUFFER: usize = 128 << 10;

/// Fills the empty file `to`. With `share` its data is the original's until either is written; returns whether the
/// file system can do that.
pub(super) fn copy(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    stat: &Stat,
    share: bool,
) -> io::Result<bool> {
    if stat.st_size == 0 {
        return Ok(share);
    }
    if share && fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(true);
    }
    let length = u64::try_from(stat.st_size).unwrap_or(0);
    // Blocks are those of 512 bytes, whatever the file system's own are.
    if u64::try_from(stat.st_blocks).unwrap_or(0) * 512 >= length {
        range(from, to, 0, length)?;
        return Ok(false);
    }
    fs::ftruncate(to, length)?;
    let mut at = 0;
    while at < length {
        let start = match fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        at = fs::seek(from, SeekFrom::Hole(start))?;
        range(from, to, start, at)?;
    }
    Ok(false)
}

/// Copies the bytes from `start` to `end`; what a file that shrinks meanwhile no longer has is left out.
fn range(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> io::Result<()> {
    let (mut source, mut target) = (start, start);
    while source < end {
        let wanted = usize::try_from(end - source).unwrap_or(usize::MAX);
        match fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), wanted) {
            // Files that the kernel makes up while they are read end at once here.
            Ok(0) | Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => {
                return by_hand(from, to, source, end);
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn by_hand(from: BorrowedFd<'_>, to: BorrowedFd<'_>, mut at: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while at < end {
        let wanted = buffer
            .len()
            .min(usize::try_from(end - at).unwrap_or(BUFFER));
        let count = pread(from, &mut buffer[..wanted], at)?;
        if count == 0 {
            break;
        }
        let mut written = 0;
        while written < count {
            written += pwrite(to, &buffer[written..count], at + written as u64)?;
        }
        at += count as u64;
    }
    Ok(())
}

/// Whether two open files hold the same bytes.
///
/// # Errors
/// Reading either.
pub fn same_data(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; BUFFER], vec![0; BUFFER]);
    let mut at = 0;
    loop {
        let (one, two) = (fill(a, &mut left, at)?, fill(b, &mut right, at)?);
        if left[..one] != right[..two] {
            return Ok(false);
        }
        if one == 0 {
            return Ok(true);
        }
        at += one as u64;
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: BorrowedFd<'_>, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match pread(file, &mut buffer[filled..], at + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// Whether files in this directory can share their data.
///
/// # Errors
/// Making files without a name, or writing to one.
pub fn can_share(directory: BorrowedFd<'_>) -> io::Result<bool> {
    let flags = fs::OFlags::TMPFILE | fs::OFlags::RDWR | fs::OFlags::CLOEXEC;
    let make = || fs::openat(directory, ".", flags, fs::Mode::RUSR | fs::Mode::WUSR);
    let (one, two) = (make()?, make()?);
    pwrite(&one, &[1; 4096], 0)?;
    Ok(fs::ioctl_ficlone(&two, &one).is_ok())
}
