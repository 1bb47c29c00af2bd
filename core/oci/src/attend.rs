//! Being the parent of a process in the foreground: signals go to it, its terminal is shown on this one's.

use std::io::{IsTerminal, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};

use gantry_monitor::direct;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use rustix::termios::{OptionalActions, Termios};

use crate::error::{Context, Error, Result};

/// Serves a child until it ends; its exit code.
pub(crate) fn attend(pid: i32, terminal: Option<OwnedFd>) -> Result<u8> {
    let signals = signals().context(|| "signalfd".into())?;
    let number = Pid::from_raw(pid).ok_or(Error::NotRunning)?;
    let process =
        rustix::process::pidfd_open(number, PidfdFlags::empty()).context(|| "pidfd_open".into())?;
    let raw = terminal.as_ref().map(|_| Raw::set());
    let mut attendant = Attendant {
        process,
        signals,
        input: terminal.is_some(),
        terminal,
    };
    attendant.resize();
    while attendant.serve().context(|| "serve the process".into())? {}
    attendant.drain();
    drop(raw);
    Ok(u8::try_from(direct::wait(pid)).unwrap_or(u8::MAX))
}

struct Attendant {
    process: OwnedFd,
    signals: SignalFd,
    terminal: Option<OwnedFd>,
    /// Standard input has not ended.
    input: bool,
}

impl Attendant {
    /// Waits for something to happen and does it; `false` when the process has ended.
    fn serve(&mut self) -> std::result::Result<bool, Errno> {
        let stdin = stdin();
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.process.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
        ];
        if let Some(terminal) = &self.terminal {
            fds.push(PollFd::from_borrowed_fd(terminal.as_fd(), PollFlags::IN));
            if self.input {
                fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
            }
        }
        match rustix::event::poll(&mut fds, None) {
            Err(Errno::INTR) => return Ok(true),
            other => other?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[1] {
            self.pass_signals();
        }
        if ready.get(2) == Some(&true) && !self.show() {
            self.terminal = None;
        }
        if ready.get(3) == Some(&true) {
            self.type_in();
        }
        Ok(!ready[0])
    }

    fn pass_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match Signal::try_from(info.ssi_signo.cast_signed()) {
                Ok(Signal::SIGWINCH) => self.resize(),
                // A process that is gone takes none.
                Ok(signal) => drop(direct::signal(self.process.as_fd(), signal as i32)),
                Err(_) => {}
            }
        }
    }

    /// Gives the process's terminal the size of this one.
    fn resize(&self) {
        if let Some(terminal) = &self.terminal
            && let Ok(size) = rustix::termios::tcgetwinsize(stdin())
        {
            let _ = rustix::termios::tcsetwinsize(terminal, size);
        }
    }

    /// Copies what the process wrote; `false` at its end.
    fn show(&self) -> bool {
        let mut buffer = [0; 4096];
        let Some(terminal) = &self.terminal else {
            return false;
        };
        match rustix::io::read(terminal, &mut buffer) {
            Ok(n) if n > 0 => write_all(stdout(), &buffer[..n]).is_ok(),
            Err(Errno::INTR | Errno::AGAIN) => true,
            _ => false,
        }
    }

    fn type_in(&mut self) {
        let mut buffer = [0; 4096];
        let Some(terminal) = &self.terminal else {
            return;
        };
        match rustix::io::read(stdin(), &mut buffer) {
            Ok(n) if n > 0 => self.input = write_all(terminal, &buffer[..n]).is_ok(),
            Err(Errno::INTR | Errno::AGAIN) => {}
            _ => {
                // What a terminal takes for the end of its input.
                let _ = write_all(terminal, &[4]);
                self.input = false;
            }
        }
    }

    /// Shows what is left in the terminal of a process that has ended.
    fn drain(&self) {
        if let Some(terminal) = &self.terminal
            && rustix::io::ioctl_fionbio(terminal, true).is_ok()
        {
            let mut buffer = [0; 4096];
            while let Ok(n) = rustix::io::read(terminal, &mut buffer) {
                if n == 0 || write_all(stdout(), &buffer[..n]).is_err() {
                    break;
                }
            }
        }
    }
}

fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> std::result::Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(&fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// All signals but those that tell of this process itself.
fn signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::all();
    for own in [
        Signal::SIGCHLD,
        Signal::SIGPIPE,
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGABRT,
        Signal::SIGTRAP,
        Signal::SIGSYS,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
    ] {
        set.remove(own);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// This process's terminal without its own editing, until dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn set() -> Self {
        if !stdin().is_terminal() {
            return Self(None);
        }
        let Ok(old) = rustix::termios::tcgetattr(stdin()) else {
            return Self(None);
        };
        let mut raw = old.clone();
        raw.make_raw();
        let set = rustix::termios::tcsetattr(stdin(), OptionalActions::Now, &raw);
        Self(set.is_ok().then_some(old))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(old) = &self.0 {
            let _ = rustix::termios::tcsetattr(stdin(), OptionalActions::Now, old);
        }
    }
}
