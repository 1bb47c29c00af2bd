//! The container's standard streams as the monitor holds them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use gantry_monitor::plan::Stdio;
use gantry_monitor::protocol::Stage;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use crate::fault::{At, Step};
use crate::monitor::conn::Conn;
use crate::monitor::log::Log;
use crate::sys;

/// Output is read in pieces of this size, which is also what the kernel's pipes hold.
const CHUNK: usize = 64 << 10;

/// A container that fills its pipe gets a larger one, and is read in larger pieces: fewer turns for the same bytes.
const LARGE_PIPE: usize = 1 << 20;
const LARGE_CHUNK: usize = 4 * CHUNK;

/// After the end so much is still taken of a stream that somebody outside the container holds open.
const MAX_TAIL: usize = 4 << 20;

/// The monitor's ends.
#[derive(Debug)]
pub(crate) struct Streams {
    tty: bool,
    stdin_once: bool,
    stdin: Option<OwnedFd>,
    /// Input that the container has not taken yet.
    pending: Vec<u8>,
    /// Close the input once nothing is pending.
    ending: bool,
    outputs: [Option<OwnedFd>; 2],
    /// Which outputs have a large pipe.
    large: [bool; 2],
    buffer: Vec<u8>,
}

impl Streams {
    /// Makes pipes; returns the container's ends too. With a terminal there is nothing until it comes.
    pub(crate) fn open(stdio: &Stdio) -> Step<(Self, Option<[OwnedFd; 3]>)> {
        let mut streams = Self {
            tty: stdio.tty,
            stdin_once: stdio.stdin_once,
            stdin: None,
            pending: Vec::new(),
            ending: false,
            outputs: [None, None],
            large: [false, false],
            // So large that the allocator maps it apart, zeroed and untouched until it is used.
            buffer: vec![0; LARGE_CHUNK],
        };
        if stdio.tty {
            return Ok((streams, None));
        }
        let theirs = streams.pipes(stdio.open_stdin);
        let theirs = theirs.at(Stage::Monitor, || "open standard streams".into())?;
        Ok((streams, Some(theirs)))
    }

    fn pipes(&mut self, open_stdin: bool) -> Result<[OwnedFd; 3], Errno> {
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
        let input = if open_stdin {
            let (theirs, ours) = pipe()?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            self.stdin = Some(ours);
            theirs
        } else {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::open("/dev/null", flags, Mode::empty())?
        };
        let (out, err) = (pipe()?, pipe()?);
        for ours in [&out.0, &err.0] {
            rustix::io::ioctl_fionbio(ours, true)?;
        }
        self.outputs = [Some(out.0), Some(err.0)];
        Ok([input, out.1, err.1])
    }

    /// Takes the master side of the container's terminal.
    pub(crate) fn set_terminal(&mut self, master: OwnedFd) -> Result<(), Errno> {
        rustix::io::ioctl_fionbio(&master, true)?;
        self.stdin = Some(rustix::io::fcntl_dupfd_cloexec(&master, 3)?);
        self.outputs[0] = Some(master);
        Ok(())
    }

    /// The terminal's master side.
    pub(crate) fn terminal(&self) -> Option<&OwnedFd> {
        self.outputs[0].as_ref().filter(|_| self.tty)
    }

    /// The descriptor of an output (0 or 1) while it is open.
    pub(crate) fn output(&self, stream: usize) -> Option<RawFd> {
        self.outputs[stream].as_ref().map(AsRawFd::as_raw_fd)
    }

    /// The input's descriptor while something waits for it.
    pub(crate) fn blocked_input(&self) -> Option<RawFd> {
        let fd = self.stdin.as_ref().filter(|_| !self.pending.is_empty());
        fd.map(AsRawFd::as_raw_fd)
    }

    /// Whether input may be taken from clients.
    pub(crate) fn takes_input(&self) -> bool {
        self.pending.is_empty()
    }

    /// Reads a chunk of an output and passes it on; says how much, 0 for nothing (now, or any more).
    pub(crate) fn pump(&mut self, stream: usize, log: &mut Log, conns: &mut [Conn]) -> usize {
        let Some(fd) = &self.outputs[stream] else {
            return 0;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let size = if self.large[stream] {
            LARGE_CHUNK
        } else {
            CHUNK
        };
        let chunk = &mut buffer[..size];
        let n = match rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut *chunk)) {
            Ok(0) => None,
            Ok(CHUNK) if !self.tty && !self.large[stream] => {
                // Not to be had beyond what an administrator allows.
                self.large[stream] = rustix::pipe::fcntl_setpipe_size(fd, LARGE_PIPE).is_ok();
                Some(CHUNK)
            }
            Ok(n) => Some(n),
            Err(Errno::AGAIN) => Some(0),
            // EIO: nobody has the terminal open any more.
            Err(_) => None,
        };
        match n {
            Some(n) if n > 0 => {
                log.write(stream, &chunk[..n], sys::now());
                for conn in conns.iter_mut().filter(|c| c.wants(stream)) {
                    send(conn, self.tty, stream, &chunk[..n]);
                }
            }
            Some(_) => {}
            None => self.outputs[stream] = None,
        }
        self.buffer = buffer;
        n.unwrap_or(0)
    }

    /// Takes what is left in the outputs after the end.
    pub(crate) fn drain(&mut self, log: &mut Log, conns: &mut [Conn]) {
        for stream in 0..2 {
            let mut total = 0;
            while total < MAX_TAIL {
                match self.pump(stream, log, conns) {
                    0 => break,
                    n => total += n,
                }
            }
            self.outputs[stream] = None;
        }
        self.stdin = None;
    }

    /// Gives a newly attached client the lines that are unfinished.
    pub(crate) fn replay(&self, log: &Log, conn: &mut Conn) {
        for stream in (0..2).filter(|s| conn.wants(*s)).collect::<Vec<_>>() {
            if !log.unfinished(stream).is_empty() {
                send(conn, self.tty, stream, log.unfinished(stream));
            }
        }
    }

    /// Reads input of an attached client and gives it to the container.
    pub(crate) fn read_input(&mut self, conn: &mut Conn) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let chunk = &mut buffer[..CHUNK];
        match rustix::io::retry_on_intr(|| rustix::io::read(&conn.socket, &mut *chunk)) {
            Ok(0) | Err(Errno::CONNRESET) => {
                conn.input_ended = true;
                self.client_ended();
            }
            Ok(n) => self.input(&chunk[..n]),
            Err(Errno::AGAIN) => {}
            Err(_) => conn.dead = true,
        }
        self.buffer = buffer;
    }

    /// A client that gave input has ended it, or is gone.
    pub(crate) fn client_ended(&mut self) {
        if self.stdin_once && !self.tty {
            self.ending = true;
            self.write_input();
        }
    }

    /// Input for the container; without an open input it is dropped.
    pub(crate) fn input(&mut self, bytes: &[u8]) {
        if self.stdin.is_some() {
            self.pending.extend_from_slice(bytes);
            self.write_input();
        }
    }

    /// Writes what is pending, as far as the container takes it.
    pub(crate) fn write_input(&mut self) {
        let mut done = 0;
        while let Some(fd) = self.stdin.as_ref().filter(|_| done < self.pending.len()) {
            let rest = &self.pending[done..];
            match rustix::io::retry_on_intr(|| rustix::io::write(fd.as_fd(), rest)) {
                Ok(n) => done += n,
                Err(Errno::AGAIN) => break,
                // The container has closed it.
                Err(_) => {
                    done = self.pending.len();
                    if !self.tty {
                        self.stdin = None;
                    }
                }
            }
        }
        self.pending.drain(..done);
        if self.pending.is_empty() {
            self.pending = Vec::new();
            if self.ending {
                self.stdin = None;
            }
        }
    }
}

/// Sends output to an attached client: framed as Docker does, or bare for a terminal.
fn send(conn: &mut Conn, tty: bool, stream: usize, bytes: &[u8]) {
    if tty {
        return conn.push(&[bytes], None);
    }
    let mut head = [0; 8];
    head[0] = stream as u8 + 1;
    head[4..].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
    conn.push(&[&head, bytes], None);
}
