//! Syslog: RFC 3164, RFC 5424 and the local form, over datagrams, streams and TLS. Sources: RFC 3164, RFC 5424, RFC 5425
//! (octet counting), RFC 6587. Tag, facility and severities are Docker's.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use jiff::ZonedDateTime;
use jiff::tz::TimeZone;

use super::link::{Address, Link};
use super::tls::TlsFiles;
use super::{About, Forwarder, Message, Undelivered, Work};
use crate::LogOptionError;

/// Options beyond the common ones.
pub(crate) const OPTIONS: &[&str] = &[
    "syslog-address",
    "syslog-facility",
    "syslog-format",
    "syslog-tls-ca-cert",
    "syslog-tls-cert",
    "syslog-tls-key",
    "syslog-tls-skip-verify",
];

const FACILITIES: &[&str] = &[
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp",
];

/// Where the host's own syslog listens.
const LOCAL: &[&str] = &["/dev/log", "/var/run/syslog", "/var/run/log"];

const DEFAULT_PORT: u16 = 514;
const SEVERITY_ERR: u8 = 3;
const SEVERITY_INFO: u8 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Local,
    Rfc3164,
    Rfc5424 { micro: bool },
}

/// What the options say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// `None`: the host's own syslog.
    address: Option<Address>,
    facility: u8,
    format: Format,
}

impl Config {
    /// Reads the options.
    pub(crate) fn parse(options: &BTreeMap<String, String>) -> Result<Self, LogOptionError> {
        let option = |name: &str| options.get(name).map_or("", String::as_str);
        let files = TlsFiles::of(options, "syslog-tls-");
        Ok(Self {
            address: address(option("syslog-address"), files)?,
            facility: facility(option("syslog-facility"))?,
            format: match option("syslog-format") {
                "" => Format::Local,
                "rfc3164" => Format::Rfc3164,
                "rfc5424" => Format::Rfc5424 { micro: false },
                "rfc5424micro" => Format::Rfc5424 { micro: true },
                _ => return Err(LogOptionError::new("Invalid syslog format")),
            },
        })
    }
}

fn facility(text: &str) -> Result<u8, LogOptionError> {
    if text.is_empty() {
        return facility("daemon");
    }
    let named = FACILITIES.iter().position(|name| *name == text);
    let local = text.strip_prefix("local").and_then(|n| n.parse().ok());
    let local = local.filter(|n: &u8| *n < 8).map(|n| n + 16);
    named
        .and_then(|at| u8::try_from(at).ok())
        .or(local)
        .or_else(|| text.parse().ok())
        .filter(|number| *number <= 23)
        .ok_or_else(|| LogOptionError::new("invalid syslog facility"))
}

fn address(text: &str, files: TlsFiles) -> Result<Option<Address>, LogOptionError> {
    if text.is_empty() {
        return Ok(None);
    }
    if !text.contains("://") {
        return Err(LogOptionError::new(format!(
            "syslog-address should be in form proto://address, got {text}"
        )));
    }
    let url = super::url(text)?;
    let path = || -> Result<_, LogOptionError> {
        let path = Path::new(url.path());
        std::fs::metadata(path).map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::NotFound => "no such file or directory".to_owned(),
                _ => error.to_string(),
            };
            LogOptionError::new(format!("stat {}: {why}", path.display()))
        })?;
        Ok(path.to_owned())
    };
    let host = || (super::host(&url), url.port().unwrap_or(DEFAULT_PORT));
    Ok(Some(match url.scheme() {
        "unix" => Address::Unix(path()?),
        "unixgram" => Address::Unixgram(path()?),
        "udp" => Address::Udp(host().0, host().1),
        "tcp" => Address::Tcp(host().0, host().1),
        "tcp+tls" => Address::Tls(host().0, host().1, files),
        other => {
            return Err(LogOptionError::new(format!(
                "unsupported scheme: '{other}'"
            )));
        }
    }))
}

/// Sends to a syslog daemon.
#[derive(Debug)]
pub(crate) struct Syslog {
    config: Config,
    link: Option<Link>,
    tag: String,
    hostname: String,
    zone: TimeZone,
}

impl Syslog {
    pub(crate) fn new(config: Config, about: &About) -> Self {
        Self {
            config,
            link: None,
            tag: about.tag.clone(),
            hostname: about.hostname.clone(),
            zone: TimeZone::system(),
        }
    }

    fn encode(&self, message: &Message, out: &mut Vec<u8>) {
        let severity = if message.stderr {
            SEVERITY_ERR
        } else {
            SEVERITY_INFO
        };
        let priority = self.config.facility * 8 + severity;
        let (seconds, nanos) = message.time();
        let time = jiff::Timestamp::new(seconds, nanos.cast_signed()).unwrap_or_default();
        let time = time.to_zoned_datetime(self.zone.clone());
        let (host, tag, pid) = (&self.hostname, &self.tag, std::process::id());
        let head = match self.config.format {
            Format::Local => format!("<{priority}>{} {tag}[{pid}]: ", stamp(&time)),
            Format::Rfc3164 => format!("<{priority}>{} {host} {tag}[{pid}]: ", stamp(&time)),
            Format::Rfc5424 { micro } => {
                let time = rfc3339(&time, micro);
                format!("<{priority}>1 {time} {host} {tag} {pid} {tag} - ")
            }
        };
        let counted = matches!(self.config.format, Format::Rfc5424 { .. })
            && matches!(self.config.address, Some(Address::Tls(..)));
        if counted {
            let length = head.len() + message.text.len() + 1;
            out.extend_from_slice(format!("{length} ").as_bytes());
        }
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&message.text);
        out.push(b'\n');
    }

    async fn open(&mut self) -> io::Result<()> {
        if let Some(link) = &self.link {
            if link.is_open().is_ok() {
                return Ok(());
            }
            self.link = None;
        }
        self.link = Some(match &self.config.address {
            Some(address) => Link::connect(address).await?,
            None => local().await?,
        });
        Ok(())
    }

    async fn deliver(&mut self, batch: &[Message]) -> Result<(), Undelivered> {
        let failed = |sent, error| Undelivered { sent, error };
        self.open().await.map_err(|error| failed(0, error))?;
        let mut bytes = Vec::new();
        let datagrams = self.link.as_ref().is_some_and(Link::is_datagram);
        for (sent, message) in batch.iter().enumerate() {
            self.encode(message, &mut bytes);
            if let (true, Some(link)) = (datagrams, &mut self.link) {
                link.send(&bytes)
                    .await
                    .map_err(|error| failed(sent, error))?;
                bytes.clear();
            }
        }
        if let Some(link) = &mut self.link {
            link.send(&bytes).await.map_err(|error| failed(0, error))?;
            link.settled().await.map_err(|error| failed(0, error))?;
        }
        Ok(())
    }
}

impl Forwarder for Syslog {
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
}

async fn local() -> io::Result<Link> {
    for path in LOCAL {
        let addresses = [Address::Unixgram(path.into()), Address::Unix(path.into())];
        for address in &addresses {
            if let Ok(link) = Link::connect(address).await {
                return Ok(link);
            }
        }
    }
    Err(io::Error::other("Unix syslog delivery error"))
}

/// `Jan _2 15:04:05`.
fn stamp(time: &ZonedDateTime) -> String {
    time.strftime("%b %e %H:%M:%S").to_string()
}

/// RFC 3339 with the zone's offset.
fn rfc3339(time: &ZonedDateTime, micro: bool) -> String {
    let decimals = if micro { "%.6f" } else { "" };
    let offset = match time.offset().is_zero() {
        true => "Z",
        false => "%:z",
    };
    time.strftime(&format!("%Y-%m-%dT%H:%M:%S{decimals}{offset}"))
        .to_string()
}
