//! Container logs, all but the writing: options and their meaning, reading, and forwarding to other systems.
//!
//! The monitor of a container writes every driver's output to one place: JSON lines, rotated by size (see
//! `gantry-monitor`). From there it is read ([`read`]) and, for the drivers that send it elsewhere, forwarded
//! ([`forward`]): `docker logs` works for every driver, and a receiver that is away stalls no container.
//!
//! Invariants
//! - A file is known by the time of its first entry ([`files`]): the name changes by rotation, the inode by compression.
//! - Nothing is held in memory but the piece that is being read; a reader or receiver that stalls costs one piece.
//! - Forwarding is at least once: the cursor moves when the receiver's machine has taken the bytes. What is rotated away
//!   by the size limit before it could be sent is lost, and that is told in the daemon's log.
//! - Options are checked by the same code that later uses them, with Docker's words.
//!
//! It does not write or rotate logs, and knows no containers: who runs is told by [`Alive`].

mod attrs;
mod entry;
mod files;
pub mod forward;
mod options;
pub mod read;
mod tag;
mod tail;
mod watch;

pub use attrs::{Subject, attributes};
pub use options::{DRIVERS, LogOptionError, Spool, check, forwards, readable, spool};

/// What tells whether output may still come.
pub trait Alive: Send + Sync + 'static {
    /// Whether the container runs, or is about to again.
    fn running(&self) -> bool;
}
