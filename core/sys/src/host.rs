//! What this machine is: read once at start-up and passed around as a value.

use std::io;
use std::path::{Path, PathBuf};

use crate::caps::{CapSet, bounding_set};
use crate::cgroup::{Cgroups, Mode};

/// Facts of the host that decide how containers are made.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// `uname -r`.
    pub kernel_release: String,
    /// Major and minor version of the kernel.
    pub kernel: (u32, u32),
    /// `uname -m` (`x86_64`, `aarch64`).
    pub machine: String,
    /// `uname -n`.
    pub hostname: String,
    /// Bytes of memory.
    pub memory_total: u64,
    /// Bytes of swap.
    pub swap_total: u64,
    /// CPUs this process may use.
    pub cpus: usize,
    /// How control groups are mounted; `None` where they are not.
    pub cgroups: Option<Cgroups>,
    /// Active security modules (`apparmor`, `selinux`, ...).
    pub lsms: Vec<String>,
    /// Capabilities that a container can be given at most.
    pub bounding_set: CapSet,
    /// Whether this process runs in a user namespace of its own.
    pub in_user_namespace: bool,
    /// Whether the kernel has `apparmor` with a policy interface.
    pub apparmor: bool,
}

impl HostFacts {
    /// Reads the facts. `proc` and `sys` are normally `/proc` and `/sys`.
    ///
    /// # Errors
    /// When `proc` is not a mounted proc file system. Missing optional facts are no error.
    pub fn probe(proc: &Path, sys: &Path) -> io::Result<Self> {
        let uts = rustix::system::uname();
        let kernel_release = uts.release().to_string_lossy().into_owned();
        let meminfo = std::fs::read_to_string(proc.join("meminfo"))?;
        let lsms = std::fs::read_to_string(sys.join("kernel/security/lsm")).unwrap_or_default();
        Ok(Self {
            kernel: parse_release(&kernel_release),
            kernel_release,
            machine: uts.machine().to_string_lossy().into_owned(),
            hostname: uts.nodename().to_string_lossy().into_owned(),
            memory_total: meminfo_bytes(&meminfo, "MemTotal:"),
            swap_total: meminfo_bytes(&meminfo, "SwapTotal:"),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            cgroups: Cgroups::detect(&sys.join("fs/cgroup"), proc).ok(),
            lsms: lsms
                .trim()
                .split(',')
                .filter(|l| !l.is_empty())
                .map(str::to_owned)
                .collect(),
            bounding_set: bounding_set(proc)?,
            in_user_namespace: in_user_namespace(proc),
            apparmor: sys.join("kernel/security/apparmor/profiles").exists(),
        })
    }
    /// Whether the kernel is at least `major.minor`.
    #[must_use]
    pub fn kernel_at_least(&self, major: u32, minor: u32) -> bool {
        self.kernel >= (major, minor)
    }
    /// The cgroup set-up in one word.
    #[must_use]
    pub fn cgroup_mode(&self) -> Option<Mode> {
        self.cgroups.as_ref().map(Cgroups::mode)
    }
    /// Paths of the parts of `/proc` where Docker masks per-CPU thermal throttling counters, as far as they exist.
    #[must_use]
    pub fn thermal_throttle_paths(sys: &Path) -> Vec<PathBuf> {
        let cpus = sys.join("devices/system/cpu");
        let Ok(entries) = std::fs::read_dir(&cpus) else {
            return Vec::new();
        };
        let mut paths: Vec<PathBuf> = entries
            .flatten()
            .filter(|e| {
                let name = e.file_name();
                let name = name.to_string_lossy();
                name.strip_prefix("cpu")
                    .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            })
            .map(|e| e.path().join("thermal_throttle"))
            .filter(|p| p.exists())
            .collect();
        paths.sort();
        paths
    }
}

/// Major and minor version of the running kernel.
#[must_use]
pub fn kernel_version() -> (u32, u32) {
    parse_release(&rustix::system::uname().release().to_string_lossy())
}

/// `6.18.1-foo` -> (6, 18); what is not a number counts as 0.
fn parse_release(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn meminfo_bytes(text: &str, key: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

/// The initial user namespace maps everything onto itself.
fn in_user_namespace(proc: &Path) -> bool {
    std::fs::read_to_string(proc.join("self/uid_map"))
        .is_ok_and(|map| map.split_whitespace().ne(["0", "0", "4294967295"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_parse() {
        assert_eq!(parse_release("6.18.1-amd64"), (6, 18));
        assert_eq!(parse_release("5.10.0"), (5, 10));
        assert_eq!(parse_release("7-rc1"), (7, 0));
        assert_eq!(parse_release(""), (0, 0));
    }

    #[test]
    fn this_host_has_memory_cpus_and_capabilities() {
        let facts = HostFacts::probe(Path::new("/proc"), Path::new("/sys")).unwrap();
        assert!(facts.memory_total > 16 << 20);
        assert!(facts.cpus >= 1);
        assert!(facts.kernel_at_least(4, 0));
        assert!(!facts.bounding_set.is_empty());
    }
}
