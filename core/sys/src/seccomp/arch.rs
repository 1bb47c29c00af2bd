//! Architectures as the filter sees them, and the numbers of their system calls.

use syscalls::{aarch64, arm, x86, x86_64};

/// An architecture whose calls a process may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86.
    X86,
    /// 32-bit pointers on 64-bit x86; the same audit value, numbers with bit 30 set.
    X32,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM (EABI).
    Arm,
}

/// The bit in the number of an x32 call.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Calls that x32 does not share with x86_64, by their x86_64 names: (name, x32's own number, if any).
/// From `arch/x86/entry/syscalls/syscall_64.tbl`.
const X32_OWN: &[(&str, Option<u32>)] = &[
    ("rt_sigaction", Some(512)),
    ("rt_sigreturn", Some(513)),
    ("ioctl", Some(514)),
    ("readv", Some(515)),
    ("writev", Some(516)),
    ("recvfrom", Some(517)),
    ("sendmsg", Some(518)),
    ("recvmsg", Some(519)),
    ("execve", Some(520)),
    ("ptrace", Some(521)),
    ("rt_sigpending", Some(522)),
    ("rt_sigtimedwait", Some(523)),
    ("rt_sigqueueinfo", Some(524)),
    ("sigaltstack", Some(525)),
    ("timer_create", Some(526)),
    ("mq_notify", Some(527)),
    ("kexec_load", Some(528)),
    ("waitid", Some(529)),
    ("set_robust_list", Some(530)),
    ("get_robust_list", Some(531)),
    ("vmsplice", Some(532)),
    ("move_pages", Some(533)),
    ("preadv", Some(534)),
    ("pwritev", Some(535)),
    ("rt_tgsigqueueinfo", Some(536)),
    ("recvmmsg", Some(537)),
    ("sendmmsg", Some(538)),
    ("process_vm_readv", Some(539)),
    ("process_vm_writev", Some(540)),
    ("setsockopt", Some(541)),
    ("getsockopt", Some(542)),
    ("io_setup", Some(543)),
    ("io_submit", Some(544)),
    ("execveat", Some(545)),
    ("preadv2", Some(546)),
    ("pwritev2", Some(547)),
    ("uselib", None),
    ("_sysctl", None),
    ("create_module", None),
    ("get_kernel_syms", None),
    ("query_module", None),
    ("nfsservctl", None),
    ("set_thread_area", None),
    ("get_thread_area", None),
    ("epoll_ctl_old", None),
    ("epoll_wait_old", None),
    ("vserver", None),
];

/// Calls of 32-bit ARM beside its table, from `arch/arm/include/uapi/asm/unistd.h`.
const ARM_PRIVATE: &[(&str, u32)] = &[
    ("breakpoint", 0x000f_0001),
    ("cacheflush", 0x000f_0002),
    ("usr26", 0x000f_0003),
    ("usr32", 0x000f_0004),
    ("set_tls", 0x000f_0005),
    ("get_tls", 0x000f_0006),
    ("sync_file_range2", 341),
];

impl Arch {
    /// Every one, in a fixed order.
    pub const ALL: [Self; 5] = [Self::X86_64, Self::X86, Self::X32, Self::Aarch64, Self::Arm];

    /// From `uname -m`.
    #[must_use]
    pub fn from_machine(machine: &str) -> Option<Self> {
        match machine {
            "x86_64" => Some(Self::X86_64),
            "i386" | "i486" | "i586" | "i686" => Some(Self::X86),
            "aarch64" => Some(Self::Aarch64),
            _ if machine.starts_with("arm") => Some(Self::Arm),
            _ => None,
        }
    }
    /// From the OCI and libseccomp name, `SCMP_ARCH_X86_64`.
    #[must_use]
    pub fn from_scmp(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.scmp() == name)
    }
    /// The OCI and libseccomp name.
    #[must_use]
    pub fn scmp(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X86 => "SCMP_ARCH_X86",
            Self::X32 => "SCMP_ARCH_X32",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
            Self::Arm => "SCMP_ARCH_ARM",
        }
    }
    /// The name that Go and so Docker's profiles use in `includes.arches`.
    #[must_use]
    pub fn goarch(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X86 => "386",
            Self::X32 => "x32",
            Self::Aarch64 => "arm64",
            Self::Arm => "arm",
        }
    }
    /// `AUDIT_ARCH_*`, the `arch` that the kernel shows to a filter.
    #[must_use]
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }
    /// The number of a call as a filter sees it; `None` where the architecture does not have it.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u32> {
        let id = match self {
            Self::X86_64 => name.parse::<x86_64::Sysno>().ok()?.id(),
            Self::X86 => name.parse::<x86::Sysno>().ok()?.id(),
            Self::Aarch64 => name.parse::<aarch64::Sysno>().ok()?.id(),
            Self::Arm => match ARM_PRIVATE.iter().find(|(n, _)| *n == name) {
                Some(&(_, number)) => return Some(number),
                None => name.parse::<arm::Sysno>().ok()?.id(),
            },
            Self::X32 => match X32_OWN.iter().find(|(n, _)| *n == name) {
                Some(&(_, own)) => return own.map(|number| number | X32_BIT),
                None => name.parse::<x86_64::Sysno>().ok()?.id() | X32_BIT.cast_signed(),
            },
        };
        u32::try_from(id).ok()
    }
}

/// Calls that i386 also reaches through a multiplexer: (name, multiplexer, its first argument).
/// From `linux/net.h` and `linux/ipc.h`.
pub(super) const X86_MULTIPLEXED: &[(&str, &str, u64)] = &[
    ("socket", "socketcall", 1),
    ("bind", "socketcall", 2),
    ("connect", "socketcall", 3),
    ("listen", "socketcall", 4),
    ("accept", "socketcall", 5),
    ("getsockname", "socketcall", 6),
    ("getpeername", "socketcall", 7),
    ("socketpair", "socketcall", 8),
    ("send", "socketcall", 9),
    ("recv", "socketcall", 10),
    ("sendto", "socketcall", 11),
    ("recvfrom", "socketcall", 12),
    ("shutdown", "socketcall", 13),
    ("setsockopt", "socketcall", 14),
    ("getsockopt", "socketcall", 15),
    ("sendmsg", "socketcall", 16),
    ("recvmsg", "socketcall", 17),
    ("accept4", "socketcall", 18),
    ("recvmmsg", "socketcall", 19),
    ("sendmmsg", "socketcall", 20),
    ("semop", "ipc", 1),
    ("semget", "ipc", 2),
    ("semctl", "ipc", 3),
    ("semtimedop", "ipc", 4),
    ("msgsnd", "ipc", 11),
    ("msgrcv", "ipc", 12),
    ("msgget", "ipc", 13),
    ("msgctl", "ipc", 14),
    ("shmat", "ipc", 21),
    ("shmdt", "ipc", 22),
    ("shmget", "ipc", 23),
    ("shmctl", "ipc", 24),
];
