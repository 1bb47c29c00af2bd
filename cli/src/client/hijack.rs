//! Connections taken over for attach and exec.
//!
//! Once HTTP is out of the way the socket is used in blocking mode by two threads, one a direction: output costs one
//! `read` and one `write` a buffer, and a reader of our output that stalls does not stop input or signals.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use rustix::net::Shutdown;
use tokio::sync::mpsc;

use super::Reply;
use super::frames::{Channel, Demux};
use super::transport::Stream;
use crate::error::ApiError;
use crate::terminal::detach::Watcher;

const BUFFER: usize = 256 << 10;

/// A socket that speaks raw bytes, and those of them that came with the headers.
pub(crate) struct Hijacked {
    socket: OwnedFd,
    early: Bytes,
}

/// Which of our streams take part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// Output is raw; otherwise it comes in frames.
    pub(crate) tty: bool,
}

/// What the pumps have to tell.
#[derive(Debug)]
pub(crate) enum Event {
    OutputDone(io::Result<()>),
    InputDone,
    Detached,
}

impl Hijacked {
    /// A connection on which no HTTP was spoken.
    pub(crate) fn from_stream(stream: Stream) -> io::Result<Self> {
        Ok(Self {
            socket: stream.into_blocking()?,
            early: Bytes::new(),
        })
    }

    pub(super) async fn from_reply(reply: Reply) -> Result<Self, ApiError> {
        let upgraded = hyper::upgrade::on(reply).await?;
        let parts = upgraded
            .downcast::<TokioIo<Stream>>()
            .map_err(|_| ApiError::Reply("the connection is not a socket of ours".into()))?;
        Ok(Self {
            socket: parts.io.into_inner().into_blocking()?,
            early: parts.read_buf,
        })
    }

    /// Starts copying; `keys` is watched for in the input if there is a terminal.
    pub(crate) fn start(self, wanted: Wanted, keys: Option<Vec<u8>>) -> io::Result<Pumps> {
        let (events, receiver) = mpsc::unbounded_channel();
        let socket = Arc::new(self.socket);
        if wanted.stdin {
            let (events, socket) = (events.clone(), File::from(socket.try_clone()?));
            std::thread::Builder::new()
                .name("stdin".into())
                .spawn(move || {
                    let event = pump_input(socket, keys.map(Watcher::new));
                    let _ = events.send(event);
                })?;
        }
        if wanted.stdout || wanted.stderr {
            let (socket, early) = (File::from(socket.try_clone()?), self.early);
            std::thread::Builder::new()
                .name("output".into())
                .spawn(move || {
                    let _ = events.send(Event::OutputDone(pump_output(socket, &early, wanted)));
                })?;
        }
        Ok(Pumps {
            receiver,
            wanted,
            socket,
        })
    }
}

/// A conversation under way.
pub(crate) struct Pumps {
    receiver: mpsc::UnboundedReceiver<Event>,
    wanted: Wanted,
    socket: Arc<OwnedFd>,
}

/// How a conversation ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Finished,
    /// The user typed the detach keys.
    Detached,
}

impl Pumps {
    /// Waits for the end of the output, or of the input where no output is wanted.
    pub(crate) async fn finished(&mut self) -> io::Result<Ended> {
        let output = self.wanted.stdout || self.wanted.stderr;
        if !output && !self.wanted.stdin {
            return Ok(Ended::Finished);
        }
        while let Some(event) = self.receiver.recv().await {
            match event {
                Event::OutputDone(result) => return result.map(|()| Ended::Finished),
                Event::Detached => return Ok(Ended::Detached),
                Event::InputDone if !output => return Ok(Ended::Finished),
                Event::InputDone => {}
            }
        }
        Ok(Ended::Finished)
    }

    /// Ends the conversation from our side.
    pub(crate) fn close(&self) {
        // A socket that the daemon has closed already needs no shutdown.
        let _ = rustix::net::shutdown(&*self.socket, Shutdown::Both);
    }
}

fn pump_input(mut socket: File, mut watcher: Option<Watcher>) -> Event {
    let mut buffer = vec![0; 64 << 10];
    let mut stdin = io::stdin().lock();
    loop {
        let read = match stdin.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let sent = match &mut watcher {
            None => socket.write_all(&buffer[..read]),
            Some(watcher) => {
                let filtered = watcher.filter(&buffer[..read]);
                let sent = socket.write_all(&filtered.pass);
                if filtered.detached {
                    return Event::Detached;
                }
                sent
            }
        };
        if sent.is_err() {
            return Event::InputDone;
        }
    }
    // The other side may have closed first.
    let _ = rustix::net::shutdown(&socket, Shutdown::Write);
    Event::InputDone
}

fn pump_output(mut socket: File, early: &[u8], wanted: Wanted) -> io::Result<()> {
    let mut demux = Demux::default();
    let mut deliver = |bytes: &[u8]| {
        if wanted.tty {
            return write(Channel::Stdout, bytes);
        }
        demux.feed(bytes, |channel, payload| match channel {
            Channel::Stdout if !wanted.stdout => Ok(()),
            Channel::Stderr if !wanted.stderr => Ok(()),
            channel => write(channel, payload),
        })
    };
    deliver(early)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => deliver(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Writes to our own output without its line buffer.
pub(crate) fn write(channel: Channel, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = match channel {
            Channel::Stdout => rustix::io::write(rustix::stdio::stdout(), bytes),
            Channel::Stderr => rustix::io::write(rustix::stdio::stderr(), bytes),
        };
        match written {
            Ok(count) => bytes = &bytes[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => wait_writable(channel)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Somebody else may have made our output non-blocking.
fn wait_writable(channel: Channel) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    let fd = match channel {
        Channel::Stdout => rustix::stdio::stdout(),
        Channel::Stderr => rustix::stdio::stderr(),
    };
    poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None)?;
    Ok(())
}
