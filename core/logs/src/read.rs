//! Reading a log: rotated files included, from the end, and as it grows.

mod cursor;
mod render;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::{mpsc, watch};

use crate::Alive;
use crate::files::{self, LogFile};
use crate::tail;
use crate::watch::Watch;

pub(crate) use cursor::{CHUNK, Cursor, Next};
use render::Renderer;
pub use render::View;

/// Pieces that wait for a slow client, at most.
const AHEAD: usize = 4;

/// Where a log is, and until when it grows.
#[derive(Debug)]
pub struct Source<A> {
    /// The current file; rotated ones have `.1`, `.2`, ... appended.
    pub path: PathBuf,
    /// Tells when the container has ended; the log is complete by then.
    pub alive: watch::Receiver<A>,
    /// Nothing is read beyond this many bytes of the file that is the current one as this is made; `None`: everything.
    pub end: Option<u64>,
}

/// Entries as a client gets them: framed as Docker multiplexes them, or bare. Starts with the last `tail` lines
/// (`None`: all); with `follow` it goes on until the container has ended.
///
/// Must be called within a Tokio runtime; reading stops when the stream is dropped.
pub fn stream<A: Alive>(
    source: Source<A>,
    view: View,
    tail: Option<u64>,
    follow: bool,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let until = view.until.filter(|_| follow);
        let reading = run(source, view, tail, follow, &sender);
        let outcome = tokio::select! {
            outcome = reading => outcome,
            () = passed(until) => Ok(()),
        };
        if let Err(error) = outcome {
            // The receiver may be gone: then nobody wants to know.
            let _ = sender.send(Err(error)).await;
        }
    });
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    })
}

/// Waits for a time (nanoseconds since the epoch), and a moment for what was written until then; `None`: for ever.
async fn passed(until: Option<i64>) {
    let Some(until) = until else {
        return std::future::pending().await;
    };
    let left = i128::from(until) - gantry_model::Timestamp::now().nanoseconds();
    let left = u64::try_from(left).unwrap_or(0);
    tokio::time::sleep(Duration::from_nanos(left) + Duration::from_millis(100)).await;
}

/// How reading came to a stop.
#[derive(PartialEq, Eq)]
enum Stop {
    /// Nothing more is there yet.
    AtEnd,
    /// The client went, or has all it wanted.
    Done,
}

/// Where the reader is, and who gets what it reads. Moves to a thread that may block for each piece.
struct Reader {
    cursor: Option<Cursor>,
    renderer: Renderer,
}

async fn run<A: Alive>(
    source: Source<A>,
    view: View,
    tail: Option<u64>,
    follow: bool,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let Source {
        path,
        mut alive,
        end,
    } = source;
    // Before the first read, so that no growth goes unnoticed.
    let watch = match follow {
        true => Some(Watch::new(&path)?),
        false => None,
    };
    let place = path.clone();
    let Begin {
        files,
        first,
        offset,
        limit,
    } = blocking(move || begin(&place, end, tail)).await?;
    let mut reader = Reader {
        cursor: None,
        renderer: Renderer::new(view),
    };
    let last = files.len().saturating_sub(1);
    for (index, mut file) in files.into_iter().enumerate().skip(first) {
        if index == first && offset > 0 {
            file = blocking(move || file.seek(offset).map(|()| file)).await?;
        }
        let begin = if index == first { offset } else { 0 };
        reader.cursor = Some(Cursor::new(file, begin, limit.filter(|_| index == last)));
        let stop;
        (reader, stop) = drain(reader, sender).await?;
        if stop == Stop::Done {
            return Ok(());
        }
    }
    let Some(watch) = watch else {
        return Ok(());
    };
    loop {
        // Asked before reading: what is written before the end is then read after it was asked.
        let over = !alive.borrow_and_update().running();
        let stop;
        (reader, stop) = advance(reader, &path, sender).await?;
        if stop == Stop::Done || over {
            return Ok(());
        }
        tokio::select! {
            grown = watch.changed() => grown?,
            // An error means that the container is gone: one last look.
            _ = alive.changed() => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

/// Where reading begins.
struct Begin {
    /// Oldest first.
    files: Vec<LogFile>,
    /// The file to begin with, and the place in it.
    first: usize,
    offset: u64,
    /// Where the last of the files ends for this reader.
    limit: Option<u64>,
}

fn begin(path: &Path, end: Option<u64>, lines: Option<u64>) -> io::Result<Begin> {
    let mut files = files::list(path)?;
    let mut limit = None;
    if let (Some(end), Some(newest)) = (end, files.last())
        && newest.number == 0
    {
        limit = Some(end);
        if newest.size()?.is_some_and(|size| size < end) {
            // It was rotated since: the limit is that of the one before.
            files.pop();
        }
    }
    let (first, offset) = match lines {
        Some(lines) => tail::start(&mut files, lines)?,
        None => (0, 0),
    };
    if let Some(file) = files.get_mut(first).filter(|file| file.plain().is_none()) {
        file.seek(0)?;
    }
    Ok(Begin {
        files,
        first,
        offset,
        limit,
    })
}

/// Reads what has come since, through rotations.
async fn advance(
    mut reader: Reader,
    path: &Path,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<(Reader, Stop)> {
    loop {
        if reader.cursor.is_some() {
            let stop;
            (reader, stop) = drain(reader, sender).await?;
            if stop == Stop::Done {
                return Ok((reader, stop));
            }
        }
        let place = path.to_owned();
        let (next, found) = blocking(move || {
            let found = match &reader.cursor {
                Some(cursor) => cursor.next(&place)?,
                None => files::after(&place, None)?,
            };
            Ok((reader, found))
        })
        .await?;
        reader = next;
        let Some((file, _)) = found else {
            return Ok((reader, Stop::AtEnd));
        };
        // The last bytes of the old file may have come after it was read, before it was rotated.
        if reader.cursor.is_some() {
            let stop;
            (reader, stop) = drain(reader, sender).await?;
            if stop == Stop::Done {
                return Ok((reader, stop));
            }
        }
        reader.cursor = Some(Cursor::new(file, 0, None));
    }
}

/// Sends a file from the cursor to its present end.
async fn drain(
    mut reader: Reader,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<(Reader, Stop)> {
    loop {
        let (next, read, done, piece) = blocking(move || {
            let Reader { cursor, renderer } = &mut reader;
            let Some(cursor) = cursor else {
                return Ok((reader, 0, false, Bytes::new()));
            };
            let mut piece = Vec::with_capacity(CHUNK);
            let (read, done) = cursor.read(|line| renderer.line(line, &mut piece))?;
            Ok((reader, read, done, Bytes::from(piece)))
        })
        .await?;
        reader = next;
        if !piece.is_empty() && sender.send(Ok(piece)).await.is_err() {
            return Ok((reader, Stop::Done));
        }
        match (done, read) {
            (true, _) => return Ok((reader, Stop::Done)),
            (false, 0) => return Ok((reader, Stop::AtEnd)),
            (false, _) => {}
        }
    }
}

/// Works away from the event loop.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

/// Clears a log: removes the rotated files whose first entry is older than `before` (nanoseconds since the epoch). The
/// current file is the caller's, since its writer has to open a new one.
///
/// # Errors
/// A file that cannot be removed.
pub fn remove_rotated(path: &Path, before: i64) -> io::Result<()> {
    files::remove_rotated(path, before)
}

#[cfg(test)]
mod tests;
