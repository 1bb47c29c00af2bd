//! The user's terminal: raw mode, size, and what is typed.

pub(crate) mod detach;
pub(crate) mod signals;

use std::io::IsTerminal;

use anyhow::{Result, bail};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

/// Rows and columns of the terminal that standard output (or else input) is.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(stdout())
        .or_else(|_| tcgetwinsize(stdin()))
        .ok()?;
    (size.ws_row != 0 || size.ws_col != 0).then_some((size.ws_row, size.ws_col))
}

/// Refuses a terminal session whose input is no terminal.
pub(crate) fn check_tty(attach_stdin: bool, tty: bool) -> Result<()> {
    if attach_stdin && tty && !std::io::stdin().is_terminal() {
        bail!("the input device is not a TTY");
    }
    Ok(())
}

/// Standard input in raw mode until dropped.
pub(crate) struct RawMode {
    saved: Termios,
}

impl RawMode {
    /// Switches standard input to raw mode, if it is a terminal.
    pub(crate) fn enable() -> Result<Option<Self>> {
        if !std::io::stdin().is_terminal() {
            return Ok(None);
        }
        let saved = tcgetattr(stdin())?;
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(Self { saved }))
    }

    /// Restores the terminal before a signal that nobody else handles ends the program.
    pub(crate) fn restore_on_signals(&self) -> Result<()> {
        for (kind, number) in [(SignalKind::terminate(), 15), (SignalKind::hangup(), 1)] {
            let mut arrivals = signal(kind)?;
            let saved = self.saved.clone();
            tokio::spawn(async move {
                arrivals.recv().await;
                let _ = tcsetattr(stdin(), OptionalActions::Now, &saved);
                std::process::exit(128 + number);
            });
        }
        Ok(())
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.saved);
    }
}

/// Whether progress may be drawn with cursor movements.
pub(crate) fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}
