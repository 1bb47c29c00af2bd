//! What is asked of iptables in its old form ("legacy"), whose tables nftables knows nothing of.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::net::{AddressFamily, SocketType};

/// Names of tables take so many bytes in requests.
const NAME: usize = 32;
/// Bytes of `struct ipt_getinfo`: the name, hooks, an offset of each of five hooks' first entries and policies, two sizes.
const INFO: usize = NAME + 4 + 2 * 5 * 4 + 2 * 4;
const GET_INFO: c_int = 64;
const GET_ENTRIES: c_int = 65;
/// The kernel's number of the forward hook.
const FORWARD: usize = 2;
/// `-NF_DROP - 1`, as verdicts are written.
const DROP: i32 = -1;
const FILTER: &str = "filter";

/// Whether the namespace of the calling thread has a legacy table `filter` that drops forwarded packets by its policy.
/// A table that does not exist is not made by asking.
///
/// # Errors
/// The kernel's: `EPERM` without `CAP_NET_ADMIN`.
pub fn drops_forwarded(v6: bool) -> io::Result<bool> {
    let names = match v6 {
        false => "/proc/thread-self/net/ip_tables_names",
        true => "/proc/thread-self/net/ip6_tables_names",
    };
    let names = match std::fs::read_to_string(names) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        names => names?,
    };
    if !names.lines().any(|name| name == FILTER) {
        return Ok(false);
    }
    let (family, level) = match v6 {
        false => (AddressFamily::INET, libc::IPPROTO_IP),
        true => (AddressFamily::INET6, libc::IPPROTO_IPV6),
    };
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    let info = get(socket.as_fd(), level, GET_INFO, request(INFO))?;
    let policy = word(&info, NAME + 4 + 5 * 4 + FORWARD * 4)?;
    let size = word(&info, INFO - 4)?;
    // The entries come behind the name and the size, aligned to eight bytes.
    const BEFORE: usize = NAME + 8;
    let mut wanted = request(BEFORE + size as usize);
    wanted[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    let all = get(socket.as_fd(), level, GET_ENTRIES, wanted)?;
    verdict(&all[BEFORE..], policy as usize, v6).map(|verdict| verdict == DROP)
}

fn request(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[..FILTER.len()].copy_from_slice(FILTER.as_bytes());
    bytes
}

fn word(bytes: &[u8], at: usize) -> io::Result<u32> {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    let word = word.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(u32::from_ne_bytes(*word))
}

/// What the standard target of an entry says.
fn verdict(entries: &[u8], at: usize, v6: bool) -> io::Result<i32> {
    // Where an entry says how far its target is, behind what it matches.
    let offset_at = if v6 { 140 } else { 88 };
    const TARGET_HEADER: usize = 32;
    let offset = entries
        .get(at + offset_at..)
        .and_then(|rest| rest.first_chunk());
    let offset = u16::from_ne_bytes(*offset.ok_or(io::ErrorKind::UnexpectedEof)?);
    word(entries, at + usize::from(offset) + TARGET_HEADER).map(u32::cast_signed)
}

fn get(
    socket: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    mut bytes: Vec<u8>,
) -> io::Result<Vec<u8>> {
    let mut length = bytes.len() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for the call; the kernel reads and writes at most `length` bytes of the buffer,
    // which is that long, and `length` itself.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            bytes.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match done {
        0 => Ok(bytes),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_policy_is_seen_where_there_is_one() {
        let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
        crate::netns::create(|| {
            for (v6, program) in [(false, "iptables-legacy"), (true, "ip6tables-legacy")] {
                assert!(!drops_forwarded(v6)?, "without a table");
                if !there(program) {
                    continue;
                }
                for (policy, drops) in [("DROP", true), ("ACCEPT", false)] {
                    let set = Command::new(program)
                        .args(["-P", "FORWARD", policy])
                        .output()?;
                    // A kernel without the old tables has nothing to be seen.
                    if set.status.success() {
                        assert_eq!(drops_forwarded(v6)?, drops, "{program} {policy}");
                    }
                }
            }
            Ok(())
        })
        .unwrap();
    }
}
