//! The loop that forwards one container's log: reads from the cursor, delivers, moves the cursor.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::cursor::{Place, PlaceFile};
use super::message::Parts;
use super::{Forwarder, Message, Patience};
use crate::Alive;
use crate::entry::Entry;
use crate::files;
use crate::read::{Cursor, Next, blocking};
use crate::watch::Watch;

/// A log to be forwarded.
pub struct Job<A> {
    /// The container, for the daemon's own log.
    pub container: String,
    /// The current file of the log.
    pub path: PathBuf,
    /// Where it is kept how far it was forwarded.
    pub cursor: PathBuf,
    /// The receiver.
    pub forwarder: Box<dyn Forwarder>,
    /// Tells when the container has ended; the log is complete by then.
    pub alive: watch::Receiver<A>,
    /// Cuts the wait between two tries short.
    pub hurry: Arc<Notify>,
}

/// Forwards until the container has ended and everything was delivered or given up.
///
/// Dropped at any point and run again, it goes on with what was not certainly delivered.
///
/// # Errors
/// Of the local files. A receiver that cannot be reached is no error: it is tried again, ever more seldom.
pub async fn run<A: Alive>(job: Job<A>) -> io::Result<()> {
    let Job {
        container,
        path,
        cursor,
        forwarder,
        mut alive,
        hurry,
    } = job;
    // Before the first read, so that no growth goes unnoticed.
    let watch = Watch::new(&path)?;
    let (kept, place) = PlaceFile::open(&cursor)?;
    let mut source = Source {
        cursor: None,
        parts: Parts::default(),
        container: container.clone(),
    };
    if let Some(place) = place {
        let at = path.clone();
        source.cursor = blocking(move || reopen(&at, place)).await?;
        if source.cursor.is_none() {
            source.lost();
        }
    }
    let mut sink = Sink {
        patience: forwarder.patience(),
        forwarder,
        kept,
        hurry,
        container,
    };
    loop {
        // Asked before reading: what is written before the end is then read after it was asked.
        let over = !alive.borrow_and_update().running();
        loop {
            let (next, piece) = {
                let (mut source, path) = (source, path.clone());
                blocking(move || source.piece(&path).map(|piece| (source, piece))).await?
            };
            source = next;
            match piece {
                Some(piece) => sink.deliver(piece).await?,
                None => break,
            }
        }
        if over {
            return Ok(());
        }
        tokio::select! {
            grown = watch.changed() => grown?,
            // An error means that the container is gone: one last look.
            _ = alive.changed() => {}
        }
    }
}

/// Messages that were read at once, and where in the file each of them ends.
struct Piece {
    first: i64,
    messages: Vec<(Message, u64)>,
    /// Where the piece ends, messages or not.
    end: u64,
}

/// The log, read piece by piece.
struct Source {
    cursor: Option<Cursor>,
    parts: Parts,
    container: String,
}

/// The cursor at a place; `None` when its file is gone.
fn reopen(path: &Path, place: Place) -> io::Result<Option<Cursor>> {
    let files = files::list(path)?;
    let Some(mut file) = files.into_iter().find(|file| file.first == place.first) else {
        return Ok(None);
    };
    // A power cut may have taken more of the log than of the cursor.
    let offset = match file.size()? {
        Some(size) if size < place.offset => 0,
        _ => place.offset,
    };
    file.seek(offset)?;
    Ok(Some(Cursor::new(file, offset, None)))
}

impl Source {
    fn lost(&self) {
        tracing::warn!(
            container = %self.container,
            "log files were rotated away or cleared before they were forwarded: output may be missing at the receiver"
        );
    }

    /// Reads on; `None` when there is no more at present.
    fn piece(&mut self, path: &Path) -> io::Result<Option<Piece>> {
        loop {
            if let Some(piece) = self.read()? {
                return Ok(Some(piece));
            }
            let found = match &self.cursor {
                Some(cursor) => cursor.next(path)?,
                None => files::after(path, None)?,
            };
            let Some((file, gone)) = found else {
                return Ok(None);
            };
            // The last bytes of the old file may have come after it was read, before it was rotated.
            if let Some(piece) = self.read()? {
                return Ok(Some(piece));
            }
            if gone && self.cursor.is_some() {
                self.lost();
            }
            self.cursor = Some(Cursor::new(file, 0, None));
        }
    }

    fn read(&mut self) -> io::Result<Option<Piece>> {
        let Some(cursor) = &mut self.cursor else {
            return Ok(None);
        };
        let (first, mut end) = (cursor.first(), cursor.place());
        let mut messages = Vec::new();
        let (read, _) = cursor.read(|line| {
            end += line.len() as u64 + 1;
            if let Some(entry) = Entry::parse(line) {
                messages.push((self.parts.message(&entry), end));
            }
            Next::Line
        })?;
        Ok((read > 0).then_some(Piece {
            first,
            messages,
            end,
        }))
    }
}

/// The receiver, and what is known of it.
struct Sink {
    forwarder: Box<dyn Forwarder>,
    patience: Patience,
    kept: PlaceFile,
    hurry: Arc<Notify>,
    container: String,
}

impl Sink {
    /// Delivers, however long it takes.
    async fn deliver(&mut self, piece: Piece) -> io::Result<()> {
        let Piece {
            first,
            messages,
            end,
        } = piece;
        let (messages, ends): (Vec<Message>, Vec<u64>) = messages.into_iter().unzip();
        let (mut from, mut tries, mut wait) = (0, 0, self.patience.wait);
        while from < messages.len() {
            let to = from + fitting(&messages[from..], self.patience.batch);
            let outcome = self.forwarder.send(&messages[from..to]).await;
            let delivered = match &outcome {
                Ok(()) => to,
                Err(undelivered) => from + undelivered.sent.min(to - from),
            };
            if delivered > from {
                self.keep(first, ends[delivered - 1])?;
                from = delivered;
            }
            let Err(undelivered) = outcome else {
                if tries > 0 {
                    tracing::info!(container = %self.container, "logs are forwarded again");
                }
                (tries, wait) = (0, self.patience.wait);
                continue;
            };
            tries += 1;
            if tries == 1 {
                tracing::warn!(container = %self.container, error = %undelivered.error, "cannot forward logs, trying again");
            }
            if self.patience.tries.is_some_and(|most| tries > most) {
                tracing::warn!(container = %self.container, messages = to - from, error = %undelivered.error, "gave up forwarding logs");
                self.keep(first, ends[to - 1])?;
                (from, tries, wait) = (to, 0, self.patience.wait);
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(Patience::MAX_WAIT),
                () = self.hurry.notified() => {}
            }
        }
        self.keep(first, end)
    }

    fn keep(&self, first: i64, offset: u64) -> io::Result<()> {
        self.kept.put(Place { first, offset })
    }
}

/// How many messages make a batch of so many bytes; at least one.
fn fitting(messages: &[Message], most: usize) -> usize {
    let mut bytes = 0;
    let fit = messages.iter().take_while(|message| {
        bytes += message.text.len();
        bytes <= most
    });
    fit.count().max(1)
}

#[cfg(test)]
mod tests;
