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
        return firewall.react(!missed_before || !firewall.is_there()?, true);
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use gantry_driver_api::network::FirewallIntent;
    use gantry_model::NetworkId;
    use gantry_sys::netns;
    use gantry_sys::nft::{BaseChain, Batch, Holds, Hook, NftSocket, SetSpec, kind};

    use super::super::{Firewall, Ways};
    use super::*;

    /// Whether a socket that hears of nftables in this namespace has missed something.
    fn missed() -> bool {
        // Columns: address, protocol, port, groups, memory read and written, callback, locks, drops.
        let sockets = fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
        sockets.lines().skip(1).any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[1], words[3]) == ("12", "00000040") && words[8] != "0"
        })
    }

    fn at_last(what: impl Fn() -> bool) {
        for _ in 0..1000 {
            if what() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it never comes");
    }

    /// Changes that are of no interest, until some are missed.
    fn flood(socket: &mut NftSocket) {
        const SET: SetSpec<'_> = SetSpec {
            name: "addresses",
            key: &[kind::IPV4],
            value: None,
            holds: Holds::Keys,
        };
        let addresses = || (1..4000_u32).map(|address| (address.to_be_bytes().to_vec(), None));
        for _ in 0..100 {
            if missed() {
                return;
            }
            let mut batch = Batch::new(Family::Inet, "flood");
            batch.add_table();
            batch.add_set(&SET);
            batch.add_elements(SET.name, addresses().collect());
            socket.commit(batch).unwrap();
            let mut batch = Batch::new(Family::Inet, "flood");
            batch.remove_table();
            socket.commit(batch).unwrap();
        }
        panic!("nothing is missed");
    }

    #[test]
    fn after_changes_that_were_missed_everything_is_made_again() {
        netns::create(|| {
            let firewall = Firewall::open("0badcafe", true, Ways::default(), None)?;
            let bridge = FirewallIntent::Bridge {
                link: "b0badcafe1".into(),
                subnets: vec!["10.9.0.0/24".parse().unwrap()],
                masquerade: true,
                internal: false,
                icc: true,
                ways: Default::default(),
            };
            firewall.set_networks([(NetworkId::generate(), vec![bridge])])?;
            let mut socket = NftSocket::open()?;
            let rules = |socket: &mut NftSocket| {
                let rules = socket.rules(Family::Inet, &firewall.table, "forward");
                rules.unwrap().len()
            };
            let all = rules(&mut socket);
            assert!(all > 0);
            {
                // Nobody hears while this is held: the thread is about to pass a chain of others.
                let _held = firewall.state.as_ref().unwrap().lock();
                let mut foreign = Batch::new(Family::Inet, "foreign");
                foreign.add_table();
                foreign.add_chain(&BaseChain {
                    name: "forward",
                    kind: "filter",
                    hook: Hook::Forward,
                    priority: 0,
                    drop: true,
                });
                socket.commit(foreign)?;
                flood(&mut socket);
                let mut damage = Batch::new(Family::Inet, &firewall.table);
                damage.flush_chain("forward");
                socket.commit(damage)?;
                assert_eq!(rules(&mut socket), 0);
            }
            let socket = std::cell::RefCell::new(socket);
            at_last(|| rules(&mut socket.borrow_mut()) == all);
            firewall.remove()
        })
        .unwrap();
    }
}
