//! Compressing a rotated file, in a child: the container's output does not wait for it.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::sys::{self, Fork};

const CHUNK: usize = 64 << 10;

/// So much less important than containers it is.
const NICENESS: i32 = 10;

/// Begins to compress `from` into a file at `to`. The child ends with 0 when all of it is on the disk.
pub(super) fn spawn(from: &OwnedFd, to: &Path) -> Result<i32, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let to = rustix::fs::open(to, flags, Mode::from_raw_mode(0o640))?;
    match sys::fork()? {
        Fork::Parent(child) => Ok(child),
        Fork::Child => {
            // It must hold nothing of the container: a pipe's other end, say.
            let kept = [from.as_raw_fd(), to.as_raw_fd()];
            let ready = sys::close_all_but(kept.into_iter())
                .and_then(|()| sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0));
            let _ = rustix::process::nice(NICENESS);
            let packed = ready.is_ok() && pack(from, to).is_ok();
            sys::exit(i32::from(!packed))
        }
    }
}

fn pack(from: &OwnedFd, to: OwnedFd) -> std::io::Result<()> {
    let mut encoder = GzEncoder::new(std::fs::File::from(to), Compression::fast());
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buffer[..]))?;
        if read == 0 {
            return encoder.finish()?.sync_all();
        }
        encoder.write_all(&buffer[..read])?;
    }
}
