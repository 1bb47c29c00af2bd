//! This host as a member of the cluster: who it is, what it holds there, and how calls reach the store.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use gantry_plugin_sdk::notes::Notes;
use gantry_plugin_sdk::{Call, DriverError, DriverResult, ErrorCode, Log};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use crate::address::Address;
use crate::etcd::Etcd;
use crate::lost::Past;
use crate::mirror::Mirror;
use crate::options::Options;
use crate::records::{EndpointRecord, Keys, draw_name};
use crate::space::Cursors;

/// How long a call waits for the store where its caller does not say.
const PATIENCE: Duration = Duration::from_secs(20);

/// What this host holds in the store for one of its endpoints. Written before it is held and removed after it was given
/// back, so that a host that comes back knows what was its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) network: String,
    pub(crate) record: EndpointRecord,
    /// It is to be given back as soon as the store answers.
    #[serde(default)]
    pub(crate) released: bool,
    /// Its addresses were given to another while this host was away.
    #[serde(default)]
    pub(crate) lost: bool,
}

/// What keeps this host from being a member.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    pub(crate) since: Timestamp,
    pub(crate) why: String,
}

/// The member.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) etcd: Etcd,
    pub(crate) keys: Keys,
    pub(crate) mirror: Mirror,
    pub(crate) past: Past,
    pub(crate) options: Options,
    /// This host's name in the store: drawn once, kept in the driver's directory.
    pub(crate) host: String,
    /// By endpoint. Changed under its lock, so that it can be read again.
    pub(crate) held: Mutex<Notes<Held>>,
    pub(crate) cursors: Cursors,
    /// Why this host was no member when that was looked at last.
    pub(crate) trouble: Mutex<Option<Trouble>>,
    /// Asks for the next beat now.
    pub(crate) nudge: Notify,
    pub(crate) log: Log,
    address: Address,
}

impl Cluster {
    pub(crate) fn new(options: Options, root: &Path, log: Log) -> DriverResult<Self> {
        // An image of a machine on which an engine has run makes more than one host.
        let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let host = identity(root, machine.trim())?;
        if options.login().is_some() && options.etcd.iter().any(|e| e.starts_with("http:")) {
            log.warn("the password for etcd goes over http, in clear: use https");
        }
        Ok(Self {
            etcd: Etcd::new(&options)?,
            keys: Keys::new(&options.prefix),
            mirror: Mirror::new(&host),
            past: Past::open(root, &options.prefix)?,
            options,
            held: Mutex::new(Notes::open(root.join("endpoints"))?),
            cursors: Cursors::default(),
            trouble: Mutex::new(Some(Trouble {
                since: Timestamp::now(),
                why: Self::unheard().message,
            })),
            nudge: Notify::new(),
            log,
            address: Address::new(root),
            host,
        })
    }

    /// The address that other hosts send to.
    pub(crate) fn address(&self) -> DriverResult<IpAddr> {
        let found = self.address.get(&self.options)?;
        found.ok_or_else(|| {
            DriverError::new(
                ErrorCode::FailedPrecondition,
                "the address that other hosts can send to is not known: set the overlay driver's option \"advertise\"",
            )
        })
    }

    /// Whether this host's lease was good when it was looked at last.
    pub(crate) fn is_live(&self) -> bool {
        self.trouble.lock().is_none()
    }

    /// Notes whether it is good.
    pub(crate) fn set_live(&self, kept: Result<(), &DriverError>) {
        let mut trouble = self.trouble.lock();
        *trouble = kept.err().map(|error| Trouble {
            since: trouble.take().map_or_else(Timestamp::now, |t| t.since),
            why: error.message.clone(),
        });
    }

    /// What the store has not told yet.
    pub(crate) fn unheard() -> DriverError {
        DriverError::new(
            ErrorCode::Unavailable,
            "the cluster's store was not reached yet",
        )
    }

    /// Puts a note.
    pub(crate) fn hold(&self, endpoint: &str, held: Held) -> DriverResult<()> {
        self.held.lock().put(endpoint, held)
    }

    /// Removes a note.
    pub(crate) fn let_go(&self, endpoint: &str) -> DriverResult<()> {
        self.held.lock().remove(endpoint).map(drop)
    }

    /// Has an endpoint given back soon.
    pub(crate) fn give_back(&self, endpoint: &str) -> DriverResult<()> {
        let mut notes = self.held.lock();
        if notes.get(endpoint).is_none() {
            // A process of this driver that this one is to replace may have allocated it since this one began.
            *notes = Notes::open(notes.root().to_owned())?;
        }
        if let Some(held) = notes.get(endpoint) {
            let released = Held {
                released: true,
                ..held
            };
            notes.put(endpoint, released)?;
            self.nudge.notify_one();
        }
        Ok(())
    }
}

/// 32 hexadecimal digits, drawn when they are first asked for on a machine.
fn identity(root: &Path, machine: &str) -> DriverResult<String> {
    let is_one = |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let (file, of) = (root.join("host"), root.join("machine"));
    let is_here = fs::read_to_string(&of).is_ok_and(|known| known == machine);
    if let Ok(text) = fs::read_to_string(&file)
        && is_one(&text)
        && is_here
    {
        return Ok(text);
    }
    let text = draw_name()?;
    let new = file.with_extension("new");
    // It must outlive a power cut: other hosts know this one by it.
    let written = fs::write(&new, &text)
        .and_then(|()| fs::File::open(&new)?.sync_all())
        .and_then(|()| fs::rename(&new, &file))
        .and_then(|()| fs::write(&of, machine));
    written.map_err(|e| DriverError::io(format!("writing {}", file.display()), &e))?;
    Ok(text)
}

/// A runtime of the driver's own, whose threads are in the network namespace of the calling thread.
pub(crate) fn runtime() -> DriverResult<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(2)
        .thread_name("network-overlay")
        .thread_stack_size(512 << 10)
        .enable_all()
        .build()
        .map_err(|e| DriverError::io("starting the client of the cluster's store", &e))
}

/// Runs work that asks the store to its end, in the driver's own threads, within the call's time.
pub(crate) fn run<T: Send + 'static>(
    runtime: &Runtime,
    call: &Call<'_>,
    work: impl Future<Output = DriverResult<T>> + Send + 'static,
) -> DriverResult<T> {
    let limit = call.timeout.unwrap_or(PATIENCE).min(PATIENCE);
    let (done, answer) = mpsc::sync_channel(1);
    runtime.spawn(async move {
        let result = tokio::time::timeout(limit, work).await;
        let late = |_| {
            Err(DriverError::new(
                ErrorCode::Unavailable,
                "the cluster's store did not answer in time",
            ))
        };
        // The caller may have been ended with the driver.
        let _ = done.send(result.unwrap_or_else(late));
    });
    let gone = |_| Err(DriverError::internal("the driver is being shut down"));
    answer.recv().unwrap_or_else(gone)
}

/// What the tasks of a member have in common.
pub(crate) type Shared = Arc<Cluster>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machine_is_another_host() {
        let root = tempfile::tempdir().unwrap();
        let first = identity(root.path(), "one").unwrap();
        assert_eq!(identity(root.path(), "one").unwrap(), first);
        let other = identity(root.path(), "two").unwrap();
        assert_ne!(other, first);
        assert_eq!(identity(root.path(), "two").unwrap(), other);
    }
}
