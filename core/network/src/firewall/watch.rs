//! The thread that hears of what other programs do to nftables.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Weak;

use gantry_sys::nft::{Event, Family, NftWatch};
use rustix::event::{PollFd, PollFlags};

use super::{Firewall, foreign};

/// Starts it. It ends when the returned descriptor is closed.
pub(super) fn start(firewall: Weak<Firewall>) -> io::Result<OwnedFd> {
    let watch = NftWatch::open()?;
    let (alive, holder) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    std::thread::Builder::new()
        .name("nft-watch".into())
        .stack_size(128 * 1024)
        .spawn(move || {
            while ready(&watch, &alive) {
                let events = watch.wait();
                let Some(firewall) = firewall.upgrade() else {
                    return;
                };
                if let Err(error) = react(&firewall, events) {
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

fn react(firewall: &Firewall, events: io::Result<Vec<Event>>) -> io::Result<()> {
    let Ok(events) = events else {
        // Some were missed: there is no telling which.
        firewall.repair_egress()?;
        return firewall.react(!firewall.is_there()?, true);
    };
    let egress = firewall.egress_table();
    if events
        .iter()
        .any(|event| matches!(event, Event::TableRemoved { name, .. } if *name == egress))
    {
        firewall.repair_egress()?;
    }
    let own = &firewall.table;
    let removed = events.iter().any(|event| {
        matches!(event, Event::TableRemoved { family, name } if *family == Family::Inet as u8 && name == own)
    });
    let foreign = events.iter().any(|event| {
        matches!(event, Event::Chain(chain) if chain.table != *own && foreign::stops_us(chain))
    });
    if removed || foreign {
        // A table that was replaced by this program is there again.
        return firewall.react(removed && !firewall.is_there()?, foreign);
    }
    Ok(())
}
