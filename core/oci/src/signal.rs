//! `kill`, `pause` and `resume`.

use std::os::fd::AsFd;
use std::path::Path;
use std::str::FromStr;

use gantry_monitor::direct;
use gantry_monitor::plan::Namespace;

use crate::cli::KillArgs;
use crate::error::{Context, Error, Result};
use crate::state::{Container, Status};

/// `kill`.
pub(crate) fn command(root: &Path, args: &KillArgs) -> Result<()> {
    let container = Container::open(root, &args.id)?;
    let signo = parse(&args.signal)?;
    if args.all {
        return all(&container, signo);
    }
    match container.status() {
        Status::Created | Status::Running | Status::Paused => {}
        Status::Creating | Status::Stopped => return Err(Error::NotRunning),
    }
    send(&container, signo)
}

/// Sends a signal to the first process. Where its death would not be that of all others, it is killed with them.
pub(crate) fn send(container: &Container, signo: i32) -> Result<()> {
    let process = container.process()?;
    let alone = container.record.namespaces.pid == Namespace::New;
    match direct::signal(process.as_fd(), signo) {
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Err(Error::NotRunning),
        done => done.context(|| format!("send signal {signo}"))?,
    }
    if signo != libc::SIGKILL {
        return Ok(());
    }
    if !alone {
        return all(container, signo);
    }
    // On version 1 a frozen process does not even die.
    let group = container.group()?;
    if group.is_frozen().unwrap_or(false) {
        group.thaw()?;
    }
    Ok(())
}

fn all(container: &Container, signo: i32) -> Result<()> {
    let group = container.group()?;
    if signo == libc::SIGKILL {
        return Ok(group.kill_all()?);
    }
    for pid in group.pids()? {
        // One that is gone meanwhile needs no signal.
        let _ = direct::signal_number(pid, signo);
    }
    Ok(())
}

/// `pause` and `resume`.
pub(crate) fn pause(root: &Path, id: &str, freeze: bool) -> Result<()> {
    let container = Container::open(root, id)?;
    let _lock = container.lock()?;
    let group = container.group()?;
    match (container.status(), freeze) {
        (Status::Running | Status::Created, true) => Ok(group.freeze()?),
        (Status::Paused, false) => Ok(group.thaw()?),
        // One that is created and frozen is shown as created.
        (Status::Created, false) if group.is_frozen().unwrap_or(false) => Ok(group.thaw()?),
        (status, true) => Err(Error::refused(format!(
            "cannot pause a container that is {}",
            status.word()
        ))),
        (status, false) => Err(Error::refused(format!(
            "cannot resume a container that is {}",
            status.word()
        ))),
    }
}

/// A signal by name, with or without `SIG`, or by number.
pub(crate) fn parse(text: &str) -> Result<i32> {
    let unknown = || Error::refused(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64)
            .contains(&number)
            .then_some(number)
            .ok_or_else(unknown);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    // RTMIN is 34 for programs: the C library keeps the two before it.
    for (word, base, sign) in [("RTMIN+", 34, 1), ("RTMAX-", 64, -1)] {
        if let Some(offset) = name.strip_prefix(word) {
            let offset: i32 = offset.parse().map_err(|_| unknown())?;
            let in_range = (0..=30).contains(&offset);
            return in_range.then_some(base + sign * offset).ok_or_else(unknown);
        }
    }
    match name {
        "RTMIN" => Ok(34),
        "RTMAX" => Ok(64),
        _ => nix::sys::signal::Signal::from_str(&format!("SIG{name}"))
            .map(|signal| signal as i32)
            .map_err(|_| unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGTERM", 15),
            ("sigusr1", 10),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("RTMAX", 64),
            ("64", 64),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for bad in ["", "0", "65", "-1", "SIGNOPE", "RTMIN+x", "RTMIN+31"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
