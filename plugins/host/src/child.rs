//! One child process that hosts a plugin: started, asked to load it, reaped.

use std::io::{BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_driver_api::Call;
use gantry_plugin_abi::host::Outcome;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::PluginError;
use crate::connection::{Connection, Lost};
use crate::inprocess::fault;
use crate::wire::ReplyStatus;

/// How long a child may take to load its plugin.
const START: Duration = Duration::from_secs(30);

/// What a child is started with; the same for every generation.
pub(crate) struct Plan {
    /// `storage/overlayfs`, for logs and process lists.
    pub(crate) driver: String,
    pub(crate) driver_host: PathBuf,
    pub(crate) hello: Vec<u8>,
}

/// A started child.
pub(crate) struct Live {
    pub(crate) child: Child,
    pub(crate) pidfd: OwnedFd,
    pub(crate) stderr: BufReader<ChildStderr>,
    pub(crate) connection: Arc<Connection>,
}

impl Live {
    /// Waits for the child, which has a moment to go by itself.
    pub(crate) fn finish(&mut self) -> Option<ExitStatus> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let moment = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        if !matches!(poll(&mut fds, Some(&moment)), Ok(1..)) {
            // It fails when the child has gone meanwhile.
            let _ = self.child.kill();
        }
        self.child.wait().ok()
    }
}

pub(crate) fn epitaph(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.signal(), status.code())) {
        Some((Some(signal), _)) => match rustix::process::Signal::from_named_raw(signal) {
            Some(name) => format!("its process was killed by signal {signal} ({name:?})"),
            None => format!("its process was killed by signal {signal}"),
        },
        Some((None, Some(code))) => format!("its process exited with status {code}"),
        _ => "its process is gone".to_owned(),
    }
}

impl Plan {
    pub(crate) fn start(&self) -> Result<(Live, Vec<u8>), PluginError> {
        let failed =
            |what: &str, error: std::io::Error| PluginError::Child(format!("{what}: {error}"));
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|e| failed("making a socket pair", e.into()))?;
        let mut child = Command::new(&self.driver_host)
            .arg0("gantry-driver-host")
            .arg(&self.driver)
            // What a terminal sends to the engine is the engine's to handle.
            .process_group(0)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| failed(&self.driver_host.display().to_string(), e))?;
        let connection = Arc::new(Connection::new(ours));
        let Some(stderr) = child.stderr.take() else {
            return Err(PluginError::Child("it has no standard error".to_owned()));
        };
        let pidfd = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pidfd, rustix::process::PidfdFlags::empty())
            .map_err(|e| failed("watching it", e.into()));
        let mut live = match pidfd {
            Ok(pidfd) => Live {
                child,
                pidfd,
                stderr: BufReader::new(stderr),
                connection,
            },
            Err(error) => {
                let _ = (child.kill(), child.wait());
                return Err(error);
            }
        };
        let call = Call::new("start").with_timeout(START);
        let end = call.expires(Instant::now());
        let mut reply = Vec::new();
        let error = match live
            .connection
            .call("hello", &call, &self.hello, end, &mut reply)
        {
            Ok(ReplyStatus::Ok) => return Ok((live, reply)),
            Ok(ReplyStatus::Fault) => PluginError::Create(fault(Outcome::Fault, &reply)),
            Ok(ReplyStatus::Panicked) => PluginError::Create(fault(Outcome::Panicked, &reply)),
            Err(Lost::Late) => PluginError::Child(format!("no answer within {START:?}")),
            Err(Lost::Unsendable(error)) => failed("asking it", error),
            Err(Lost::Dead) => {
                let status = live.finish();
                let mut words = String::new();
                // What it said last is the best explanation there is; none is possible.
                let _ = (&mut live.stderr).take(4096).read_to_string(&mut words);
                let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
                let comma = if words.is_empty() { "" } else { ": " };
                return Err(PluginError::Child(format!(
                    "{}{comma}{words}",
                    epitaph(status)
                )));
            }
        };
        live.connection.close();
        live.finish();
        Err(error)
    }
}
