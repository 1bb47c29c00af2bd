//! A place in a file of a log, and the lines from there.

use std::io::{self, Read};
use std::path::Path;

use crate::files::{self, LogFile, MAX_LINE};

/// Bytes read at once.
pub(crate) const CHUNK: usize = 256 << 10;

/// A place in a file, with the bytes of an unfinished line.
#[derive(Debug)]
pub(crate) struct Cursor {
    file: LogFile,
    /// Where in the file the next read begins.
    offset: u64,
    /// Nothing is read from here on.
    end: Option<u64>,
    /// Read, and not yet a whole line: `buffer[..held]`. What is behind it is room.
    buffer: Vec<u8>,
    held: usize,
}

/// What to do after a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next one.
    Line,
    /// Nothing more is wanted, this line included.
    Stop,
}

impl Cursor {
    /// `file` is at `offset`.
    pub(crate) fn new(file: LogFile, offset: u64, end: Option<u64>) -> Self {
        Self {
            file,
            offset,
            end,
            buffer: Vec::new(),
            held: 0,
        }
    }

    /// Which file it is in.
    pub(crate) fn first(&self) -> i64 {
        self.file.first
    }

    /// The file that comes after its own; `None` while that one is written to. `true`: its own is gone, and perhaps others.
    pub(crate) fn next(&self, path: &Path) -> io::Result<Option<(LogFile, bool)>> {
        match self.file.is_current(path)? {
            true => Ok(None),
            false => files::after(path, Some(self.file.first)),
        }
    }

    /// Where the first line begins that was not given out yet.
    pub(crate) fn place(&self) -> u64 {
        self.offset - self.held as u64
    }

    /// Reads a piece and gives out its lines, without their newlines. Returns how many bytes were read (0: there is no
    /// more at present), and whether it was told to stop.
    pub(crate) fn read(
        &mut self,
        mut each: impl FnMut(&[u8]) -> Next,
    ) -> io::Result<(usize, bool)> {
        let left = self.end.map(|end| end.saturating_sub(self.offset));
        let wanted = left.map_or(CHUNK, |left| {
            usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK))
        });
        if self.buffer.len() < self.held + wanted {
            self.buffer.resize(self.held + wanted, 0);
        }
        let room = &mut self.buffer[self.held..self.held + wanted];
        let read = loop {
            match self.file.read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.offset += read as u64;
        let filled = self.held + read;
        let (mut begin, mut stopped) = (0, false);
        // What was held has no newline in it.
        let mut from = self.held;
        while let Some(at) = memchr::memchr(b'\n', &self.buffer[from..filled]) {
            if each(&self.buffer[begin..from + at]) == Next::Stop {
                stopped = true;
                break;
            }
            from += at + 1;
            begin = from;
        }
        self.buffer.copy_within(begin..filled, 0);
        self.held = filled - begin;
        if self.held > MAX_LINE {
            self.held = 0;
        }
        if read == 0 && self.held == 0 {
            // A follower that waits keeps nothing.
            self.buffer = Vec::new();
        }
        Ok((read, stopped))
    }
}
