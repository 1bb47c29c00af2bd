//! One connection of the daemon: messages, until an `Attach` makes a byte stream of it.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gantry_monitor::client;
use gantry_monitor::protocol::{Decoder, FromMonitor, Message, ToMonitor, encode};

/// A client that lets more than this of messages pile up is dropped: it is not reading.
const MAX_BACKLOG: usize = 4 << 20;

/// The most descriptors a client may have sent without the message that they belong to.
const MAX_HELD_FDS: usize = 3;

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
        }
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
            }
            piece.sent += n;
            if piece.sent < piece.bytes.len() {
                self.queue.push_front(piece);
                return;
            }
        }
        self.queue.shrink_to_fit();
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
