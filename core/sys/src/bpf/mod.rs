//! `bpf(2)`: loading programs, maps, and attaching to control groups.

pub(crate) mod insn;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use insn::Insn;

/// Of `enum bpf_cmd`.
#[derive(Debug, Clone, Copy)]
#[repr(i32)]
enum Command {
    MapCreate = 0,
    MapUpdate = 2,
    MapDelete = 3,
    ProgLoad = 5,
    ProgAttach = 8,
    BtfLoad = 18,
    LinkCreate = 28,
}

/// What a program is for: of `enum bpf_prog_type`, and of `enum bpf_attach_type`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    program: u32,
    attach: u32,
}

impl Use {
    /// Decides which devices a group's processes may use.
    pub(crate) const DEVICES: Self = Self {
        program: 15,
        attach: 6,
    };
    /// Sees where sockets of IPv4 are about to be connected to, and may change it.
    pub(crate) const CONNECT4: Self = Self {
        program: 18,
        attach: 10,
    };
    /// Sees what `getpeername` says, and may change it.
    pub(crate) const PEER_NAME4: Self = Self {
        program: 18,
        attach: 29,
    };
}

/// The kind of a map, of `enum bpf_map_type`.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(crate) enum MapKind {
    Hash = 1,
    /// A value for each socket, which ends with it.
    SocketStorage = 24,
}

/// The members of `union bpf_attr` for `BPF_PROG_LOAD`, up to the attach type; the rest counts as zero.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// Those for `BPF_PROG_ATTACH`.
#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Those for `BPF_LINK_CREATE`.
#[repr(C)]
#[derive(Default)]
struct LinkAttr {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// Those for `BPF_MAP_CREATE`.
#[repr(C)]
#[derive(Default)]
struct MapAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
    map_ifindex: u32,
    btf_fd: u32,
    btf_key_type_id: u32,
    btf_value_type_id: u32,
}

/// Those for `BPF_MAP_UPDATE_ELEM` and `BPF_MAP_DELETE_ELEM`.
#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Those for `BPF_BTF_LOAD`.
#[repr(C)]
#[derive(Default)]
struct BtfAttr {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
}

const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_NO_PREALLOC: u32 = 1;
/// Of programs; the helpers that are called here ask for none.
const LICENSE: &CStr = c"Apache-2.0";

/// `bpf(2)`.
///
/// # Safety
/// `attr` must be what the command takes, its pointers valid for the call.
unsafe fn bpf<T>(command: Command, attr: &T) -> io::Result<libc::c_long> {
    // SAFETY: by this function's contract.
    let got = unsafe { libc::syscall(libc::SYS_bpf, command as i32, attr, size_of::<T>()) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(got)
}

/// `bpf(2)` for commands that give a descriptor.
///
/// # Safety
/// That of [`bpf`], and the command must be such a one.
unsafe fn made<T>(command: Command, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: by this function's contract.
    let fd = unsafe { bpf(command, attr)? };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given us this descriptor (close-on-exec, as all of bpf(2)'s).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}

/// Loads a program. `name` is what `bpftool prog` calls it: up to 15 letters, digits, dots and low lines.
///
/// # Errors
/// Those of `bpf(2)`: `EPERM` without `CAP_BPF`, `EINVAL` or `EACCES` where the kernel knows less than the program asks.
pub(crate) fn load(what: Use, name: &str, insns: &[Insn]) -> io::Result<OwnedFd> {
    let mut prog_name = [0; 16];
    let room = prog_name.iter_mut().zip(name.bytes().take(15));
    room.for_each(|(to, from)| *to = from);
    let attr = LoadAttr {
        prog_type: what.program,
        insn_cnt: u32::try_from(insns.len()).map_err(io::Error::other)?,
        insns: insns.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        prog_name,
        expected_attach_type: what.attach,
        ..LoadAttr::default()
    };
    // SAFETY: the attribute is of the size told and points to memory that outlives the call.
    unsafe { made(Command::ProgLoad, &attr) }
}

/// Attaches a program to a group of the unified hierarchy for as long as the group is there, beside what ancestors have.
///
/// # Errors
/// Those of `bpf(2)`.
pub(crate) fn attach(what: Use, group: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let attr = AttachAttr {
        target_fd: number(&group),
        attach_bpf_fd: number(&program),
        attach_type: what.attach,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the attribute is of the size told and holds no pointers.
    unsafe { bpf(Command::ProgAttach, &attr)? };
    Ok(())
}

/// Attaches a program to a group of the unified hierarchy for as long as somebody has the descriptor (Linux 5.7).
///
/// # Errors
/// Those of `bpf(2)`: `E2BIG` when the group has 64 of them.
pub(crate) fn link(what: Use, group: impl AsFd, program: impl AsFd) -> io::Result<OwnedFd> {
    let attr = LinkAttr {
        prog_fd: number(&program),
        target_fd: number(&group),
        attach_type: what.attach,
        flags: 0,
    };
    // SAFETY: the attribute is of the size told and holds no pointers.
    unsafe { made(Command::LinkCreate, &attr) }
}

/// A map of keys and values of fixed sizes; takes room for what is in it alone.
#[derive(Debug)]
pub(crate) struct Map<const KEY: usize, const VALUE: usize>(OwnedFd);

impl<const KEY: usize, const VALUE: usize> Map<KEY, VALUE> {
    /// `btf`: the types of key and value, which socket storage asks for.
    pub(crate) fn new(kind: MapKind, entries: u32, btf: Option<&OwnedFd>) -> io::Result<Self> {
        let attr = MapAttr {
            map_type: kind as u32,
            key_size: u32::try_from(KEY).map_err(io::Error::other)?,
            value_size: u32::try_from(VALUE).map_err(io::Error::other)?,
            max_entries: entries,
            map_flags: BPF_F_NO_PREALLOC,
            btf_fd: btf.map(number).unwrap_or_default(),
            btf_key_type_id: btf.map(|_| btf::INT).unwrap_or_default(),
            btf_value_type_id: btf.map(|_| btf::ARRAY).unwrap_or_default(),
            ..MapAttr::default()
        };
        // SAFETY: the attribute is of the size told and holds no pointers.
        unsafe { made(Command::MapCreate, &attr) }.map(Self)
    }

    /// What instructions know it by.
    pub(crate) fn number(&self) -> i32 {
        self.0.as_raw_fd()
    }

    fn element(&self, key: &[u8; KEY], value: u64) -> ElementAttr {
        ElementAttr {
            map_fd: number(&self.0),
            key: key.as_ptr() as u64,
            value,
            flags: 0,
        }
    }

    pub(crate) fn set(&self, key: &[u8; KEY], value: &[u8; VALUE]) -> io::Result<()> {
        let attr = self.element(key, value.as_ptr() as u64);
        // SAFETY: the attribute is of the size told and points to a key and a value of this map's sizes, which outlive the
        // call.
        unsafe { bpf(Command::MapUpdate, &attr)? };
        Ok(())
    }

    /// Removing what is not there succeeds.
    pub(crate) fn remove(&self, key: &[u8; KEY]) -> io::Result<()> {
        let attr = self.element(key, 0);
        // SAFETY: the attribute is of the size told and points to a key of this map's size, which outlives the call.
        match unsafe { bpf(Command::MapDelete, &attr) } {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

pub(crate) mod btf {
    //! Type information: what socket storage has for its key, `int`, and a value of 16 bytes, `int[4]`.
    //! Source: `Documentation/bpf/btf.rst`.

    use super::{BtfAttr, Command, io, made};
    use std::os::fd::OwnedFd;

    /// Number of the type `int`.
    pub(super) const INT: u32 = 1;
    /// Number of the type `int[4]`.
    pub(super) const ARRAY: u32 = 2;

    const STRINGS: &[u8; 5] = b"\0int\0";

    /// Tells the kernel of these types.
    ///
    /// # Errors
    /// Those of `bpf(2)`.
    pub(crate) fn load() -> io::Result<OwnedFd> {
        const KIND: u32 = 24;
        const SIGNED: u32 = 1 << 24;
        let types: [u32; 10] = [
            // Name, kind, bytes; encoding.
            1,
            1 << KIND,
            4,
            SIGNED | 32,
            // No name, kind, no bytes; of what, counted by what, how many.
            0,
            3 << KIND,
            0,
            INT,
            INT,
            4,
        ];
        let header: [u32; 4] = [
            0,
            size_of_val(&types) as u32,
            size_of_val(&types) as u32,
            STRINGS.len() as u32,
        ];
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        // Version, flags, length of the header.
        bytes.extend([1, 0]);
        bytes.extend(24_u32.to_ne_bytes());
        bytes.extend(header.into_iter().chain(types).flat_map(u32::to_ne_bytes));
        bytes.extend(STRINGS);
        let attr = BtfAttr {
            btf: bytes.as_ptr() as u64,
            btf_size: u32::try_from(bytes.len()).map_err(io::Error::other)?,
            ..BtfAttr::default()
        };
        // SAFETY: the attribute is of the size told and points to bytes that outlive the call.
        unsafe { made(Command::BtfLoad, &attr) }
    }
}
