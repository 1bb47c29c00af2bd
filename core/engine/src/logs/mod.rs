//! Reading a container's log: json-file, rotated files included, from the end, and as it grows.

mod files;
mod follow;
mod line;
mod tail;

use std::path::PathBuf;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::watch;

use crate::container::Progress;
use crate::query::LogsQuery;
use crate::{EngineError, Result};

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// 1: standard output, 2: standard error.
    pub stream: u8,
    /// What was written, with attributes and time before it when they were asked for.
    pub bytes: Bytes,
}

/// Entries in order; batched, so that a stream's cost is paid per read, not per line.
pub type LineStream = Pin<Box<dyn Stream<Item = Result<Vec<LogLine>>> + Send>>;

/// A log being read.
pub struct Logs {
    /// Whether the container has a terminal: then the bytes go to the client as they are.
    pub tty: bool,
    /// The entries.
    pub stream: LineStream,
}

/// Where a log is, and until when it grows.
pub(crate) struct Source {
    /// The current file; rotated ones have `.1`, `.2`, ... appended.
    pub(crate) path: PathBuf,
    /// Tells when the container has ended; the log is complete by then.
    pub(crate) progress: watch::Receiver<Progress>,
    /// Where reading the current file ends; `None`: at its end.
    pub(crate) end: Option<u64>,
}

/// Opens a log for reading.
///
/// # Errors
/// When neither stream was asked for.
pub(crate) fn open(source: Source, tty: bool, query: &LogsQuery) -> Result<Logs> {
    if !query.stdout && !query.stderr {
        return Err(EngineError::bad_request(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let filter = line::Filter::new(query);
    let follow = query.follow && source.progress.borrow().running;
    let tail = query.tail;
    tokio::spawn(async move {
        if let Err(error) = follow::run(source, filter, tail, follow, &sender).await {
            // The receiver may be gone: then nobody wants to know.
            let _ = sender
                .send(Err(EngineError::io("error reading logs", &error)))
                .await;
        }
    });
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|batch| (batch, receiver))
    });
    Ok(Logs {
        tty,
        stream: Box::pin(stream),
    })
}
