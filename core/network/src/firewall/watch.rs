//! The thread that hears of what other programs do to nftables.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Weak;

use gantry_sys::nft::{Event, Family, NftWatch};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::{Firewall, foreign};

/// Starts it. It ends when the returned descriptor is closed.
pub(super) fn start(firewall: Weak<Firewall>) -> io::Result<OwnedFd> {
    let watch = NftWatch::open()?;
    let (alive, holder) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    std::thread::Builder::new()
        .name("nft-watch".into())
        .stack_size(128 * 1024)
        .spawn(move || {
            let mut missed = false;
            while ready(&watch, &alive) {
                let events = all(&watch);
                let Some(firewall) = firewall.upgrade() else {
                    return;
                };
                let missed_before = std::mem::replace(&mut missed, events.is_err());
                if let Err(error) = react(&firewall, events, missed_before) {
                    tracing::warn!(%error, "cannot repair the firewall");
                }
            }
        })?;
    Ok(holder)
}

/// Waits for changes; false when nobody is interested any more.
fn ready(watch: &NftWatch, alive: &OwnedFd) -> bool {
    let mut waited = [
        PollFd::new(watch, PollFlags::IN),
        PollFd::new(alive, PollFlags::IN),
    ];
    let polled = rustix::io::retry_on_intr(|| rustix::event::poll(&mut waited, None));
    polled.is_ok() && waited[1].revents().is_empty()
}

/// What there is to hear, so that much at once is one change: a flush tells of every rule. An error, after all was heard:
/// some changes were missed.
fn all(watch: &NftWatch) -> io::Result<Vec<Event>> {
    let mut all = Ok(Vec::new());
    loop {
        match (watch.wait(), &mut all) {
            (Ok(events), Ok(all)) => all.extend(events),
            (Ok(_), Err(_)) => {}
            (Err(error), _) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => {
                all = Err(error);
            }
            (Err(error), _) => return Err(error),
        }
        let mut waited = [PollFd::new(watch, PollFlags::IN)];
        if rustix::event::poll(&mut waited, Some(&Timespec::default()))? == 0 {
            return all;
        }
    }
}

fn react(
    firewall: &Firewall,
    events: io::Result<Vec<Event>>,
    missed_before: bool,
) -> io::Result<()> {
    let Ok(events) = events else {
        // There is no telling which. What is missed right after a repair is that repair.
        firewall.repair_egress(!missed_before)?;
        return firewall.react(!firewall.is_there()?, true);
    };
    let egress = firewall.egress_table();
    let damaged = firewall.is_egress_damaged(&events);
    let removed =
        |event: &Event| matches!(event, Event::TableRemoved { name, .. } if *name == egress);
    if damaged || events.iter().any(removed) {
        firewall.repair_egress(damaged)?;
    }
    let own = &firewall.table;
    let removed = events.iter().any(|event| {
        matches!(event, Event::TableRemoved { family, name } if *family == Family::Inet as u8 && name == own)
    });
    let others = |by: &u32| Some(*by) != firewall.port;
    let damaged = events.iter().any(|event| {
        matches!(event, Event::Removed { family, table, by, .. }
            if *family == Family::Inet as u8 && table == own && others(by))
    });
    let foreign = events.iter().any(|event| match event {
        Event::Chain(chain) => chain.table != *own && foreign::stops_us(chain),
        // Our rules in a chain of others may have been among them.
        Event::Removed {
            table, rule, by, ..
        } => *rule && table != own && others(by),
        Event::TableRemoved { .. } => false,
    });
    if damaged && !removed {
        return firewall.react(true, foreign);
    }
    if removed || foreign {
        // A table that was replaced by this program is there again.
        return firewall.react(removed && !firewall.is_there()?, foreign);
    }
    Ok(())
}
