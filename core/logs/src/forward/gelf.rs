//! Graylog's GELF 1.1: JSON, over UDP compressed and in chunks, over TCP closed by a null byte. Source: Graylog's "GELF
//! via UDP" and "GELF Payload Specification". Fields are Docker's.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Map, Value};

use super::link::{Address, Link};
use super::{About, Forwarder, Message, Patience, Undelivered, Work};
use crate::LogOptionError;
use crate::options::integer;

/// Options beyond the common ones.
pub(crate) const OPTIONS: &[&str] = &[
    "gelf-address",
    "gelf-compression-level",
    "gelf-compression-type",
    "gelf-tcp-max-reconnect",
    "gelf-tcp-reconnect-delay",
];

/// Bytes of a datagram, and of its head when it is a chunk.
const CHUNK: usize = 1420;
const HEAD: usize = 12;
const MAGIC: [u8; 2] = [0x1e, 0x0f];
const MAX_CHUNKS: usize = 128;

const LEVEL_ERR: i64 = 3;
const LEVEL_INFO: i64 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Gzip,
    Zlib,
    Plain,
}

/// What the options say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    address: Address,
    form: Form,
    level: u32,
    patience: Patience,
}

impl Config {
    /// Reads the options.
    pub(crate) fn parse(options: &BTreeMap<String, String>) -> Result<Self, LogOptionError> {
        let given = options.get("gelf-address").map_or("", String::as_str);
        let mut config = Self {
            address: address(given)?,
            form: Form::Gzip,
            level: 1,
            patience: Patience::default(),
        };
        let udp = matches!(config.address, Address::Udp(..));
        for (name, value) in options {
            let unknown = || {
                LogOptionError::new(format!(
                    "unknown value {value:?} for log opt {name:?} for gelf log driver"
                ))
            };
            match name.as_str() {
                "gelf-compression-level" | "gelf-compression-type" if !udp => {
                    return Err(LogOptionError::new("compression is only supported on UDP"));
                }
                "gelf-compression-level" => {
                    let level = integer(value).map_err(|_| unknown())?;
                    config.level = match level {
                        // Go's default.
                        -1 => 6,
                        level => u32::try_from(level)
                            .ok()
                            .filter(|level| *level <= 9)
                            .ok_or_else(unknown)?,
                    };
                }
                "gelf-compression-type" => {
                    config.form = match value.as_str() {
                        "gzip" => Form::Gzip,
                        "zlib" => Form::Zlib,
                        "none" => Form::Plain,
                        _ => return Err(unknown()),
                    };
                }
                "gelf-tcp-max-reconnect" | "gelf-tcp-reconnect-delay" => {
                    if udp {
                        return Err(LogOptionError::new(format!(
                            "{name:?} is only valid for TCP"
                        )));
                    }
                    let number = integer(value).ok().and_then(|n| u64::try_from(n).ok());
                    let number = number.ok_or_else(|| {
                        LogOptionError::new(format!("{name:?} must be a positive integer"))
                    })?;
                    match name.ends_with("delay") {
                        true => config.patience.wait = Duration::from_secs(number),
                        false => config.patience.tries = Some(number),
                    }
                }
                _ => {}
            }
        }
        Ok(config)
    }
}

fn address(text: &str) -> Result<Address, LogOptionError> {
    if text.is_empty() {
        return Err(LogOptionError::new("gelf-address is a required parameter"));
    }
    let url = super::url(text)?;
    let scheme = url.scheme();
    if !matches!(scheme, "udp" | "tcp") {
        return Err(LogOptionError::new("gelf: endpoint needs to be TCP or UDP"));
    }
    let (host, Some(port)) = (super::host(&url), url.port()) else {
        return Err(LogOptionError::new(
            "gelf: please provide gelf-address as proto://host:port",
        ));
    };
    Ok(match scheme {
        "udp" => Address::Udp(host, port),
        _ => Address::Tcp(host, port),
    })
}

/// Sends to Graylog or Logstash.
#[derive(Debug)]
pub(crate) struct Gelf {
    config: Config,
    link: Option<Link>,
    hostname: String,
    /// What every message says.
    extra: Map<String, Value>,
}

impl Gelf {
    pub(crate) fn new(config: Config, about: &About) -> Self {
        let subject = &about.subject;
        let mut extra = Map::new();
        for (name, value) in [
            ("_command", subject.command()),
            ("_container_id", subject.id.clone()),
            ("_container_name", subject.name.clone()),
            ("_created", subject.created.to_string()),
            ("_image_id", subject.image_id.clone()),
            ("_image_name", subject.image_name.clone()),
            ("_tag", about.tag.clone()),
        ] {
            extra.insert(name.into(), value.into());
        }
        for (name, value) in &about.extra {
            let name = match name.starts_with('_') {
                true => name.clone(),
                false => format!("_{name}"),
            };
            extra.insert(name, value.clone().into());
        }
        Self {
            config,
            link: None,
            hostname: about.hostname.clone(),
            extra,
        }
    }

    fn encode(&self, message: &Message) -> io::Result<Vec<u8>> {
        let mut object = Map::new();
        object.insert("version".into(), "1.1".into());
        object.insert("host".into(), self.hostname.clone().into());
        let text = String::from_utf8_lossy(&message.text);
        object.insert("short_message".into(), text.into());
        let millis = message.nanos.div_euclid(1_000_000);
        object.insert("timestamp".into(), (millis as f64 / 1000.0).into());
        let level = if message.stderr {
            LEVEL_ERR
        } else {
            LEVEL_INFO
        };
        object.insert("level".into(), level.into());
        object.extend(self.extra.clone());
        Ok(serde_json::to_vec(&object)?)
    }

    fn compress(&self, json: Vec<u8>) -> io::Result<Vec<u8>> {
        let level = Compression::new(self.config.level);
        match self.config.form {
            Form::Plain => Ok(json),
            Form::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), level);
                encoder.write_all(&json)?;
                encoder.finish()
            }
            Form::Zlib => {
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(&json)?;
                encoder.finish()
            }
        }
    }

    async fn open(&mut self) -> io::Result<()> {
        if let Some(link) = &self.link {
            if link.is_open().is_ok() {
                return Ok(());
            }
            self.link = None;
        }
        self.link = Some(Link::connect(&self.config.address).await?);
        Ok(())
    }

    async fn deliver(&mut self, batch: &[Message]) -> Result<(), Undelivered> {
        let failed = |sent, error| Undelivered { sent, error };
        self.open().await.map_err(|error| failed(0, error))?;
        let mut stream = Vec::new();
        for (sent, message) in batch.iter().enumerate() {
            let mut json = self.encode(message).map_err(|error| failed(sent, error))?;
            if !matches!(self.config.address, Address::Udp(..)) {
                json.push(0);
                stream.append(&mut json);
                continue;
            }
            let bytes = self.compress(json).map_err(|error| failed(sent, error))?;
            if let Some(link) = &mut self.link {
                datagrams(link, &bytes)
                    .await
                    .map_err(|error| failed(sent, error))?;
            }
        }
        if let (Some(link), false) = (&mut self.link, stream.is_empty()) {
            link.send(&stream).await.map_err(|error| failed(0, error))?;
            link.settled().await.map_err(|error| failed(0, error))?;
        }
        Ok(())
    }
}

/// Sends one message, in chunks when it is too large for one datagram. What does not fit into all the chunks that there
/// may be is given up, or it would block all that comes after it.
async fn datagrams(link: &mut Link, bytes: &[u8]) -> io::Result<()> {
    if bytes.len() <= CHUNK {
        return link.send(bytes).await;
    }
    let pieces = bytes.chunks(CHUNK - HEAD);
    let count = pieces.len();
    let Some(total) = u8::try_from(count).ok().filter(|_| count <= MAX_CHUNKS) else {
        tracing::warn!(
            bytes = bytes.len(),
            "a log message is too large for GELF over UDP"
        );
        return Ok(());
    };
    let mut id = [0; 8];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    for (number, piece) in (0..total).zip(pieces) {
        let mut datagram = Vec::with_capacity(CHUNK);
        datagram.extend_from_slice(&MAGIC);
        datagram.extend_from_slice(&id);
        datagram.extend_from_slice(&[number, total]);
        datagram.extend_from_slice(piece);
        link.send(&datagram).await?;
    }
    Ok(())
}

impl Forwarder for Gelf {
    fn connect(&mut self) -> Work<'_, io::Result<()>> {
        Box::pin(async {
            self.open().await.map_err(|error| {
                io::Error::other(format!("gelf: cannot connect to GELF endpoint: {error}"))
            })
        })
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
}
