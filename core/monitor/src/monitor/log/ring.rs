//! The non-blocking mode: entries go through a pipe to a child that writes them, and wait in memory, up to a limit, when
//! the disk does not keep up. What does not fit is dropped, an entry at a time; the container never waits.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use gantry_monitor::protocol::Stage;
use rustix::event::EventfdFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::file::File;
use crate::fault::{At, Step};
use crate::sys::{self, Fork};

/// What the child is told: so many bytes of entries follow, or one of two orders.
const ROTATE: u32 = u32::MAX;
const REOPEN: u32 = u32::MAX - 1;

const HEAD: usize = 4;
const CHUNK: usize = 64 << 10;

/// The monitor's side. Decides where files begin and end, from what it has given away.
#[derive(Debug)]
pub(super) struct Ring {
    child: i32,
    pipe: Option<OwnedFd>,
    /// Counts the entries that the child could not write.
    refused: OwnedFd,
    waiting: Vec<u8>,
    limit: usize,
    max_size: u64,
    size: u64,
    rotations: u32,
}

impl Ring {
    /// Gives the files to a child.
    pub(super) fn new(file: File, limit: u64) -> Step<Self> {
        let what = || "start the log's writer".to_owned();
        let (theirs, ours) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).at(Stage::Monitor, what)?;
        rustix::io::ioctl_fionbio(&ours, true).at(Stage::Monitor, what)?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let refused = rustix::event::eventfd(0, flags).at(Stage::Monitor, what)?;
        let (max_size, (rotations, size)) = (file.max_size(), file.position());
        match sys::fork().at(Stage::Monitor, what)? {
            Fork::Parent(child) => Ok(Self {
                child,
                pipe: Some(ours),
                refused,
                waiting: Vec::new(),
                limit: usize::try_from(limit).unwrap_or(usize::MAX),
                max_size,
                size,
                rotations,
            }),
            Fork::Child => {
                drop(ours);
                serve(file, &theirs, refused.as_fd())
            }
        }
    }

    pub(super) fn position(&self) -> (u32, u64) {
        (self.rotations, self.size)
    }

    pub(super) fn full(&self, size: u64) -> bool {
        self.max_size > 0 && size >= self.max_size
    }

    /// Takes an entry, or drops it.
    pub(super) fn put(&mut self, entry: &[u8]) -> Result<(), Errno> {
        if !self.has_room(entry.len()) {
            self.push();
        }
        if !self.has_room(entry.len()) || self.pipe.is_none() {
            return Err(Errno::NOBUFS);
        }
        // An entry is far shorter than 4 GiB.
        let length = entry.len() as u32;
        self.waiting.extend_from_slice(&length.to_le_bytes());
        self.waiting.extend_from_slice(entry);
        self.size += entry.len() as u64;
        Ok(())
    }

    /// One entry always has, however low the limit is.
    fn has_room(&self, length: usize) -> bool {
        self.waiting.is_empty() || self.waiting.len() + length <= self.limit
    }

    /// Begins a new file.
    pub(super) fn rotate(&mut self) {
        self.waiting.extend_from_slice(&ROTATE.to_le_bytes());
        self.size = 0;
        self.rotations += 1;
    }

    pub(super) fn reopen(&mut self) {
        self.waiting.extend_from_slice(&REOPEN.to_le_bytes());
        self.size = 0;
        self.push();
    }

    /// To be polled for writing while entries wait.
    pub(super) fn blocked(&self) -> Option<RawFd> {
        let pipe = self.pipe.as_ref().filter(|_| !self.waiting.is_empty());
        pipe.map(AsRawFd::as_raw_fd)
    }

    /// Gives the child what it takes now.
    pub(super) fn push(&mut self) {
        let mut done = 0;
        while let Some(pipe) = self.pipe.as_ref().filter(|_| done < self.waiting.len()) {
            let rest = &self.waiting[done..];
            match rustix::io::retry_on_intr(|| rustix::io::write(pipe, rest)) {
                Ok(written) => done += written,
                Err(Errno::AGAIN) => break,
                // The child is gone.
                Err(_) => {
                    self.pipe = None;
                    done = self.waiting.len();
                }
            }
        }
        self.waiting.drain(..done);
        if self.waiting.is_empty() {
            self.waiting = Vec::new();
        }
    }

    /// Whether a dead child was the writer; there is none any more then.
    pub(super) fn ended(&mut self, pid: i32) -> bool {
        let ours = pid == self.child;
        if ours {
            self.child = 0;
            self.pipe = None;
            self.waiting = Vec::new();
        }
        ours
    }

    /// Entries that the child could not write since it was last asked.
    pub(super) fn refused(&self) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(&self.refused, &mut count) {
            Ok(8) => u64::from_ne_bytes(count),
            // None.
            _ => 0,
        }
    }

    /// Waits until the child has written everything.
    pub(super) fn finish(&mut self) {
        if let Some(pipe) = &self.pipe {
            let _ = rustix::io::ioctl_fionbio(pipe, false);
        }
        self.push();
        self.pipe = None;
        if self.child > 0 {
            sys::wait(self.child);
        }
    }
}

/// The child: writes what comes until there is no more.
fn serve(mut file: File, pipe: &OwnedFd, refused: BorrowedFd<'_>) -> ! {
    let kept = [pipe.as_raw_fd(), refused.as_raw_fd(), file.descriptor()];
    if sys::close_all_but(kept.into_iter()).is_err() {
        sys::exit(1);
    }
    let (mut held, mut buffer) = (Vec::new(), vec![0; CHUNK]);
    // Bytes of the present entry that are still to come.
    let mut missing = 0;
    let mut whole = true;
    loop {
        let read = match rustix::io::retry_on_intr(|| rustix::io::read(pipe, &mut buffer[..])) {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        file.look();
        held.extend_from_slice(&buffer[..read]);
        let mut rest = held.as_slice();
        loop {
            if missing > 0 {
                let (now, later) = rest.split_at(missing.min(rest.len()));
                // An entry that the disk refuses is lost; the next may not be.
                whole &= file.write(now).is_ok();
                missing -= now.len();
                if missing == 0 && !std::mem::replace(&mut whole, true) {
                    let _ = rustix::io::write(refused, &1_u64.to_ne_bytes());
                }
                rest = later;
            }
            let Some((head, after)) = rest.split_first_chunk::<HEAD>().filter(|_| missing == 0)
            else {
                break;
            };
            rest = after;
            match u32::from_le_bytes(*head) {
                ROTATE => drop(file.rotate()),
                REOPEN => drop(file.reopen()),
                length => missing = length as usize,
            }
        }
        let left = rest.len();
        held.drain(..held.len() - left);
    }
    file.finish();
    sys::exit(0)
}
