//! The journal of systemd, by its native protocol: a datagram a message, or a sealed memory file when it is too large.
//! Source: systemd's `JOURNAL_NATIVE_PROTOCOL`. Fields are Docker's.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, SealFlags};

use super::link::{Address, Link};
use super::{About, Forwarder, Message, Undelivered, Work};

/// Options beyond the common ones. `journald-socket` is Gantry's own: the socket of another journal (a namespace's, say).
pub(crate) const OPTIONS: &[&str] = &["journald-socket"];

const SOCKET: &str = "/run/systemd/journal/socket";

const PRIORITY_ERR: &str = "3";
const PRIORITY_INFO: &str = "6";

/// The socket that the options mean.
pub(crate) fn socket(options: &BTreeMap<String, String>) -> PathBuf {
    options
        .get("journald-socket")
        .map_or(SOCKET, String::as_str)
        .into()
}

/// Sends to a journal.
#[derive(Debug)]
pub(crate) struct Journald {
    address: Address,
    link: Option<Link>,
    /// The fields that every message has, encoded.
    fields: Vec<u8>,
    buffer: Vec<u8>,
}

impl Journald {
    pub(crate) fn new(socket: PathBuf, about: &About) -> Self {
        let subject = &about.subject;
        let mut fields = Vec::new();
        for (name, value) in [
            ("CONTAINER_ID", subject.id.get(..12).unwrap_or(&subject.id)),
            ("CONTAINER_ID_FULL", &subject.id),
            ("CONTAINER_NAME", &subject.name),
            ("CONTAINER_TAG", &about.tag),
            ("IMAGE_NAME", &subject.image_name),
            ("SYSLOG_IDENTIFIER", &about.tag),
        ] {
            field(&mut fields, name, value.as_bytes());
        }
        for (name, value) in &about.extra {
            let name = field_name(name);
            if !name.is_empty() {
                field(&mut fields, &name, value.as_bytes());
            }
        }
        Self {
            address: Address::Unixgram(socket),
            link: None,
            fields,
            buffer: Vec::new(),
        }
    }

    fn encode(&mut self, message: &Message) {
        let out = &mut self.buffer;
        out.clear();
        out.extend_from_slice(&self.fields);
        let priority = if message.stderr {
            PRIORITY_ERR
        } else {
            PRIORITY_INFO
        };
        field(out, "PRIORITY", priority.as_bytes());
        let (seconds, nanos) = message.time();
        let written = gantry_model::Timestamp::from_unix(seconds, nanos.cast_signed());
        field(out, "SYSLOG_TIMESTAMP", written.to_string().as_bytes());
        if let Some(partial) = &message.partial {
            if !partial.last {
                field(out, "CONTAINER_PARTIAL_MESSAGE", b"true");
            }
            field(out, "CONTAINER_PARTIAL_ID", partial.id.as_bytes());
            let ordinal = partial.ordinal.to_string();
            field(out, "CONTAINER_PARTIAL_ORDINAL", ordinal.as_bytes());
            let last = if partial.last { "true" } else { "false" };
            field(out, "CONTAINER_PARTIAL_LAST", last.as_bytes());
        }
        field(out, "MESSAGE", &message.text);
    }

    async fn deliver(&mut self, message: &Message) -> io::Result<()> {
        self.encode(message);
        if self.link.is_none() {
            self.link = Some(Link::connect(&self.address).await?);
        }
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        match link.send(&self.buffer).await {
            Err(error) if too_large(&error) => {
                let file = sealed(&self.buffer)?;
                link.send_descriptor(file.as_fd()).await
            }
            outcome => outcome,
        }
    }
}

impl Forwarder for Journald {
    fn connect(&mut self) -> Work<'_, io::Result<()>> {
        Box::pin(async {
            self.link = Some(
                Link::connect(&self.address)
                    .await
                    .map_err(|_| io::Error::other("journald is not enabled on this host"))?,
            );
            Ok(())
        })
    }

    fn send<'a>(&'a mut self, batch: &'a [Message]) -> Work<'a, Result<(), Undelivered>> {
        Box::pin(async {
            for (sent, message) in batch.iter().enumerate() {
                if let Err(error) = self.deliver(message).await {
                    self.link = None;
                    return Err(Undelivered { sent, error });
                }
            }
            Ok(())
        })
    }
}

fn too_large(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
        || code == Some(rustix::io::Errno::NOBUFS.raw_os_error())
}

fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::memfd_create("journal", flags)?);
    file.write_all(bytes)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// `NAME=value`, or with the length in between when the value is more than one line.
fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// What the journal allows: capital letters, digits, underscores, of which none at the begin.
fn field_name(name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| match c.to_ascii_uppercase() {
            c @ ('A'..='Z' | '0'..='9') => c,
            _ => '_',
        })
        .collect();
    name.trim_start_matches('_').to_owned()
}
