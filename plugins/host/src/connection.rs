//! The engine's end of the socket: several calls in flight, without a thread of its own.
//!
//! Whoever waits for a reply reads the socket for all who wait: one caller at a time has that role, and hands on what is
//! not its own. A single call thus costs one send and one receive, and no thread is woken but the caller's.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use gantry_driver_api::Call;
use parking_lot::{Condvar, Mutex};

use crate::wire::{self, PACKET, ReplyStatus};

/// Why a call brought no reply.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The other side is gone.
    Dead,
    /// The deadline passed.
    Late,
    /// The request could not be sent.
    Unsendable(io::Error),
}

/// One driver process's socket.
pub(crate) struct Connection {
    socket: OwnedFd,
    next: AtomicU64,
    /// Calls that were given up and are still running over there.
    overdue: AtomicUsize,
    shared: Mutex<Shared>,
    change: Condvar,
}

struct Shared {
    /// Calls in flight, and the replies that somebody else read for them.
    calls: HashMap<u64, Option<(ReplyStatus, Vec<u8>)>>,
    /// The receive buffer; absent while somebody reads.
    buffer: Option<Vec<u8>>,
    dead: bool,
}

impl Connection {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            next: AtomicU64::new(1),
            overdue: AtomicUsize::new(0),
            shared: Mutex::new(Shared {
                calls: HashMap::new(),
                buffer: Some(vec![0; PACKET]),
                dead: false,
            }),
            change: Condvar::new(),
        }
    }

    /// How many calls were given up whose replies have not come since.
    pub(crate) fn overdue(&self) -> usize {
        self.overdue.load(Ordering::Relaxed)
    }

    /// Wakes everybody with `Dead`, now and from now on.
    pub(crate) fn close(&self) {
        // It fails when the socket is disconnected already.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        self.shared.lock().dead = true;
        self.change.notify_all();
    }

    /// Sends a request and waits for its reply, at most until `end`.
    pub(crate) fn call(
        &self,
        method: &str,
        call: &Call<'_>,
        body: &[u8],
        end: Option<Instant>,
        reply: &mut Vec<u8>,
    ) -> Result<ReplyStatus, Lost> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut shared = self.shared.lock();
            if shared.dead {
                return Err(Lost::Dead);
            }
            shared.calls.insert(id, None);
        }
        let names = (method, call.operation);
        let socket = self.socket.as_fd();
        if let Err(e) = wire::send_request(socket, id, call.timeout, names, body, call.fds, end) {
            self.shared.lock().calls.remove(&id);
            return Err(match e.kind() {
                io::ErrorKind::TimedOut => Lost::Late,
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Lost::Dead,
                _ => Lost::Unsendable(e),
            });
        }
        let result = self.wait(id, end, reply);
        if matches!(result, Err(Lost::Late)) {
            self.overdue.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn wait(
        &self,
        id: u64,
        end: Option<Instant>,
        reply: &mut Vec<u8>,
    ) -> Result<ReplyStatus, Lost> {
        let mut shared = self.shared.lock();
        loop {
            if let Some(Some(_)) = shared.calls.get(&id)
                && let Some(Some((status, bytes))) = shared.calls.remove(&id)
            {
                *reply = bytes;
                return Ok(status);
            }
            if shared.dead {
                shared.calls.remove(&id);
                return Err(Lost::Dead);
            }
            let Some(mut buffer) = shared.buffer.take() else {
                let late = match end {
                    Some(end) => self.change.wait_until(&mut shared, end).timed_out(),
                    None => {
                        self.change.wait(&mut shared);
                        false
                    }
                };
                if late && !matches!(shared.calls.get(&id), Some(Some(_))) {
                    shared.calls.remove(&id);
                    return Err(Lost::Late);
                }
                continue;
            };
            drop(shared);
            let read = self.read(&mut buffer, id, end, reply);
            shared = self.shared.lock();
            shared.buffer = Some(buffer);
            let done = match read {
                Ok(Read::Mine(status)) => Some(Ok(status)),
                Ok(Read::Other(other, status, bytes)) => {
                    match shared.calls.get_mut(&other) {
                        Some(place) => *place = Some((status, bytes)),
                        None => drop(self.overdue.fetch_sub(1, Ordering::Relaxed)),
                    }
                    None
                }
                Err(e) if e.kind() == io::ErrorKind::TimedOut => Some(Err(Lost::Late)),
                // A packet that makes no sense is as bad as none: the process is not to be trusted any more.
                Ok(Read::End) | Err(_) => {
                    shared.dead = true;
                    Some(Err(Lost::Dead))
                }
            };
            if let Some(result) = done {
                shared.calls.remove(&id);
                // Somebody else must read now.
                if !shared.calls.is_empty() {
                    self.change.notify_all();
                }
                return result;
            }
            self.change.notify_all();
        }
    }

    fn read(
        &self,
        buffer: &mut [u8],
        id: u64,
        end: Option<Instant>,
        reply: &mut Vec<u8>,
    ) -> io::Result<Read> {
        let Some(mut packet) = wire::receive(self.socket.as_fd(), buffer, end)? else {
            return Ok(Read::End);
        };
        let incoming = wire::parse_reply(&buffer[..packet.length], &mut packet.fds)?;
        if incoming.id == id {
            incoming.body.read_into(reply)?;
            return Ok(Read::Mine(incoming.status));
        }
        let mut bytes = Vec::new();
        incoming.body.read_into(&mut bytes)?;
        Ok(Read::Other(incoming.id, incoming.status, bytes))
    }
}

/// What one receive brought.
enum Read {
    Mine(ReplyStatus),
    Other(u64, ReplyStatus, Vec<u8>),
    End,
}
