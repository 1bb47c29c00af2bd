//! The pseudo-terminal of a process, made in the container's own devpts.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use gantry_monitor::protocol::Stage;
use rustix::fs::{Mode, OFlags};
use rustix::mount::OpenTreeFlags;
use rustix::pty::OpenptFlags;

use crate::fault::{At, Step, plain};
use crate::init::root::{DIRECTORY, Root};

/// Master and slave of a new terminal, in the current root (for an exec).
pub(crate) fn open(size: Option<(u16, u16)>) -> Step<(OwnedFd, OwnedFd)> {
    let root =
        rustix::fs::open("/", DIRECTORY, Mode::empty()).at(Stage::Setup, || "open /".into())?;
    open_in(&Root::new(root), size)
}

/// Master and slave of a new terminal, in `root`.
pub(crate) fn open_in(root: &Root, size: Option<(u16, u16)>) -> Step<(OwnedFd, OwnedFd)> {
    const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
    let what = || "open /dev/pts/ptmx".to_owned();
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = root
        .open_plain(Path::new("/dev/pts/ptmx"), flags)
        .at(Stage::Setup, what)?;
    let magic = rustix::fs::fstatfs(&master).at(Stage::Setup, what)?.f_type;
    if magic as i64 != DEVPTS_SUPER_MAGIC {
        return Err(plain(Stage::Setup, "/dev/pts is not a devpts file system"));
    }
    let what = || "set up terminal".to_owned();
    rustix::pty::unlockpt(&master).at(Stage::Setup, what)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).at(Stage::Setup, what)?;
    if let Some((rows, columns)) = size {
        set_size(&master, rows, columns).at(Stage::Setup, what)?;
    }
    Ok((master, slave))
}

/// Sets the size of a terminal.
pub(crate) fn set_size(fd: impl AsFd, rows: u16, columns: u16) -> Result<(), rustix::io::Errno> {
    let size = rustix::termios::Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(fd, size)
}

/// Shows the slave as `/dev/console` too.
pub(crate) fn bind_console(root: &Root, slave: &OwnedFd) -> Step<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let bind = || {
        let fd = rustix::mount::open_tree(slave, "", flags)?;
        root.attach(fd.as_fd(), Path::new("/dev/console"))
    };
    bind().at(Stage::Mount, || "bind /dev/console".into())
}

/// Makes standard input the controlling terminal of this session leader.
pub(crate) fn control() -> Step<()> {
    rustix::process::ioctl_tiocsctty(std::io::stdin())
        .at(Stage::Setup, || "set controlling terminal".into())
}
