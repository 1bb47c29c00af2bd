//! Connections of TCP to loopback addresses that are led elsewhere as they are made, so that nothing has to be translated
//! for each packet.
//!
//! Two eBPF programs, written here instruction by instruction, see every socket of IPv4 of a control group and its
//! descendants: one as it is connected (`BPF_CGROUP_INET4_CONNECT`), one as its peer's name is asked for
//! (`BPF_CGROUP_INET4_GETPEERNAME`), which is then told as the program connected to it. Sources: `linux/bpf.h`,
//! `bpf-helpers(7)`.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::bpf::insn::{Insn, insn, op};
use crate::bpf::{self, Map, MapKind, Use, btf};

/// Address and port as `struct bpf_sock_addr` has them: in network order, the port in a word.
const PLACE: usize = 8;
/// So many places at most. The map has 16 bytes for each from the beginning.
const MOST: u32 = 1 << 13;

/// Offsets in `struct bpf_sock_addr`.
mod field {
    pub(super) const IP4: i16 = 4;
    pub(super) const PORT: i16 = 24;
    pub(super) const PROTOCOL: i16 = 36;
    pub(super) const SOCKET: i16 = 64;
}

/// Offsets in `struct bpf_sock`.
mod socket {
    pub(super) const BOUND_LINK: i16 = 0;
    pub(super) const SOURCE_IP4: i16 = 24;
}

/// Numbers of helpers, of `enum bpf_func_id`.
mod helper {
    pub(super) const MAP_LOOKUP: i32 = 1;
    pub(super) const STORAGE_GET: i32 = 107;
    pub(super) const NETNS_COOKIE: i32 = 122;
}

const TCP: i32 = 6;
const CREATE: i32 = 1;
/// Source of the second word of a wide load: a map's descriptor.
const MAP_FD: u8 = 1;
/// The jump to a program's end, whose distance is put in when that is known.
const TO_END: i16 = i16::MIN;

type Places = Map<PLACE, PLACE>;
/// Where a socket was connected to, and where it was led.
type Storage = Map<4, { 2 * PLACE }>;

/// What leads connections. It ends when the last of its [`links`](Self::links) is closed, also in other processes.
#[derive(Debug)]
pub struct Led {
    places: Places,
    links: [OwnedFd; 2],
}

impl Led {
    /// Begins to lead sockets of the calling thread's network namespace, of processes in a group of the unified hierarchy
    /// and its descendants: nowhere yet. `name` tells people whose the programs are: up to 15
    /// letters, digits, dots and low lines.
    ///
    /// # Errors
    /// Those of `bpf(2)`: `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN`, `EINVAL` before Linux 5.14, `E2BIG` when others
    /// have attached 64 programs there.
    pub fn begin(group: &Path, name: &str) -> io::Result<Self> {
        let cookie = netns_cookie()?;
        let group = std::fs::File::open(group)?;
        let places = Places::new(MapKind::Hash, MOST, None)?;
        let storage = Storage::new(MapKind::SocketStorage, 0, Some(&btf::load()?))?;
        let link = |what, program: Vec<Insn>| {
            let program = bpf::load(what, name, &program)?;
            bpf::link(what, &group, program)
        };
        // Names first: nothing is led without them.
        let names = link(Use::PEER_NAME4, peer_name(storage.number()))?;
        let program = connect(places.number(), storage.number(), cookie);
        let connects = link(Use::CONNECT4, program)?;
        Ok(Self {
            places,
            links: [names, connects],
        })
    }

    /// What must be held by somebody for it to go on.
    #[must_use]
    pub fn links(&self) -> &[OwnedFd; 2] {
        &self.links
    }

    /// Leads what is connected to a port of a loopback address, or, with the unspecified one, of any of them for which
    /// nothing else was said.
    ///
    /// # Errors
    /// `E2BIG` when there are 8,192.
    pub fn set(&self, at: SocketAddrV4, to: SocketAddrV4) -> io::Result<()> {
        self.places.set(&place(at), &place(to))
    }

    /// Leads it no more. Removing what is not there succeeds.
    ///
    /// # Errors
    /// Those of `bpf(2)`.
    pub fn remove(&self, at: SocketAddrV4) -> io::Result<()> {
        self.places.remove(&place(at))
    }
}

fn place(at: SocketAddrV4) -> [u8; PLACE] {
    let [a, b, c, d] = at.ip().octets();
    let [e, f, g, h] = u32::from(at.port().to_be()).to_ne_bytes();
    [a, b, c, d, e, f, g, h]
}

/// The number of the calling thread's network namespace.
fn netns_cookie() -> io::Result<u64> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    crate::socket::netns_cookie(socket.as_fd())
}

/// The call of a helper with what is in the registers.
fn call(helper: i32) -> Insn {
    insn(op::CALL, 0, 0, 0, helper)
}

fn load_wide(register: u8, source: u8, value: u64) -> [Insn; 2] {
    let [low, high] = [value as u32, (value >> 32) as u32].map(u32::cast_signed);
    [
        insn(op::LD_IMM64, register, source, 0, low),
        insn(0, 0, 0, 0, high),
    ]
}

fn load_map(register: u8, map: i32) -> [Insn; 2] {
    load_wide(register, MAP_FD, u64::from(map.cast_unsigned()))
}

/// The program's end, with which all goes on as it may have been changed, and the jumps there.
fn ended(mut program: Vec<Insn>) -> Vec<Insn> {
    let end = program.len();
    for (at, jump) in program.iter_mut().enumerate() {
        if jump.off == TO_END {
            jump.off = i16::try_from(end - at - 1).unwrap_or(i16::MAX);
        }
    }
    program.extend([insn(op::MOV_IMM, 0, 0, 0, 1), insn(op::EXIT, 0, 0, 0, 0)]);
    program
}

/// Leads a socket that is about to be connected, unless it has an address or a link of its own. Registers: 6 is the context,
/// 7 and 8 are address and port, 9 is where they lead.
fn connect(places: i32, storage: i32, cookie: u64) -> Vec<Insn> {
    const KEY: i16 = -(PLACE as i16);
    let first = |byte: u8| u32::from_ne_bytes([byte, 0, 0, 0]).cast_signed();
    let look_up = [
        &load_map(1, places)[..],
        &[
            insn(op::MOV_REG, 2, 10, 0, 0),
            insn(op::ADD_IMM, 2, 0, 0, i32::from(KEY)),
            call(helper::MAP_LOOKUP),
        ],
    ]
    .concat();
    let program = [
        &[
            insn(op::MOV_REG, 6, 1, 0, 0),
            insn(op::LDX_W, 7, 6, field::IP4, 0),
            insn(op::MOV32_REG, 2, 7, 0, 0),
            insn(op::AND32_IMM, 2, 0, 0, first(255)),
            insn(op::JNE_IMM, 2, 0, TO_END, first(127)),
            insn(op::LDX_W, 2, 6, field::PROTOCOL, 0),
            insn(op::JNE_IMM, 2, 0, TO_END, TCP),
            insn(op::LDX_DW, 2, 6, field::SOCKET, 0),
            insn(op::LDX_W, 3, 2, socket::BOUND_LINK, 0),
            insn(op::JNE_IMM, 3, 0, TO_END, 0),
            insn(op::LDX_W, 3, 2, socket::SOURCE_IP4, 0),
            insn(op::JNE_IMM, 3, 0, TO_END, 0),
            insn(op::MOV_REG, 1, 6, 0, 0),
            call(helper::NETNS_COOKIE),
        ][..],
        &load_wide(2, 0, cookie),
        &[
            insn(op::JNE_REG, 0, 2, TO_END, 0),
            insn(op::LDX_W, 8, 6, field::PORT, 0),
            insn(op::STX_W, 10, 7, KEY, 0),
            insn(op::STX_W, 10, 8, KEY + 4, 0),
        ],
        // At this address; else at any.
        &look_up,
        &[
            insn(op::JNE_IMM, 0, 0, 2 + look_up.len() as i16, 0),
            insn(op::ST_W, 10, 0, KEY, 0),
        ],
        &look_up,
        &[insn(op::JEQ_IMM, 0, 0, TO_END, 0)],
        &[
            insn(op::MOV_REG, 9, 0, 0, 0),
            insn(op::LDX_DW, 2, 6, field::SOCKET, 0),
            insn(op::MOV_IMM, 3, 0, 0, 0),
            insn(op::MOV_IMM, 4, 0, 0, CREATE),
        ],
        &load_map(1, storage),
        &[
            call(helper::STORAGE_GET),
            // No memory: the connection is translated like others.
            insn(op::JEQ_IMM, 0, 0, TO_END, 0),
            insn(op::STX_W, 0, 7, 0, 0),
            insn(op::STX_W, 0, 8, 4, 0),
            insn(op::LDX_W, 1, 9, 0, 0),
            insn(op::STX_W, 0, 1, 8, 0),
            insn(op::STX_W, 6, 1, field::IP4, 0),
            insn(op::LDX_W, 1, 9, 4, 0),
            insn(op::STX_W, 0, 1, 12, 0),
            insn(op::STX_W, 6, 1, field::PORT, 0),
        ],
    ];
    ended(program.concat())
}

/// Tells of a socket that was led, unless it has been connected to something else since, what it was connected to.
fn peer_name(storage: i32) -> Vec<Insn> {
    let unless = |at, field| {
        [
            insn(op::LDX_W, 1, 0, at, 0),
            insn(op::LDX_W, 2, 6, field, 0),
            insn(op::JNE_REG, 1, 2, TO_END, 0),
        ]
    };
    let tell = |at, field| {
        [
            insn(op::LDX_W, 1, 0, at, 0),
            insn(op::STX_W, 6, 1, field, 0),
        ]
    };
    let program = [
        &[
            insn(op::MOV_REG, 6, 1, 0, 0),
            insn(op::LDX_DW, 2, 6, field::SOCKET, 0),
            insn(op::MOV_IMM, 3, 0, 0, 0),
            insn(op::MOV_IMM, 4, 0, 0, 0),
        ][..],
        &load_map(1, storage),
        &[
            call(helper::STORAGE_GET),
            insn(op::JEQ_IMM, 0, 0, TO_END, 0),
        ],
        &unless(8, field::IP4),
        &unless(12, field::PORT),
        &tell(0, field::IP4),
        &tell(4, field::PORT),
    ];
    ended(program.concat())
}

#[cfg(test)]
mod tests;
