//! Removing links without waiting until the kernel has freed them.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::{Change, RouteSocket};

/// The kernel is asked for the link after this long, then after twice as long each time,
const FIRST: Duration = Duration::from_micros(100);
/// up to this.
const LONGEST: Duration = Duration::from_millis(5);

/// Removes the link of this name, if there is one, from the namespace of the calling thread, and with it the other end
/// of a veth pair. When this returns neither is to be seen any more, and their names, addresses and routes are free.
///
/// The kernel does that much within a millisecond, and acknowledges it when everyone who may still look at the link is
/// done, some 20 ms later. A thread waits for that.
///
/// # Errors
/// The kernel's. That somebody else has removed the link meanwhile is none.
pub fn remove_link(name: &str) -> io::Result<()> {
    remove(name, |work| {
        let thread = std::thread::Builder::new().name("link-removal".into());
        thread.stack_size(128 * 1024).spawn(work).map(drop)
    })
}

/// Removes a link with a thread that `spawn` starts, or waits for the kernel where there can be no thread.
fn remove(
    name: &str,
    spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
) -> io::Result<()> {
    let mut asking = RouteSocket::open()?;
    let Some(found) = asking.link(name)? else {
        return Ok(());
    };
    let mut removing = RouteSocket::open()?;
    let (done, result) = mpsc::channel();
    let spawned = spawn(Box::new(move || {
        // Nobody listens who has seen that the link is gone.
        let _ = done.send(delete(&mut removing, found.index));
    }));
    if spawned.is_err() {
        return delete(&mut asking, found.index);
    }
    let mut pause = FIRST;
    loop {
        match result.recv_timeout(pause) {
            Ok(removed) => return removed,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(io::Error::other("the thread that removes a link panicked"));
            }
            // The kernel answers between two changes of links, never in the middle of one.
            Err(RecvTimeoutError::Timeout) => match asking.link(name)? {
                Some(there) if there.index == found.index => pause = (pause * 2).min(LONGEST),
                _ => return Ok(()),
            },
        }
    }
}

fn delete(socket: &mut RouteSocket, index: u32) -> io::Result<()> {
    match socket.apply(vec![Change::delete(index)]) {
        Err(e) if e.error.raw_os_error() != Some(libc::ENODEV) => Err(e.error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;
    use crate::netlink::NewVeth;
    use crate::netns;

    fn pair(inner: &OwnedFd) -> Change {
        Change::veth(&NewVeth {
            name: "outer",
            master: 0,
            mtu: 0,
            peer: "inner",
            peer_mac: None,
            peer_netns: inner.as_fd(),
            up: true,
        })
    }

    #[test]
    fn both_ends_are_gone_and_all_they_had_is_free_at_once() {
        let (inner, mut inside) = netns::create(RouteSocket::open).unwrap();
        netns::create(|| {
            let mut socket = RouteSocket::open()?;
            let address = "10.9.0.2/24".parse().unwrap();
            for round in 0..20 {
                socket.apply(vec![pair(&inner)])?;
                let link = inside.link("inner")?.expect("born inside");
                inside.apply(vec![
                    Change::address(link.index, address),
                    Change::up(link.index),
                    Change::default_route("10.9.0.1".parse().unwrap(), link.index),
                ])?;
                remove_link("outer")?;
                assert_eq!(socket.link("outer")?, None, "round {round}");
                assert_eq!(inside.link("inner")?, None, "round {round}");
                assert_eq!(inside.addresses()?, [], "round {round}");
                assert_eq!(inside.routes()?, [], "round {round}");
            }
            remove_link("outer")
        })
        .unwrap();
    }

    #[test]
    fn without_a_thread_the_link_goes_all_the_same() {
        let (inner, _) = netns::create(RouteSocket::open).unwrap();
        netns::create(|| {
            let mut socket = RouteSocket::open()?;
            socket.apply(vec![pair(&inner)])?;
            remove("outer", |_| Err(io::ErrorKind::WouldBlock.into()))?;
            assert_eq!(socket.link("outer")?, None);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn what_the_kernel_refuses_is_told() {
        netns::create(|| {
            let error = remove_link("lo").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
            Ok(())
        })
        .unwrap();
    }
}
