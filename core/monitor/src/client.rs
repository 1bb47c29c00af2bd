//! The daemon's side, synchronous and without threads: spawn the zygote, launch, connect, send and receive.
//!
//! An asynchronous caller uses [`Zygote::launch`] and [`connect`] as they are (both take microseconds), sets the
//! connections non-blocking, and calls [`send`] and [`receive`] when they are ready: both return `WouldBlock` then.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::plan::{FdRole, Launch, Plan};
use crate::protocol::{Decoder, to_bytes};

/// The largest launch that travels in one message; a larger plan goes into a sealed memfd.
pub const MAX_INLINE: usize = 64 << 10;

/// The most descriptors in one message.
pub const MAX_FDS: usize = 16;

/// The name of the socket in [`Launch::socket_dir`].
pub const SOCKET_NAME: &str = "monitor.sock";

/// A running zygote. Dropping it closes its socket, on which it leaves; its monitors stay.
#[derive(Debug)]
pub struct Zygote {
    socket: OwnedFd,
    child: Child,
}

impl Zygote {
    /// Executes `binary zygote`; `stderr` takes the complaints of it and of its monitors.
    ///
    /// # Errors
    /// When the process cannot be made.
    pub fn spawn(binary: &Path, stderr: Stdio) -> io::Result<Self> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let mut command = Command::new(binary);
        command
            .arg("zygote")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        let raw = theirs.as_raw_fd();
        // SAFETY: only dup2 and fcntl are called between fork and exec, both async-signal-safe; `theirs` is open until
        // spawn returns.
        unsafe {
            command.pre_exec(move || {
                let done = if raw == 3 {
                    libc::fcntl(3, libc::F_SETFD, 0)
                } else {
                    libc::dup2(raw, 3)
                };
                if done < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn()?;
        Ok(Self {
            socket: ours,
            child,
        })
    }
    /// The zygote's process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
    /// Whether it has closed its socket: it is dead or about to be, and a launch that was just sent may never be read.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let mut polled = [rustix::event::PollFd::new(
            &self.socket,
            rustix::event::PollFlags::empty(),
        )];
        let now = rustix::event::Timespec::default();
        rustix::event::poll(&mut polled, Some(&now)).is_ok()
            && polled[0].revents().contains(rustix::event::PollFlags::HUP)
    }
    /// The process, to wait for it.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }
    /// Closes the socket and waits until the zygote has left. Monitors stay.
    ///
    /// # Errors
    /// Those of `wait4(2)`.
    pub fn close(self) -> io::Result<std::process::ExitStatus> {
        let Self { socket, mut child } = self;
        drop(socket);
        child.wait()
    }
    /// Sends a launch and returns the daemon's end of the first control connection (blocking), on which `Created` or
    /// `CreateFailed` follows. Its end before either means that the monitor was killed.
    ///
    /// `namespaces` are the descriptors for [`FdRole::Namespace`], in the order in which `header.fds` names them; the
    /// other roles and `header.version` are filled in here.
    ///
    /// # Errors
    /// When the launch cannot be encoded or sent; `EPIPE` when the zygote is dead.
    pub fn launch(
        &self,
        header: &Launch,
        plan: &Plan,
        namespaces: &[BorrowedFd<'_>],
    ) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut header = header.clone();
        header.version = crate::plan::VERSION;
        header
            .fds
            .retain(|role| matches!(role, FdRole::Namespace(_)));
        if header.fds.len() != namespaces.len() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let plan = to_bytes(plan).map_err(io::Error::other)?;
        let mut fds = namespaces.to_vec();
        header.fds.push(FdRole::Control);
        fds.push(theirs.as_fd());
        let memfd;
        let mut inline = plan.as_slice();
        if plan.len() + 4096 > MAX_INLINE {
            memfd = sealed(&plan)?;
            header.fds.push(FdRole::Plan);
            fds.push(memfd.as_fd());
            inline = &[];
        }
        let head = to_bytes(&header).map_err(io::Error::other)?;
        let len = (head.len() as u32).to_le_bytes();
        send_parts(
            self.socket.as_fd(),
            &[
                IoSlice::new(&len),
                IoSlice::new(&head),
                IoSlice::new(inline),
            ],
            &fds,
        )?;
        Ok(ours)
    }
}

fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(
        "gantry-plan",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    let mut done = 0;
    while done < bytes.len() {
        done += rustix::io::write(&fd, &bytes[done..])?;
    }
    rustix::fs::fcntl_add_seals(
        &fd,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(fd)
}

/// Connects to the monitor whose [`Launch::socket_dir`] is `dir`, however long that path is.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` when there is no monitor (any more).
pub fn connect(dir: &Path) -> io::Result<UnixStream> {
    let dir = rustix::fs::open(
        dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET_NAME}", dir.as_raw_fd()))?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::connect(&socket, &address)?;
    Ok(UnixStream::from(socket))
}

/// Sends bytes, with descriptors on the first of them, and says how many went: the rest follows without descriptors.
///
/// # Errors
/// Those of `sendmsg(2)`; never raises `SIGPIPE`.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    send_parts(socket.as_fd(), &[IoSlice::new(bytes)], fds)
}

/// As [`send`], of bytes that lie in several places.
///
/// # Errors
/// Those of `sendmsg(2)`; never raises `SIGPIPE`.
pub fn send_parts(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    Ok(rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, parts, &mut control, SendFlags::NOSIGNAL)
    })?)
}

/// Receives what is there (up to 8 KB) into the decoder, and descriptors to the end of `fds`. `false`: the peer is gone.
///
/// # Errors
/// Those of `recvmsg(2)`; a reset connection counts as gone.
pub fn receive(
    socket: impl AsFd,
    decoder: &mut Decoder,
    fds: &mut Vec<OwnedFd>,
) -> io::Result<bool> {
    let mut buffer = [0; 8 << 10];
    let n = match receive_bytes(socket.as_fd(), &mut buffer, fds) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => 0,
        other => other?,
    };
    decoder.push(&buffer[..n]);
    Ok(n > 0)
}

/// `recvmsg(2)` into `buffer`, with descriptors (close-on-exec) to the end of `fds`.
///
/// # Errors
/// Those of the system call.
pub fn receive_bytes(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(buffer)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(got.bytes)
}
