//! The daemon's side.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::transport::{self, Receiver};
use crate::{Foreign, Listeners, PROTOCOL, Relay, Reply, Request, SandboxNames};

/// Why netd could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection is broken; connect again.
    #[error("netd does not answer: {0}")]
    Broken(#[from] io::Error),
    /// netd said no.
    #[error("netd: {0}")]
    Refused(String),
    /// It is more than netd takes of one sandbox: 16 MiB.
    #[error("there is too much to tell netd")]
    TooLong,
    /// netd answered something else than was asked.
    #[error("netd answered out of turn")]
    Confused,
}

/// A connection to netd. Requests are answered in turn; guard it when threads share it.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    receiver: Receiver,
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
            receiver: Receiver::default(),
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
        match transport::send(&self.socket, request, fds) {
            Err(e) if e.kind() == io::ErrorKind::FileTooLarge => return Err(ClientError::TooLong),
            sent => sent?,
        }
        match self.receiver.receive(&self.socket)? {
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
    /// [`ClientError::Refused`] without `sockets` when netd has none of the sandbox; [`ClientError::TooLong`].
    pub fn put(
        &mut self,
        names: SandboxNames,
        sockets: Option<&[OwnedFd; 2]>,
    ) -> Result<(), ClientError> {
        let fds: Vec<_> = sockets.into_iter().flatten().map(AsFd::as_fd).collect();
        self.done(&Request::Put(names), &fds)
    }

    /// Forgets a sandbox's names.
    ///
    /// # Errors
    /// Only of the connection.
    pub fn remove(&mut self, id: &str) -> Result<(), ClientError> {
        self.done(&Request::Remove { id: id.to_owned() }, &[])
    }

    /// Sets a network's members on other hosts.
    ///
    /// # Errors
    /// Only of the connection.
    pub fn set_foreign(&mut self, network: &str, members: &[Foreign]) -> Result<(), ClientError> {
        let mut rest = members;
        let mut first = true;
        loop {
            let (part, more) = rest.split_at(fitting(rest));
            let request = Request::Foreign {
                network: network.to_owned(),
                members: part.to_vec(),
                first,
                last: more.is_empty(),
            };
            self.done(&request, &[])?;
            if more.is_empty() {
                return Ok(());
            }
            (rest, first) = (more, false);
        }
    }

    /// The sandboxes that netd answers for.
    ///
    /// # Errors
    /// Only of the connection.
    pub fn list(&mut self) -> Result<Vec<String>, ClientError> {
        self.all(|after| Request::List { after })
    }

    /// The IDs of several replies.
    fn all(&mut self, request: impl Fn(String) -> Request) -> Result<Vec<String>, ClientError> {
        let mut all = Vec::new();
        loop {
            let after = all.last().cloned().unwrap_or_default();
            match self.ask(&request(after), &[])? {
                Reply::Sandboxes(ids) if ids.is_empty() => return Ok(all),
                Reply::Sandboxes(ids) => all.extend(ids),
                _ => return Err(ClientError::Confused),
            }
        }
    }

    /// Where what is sent to relayed ports has to be led.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when netd cannot listen.
    pub fn listen(&mut self) -> Result<Listeners, ClientError> {
        match self.ask(&Request::Listen, &[])? {
            Reply::Listening(listeners) => Ok(listeners),
            _ => Err(ClientError::Confused),
        }
    }

    /// Sets what is relayed to a sandbox. `patient`: what cannot be listened on now is listened on later.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when a port that is new cannot be listened on, unless `patient`.
    pub fn relay(&mut self, id: &str, relays: &[Relay], patient: bool) -> Result<(), ClientError> {
        // A relay takes less than 200 bytes.
        const AT_ONCE: usize = 500;
        let parts = relays.len().div_ceil(AT_ONCE).max(1);
        for part in 0..parts {
            let at = part * AT_ONCE;
            let request = Request::Relay {
                id: id.to_owned(),
                relays: relays[at..relays.len().min(at + AT_ONCE)].to_vec(),
                first: part == 0,
                last: part + 1 == parts,
                patient,
            };
            self.done(&request, &[])?;
        }
        Ok(())
    }

    /// The sandboxes that something is relayed to.
    ///
    /// # Errors
    /// Only of the connection.
    pub fn relayed(&mut self) -> Result<Vec<String>, ClientError> {
        self.all(|after| Request::Relayed { after })
    }

    /// Forgets what is relayed to a sandbox, and ends the connections.
    ///
    /// # Errors
    /// Only of the connection.
    pub fn unrelay(&mut self, id: &str) -> Result<(), ClientError> {
        self.done(&Request::Unrelay { id: id.to_owned() }, &[])
    }

    /// Has netd hold what would end with the daemon otherwise, in the place of what it held.
    ///
    /// # Errors
    /// Only of the connection.
    pub fn hold(&mut self, held: Option<&[OwnedFd; 2]>) -> Result<(), ClientError> {
        let fds: Vec<_> = held.into_iter().flatten().map(AsFd::as_fd).collect();
        self.done(&Request::Hold, &fds)
    }

    /// Ends netd.
    ///
    /// # Errors
    /// Only of the connection.
    pub fn stop(mut self) -> Result<(), ClientError> {
        self.done(&Request::Stop, &[])
    }
}

/// How many of these go into one message: one at least, if there is any.
fn fitting(members: &[Foreign]) -> usize {
    // A string or an address is framed by five bytes at most.
    let size = |member: &Foreign| {
        let names: usize = member.names.iter().map(|name| name.len() + 5).sum();
        names + member.addresses.len() * 40 + 64
    };
    let mut room = transport::LONGEST - 1024;
    let fit = members.iter().take_while(|member| {
        let fits = size(member) <= room;
        room = room.saturating_sub(size(member));
        fits
    });
    fit.count().max(1).min(members.len())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_network_fit_into_a_message() {
        let member = |n: u8| Foreign {
            names: vec!["n".repeat(usize::from(n)); 3],
            addresses: vec![std::net::Ipv6Addr::from([0xff; 16]).into(); 2],
        };
        let members: Vec<Foreign> = (0..5000_u32).map(|n| member((n % 250) as u8)).collect();
        let (mut rest, mut parts) = (members.as_slice(), 0);
        while !rest.is_empty() {
            let (part, more) = rest.split_at(fitting(rest));
            let request = Request::Foreign {
                network: "f".repeat(64),
                members: part.to_vec(),
                first: parts == 0,
                last: more.is_empty(),
            };
            let length = rmp_serde::to_vec_named(&request).unwrap().len();
            assert!((1..=transport::LONGEST).contains(&length), "{length}");
            (rest, parts) = (more, parts + 1);
        }
        assert!((2..100).contains(&parts), "{parts}");
        assert_eq!(fitting(&[]), 0);
    }
}
