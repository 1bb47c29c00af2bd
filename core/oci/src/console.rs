//! Handing a terminal over: its master side goes through a socket, as with runc.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::error::{Context, Error, Result};

/// Whether somebody serves the terminal, if there is one.
pub(crate) fn check(tty: bool, socket: Option<&Path>, detached: bool) -> Result<()> {
    match (tty, socket) {
        (true, None) if detached => Err(Error::refused(
            "cannot allocate tty if gantry-oci will detach without setting console socket",
        )),
        (_, Some(_)) if !tty || !detached => Err(Error::refused(
            "cannot use console socket if gantry-oci will not detach or allocate tty",
        )),
        _ => Ok(()),
    }
}

/// Sends the master side to who listens at `path`.
pub(crate) fn send(path: &Path, terminal: &OwnedFd) -> Result<()> {
    let what = || format!("console socket {}", path.display());
    let socket = UnixStream::connect(path).context(what)?;
    let fds = [terminal.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let name = [IoSlice::new(b"/dev/ptmx")];
    rustix::net::sendmsg(&socket, &name, &mut control, SendFlags::NOSIGNAL).context(what)?;
    Ok(())
}
