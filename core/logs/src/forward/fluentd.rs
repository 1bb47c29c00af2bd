//! Fluentd's forward protocol, version 1: a MessagePack array `[tag, time, record]` a message, with `{"chunk": id}` as a
//! fourth member when the receiver is to answer `{"ack": id}`. Source: Fluentd's "Forward Protocol Specification v1".

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use rmp::encode as pack;

use super::link::{Address, Link};
use super::tls::TlsFiles;
use super::{About, Forwarder, Message, Patience, Undelivered, Work};
use crate::LogOptionError;
use crate::options::{batch, boolean, duration, ram};

/// Options beyond the common ones.
pub(crate) const OPTIONS: &[&str] = &[
    "fluentd-address",
    "fluentd-async",
    "fluentd-async-connect",
    "fluentd-async-reconnect-interval",
    "fluentd-buffer-limit",
    "fluentd-max-retries",
    "fluentd-request-ack",
    "fluentd-retry-wait",
    "fluentd-sub-second-precision",
    "fluentd-write-timeout",
];

const DEFAULT_HOST: &str = "127.0.0.1";
const DEFAULT_PORT: u16 = 24224;

/// Bounds of the reconnect interval.
const INTERVAL: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];

/// The type of MessagePack extension that an event's time is.
const EVENT_TIME: i8 = 0;

/// A longer answer is none.
const MAX_ANSWER: usize = 64 << 10;

/// What the options say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    address: Address,
    asynchronous: bool,
    acknowledged: bool,
    sub_second: bool,
    patience: Patience,
    /// How old a connection may become, so that a name that stands for another machine by then is looked up again.
    renew: Option<Duration>,
    /// How long the receiver may take for what it is sent.
    write_timeout: Option<Duration>,
}

impl Config {
    /// Reads the options.
    pub(crate) fn parse(options: &BTreeMap<String, String>) -> Result<Self, LogOptionError> {
        let option = |name: &str| options.get(name).filter(|text| !text.is_empty());
        let flag = |name: &str| option(name).map_or(Ok(false), |text| boolean(text));
        let given = options.get("fluentd-address").map_or("", String::as_str);
        let address = address(given).map_err(|error| {
            LogOptionError::new(format!("invalid fluentd-address ({given}): {error}"))
        })?;
        let mut patience = Patience::default();
        if let Some(text) = option("fluentd-buffer-limit") {
            patience.batch = batch(ram(text)?);
        }
        if let Some(text) = option("fluentd-retry-wait") {
            patience.wait = duration(text)?;
        }
        if let Some(text) = option("fluentd-max-retries") {
            let tries: u32 = text.parse().map_err(|_| {
                LogOptionError::new(format!(
                    "strconv.ParseUint: parsing {text:?}: invalid syntax"
                ))
            })?;
            patience.tries = Some(u64::from(tries)).filter(|tries| *tries < i32::MAX as u64);
        }
        if option("fluentd-async").is_some() && option("fluentd-async-connect").is_some() {
            return Err(LogOptionError::new(
                "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect",
            ));
        }
        let asynchronous = flag("fluentd-async")? || flag("fluentd-async-connect")?;
        let some = |time: Duration| Some(time).filter(|time| *time != Duration::ZERO);
        let mut renew = None;
        if let Some(text) = option("fluentd-async-reconnect-interval") {
            let interval = duration(text)?;
            // Without `fluentd-async` it has no effect, as with Docker.
            renew = some(interval).filter(|_| asynchronous);
            if interval != Duration::ZERO && !(INTERVAL[0]..=INTERVAL[1]).contains(&interval) {
                return Err(LogOptionError::new(format!(
                    "invalid value for fluentd-async-reconnect-interval: value ({text:?}) must be between 100ms and 10s"
                )));
            }
        }
        let write_timeout = option("fluentd-write-timeout").map(|text| duration(text));
        Ok(Self {
            address,
            asynchronous,
            acknowledged: flag("fluentd-request-ack")?,
            sub_second: flag("fluentd-sub-second-precision")?,
            patience,
            renew,
            write_timeout: write_timeout.transpose()?.and_then(some),
        })
    }
}

fn address(text: &str) -> Result<Address, LogOptionError> {
    if text.is_empty() {
        return Ok(Address::Tcp(DEFAULT_HOST.into(), DEFAULT_PORT));
    }
    let url = match text.contains("://") {
        true => super::url(text)?,
        false => super::url(&format!("tcp://{text}"))?,
    };
    let fail = |why: String| Err(LogOptionError::new(why));
    match url.scheme() {
        "unix" if url.path().trim_start_matches('/').is_empty() => fail("path is empty".into()),
        "unix" => Ok(Address::Unix(url.path().into())),
        "tcp" | "tls" if !url.path().is_empty() => fail("should not contain a path element".into()),
        scheme @ ("tcp" | "tls") => {
            let host = match super::host(&url) {
                host if host.is_empty() => DEFAULT_HOST.into(),
                host => host,
            };
            let port = url.port().unwrap_or(DEFAULT_PORT);
            Ok(match scheme {
                "tls" => Address::Tls(host, port, TlsFiles::default()),
                _ => Address::Tcp(host, port),
            })
        }
        other => fail(format!("unsupported scheme: '{other}'")),
    }
}

/// Sends to Fluentd or Fluent Bit.
#[derive(Debug)]
pub(crate) struct Fluentd {
    config: Config,
    link: Option<Link>,
    /// When the link was made.
    since: Instant,
    tag: String,
    /// What every record says.
    record: BTreeMap<String, String>,
}

impl Fluentd {
    pub(crate) fn new(config: Config, about: &About) -> Self {
        let mut record = about.extra.clone();
        record.insert("container_id".into(), about.subject.id.clone());
        record.insert("container_name".into(), format!("/{}", about.subject.name));
        Self {
            config,
            link: None,
            since: Instant::now(),
            tag: about.tag.clone(),
            record,
        }
    }

    async fn open(&mut self) -> io::Result<()> {
        let renew = self.config.renew;
        if let Some(link) = &self.link {
            let old = renew.is_some_and(|age| self.since.elapsed() >= age);
            if !old && link.is_open().is_ok() {
                return Ok(());
            }
            self.link = None;
        }
        self.link = Some(Link::connect(&self.config.address).await?);
        self.since = Instant::now();
        Ok(())
    }

    fn encode(&self, message: &Message, chunk: Option<&str>, out: &mut Vec<u8>) -> io::Result<()> {
        pack::write_array_len(out, 3 + u32::from(chunk.is_some()))?;
        pack::write_str(out, &self.tag)?;
        let (seconds, nanos) = message.time();
        match self.config.sub_second {
            true => {
                pack::write_ext_meta(out, 8, EVENT_TIME)?;
                // Until 2106, as the protocol has it.
                out.extend_from_slice(&(seconds as u32).to_be_bytes());
                out.extend_from_slice(&nanos.to_be_bytes());
            }
            false => drop(pack::write_sint(out, seconds)?),
        }
        let partial = message.partial.iter().flat_map(|partial| {
            [
                ("partial_message", "true".to_owned()),
                ("partial_id", partial.id.clone()),
                ("partial_ordinal", partial.ordinal.to_string()),
                ("partial_last", partial.last.to_string()),
            ]
        });
        let partial: Vec<_> = partial.collect();
        let members = self.record.len() + partial.len() + 2;
        pack::write_map_len(out, u32::try_from(members).map_err(io::Error::other)?)?;
        for (name, value) in &self.record {
            pack::write_str(out, name)?;
            pack::write_str(out, value)?;
        }
        for (name, value) in &partial {
            pack::write_str(out, name)?;
            pack::write_str(out, value)?;
        }
        pack::write_str(out, "source")?;
        pack::write_str(out, if message.stderr { "stderr" } else { "stdout" })?;
        pack::write_str(out, "log")?;
        pack::write_str_len(
            out,
            u32::try_from(message.text.len()).map_err(io::Error::other)?,
        )?;
        out.extend_from_slice(&message.text);
        if let Some(chunk) = chunk {
            pack::write_map_len(out, 1)?;
            pack::write_str(out, "chunk")?;
            pack::write_str(out, chunk)?;
        }
        Ok(())
    }

    async fn deliver(&mut self, batch: &[Message]) -> Result<(), Undelivered> {
        let failed = |sent, error| Undelivered { sent, error };
        self.open().await.map_err(|error| failed(0, error))?;
        let mut bytes = Vec::new();
        let mut chunks = Vec::new();
        for message in batch {
            if self.config.acknowledged {
                chunks.push(chunk().map_err(|error| failed(0, error))?);
            }
            let chunk = chunks.last().map(String::as_str);
            self.encode(message, chunk, &mut bytes)
                .map_err(|error| failed(0, error))?;
        }
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        let sent = match self.config.write_timeout {
            Some(time) => link.send_within(time, &bytes).await,
            None => link.send(&bytes).await,
        };
        sent.map_err(|error| failed(0, error))?;
        if !self.config.acknowledged {
            return link.settled().await.map_err(|error| failed(0, error));
        }
        acknowledged(link, &chunks)
            .await
            .map_err(|(sent, error)| failed(sent, error))
    }
}

impl Forwarder for Fluentd {
    fn connect(&mut self) -> Work<'_, io::Result<()>> {
        Box::pin(self.open())
    }

    fn send<'a>(&'a mut self, batch: &'a [Message]) -> Work<'a, Result<(), Undelivered>> {
        Box::pin(async {
            let outcome = self.deliver(batch).await;
            if outcome.is_err() {
                self.link = None;
            }
            outcome
        })
    }

    fn patience(&self) -> Patience {
        self.config.patience
    }

    fn must_be_there(&self) -> bool {
        !self.config.asynchronous
    }
}

/// An identity for a message that is to be acknowledged.
fn chunk() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(hex::encode(bytes))
}

/// Waits for the acknowledgements, in order; on failure says how many came.
async fn acknowledged(link: &mut Link, chunks: &[String]) -> Result<(), (usize, io::Error)> {
    let mut answers = Vec::new();
    for (sent, chunk) in chunks.iter().enumerate() {
        let (ack, length) = loop {
            match ack(&answers) {
                Some(found) => break found,
                None if answers.len() > MAX_ANSWER => {
                    return Err((sent, io::ErrorKind::InvalidData.into()));
                }
                None => link.receive(&mut answers).await.map_err(|e| (sent, e))?,
            }
        };
        answers.drain(..length);
        if ack != *chunk {
            return Err((sent, io::Error::other(format!("ack mismatch: {ack}"))));
        }
    }
    Ok(())
}

/// The first answer, `{"ack": id}`, and its length; `None` when it is not complete.
fn ack(bytes: &[u8]) -> Option<(String, usize)> {
    let mut rest = bytes;
    rmp::decode::read_map_len(&mut rest).ok()?;
    string(&mut rest)?;
    let ack = string(&mut rest)?;
    Some((ack, bytes.len() - rest.len()))
}

fn string(bytes: &mut &[u8]) -> Option<String> {
    let length = rmp::decode::read_str_len(bytes).ok()?;
    let (text, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(String::from_utf8_lossy(text).into_owned())
}
