//! The daemon's side.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::transport;
use crate::{PROTOCOL, Reply, Request, SandboxNames};

/// Why netd could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection is broken; connect again.
    #[error("netd does not answer: {0}")]
    Broken(#[from] io::Error),
    /// netd said no.
    #[error("netd: {0}")]
    Refused(String),
    /// netd answered something else than was asked.
    #[error("netd answered out of turn")]
    Confused,
}

/// A connection to netd. Requests are answered in turn; guard it when threads share it.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    version: u32,
    pid: u32,
}

impl Client {
    /// Connects to the netd that listens at `path`, or starts `program` to listen there. Its process is detached from
    /// the caller's session and outlives it.
    ///
    /// # Errors
    /// When there is none and none can be started.
    pub fn connect_or_start(path: &Path, program: &Path) -> Result<Self, ClientError> {
        if let Ok(client) = Self::connect(path) {
            return Ok(client);
        }
        start(path, program)?;
        Self::connect(path)
    }

    /// Connects to the netd that listens at `path`.
    ///
    /// # Errors
    /// When there is none.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let mut client = Self {
            socket: transport::connect(path)?,
            version: 0,
            pid: 0,
        };
        match client.ask(&Request::Hello { version: PROTOCOL }, &[])? {
            Reply::Hello { version, pid } => {
                (client.version, client.pid) = (version, pid);
                Ok(client)
            }
            _ => Err(ClientError::Confused),
        }
    }

    /// The protocol version of the netd at the other end.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    fn ask(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Reply, ClientError> {
        transport::send(&self.socket, request, fds)?;
        match transport::receive(&self.socket)? {
            Some((Reply::Refused(reason), _)) => Err(ClientError::Refused(reason)),
            Some((reply, _)) => Ok(reply),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    fn done(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        match self.ask(request, fds)? {
            Reply::Done => Ok(()),
            _ => Err(ClientError::Confused),
        }
    }

    /// Sets what is known of a sandbox; `sockets` (UDP, TCP) when it is new or has new ones.
    ///
    /// # Errors
    /// [`ClientError::Refused`] without `sockets` when netd has none of the sandbox.
    pub fn put(
        &mut self,
        names: SandboxNames,
        sockets: Option<&[OwnedFd; 2]>,
    ) -> Result<(), ClientError> {
        let fds: Vec<_> = sockets.into_iter().flatten().map(AsFd::as_fd).collect();
        self.done(&Request::Put(names), &fds)
    }

    /// Forgets a sandbox.
    ///
    /// # Errors
    /// Only of the connection.
    pub fn remove(&mut self, id: &str) -> Result<(), ClientError> {
        self.done(&Request::Remove { id: id.to_owned() }, &[])
    }

    /// The sandboxes that netd answers for.
    ///
    /// # Errors
    /// Only of the connection.
    pub fn list(&mut self) -> Result<Vec<String>, ClientError> {
        match self.ask(&Request::List, &[])? {
            Reply::Sandboxes(ids) => Ok(ids),
            _ => Err(ClientError::Confused),
        }
    }

    /// Ends netd.
    ///
    /// # Errors
    /// Only of the connection.
    pub fn stop(mut self) -> Result<(), ClientError> {
        self.done(&Request::Stop, &[])
    }
}

/// Starts netd with the listening socket as its standard input, so that it can be connected to at once.
fn start(path: &Path, program: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = transport::listen(path)?;
    let mut child = Command::new(program)
        // Not read: it tells people whose netd this is.
        .arg(path)
        .stdin(Stdio::from(listener))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .current_dir("/")
        .spawn()?;
    // Its exit status is of no interest, but somebody must collect it.
    std::thread::Builder::new()
        .name("netd-reaper".into())
        .stack_size(64 * 1024)
        .spawn(move || child.wait())?;
    Ok(())
}
