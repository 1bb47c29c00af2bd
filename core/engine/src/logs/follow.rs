//! Reading the files one after the other, and waiting for more.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::Sender;

use super::files::{self, LogFile};
use super::line::{Filter, Outcome};
use super::{LogLine, Source, tail};
use crate::Result;

/// Bytes read at once.
const CHUNK: usize = 128 << 10;
/// A line longer than this is not one that a monitor wrote.
const MAX_LINE: usize = 1 << 20;

/// A place in a log, with the bytes of an unfinished line.
struct Cursor {
    file: LogFile,
    offset: u64,
    rest: Vec<u8>,
    /// Nothing is read from here on.
    end: Option<u64>,
}

/// What one read brought.
struct Batch {
    lines: Vec<LogLine>,
    /// Bytes read; 0 at the end of the file.
    read: usize,
    /// A line after the wanted time was met.
    ended: bool,
}

impl Cursor {
    fn new(file: LogFile, offset: u64) -> Self {
        Self {
            file,
            offset,
            rest: Vec::new(),
            end: None,
        }
    }

    fn read(&mut self, filter: &Filter) -> io::Result<Batch> {
        let mut batch = Batch {
            lines: Vec::new(),
            read: 0,
            ended: false,
        };
        let held = self.rest.len();
        let left = self.end.map(|end| end.saturating_sub(self.offset));
        let wanted = left.map_or(CHUNK, |left| {
            usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK))
        });
        self.rest.resize(held + wanted, 0);
        let outcome = self.file.file.read_at(&mut self.rest[held..], self.offset);
        batch.read = *outcome.as_ref().unwrap_or(&0);
        self.rest.truncate(held + batch.read);
        outcome?;
        self.offset += batch.read as u64;
        let mut begin = 0;
        while let Some(length) = self.rest[begin..].iter().position(|b| *b == b'\n') {
            match filter.read(&self.rest[begin..begin + length]) {
                Outcome::Show(line) => batch.lines.push(line),
                Outcome::Skip => {}
                Outcome::End => {
                    batch.ended = true;
                    break;
                }
            }
            begin += length + 1;
        }
        self.rest.drain(..begin);
        if self.rest.len() > MAX_LINE {
            self.rest.clear();
        }
        Ok(batch)
    }
}

/// How reading came to a stop.
#[derive(PartialEq, Eq)]
enum Stop {
    /// Nothing more is there yet.
    AtEnd,
    /// The client went, or has all it wanted.
    Done,
}

/// Sends the log from the tail on; with `follow`, until the container has ended and all is sent.
pub(super) async fn run(
    source: Source,
    filter: Filter,
    tail: Option<u64>,
    follow: bool,
    sender: &Sender<Result<Vec<LogLine>>>,
) -> io::Result<()> {
    let Source {
        path,
        mut progress,
        end,
    } = source;
    // Before the first read, so that no growth goes unnoticed.
    let watch = match follow {
        true => Some(Watch::new(&path)?),
        false => None,
    };
    let mut cursor = None;
    let place = path.clone();
    let (files, first, offset) = blocking(move || {
        let files = files::all(&place)?;
        let (first, offset) = match tail {
            Some(lines) => tail::start(&files, lines)?,
            None => (0, 0),
        };
        Ok((files, first, offset))
    })
    .await?;
    let current = files.len().saturating_sub(1);
    for (index, file) in files.into_iter().enumerate().skip(first) {
        let mut next = Cursor::new(file, if index == first { offset } else { 0 });
        next.end = end.filter(|_| index == current);
        let (next, stop) = drain(next, &filter, sender).await?;
        if stop == Stop::Done {
            return Ok(());
        }
        cursor = Some(next);
    }
    let Some(watch) = watch else {
        return Ok(());
    };
    loop {
        // Asked before reading: what is written before the end is then read after it was asked.
        let over = !progress.borrow_and_update().running;
        let (next, stop) = advance(cursor, &path, &filter, sender).await?;
        cursor = next;
        if stop == Stop::Done || over {
            return Ok(());
        }
        tokio::select! {
            grown = watch.changed() => grown?,
            // An error means that the container is gone: one last look.
            _ = progress.changed() => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

/// Reads what has come since, through rotations.
async fn advance(
    mut cursor: Option<Cursor>,
    path: &Path,
    filter: &Filter,
    sender: &Sender<Result<Vec<LogLine>>>,
) -> io::Result<(Option<Cursor>, Stop)> {
    loop {
        if let Some(current) = cursor {
            let (current, stop) = drain(current, filter, sender).await?;
            if stop == Stop::Done {
                return Ok((Some(current), stop));
            }
            cursor = Some(current);
        }
        let identity = cursor.as_ref().map_or((0, 0), |c| c.file.identity);
        let place = path.to_owned();
        match blocking(move || files::successor(&place, identity)).await? {
            Some(file) => {
                // The last bytes of the old file may have come after it was read, before it was rotated.
                if let Some(old) = cursor.take() {
                    let (_, stop) = drain(old, filter, sender).await?;
                    if stop == Stop::Done {
                        return Ok((None, stop));
                    }
                }
                cursor = Some(Cursor::new(file, 0));
            }
            None => return Ok((cursor, Stop::AtEnd)),
        }
    }
}

/// Sends a file from the cursor to its present end.
async fn drain(
    mut cursor: Cursor,
    filter: &Filter,
    sender: &Sender<Result<Vec<LogLine>>>,
) -> io::Result<(Cursor, Stop)> {
    loop {
        let owned = filter.clone();
        let (next, batch) = blocking(move || {
            let batch = cursor.read(&owned)?;
            Ok((cursor, batch))
        })
        .await?;
        cursor = next;
        if !batch.lines.is_empty() && sender.send(Ok(batch.lines)).await.is_err() {
            return Ok((cursor, Stop::Done));
        }
        if batch.ended {
            return Ok((cursor, Stop::Done));
        }
        if batch.read < CHUNK {
            return Ok((cursor, Stop::AtEnd));
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

/// Notices writes to, and renames of, the files in a log's directory.
struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    fn new(path: &Path) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let notify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(
            &notify,
            directory,
            inotify::WatchFlags::MODIFY
                | inotify::WatchFlags::CREATE
                | inotify::WatchFlags::MOVED_TO,
        )?;
        Ok(Self(crate::stream::pollable(notify)?))
    }

    async fn changed(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut events = [0u8; 4096];
        // What happened does not matter: the reader looks at everything. Emptying the queue rearms the descriptor.
        while let Ok(read) = rustix::io::read(self.0.get_ref(), &mut events) {
            if read == 0 {
                break;
            }
        }
        ready.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
