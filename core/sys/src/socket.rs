//! What `rustix` does not tell of a socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Bytes that were written to a connected stream socket and that the other side has not taken yet: not read, for a Unix
/// socket; not acknowledged, for TCP. Source: `unix(7)`, `tcp(7)`, `SIOCOUTQ`.
///
/// # Errors
/// Those of `ioctl`, for descriptors that are not such sockets.
pub fn unsent(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed for the call, and TIOCOUTQ (SIOCOUTQ's other name) writes one int to the pointer,
    // which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn counts_what_the_peer_has_not_read() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        assert_eq!(unsent(&here).unwrap(), 0);
        here.write_all(b"hello").unwrap();
        assert!(unsent(&here).unwrap() > 0);
        there.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(unsent(&here).unwrap(), 0);
        assert!(unsent(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
