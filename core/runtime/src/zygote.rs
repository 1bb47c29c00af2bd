//! The zygote: kept alive, replaced when it dies.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;

use gantry_monitor::client::Zygote;
use gantry_monitor::plan::{Launch, Plan};
use parking_lot::Mutex;

use crate::RuntimeError;

/// Launches through the current zygote.
#[derive(Debug)]
pub(crate) struct Zygotes {
    binary: PathBuf,
    current: Mutex<Zygote>,
}

/// A launch that was sent.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Where the monitor's word will come from.
    pub(crate) socket: UnixStream,
    /// The process ID of the zygote that was asked.
    pub(crate) zygote: u32,
}

impl Zygotes {
    pub(crate) fn new(binary: PathBuf) -> Result<Self, RuntimeError> {
        let current = Mutex::new(spawn(&binary)?);
        Ok(Self { binary, current })
    }
    /// Sends a launch; a dead zygote is replaced and asked once more. Microseconds, unless it is replaced.
    pub(crate) fn launch(
        &self,
        header: &Launch,
        plan: &Plan,
        namespaces: &[BorrowedFd<'_>],
    ) -> Result<Launched, RuntimeError> {
        let mut zygote = self.current.lock();
        match zygote.launch(header, plan, namespaces) {
            Err(e) if is_gone(&e) => {
                tracing::warn!(pid = zygote.pid(), "the zygote has died; starting another");
                let mut dead = std::mem::replace(&mut *zygote, spawn(&self.binary)?);
                let _ = dead.child().wait();
                zygote.launch(header, plan, namespaces)
            }
            other => other,
        }
        .map(|socket| Launched {
            socket,
            zygote: zygote.pid(),
        })
        .map_err(|e| RuntimeError::Zygote(format!("launch: {e}")))
    }
    /// Whether that zygote is no more. A launch that ended without a word was then perhaps never read: a killed process
    /// takes messages for as long as it takes to die.
    pub(crate) fn has_died(&self, pid: u32) -> bool {
        let zygote = self.current.lock();
        zygote.pid() != pid || zygote.is_gone()
    }
    /// The process ID of the current one.
    pub(crate) fn pid(&self) -> u32 {
        self.current.lock().pid()
    }
}

fn is_gone(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}

fn spawn(binary: &std::path::Path) -> Result<Zygote, RuntimeError> {
    Zygote::spawn(binary, Stdio::inherit())
        .map_err(|e| RuntimeError::Zygote(format!("cannot run {}: {e}", binary.display())))
}
