//! User namespaces: numbers inside and outside, and the namespaces themselves, which the zygote makes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use gantry_monitor::client;
use gantry_monitor::plan::{FdRole, IdMap, Launch, NamespaceKind, Plan};
use gantry_monitor::protocol::{Decoder, FromMonitor, Message};
use serde::{Deserialize, Serialize};

use crate::RuntimeError;
use crate::failure::create_error;
use crate::zygote::Zygotes;

/// Making namespaces takes the zygote a few milliseconds; longer than this it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a container's users and groups are numbered on the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UserNs {
    /// Users.
    pub uid: Vec<IdMap>,
    /// Groups.
    pub gid: Vec<IdMap>,
}

impl UserNs {
    /// Users and groups alike: `count` numbers from 0 on are those from `first` on outside.
    #[must_use]
    pub fn range(first: u32, count: u32) -> Self {
        let map = vec![IdMap {
            inside: 0,
            outside: first,
            count,
        }];
        Self {
            uid: map.clone(),
            gid: map,
        }
    }
    /// The user and group that the container's root is outside.
    #[must_use]
    pub fn root(&self) -> Option<(u32, u32)> {
        let root = |map: &[IdMap]| {
            let root = map.iter().find(|m| m.inside == 0 && m.count > 0);
            root.map(|m| m.outside)
        };
        Some((root(&self.uid)?, root(&self.gid)?))
    }
}

/// A user namespace and a network namespace that belongs to it, so that the container's root may set it up. They live as
/// long as the descriptors, or the processes in them.
#[derive(Debug)]
pub struct MadeNamespaces {
    /// The user namespace.
    pub user: OwnedFd,
    /// The network namespace; its loopback link is down.
    pub network: OwnedFd,
}

/// Has the zygote make them. Blocks.
pub(crate) fn make(zygotes: &Zygotes, maps: &UserNs) -> Result<MadeNamespaces, RuntimeError> {
    let launch = Launch {
        only_namespaces: true,
        uid_map: maps.uid.clone(),
        gid_map: maps.gid.clone(),
        ..Launch::default()
    };
    ask(zygotes, &launch, &[])
}

/// Has the zygote make a network namespace in a user namespace that is there. Blocks.
pub(crate) fn make_network(zygotes: &Zygotes, user: &OwnedFd) -> Result<OwnedFd, RuntimeError> {
    let launch = Launch {
        only_namespaces: true,
        fds: vec![FdRole::Namespace(NamespaceKind::User)],
        ..Launch::default()
    };
    ask(zygotes, &launch, &[user.as_fd()]).map(|made| made.network)
}

/// Launches and takes the answer; once more if the zygote died over it.
fn ask(
    zygotes: &Zygotes,
    launch: &Launch,
    fds: &[BorrowedFd<'_>],
) -> Result<MadeNamespaces, RuntimeError> {
    let launched = zygotes.launch(launch, &Plan::default(), fds)?;
    match answered(launched.socket) {
        Err(_) if zygotes.has_died(launched.zygote) => {
            answered(zygotes.launch(launch, &Plan::default(), fds)?.socket)
        }
        answer => answer,
    }
}

fn answered(socket: UnixStream) -> Result<MadeNamespaces, RuntimeError> {
    let failed = |e: &dyn std::fmt::Display| RuntimeError::Zygote(format!("namespaces: {e}"));
    socket
        .set_read_timeout(Some(PATIENCE))
        .map_err(|e| failed(&e))?;
    let (mut decoder, mut fds) = (Decoder::default(), Vec::new());
    let (mut user, mut network) = (None, None);
    loop {
        while let Some(answer) = decoder.next_message().map_err(|e| failed(&e))? {
            let FromMonitor { message, .. } = answer;
            match message {
                Message::UserNs | Message::Netns if fds.is_empty() => {
                    return Err(failed(&"an answer without its descriptor"));
                }
                // In the order in which they were sent.
                Message::UserNs => user = Some(fds.remove(0)),
                Message::Netns => network = Some(fds.remove(0)),
                Message::CreateFailed(failure) => return Err(create_error(failure)),
                other => return Err(failed(&format!("unexpected answer {other:?}"))),
            }
        }
        match (user, network) {
            (Some(user), Some(network)) => return Ok(MadeNamespaces { user, network }),
            others => (user, network) = others,
        }
        match client::receive(&socket, &mut decoder, &mut fds) {
            Ok(true) => {}
            Ok(false) => return Err(failed(&"the zygote's child is gone")),
            Err(e) => return Err(failed(&e)),
        }
    }
}
