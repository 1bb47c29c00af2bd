//! Linux capabilities: names, bits, sets.

use std::fmt;
use std::io;
use std::path::Path;

/// Names without `CAP_`, by bit number (capabilities(7), `linux/capability.h`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Docker's default fourteen.
const DOCKER_DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities; bit n is capability n.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CapSet(u64);

impl CapSet {
    /// No capability.
    pub const EMPTY: Self = Self(0);
    /// Every capability that has a name here.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// From the kernel's bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
    /// The kernel's bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
    /// Docker's default set.
    #[must_use]
    pub fn docker_default() -> Self {
        DOCKER_DEFAULT.iter().filter_map(|n| bit(n)).collect()
    }
    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// Whether it has the capability of that number.
    #[must_use]
    pub const fn contains(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }
    /// Whether it has the named capability.
    #[must_use]
    pub fn has(self, name: &str) -> bool {
        bit(name).is_some_and(|b| self.contains(b))
    }
    /// In either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// In both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    /// In this one only.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    /// `CAP_X` names in order of their numbers.
    pub fn names(self) -> impl Iterator<Item = String> {
        (0..NAMES.len())
            .filter(move |&b| self.0 >> b & 1 == 1)
            .map(|b| format!("CAP_{}", NAMES[b]))
    }
}

impl FromIterator<u32> for CapSet {
    fn from_iter<I: IntoIterator<Item = u32>>(bits: I) -> Self {
        Self(bits.into_iter().fold(0, |set, b| set | 1 << b))
    }
}

impl fmt::Debug for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// The number of a capability; any case, with or without `CAP_`.
#[must_use]
pub fn bit(name: &str) -> Option<u32> {
    let bare = match name.get(..4) {
        Some(prefix) if prefix.eq_ignore_ascii_case("CAP_") => &name[4..],
        _ => name,
    };
    NAMES
        .iter()
        .position(|n| n.eq_ignore_ascii_case(bare))
        .and_then(|at| u32::try_from(at).ok())
}

/// A capability that a container cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapError {
    /// A name no kernel knows.
    #[error("unknown capability: {0:?}")]
    Unknown(String),
    /// One that this engine does not have itself.
    #[error(
        "capability not supported by your kernel or not available in the current environment: {0:?}"
    )]
    Unavailable(String),
}

/// Docker's rule for `--cap-add` and `--cap-drop` over `base`, limited to `available`: adding `ALL` gives all but the
/// dropped ones; dropping `ALL` gives only the added ones; else the drops are taken away first, then the adds added.
///
/// # Errors
/// [`CapError`]; dropping a known one that is not available is no error.
pub fn tweak(
    base: CapSet,
    add: &[String],
    drop: &[String],
    available: CapSet,
) -> Result<CapSet, CapError> {
    let (add_all, added) = parse_list(add)?;
    let (drop_all, dropped) = parse_list(drop)?;
    if let Some(name) = added.difference(available).names().next() {
        return Err(CapError::Unavailable(name));
    }
    let wanted = match (add_all, drop_all) {
        (true, _) => available.difference(dropped),
        (false, true) => added,
        (false, false) => base.difference(dropped).union(added),
    };
    Ok(wanted.intersection(available))
}

/// The named capabilities, and whether `ALL` was among them.
fn parse_list(list: &[String]) -> Result<(bool, CapSet), CapError> {
    let mut all = false;
    let mut set = CapSet::EMPTY;
    for name in list {
        if name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL") {
            all = true;
            continue;
        }
        let bit = bit(name).ok_or_else(|| {
            let upper = name.to_ascii_uppercase();
            let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
            CapError::Unknown(format!("CAP_{bare}"))
        })?;
        set = set.union(CapSet::from_bits(1 << bit));
    }
    Ok((all, set))
}

/// The bounding set of this process.
///
/// # Errors
/// When `proc` is not a mounted proc file system.
pub fn bounding_set(proc: &Path) -> io::Result<CapSet> {
    let status = std::fs::read_to_string(proc.join("self/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .map(CapSet::from_bits)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no CapBnd in self/status"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|&w| w.to_owned()).collect()
    }

    #[test]
    fn names_and_bits_agree() {
        assert_eq!(bit("CAP_SYS_ADMIN"), Some(21));
        assert_eq!(bit("net_admin"), Some(12));
        assert_eq!(bit("cap_checkpoint_restore"), Some(40));
        assert_eq!(bit("CAP_NONSENSE"), None);
        assert_eq!(CapSet::docker_default().bits(), 0xa804_25fb);
        assert_eq!(CapSet::ALL.names().count(), 41);
    }

    #[test]
    fn tweaks_follow_docker() {
        let base = CapSet::docker_default();
        let have = CapSet::ALL.difference(CapSet::from_bits(1 << 24));
        let tweak = |add: &[&str], drop: &[&str]| tweak(base, &words(add), &words(drop), have);
        assert_eq!(tweak(&[], &[]).unwrap(), base);
        assert_eq!(tweak(&["ALL"], &[]).unwrap(), have);
        assert_eq!(tweak(&[], &["all"]).unwrap(), CapSet::EMPTY);
        assert!(!tweak(&["ALL"], &["MKNOD"]).unwrap().has("MKNOD"));
        let only = tweak(&["NET_ADMIN"], &["ALL"]).unwrap();
        assert_eq!(only.names().collect::<Vec<_>>(), ["CAP_NET_ADMIN"]);
        assert!(!tweak(&[], &["chown"]).unwrap().has("CHOWN"));
        assert!(tweak(&["chown"], &["chown"]).unwrap().has("CHOWN"));
        assert!(tweak(&["SYS_RESOURCE"], &[]).is_err());
        assert_eq!(tweak(&[], &["SYS_RESOURCE"]).unwrap(), base);
        assert!(tweak(&["NOPE"], &[]).is_err());
    }
}
