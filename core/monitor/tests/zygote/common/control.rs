//! The control connection of a monitor.

use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use gantry_monitor::client;
use gantry_monitor::protocol::*;

use super::PATIENCE;

/// A control connection.
pub(crate) struct Control {
    pub(crate) socket: UnixStream,
    decoder: Decoder,
    pub(crate) fds: Vec<OwnedFd>,
    seq: u64,
    events: VecDeque<Message>,
}

impl Control {
    pub(crate) fn new(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            decoder: Decoder::default(),
            fds: Vec::new(),
            seq: 0,
            events: VecDeque::new(),
        }
    }

    fn read(&mut self) -> Option<FromMonitor> {
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                return Some(message);
            }
            if !client::receive(&self.socket, &mut self.decoder, &mut self.fds).expect("in time") {
                return None;
            }
        }
    }

    pub(crate) fn event(&mut self) -> Message {
        if let Some(event) = self.events.pop_front() {
            return event;
        }
        let message = self.read().expect("an event");
        assert_eq!(message.seq, 0, "{message:?}");
        message.message
    }

    /// The next message, whatever it is.
    pub(crate) fn next(&mut self) -> Message {
        self.events
            .pop_front()
            .unwrap_or_else(|| self.read().expect("a message").message)
    }

    pub(crate) fn ask(&mut self, request: Request) -> Message {
        self.ask_with(request, &[])
    }

    pub(crate) fn ask_with(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> Message {
        self.seq += 1;
        let seq = self.seq;
        let bytes = encode(&ToMonitor { seq, request }).unwrap();
        let n = client::send(&self.socket, &bytes, fds).unwrap();
        self.socket.write_all(&bytes[n..]).unwrap();
        loop {
            let message = self.read().expect("an answer");
            if message.seq == seq {
                return message.message;
            }
            self.events.push_back(message.message);
        }
    }

    pub(crate) fn ends(&mut self) {
        assert!(
            self.events.is_empty() && self.read().is_none(),
            "the connection ends"
        );
    }
}
