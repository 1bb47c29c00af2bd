//! Sending logs to other systems: one trait, a file for each kind of receiver, and the loop that drives them.

mod cursor;
pub(crate) mod fluentd;
pub(crate) mod gelf;
pub(crate) mod journald;
mod link;
mod message;
mod run;
pub(crate) mod syslog;
mod tls;

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use crate::attrs::Subject;
use crate::{LogOptionError, attrs, tag};

pub use message::{Message, Partial};
pub use run::{Job, run};

/// What a driver is doing.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A batch that could not be delivered as a whole.
#[derive(Debug)]
pub struct Undelivered {
    /// So many messages from its begin have certainly arrived.
    pub sent: usize,
    /// Why not the others.
    pub error: io::Error,
}

/// How long to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Wait before the first repetition; each further wait is twice as long, up to [`Patience::MAX_WAIT`].
    pub wait: Duration,
    /// Repetitions until the rest of a batch is given up. `None`: for ever.
    pub tries: Option<u64>,
    /// Bytes of text in a batch, about.
    pub batch: usize,
}

impl Patience {
    /// The longest wait between two tries.
    pub const MAX_WAIT: Duration = Duration::from_secs(15);
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            wait: Duration::from_millis(250),
            tries: None,
            batch: crate::options::batch(u64::MAX),
        }
    }
}

/// A receiver of logs, for one container.
///
/// Calls are serial. A call may be dropped half-way; the next one begins with a new connection then. Nothing is kept of a
/// batch between calls: what was not delivered is given again.
pub trait Forwarder: Send {
    /// Connects, unless it is connected: whether the receiver is there at all. Docker asks at the start of a container.
    ///
    /// # Errors
    /// It cannot be reached.
    fn connect(&mut self) -> Work<'_, io::Result<()>>;

    /// Delivers messages in order, connecting as needed. Success means that the receiver's machine has them (for UDP: that
    /// they were sent); with acknowledgements, that the receiver itself has them.
    ///
    /// # Errors
    /// The connection's, with how much has arrived for certain. The connection is given up.
    fn send<'a>(&'a mut self, batch: &'a [Message]) -> Work<'a, Result<(), Undelivered>>;

    /// How long to try.
    fn patience(&self) -> Patience {
        Patience::default()
    }

    /// Whether a container whose receiver is not there is not to start, as with Docker.
    fn must_be_there(&self) -> bool {
        true
    }
}

/// The forwarder of a driver; `None` for drivers whose logs stay here.
///
/// # Errors
/// Options that make no sense.
pub fn open(
    driver: &str,
    options: &BTreeMap<String, String>,
    subject: &Subject,
) -> Result<Option<Box<dyn Forwarder>>, LogOptionError> {
    let about = About::new(options, subject)?;
    Ok(Some(match driver {
        "fluentd" => Box::new(fluentd::Fluentd::new(
            fluentd::Config::parse(options)?,
            &about,
        )),
        "gelf" => Box::new(gelf::Gelf::new(gelf::Config::parse(options)?, &about)),
        "journald" => Box::new(journald::Journald::new(journald::socket(options), &about)),
        "syslog" => Box::new(syslog::Syslog::new(syslog::Config::parse(options)?, &about)),
        _ => return Ok(None),
    }))
}

/// What every driver tells of the container.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) subject: Subject,
    pub(crate) tag: String,
    /// The labels and variables that were chosen.
    pub(crate) extra: BTreeMap<String, String>,
    pub(crate) hostname: String,
}

impl About {
    fn new(options: &BTreeMap<String, String>, subject: &Subject) -> Result<Self, LogOptionError> {
        let template = options
            .get("tag")
            .filter(|tag| !tag.is_empty())
            .map_or(tag::DEFAULT, String::as_str);
        Ok(Self {
            tag: tag::render(template, subject)?,
            extra: attrs::chosen(options, subject)?,
            hostname: tag::hostname(),
            subject: subject.clone(),
        })
    }
}

/// An address as an option has it.
fn url(text: &str) -> Result<url::Url, LogOptionError> {
    url::Url::parse(text).map_err(|error| LogOptionError::new(format!("parse {text:?}: {error}")))
}

/// Its host, an IPv6 address without brackets.
fn host(url: &url::Url) -> String {
    let host = url.host_str().unwrap_or("");
    host.trim_matches(['[', ']']).to_owned()
}

#[cfg(test)]
mod tests;
