//! Log options: which there are for which driver, and what they mean for the local file. The words are Docker's.

mod values;

use std::collections::BTreeMap;

use crate::forward::{fluentd, gelf, journald, syslog};
use crate::{attrs, read};

pub(crate) use values::{boolean, duration, integer, ram};

/// The drivers that there are, as `info` lists them. `none` is not a driver to Docker.
pub const DRIVERS: &[&str] = &[
    "fluentd",
    "gelf",
    "journald",
    "json-file",
    "local",
    "syslog",
];

/// The options that choose what a log says of its container.
const COMMON: &[&str] = &["env", "env-regex", "labels", "labels-regex", "tag"];

/// The options of the local file.
const FILE: &[&str] = &["max-size", "max-file", "compress"];

/// Bytes of a file and number of files, when nothing is said: Docker's own for `local` and for copies of what goes elsewhere.
const DEFAULT_SIZE: u64 = 20 << 20;
const DEFAULT_FILES: u32 = 5;

/// `json-file` is bounded here too, but more generously: with Docker it is not, and its lines take twice their text.
const DEFAULT_JSON_SIZE: u64 = 50 << 20;

/// The ring of the non-blocking mode, when no size is given.
const DEFAULT_BUFFER: u64 = 1 << 20;

/// An option, or a driver, that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LogOptionError(String);

impl LogOptionError {
    pub(crate) fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

type Result<T, E = LogOptionError> = std::result::Result<T, E>;
type Options = BTreeMap<String, String>;

/// How the monitor is to write the local file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spool {
    /// Bytes after which a new file is begun; `None`: never.
    pub max_size: Option<u64>,
    /// Files that are kept, the current one included.
    pub max_files: u32,
    /// Whether rotated files are compressed.
    pub compress: bool,
    /// Non-blocking: bytes of output that may wait for the disk before some is dropped. `None`: the container waits.
    pub buffer: Option<u64>,
}

/// Whether a driver sends its output elsewhere.
#[must_use]
pub fn forwards(driver: &str) -> bool {
    matches!(driver, "fluentd" | "gelf" | "journald" | "syslog")
}

/// Whether a container's log can be read here.
#[must_use]
pub fn readable(driver: &str, options: &Options) -> bool {
    let disabled = forwards(driver)
        && matches!(
            options.get("cache-disabled").map(|text| boolean(text)),
            Some(Ok(true))
        );
    driver != "none" && !disabled
}

/// Checks a driver and its options.
///
/// # Errors
/// Drivers and options that there are not, values that make no sense.
pub fn check(driver: &str, options: &Options) -> Result<()> {
    if driver == "none" {
        return Ok(());
    }
    mode(options)?;
    if !DRIVERS.contains(&driver) {
        return Err(LogOptionError::new(format!(
            "logger: no log driver named '{driver}' is registered"
        )));
    }
    if let Some(text) = options
        .get("cache-disabled")
        .filter(|text| !text.is_empty())
    {
        boolean(text).map_err(|_| {
            LogOptionError::new(format!("invalid value for option cache-disabled: {text}"))
        })?;
    }
    known(driver, options)?;
    attrs::check(options)?;
    match driver {
        "fluentd" => fluentd::Config::parse(options).map(drop)?,
        "gelf" => gelf::Config::parse(options).map(drop)?,
        "syslog" => syslog::Config::parse(options).map(drop)?,
        _ => {}
    }
    spool(driver, options).map(drop)
}

/// Refuses the first option that the driver does not have.
fn known(driver: &str, options: &Options) -> Result<()> {
    let own: &[&str] = match driver {
        "fluentd" => fluentd::OPTIONS,
        "gelf" => gelf::OPTIONS,
        "journald" => journald::OPTIONS,
        "syslog" => syslog::OPTIONS,
        _ => FILE,
    };
    for name in options.keys().map(String::as_str) {
        let cache = name.strip_prefix("cache-");
        let builtin = matches!(name, "mode" | "max-buffer-size")
            || cache.is_some_and(|name| name == "disabled" || FILE.contains(&name));
        // Docker's `local` knows no attributes.
        let common = driver != "local" && COMMON.contains(&name);
        if builtin || common || own.contains(&name) {
            continue;
        }
        return Err(LogOptionError::new(match driver {
            "local" => format!("unknown log opt '{name}' for log driver local"),
            "gelf" => format!("unknown log opt {name:?} for gelf log driver"),
            _ => format!("unknown log opt '{name}' for {driver} log driver"),
        }));
    }
    Ok(())
}

/// The ring's size; `None` in blocking mode.
fn mode(options: &Options) -> Result<Option<u64>> {
    let non_blocking = match options.get("mode").map_or("", String::as_str) {
        "" | "blocking" => false,
        "non-blocking" => true,
        other => {
            return Err(LogOptionError::new(format!(
                "logger: logging mode not supported: {other}"
            )));
        }
    };
    let Some(text) = options.get("max-buffer-size") else {
        return Ok(non_blocking.then_some(DEFAULT_BUFFER));
    };
    if !non_blocking {
        return Err(LogOptionError::new(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ));
    }
    ram(text).map(Some).map_err(|error| {
        LogOptionError::new(format!("error parsing option max-buffer-size: {error}"))
    })
}

/// How the local file of a driver is written; `None`: there is none.
///
/// # Errors
/// Values that make no sense.
pub fn spool(driver: &str, options: &Options) -> Result<Option<Spool>> {
    let own = matches!(driver, "json-file" | "local");
    if driver == "none" {
        return Ok(None);
    }
    let option = |name: &str| match own {
        true => options.get(name),
        false => options.get(&format!("cache-{name}")),
    };
    let max_size = option("max-size")
        .map(|text| file_size(driver, text))
        .transpose()?;
    let max_files = option("max-file")
        .map(|text| file_count(driver, text))
        .transpose()?;
    let compress = option("compress")
        .map(|text| compression(driver, text))
        .transpose()?;
    let default_files = match (driver, max_size) {
        // Whoever asks Docker for a size alone gets one file of it.
        ("json-file", Some(_)) => 1,
        _ => DEFAULT_FILES,
    };
    let default_size = match driver {
        "json-file" => DEFAULT_JSON_SIZE,
        _ => DEFAULT_SIZE,
    };
    let spool = Spool {
        max_size: max_size.unwrap_or(Some(default_size)),
        max_files: max_files.unwrap_or(default_files),
        compress: compress.unwrap_or(driver != "json-file"),
        buffer: mode(options)?,
    };
    if spool.compress && (spool.max_files < 2 || spool.max_size.is_none()) {
        return Err(LogOptionError::new(match driver {
            "json-file" => {
                "compress cannot be true when max-file is less than 2 or max-size is not set"
            }
            _ => "compression cannot be enabled when max file count is 1",
        }));
    }
    Ok(Some(spool))
}

/// `None`: no limit.
fn file_size(driver: &str, text: &str) -> Result<Option<u64>> {
    if matches!(text, "-1" | "unlimited") {
        return Ok(None);
    }
    let size = values::human(text).map_err(|error| match driver {
        "json-file" => error,
        _ => LogOptionError::new(format!("invalid value for max-size: {text}: {error}")),
    })?;
    match (size, driver) {
        (0, "json-file") => Err(LogOptionError::new("max-size must be a positive number")),
        (0, _) => Err(LogOptionError::new("max size should be a positive number")),
        (size, _) => Ok(Some(size)),
    }
}

fn file_count(driver: &str, text: &str) -> Result<u32> {
    let count = integer(text).map_err(|error| match driver {
        "json-file" => error,
        _ => LogOptionError::new(format!("invalid value for max-file: {text}: {error}")),
    })?;
    match u32::try_from(count) {
        Ok(count) if count > 0 => Ok(count.min(MAX_FILES)),
        _ if driver == "json-file" => Err(LogOptionError::new("max-file cannot be less than 1")),
        _ => Err(LogOptionError::new("max file count cannot be less than 0")),
    }
}

/// More files than this are not kept.
const MAX_FILES: u32 = 1000;

fn compression(driver: &str, text: &str) -> Result<bool> {
    boolean(text).map_err(|error| match driver {
        "json-file" => error,
        _ => LogOptionError::new(format!("error reading compress log option: {error}")),
    })
}

/// Bytes of a batch: a receiver's own limit, but never more than is read at once.
pub(crate) fn batch(limit: u64) -> usize {
    usize::try_from(limit).map_or(read::CHUNK, |limit| limit.min(read::CHUNK))
}

#[cfg(test)]
mod tests;
