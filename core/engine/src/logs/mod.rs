//! A container's log: where it is, reading it, clearing it, and forwarding it while the daemon lives.

mod forward;

use std::path::PathBuf;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use gantry_logs::read::{View, remove_rotated};
use gantry_logs::{Alive, LogOptionError, Subject};
use gantry_model::Timestamp;
use gantry_runtime::LogTarget;
use tokio::sync::watch;

use crate::container::Progress;
use crate::container::record::Record;
use crate::engine::blocking;
use crate::query::LogsQuery;
use crate::{Engine, EngineError, Result};

pub(crate) use forward::Forwards;

/// Output in pieces of many lines: Docker's multiplexed frames, or as it is for a terminal.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// A log being read.
pub struct Logs {
    /// Whether the container has a terminal: then the bytes are not framed.
    pub tty: bool,
    /// The output.
    pub stream: LogStream,
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

impl Alive for Progress {
    fn running(&self) -> bool {
        self.running
    }
}

impl From<LogOptionError> for EngineError {
    fn from(error: LogOptionError) -> Self {
        Self::bad_request(error.to_string())
    }
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
    let view = View {
        stdout: query.stdout,
        stderr: query.stderr,
        since: query.since.and_then(View::time),
        until: query.until.and_then(View::time),
        timestamps: query.timestamps,
        details: query.details,
        framed: !tty,
        joined: query.joined,
    };
    let follow = query.follow && source.progress.borrow().running;
    let source = gantry_logs::read::Source {
        path: source.path,
        alive: source.progress,
        end: source.end,
    };
    let stream = gantry_logs::read::stream(source, view, query.tail, follow)
        .map(|piece| piece.map_err(|error| EngineError::io("error reading logs", &error)));
    Ok(Logs {
        tty,
        stream: Box::pin(stream),
    })
}

/// Checks a log driver and its options.
///
/// # Errors
/// Drivers and options that there are not.
pub fn check_log_driver(
    driver: &str,
    options: &std::collections::BTreeMap<String, String>,
) -> Result<()> {
    Ok(gantry_logs::check(driver, options)?)
}

impl Engine {
    /// Whether a container's log can be read.
    pub(crate) fn check_readable(&self, record: &Record) -> Result<()> {
        let log = &record.host_config.log_config;
        match gantry_logs::readable(&log.kind, &log.config) {
            true => Ok(()),
            false => Err(EngineError::not_implemented(
                "configured logging driver does not support reading",
            )),
        }
    }

    /// Where a container's output goes; `None`: nowhere.
    pub(crate) fn log_target(&self, record: &Record) -> Result<Option<LogTarget>> {
        let log = &record.host_config.log_config;
        let Some(spool) = gantry_logs::spool(&log.kind, &log.config)? else {
            return Ok(None);
        };
        // Other systems are told the attributes by their own protocol.
        let attrs = match gantry_logs::forwards(&log.kind) {
            true => String::new(),
            false => gantry_logs::attributes(&log.config, &self.log_subject(record))?,
        };
        Ok(Some(LogTarget {
            path: self.log_path(&record.id),
            max_size: spool.max_size,
            max_files: spool.max_files,
            compress: spool.compress,
            buffer: spool.buffer,
            attrs,
        }))
    }

    /// What a container's log may say of it.
    fn log_subject(&self, record: &Record) -> Subject {
        let mut argv = record.argv().into_iter();
        Subject {
            id: record.id.to_string(),
            name: record.name.clone(),
            program: argv.next().unwrap_or_default(),
            args: argv.collect(),
            image_id: record.image.to_string(),
            image_name: record.config.image.clone(),
            created: record.created,
            env: record.config.env.clone().unwrap_or_default(),
            labels: record.config.labels.clone(),
            log_path: self.log_path(&record.id).to_string_lossy().into_owned(),
        }
    }

    /// Forgets what a container has written so far. Readers that follow its log go on with what comes.
    ///
    /// # Errors
    /// A log driver that keeps nothing here.
    pub async fn container_clear_logs(&self, id: &str) -> Result<()> {
        let container = self.find(id)?;
        // No start or end in between: who writes the log is known.
        let _turn = container.queue.lock().await;
        let record = container.record();
        self.check_readable(&record)?;
        let failed = |error: std::io::Error| EngineError::io("cannot clear the log", &error);
        let now = View::time(Timestamp::now()).unwrap_or(i64::MAX);
        let path = self.log_path(&record.id);
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
        // From here on the monitor writes to a new file; what is older is in rotated ones.
        if let Some(process) = container.process() {
            match process.reopen_log().await {
                Ok(()) | Err(gantry_runtime::RuntimeError::NotRunning) => {}
                Err(error) => return Err(error.into()),
            }
        }
        blocking(move || remove_rotated(&path, now))
            .await?
            .map_err(failed)
    }
}
