//! One connection of the daemon: messages, until an `Attach` makes a byte stream of it.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use gantry_monitor::client;
use gantry_monitor::protocol::{Decoder, FromMonitor, Message, ToMonitor, encode};

/// A client that lets more than this of messages pile up is dropped: it is not reading.
const MAX_BACKLOG: usize = 4 << 20;

/// The most descriptors a client may have sent without the message that they belong to.
const MAX_HELD_FDS: usize = 3;

/// An attached client that takes nothing for so long is dropped. Until then it holds the container's output back, so that
/// it loses none; for ever it does not.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Control,
    Attach {
        stdin: bool,
        /// Standard output, standard error.
        outputs: [bool; 2],
    },
}

#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    sent: usize,
    fd: Option<OwnedFd>,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Told apart by this; descriptors' numbers are used again.
    pub(crate) id: u64,
    pub(crate) socket: OwnedFd,
    pub(crate) mode: Mode,
    /// To be removed.
    pub(crate) dead: bool,
    /// The client has shut down its direction.
    pub(crate) input_ended: bool,
    decoder: Decoder,
    fds: Vec<OwnedFd>,
    queue: VecDeque<Piece>,
    queued: usize,
    /// Since when nothing was taken of what is queued.
    waits: Option<Instant>,
}

impl Conn {
    pub(crate) fn new(id: u64, socket: OwnedFd) -> Self {
        // Cannot fail on a socket.
        let _ = rustix::io::ioctl_fionbio(&socket, true);
        Self {
            id,
            socket,
            mode: Mode::Control,
            dead: false,
            input_ended: false,
            decoder: Decoder::default(),
            fds: Vec::new(),
            queue: VecDeque::new(),
            queued: 0,
            waits: None,
        }
    }

    /// How much longer an attached client that takes nothing is waited for; `None` while nothing waits for it.
    pub(crate) fn patience(&self, now: Instant) -> Option<Duration> {
        let since = self.waits.filter(|_| self.mode != Mode::Control)?;
        Some(PATIENCE.saturating_sub(now.saturating_duration_since(since)))
    }

    /// Whether something waits to be sent.
    pub(crate) fn backlog(&self) -> bool {
        !self.dead && !self.queue.is_empty()
    }

    /// Whether output of this stream goes here.
    pub(crate) fn wants(&self, stream: usize) -> bool {
        matches!(self.mode, Mode::Attach { outputs, .. } if outputs[stream]) && !self.dead
    }

    /// Receives what is there; a client that is gone or breaks the rules is marked dead.
    pub(crate) fn receive(&mut self) {
        match client::receive(&self.socket, &mut self.decoder, &mut self.fds) {
            Ok(true) if self.fds.len() <= MAX_HELD_FDS => {}
            Ok(true) => self.dead = true,
            Ok(false) => {
                self.input_ended = true;
                self.dead |= self.mode == Mode::Control;
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => self.dead = true,
        }
    }

    /// The next request.
    pub(crate) fn request(&mut self) -> Option<ToMonitor> {
        if self.dead || self.mode != Mode::Control {
            return None;
        }
        self.decoder.next_message().unwrap_or_else(|_| {
            self.dead = true;
            None
        })
    }

    /// The descriptors that came with the request.
    pub(crate) fn take_fds(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.fds)
    }

    /// Becomes a byte stream; returns what of it came already.
    pub(crate) fn attach(&mut self, stdin: bool, outputs: [bool; 2]) -> Vec<u8> {
        self.mode = Mode::Attach { stdin, outputs };
        std::mem::take(&mut self.decoder).into_rest()
    }

    /// Sends a message.
    pub(crate) fn say(&mut self, seq: u64, message: Message, fd: Option<OwnedFd>) {
        if self.mode != Mode::Control {
            return;
        }
        match encode(&FromMonitor { seq, message }) {
            Ok(bytes) => self.push(&[&bytes], fd),
            Err(_) => self.dead = true,
        }
        self.dead |= self.queued > MAX_BACKLOG;
    }

    /// Sends bytes, or keeps what the socket does not take now.
    pub(crate) fn push(&mut self, parts: &[&[u8]], fd: Option<OwnedFd>) {
        if self.dead {
            return;
        }
        let mut piece = Piece {
            bytes: Vec::new(),
            sent: 0,
            fd,
        };
        let mut done = 0;
        if self.queue.is_empty() {
            match self.send(parts, piece.fd.as_ref().map(AsFd::as_fd)) {
                Some(n) => done = n,
                None => return,
            }
        }
        if done > 0 {
            piece.fd = None;
        }
        for part in parts {
            let skip = done.min(part.len());
            done -= skip;
            piece.bytes.extend_from_slice(&part[skip..]);
        }
        if !piece.bytes.is_empty() {
            self.queued += piece.bytes.len();
            self.queue.push_back(piece);
            self.waits.get_or_insert_with(Instant::now);
        }
    }

    /// Sends what was kept, as far as the socket takes it.
    pub(crate) fn flush(&mut self) {
        while let Some(mut piece) = self.queue.pop_front() {
            let fd = piece.fd.as_ref().map(AsFd::as_fd);
            let Some(n) = self.send(&[&piece.bytes[piece.sent..]], fd) else {
                return;
            };
            self.queued -= n;
            if n > 0 {
                piece.fd = None;
                self.waits = Some(Instant::now());
            }
            piece.sent += n;
            if piece.sent < piece.bytes.len() {
                self.queue.push_front(piece);
                return;
            }
        }
        self.queue.shrink_to_fit();
        self.waits = None;
    }

    /// How much the socket took; `None` when the client is gone.
    fn send(&mut self, parts: &[&[u8]], fd: Option<BorrowedFd<'_>>) -> Option<usize> {
        let parts: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p)).collect();
        match client::send_parts(self.socket.as_fd(), &parts, fd.as_slice()) {
            Ok(n) => Some(n),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Some(0),
            Err(_) => {
                self.dead = true;
                self.queue.clear();
                self.queued = 0;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_takes_nothing_is_not_waited_for_for_ever() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut conn = Conn::new(1, ours.into());
        conn.attach(false, [true, true]);
        let chunk = vec![0; 64 << 10];
        assert_eq!(conn.patience(Instant::now()), None);
        while !conn.backlog() {
            conn.push(&[&chunk], None);
        }
        let left = |conn: &Conn, later| conn.patience(Instant::now() + later);
        assert!(left(&conn, Duration::ZERO) > Some(PATIENCE / 2));
        assert_eq!(left(&conn, PATIENCE), Some(Duration::ZERO));
        // Whatever it takes, it is waited for anew, and not at all once it has everything.
        theirs.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; 1 << 20];
        while conn.backlog() {
            std::io::Read::read(&mut &theirs, &mut buffer).unwrap();
            conn.flush();
        }
        assert_eq!(left(&conn, PATIENCE), None);
    }
}
