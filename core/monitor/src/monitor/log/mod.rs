//! The container's log: Docker's json-file, cut into lines as its copier cuts them.

mod file;
mod pack;
mod ring;

use std::os::fd::RawFd;

use gantry_monitor::plan::LogConfig;
use rustix::io::Errno;

use crate::fault::Step;
use crate::monitor::json;
use file::File;
use ring::Ring;

/// A longer line is cut into entries of this size; all but the last have no newline.
const MAX_LINE: usize = 16 << 10;

/// In nanoseconds. A clock that was set back further than this gives no time twice by chance.
const SECOND: i64 = 1_000_000_000;

/// So much is encoded before it is written, at most.
const BATCH: usize = 256 << 10;

/// The log of one container. Errors of the disk never stop the container: what cannot be written is dropped and counted.
#[derive(Debug)]
pub(crate) struct Log {
    sink: Sink,
    attrs: String,
    streams: [Stream; 2],
    out: Vec<u8>,
    /// The last time that was encoded: the entries of a chunk share theirs.
    stamp: (i64, Vec<u8>),
    /// The time of the first entry of the current file. Files are told apart by it, so no two have the same, however many
    /// are filled within one chunk.
    first: i64,
    /// Chunks that were lost.
    pub(crate) errors: u64,
}

/// Where entries go.
#[derive(Debug)]
enum Sink {
    Nowhere,
    /// Written at once: the container waits for the disk.
    File(File),
    /// Written by a child: what the disk does not take in time is dropped.
    Ring(Ring),
}

/// The unfinished line of one stream, and the time of its first part if parts of it were written.
#[derive(Debug, Default)]
struct Stream {
    line: Vec<u8>,
    since: Option<i64>,
}

impl Log {
    /// Opens the log, or none.
    pub(crate) fn open(config: Option<&LogConfig>) -> Step<Self> {
        let sink = match config {
            None => Sink::Nowhere,
            Some(config) => {
                let file = File::open(config)?;
                match config.buffer {
                    None => Sink::File(file),
                    Some(limit) => Sink::Ring(Ring::new(file, limit)?),
                }
            }
        };
        Ok(Self {
            sink,
            attrs: config.map(|c| c.attrs.clone()).unwrap_or_default(),
            streams: Default::default(),
            out: Vec::new(),
            stamp: (0, Vec::new()),
            first: i64::MIN,
            errors: 0,
        })
    }

    /// Rotations so far, and the size of the file.
    pub(crate) fn position(&self) -> (u32, u64) {
        match &self.sink {
            Sink::Nowhere => (0, 0),
            Sink::File(file) => file.position(),
            Sink::Ring(ring) => ring.position(),
        }
    }

    /// What of a stream (0 or 1) is not in the log yet.
    pub(crate) fn unfinished(&self, stream: usize) -> &[u8] {
        &self.streams[stream].line
    }

    /// Opens the file anew.
    pub(crate) fn reopen(&mut self) -> Result<(), Errno> {
        match &mut self.sink {
            Sink::Nowhere => Ok(()),
            Sink::File(file) => file.reopen(),
            Sink::Ring(ring) => {
                ring.reopen();
                Ok(())
            }
        }
    }

    /// To be polled for writing: entries wait for the child that writes them.
    pub(crate) fn blocked(&self) -> Option<RawFd> {
        match &self.sink {
            Sink::Ring(ring) => ring.blocked(),
            _ => None,
        }
    }

    /// Gives the child what it takes.
    pub(crate) fn push(&mut self) {
        if let Sink::Ring(ring) = &mut self.sink {
            ring.push();
        }
    }

    /// Whether a dead child was the log's.
    pub(crate) fn reaped(&mut self, pid: i32, status: i32) -> bool {
        match &mut self.sink {
            Sink::Nowhere => false,
            Sink::File(file) => file.packed(pid, status),
            Sink::Ring(ring) => ring.ended(pid),
        }
    }

    /// Takes a chunk of a stream (0 or 1) that came at `now`.
    pub(crate) fn write(&mut self, stream: usize, chunk: &[u8], now: i64) {
        if matches!(self.sink, Sink::Nowhere) {
            return;
        }
        let mut rest = chunk;
        let mut lost = false;
        while !rest.is_empty() {
            let room = MAX_LINE - self.streams[stream].line.len();
            let window = &rest[..rest.len().min(room)];
            let end = memchr::memchr(b'\n', window);
            let take = end.unwrap_or(window.len());
            let complete = end.is_some();
            if !complete && take < room {
                self.streams[stream].line.extend_from_slice(window);
                break;
            }
            lost |= self.entry(stream, &rest[..take], complete, now).is_err();
            rest = &rest[take + usize::from(complete)..];
        }
        self.count(lost);
        // The memory of a burst is given back when it is over.
        if chunk.len() < MAX_LINE && self.out.capacity() > 2 * MAX_LINE {
            self.out = Vec::new();
        }
    }

    /// Writes what is unfinished, and waits until everything is written: the container ended.
    pub(crate) fn finish(&mut self, now: i64) {
        let mut lost = false;
        for stream in 0..2 {
            if !self.streams[stream].line.is_empty() {
                lost |= self.entry(stream, &[], false, now).is_err();
            }
        }
        self.count(lost);
        match &mut self.sink {
            Sink::Nowhere => {}
            Sink::File(file) => file.finish(),
            Sink::Ring(ring) => ring.finish(),
        }
        self.count(false);
    }

    fn count(&mut self, lost: bool) {
        let refused = match &self.sink {
            Sink::Ring(ring) => ring.refused(),
            _ => 0,
        };
        let lost = u64::from(self.flush().is_err() || lost) + refused;
        if lost > 0 && self.errors == 0 {
            eprintln!("gantry-monitor: cannot write container log, output is lost");
        }
        self.errors += lost;
        self.push();
    }

    /// Begins a new file when the current one is full. Says whether the next entry is the first of a file.
    fn rotate(&mut self) -> (bool, Result<(), Errno>) {
        let (_, size) = self.position();
        let ahead = size + self.out.len() as u64;
        let full = match &self.sink {
            Sink::Nowhere => false,
            Sink::File(file) => file.full(ahead),
            Sink::Ring(ring) => ring.full(ahead),
        };
        if !full {
            return (ahead == 0, Ok(()));
        }
        let written = self.flush();
        let rotated = match &mut self.sink {
            Sink::Nowhere => Ok(()),
            Sink::File(file) => file.rotate(),
            Sink::Ring(ring) => {
                ring.rotate();
                Ok(())
            }
        };
        (rotated.is_ok(), written.and(rotated))
    }

    /// Encodes one entry: what is unfinished of the stream and `tail`, with a newline when it is a line's end.
    fn entry(&mut self, stream: usize, tail: &[u8], complete: bool, now: i64) -> Result<(), Errno> {
        let (begins, mut result) = self.rotate();
        let state = &mut self.streams[stream];
        let mut time = state.since.unwrap_or(now);
        state.since = (!complete).then_some(time);
        if begins {
            if (0..SECOND).contains(&self.first.saturating_sub(time)) {
                time = self.first + 1;
            }
            self.first = time;
        }
        let out = &mut self.out;
        out.extend_from_slice(br#"{"log":""#);
        if state.line.is_empty() {
            json::escape(out, tail);
        } else {
            state.line.extend_from_slice(tail);
            json::escape(out, &state.line);
            state.line.clear();
        }
        if complete {
            out.extend_from_slice(br"\n");
        }
        out.extend_from_slice(br#"","stream":""#);
        out.extend_from_slice(if stream == 0 { b"stdout" } else { b"stderr" });
        out.push(b'"');
        if !self.attrs.is_empty() {
            out.extend_from_slice(br#","attrs":"#);
            out.extend_from_slice(self.attrs.as_bytes());
        }
        out.extend_from_slice(br#","time":""#);
        let (of, text) = &mut self.stamp;
        if *of != time || text.is_empty() {
            *of = time;
            text.clear();
            json::rfc3339(text, time);
        }
        out.extend_from_slice(text);
        out.extend_from_slice(b"\"}\n");
        // A ring drops entries one by one.
        if self.out.len() >= BATCH || matches!(self.sink, Sink::Ring(_)) {
            result = result.and(self.flush());
        }
        result
    }

    fn flush(&mut self) -> Result<(), Errno> {
        let result = match &mut self.sink {
            _ if self.out.is_empty() => Ok(()),
            Sink::Nowhere => Ok(()),
            Sink::File(file) => file.write(&self.out),
            Sink::Ring(ring) => ring.put(&self.out),
        };
        self.out.clear();
        result
    }
}

#[cfg(test)]
mod tests;
