//! Ethernet links whose other end is a program.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Makes a TAP link in the network namespace of the calling thread. Each read from the descriptor is a frame that was
/// sent into the link, each write one that comes out of it; the link goes with the descriptor.
///
/// # Errors
/// A name that is taken or too long, and those of the kernel.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // SAFETY: the structure is made of integers and pointers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays for the end.
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes an `ifreq`, which lives as long as the call.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) };
    match made {
        0 => Ok(file.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::netlink::{Change, RouteSocket};
    use crate::netns;

    #[test]
    fn what_is_sent_into_the_link_is_read() {
        let frame = netns::create(|| {
            let mut tap = File::from(open("tap0")?);
            let mut socket = RouteSocket::open()?;
            let link = socket.link("tap0")?.ok_or(io::ErrorKind::NotFound)?;
            let address = "10.0.0.1/24".parse().map_err(io::Error::other)?;
            socket.apply(vec![
                Change::address(link.index, address),
                Change::up(link.index),
            ])?;
            let to = ("10.0.0.2", 9);
            std::net::UdpSocket::bind("10.0.0.1:0")?.send_to(b"x", to)?;
            // The first ones may be the kernel's own words about itself.
            let mut frame = vec![0; 2048];
            loop {
                let length = tap.read(&mut frame)?;
                if frame[12..14] == [0x08, 0x06] {
                    return Ok(frame[..length].to_vec());
                }
            }
        });
        let frame = frame.unwrap().1;
        assert_eq!(frame[..6], [0xff; 6], "it asks everybody for 10.0.0.2");
        assert_eq!(frame[38..42], [10, 0, 0, 2]);
        assert!(open("a-name-that-is-too-long").is_err());
    }
}
