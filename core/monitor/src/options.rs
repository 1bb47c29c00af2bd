//! Mount options in words, as `mount -o`, storage drivers and the OCI runtime spec have them.

use std::path::PathBuf;

use crate::plan::{Mount, MountSource, Propagation};

/// `MOUNT_ATTR_RDONLY` and so on: the bits of [`Mount::attr_set`]; see `mount_setattr(2)`.
pub mod attr {
    /// Writes are refused.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-ID bits and file capabilities are ignored.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// Nothing can be executed.
    pub const NOEXEC: u64 = 0x8;
    /// The field of the three `atime` choices; 0 is `relatime`.
    pub const ATIME: u64 = 0x70;
    /// Access times are not kept.
    pub const NOATIME: u64 = 0x10;
    /// Access times are always kept.
    pub const STRICTATIME: u64 = 0x20;
    /// Access times of directories are not kept.
    pub const NODIRATIME: u64 = 0x80;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// Words that set (true) or clear (false) an attribute; with an `r` before (`rro`), also of the mounts below.
const ATTRIBUTES: &[(&str, u64, bool)] = &[
    ("ro", attr::RDONLY, true),
    ("rw", attr::RDONLY, false),
    ("nosuid", attr::NOSUID, true),
    ("suid", attr::NOSUID, false),
    ("nodev", attr::NODEV, true),
    ("dev", attr::NODEV, false),
    ("noexec", attr::NOEXEC, true),
    ("exec", attr::NOEXEC, false),
    ("noatime", attr::NOATIME, true),
    ("atime", attr::NOATIME, false),
    ("strictatime", attr::STRICTATIME, true),
    ("nostrictatime", attr::STRICTATIME, false),
    ("relatime", 0, true),
    ("norelatime", 0, false),
    ("nodiratime", attr::NODIRATIME, true),
    ("diratime", attr::NODIRATIME, false),
    ("nosymfollow", attr::NOSYMFOLLOW, true),
    ("symfollow", attr::NOSYMFOLLOW, false),
];

const PROPAGATIONS: &[(&str, Propagation, bool)] = &[
    ("private", Propagation::Private, false),
    ("rprivate", Propagation::Private, true),
    ("slave", Propagation::Slave, false),
    ("rslave", Propagation::Slave, true),
    ("shared", Propagation::Shared, false),
    ("rshared", Propagation::Shared, true),
    ("unbindable", Propagation::Unbindable, false),
    ("runbindable", Propagation::Unbindable, true),
];

impl Mount {
    /// A mount from its four columns. `bind` or `rbind` among the options, or as type, makes it a bind mount; the types
    /// `cgroup` and `cgroup2` show the container's own cgroups. Words that are no generic option go to the file system.
    #[must_use]
    pub fn parse<S: AsRef<str>>(
        fstype: &str,
        source: &str,
        target: impl Into<PathBuf>,
        options: impl IntoIterator<Item = S>,
    ) -> Self {
        let mut mount = Self {
            target: target.into(),
            ..Self::default()
        };
        let mut bind = match fstype {
            "bind" => Some(false),
            "rbind" => Some(true),
            _ => None,
        };
        for option in options {
            match option.as_ref() {
                "" | "defaults" | "async" | "nomand" | "silent" | "loud" | "noiversion" => {}
                "bind" => bind = Some(bind.unwrap_or(false)),
                "rbind" => bind = Some(true),
                "tmpcopyup" | "copy" => mount.copy_up = true,
                "nocopy" => mount.copy_up = false,
                // With `ridmap` those below too: which those are is decided by the bind's being recursive.
                "idmap" | "ridmap" => mount.idmapped = true,
                word => mount.word(word),
            }
        }
        mount.source = match (bind, fstype) {
            (Some(recursive), _) => {
                mount.data.clear();
                MountSource::Bind {
                    source: source.into(),
                    recursive,
                }
            }
            (None, "cgroup" | "cgroup2") => MountSource::Cgroup,
            (None, _) => MountSource::Filesystem {
                fstype: fstype.into(),
                source: source.into(),
            },
        };
        mount
    }

    /// Takes one generic word, or keeps it for the file system.
    fn word(&mut self, word: &str) {
        if let Some(&(_, kind, recursive)) = PROPAGATIONS.iter().find(|p| p.0 == word) {
            self.propagation = Some((kind, recursive));
            return;
        }
        let plain = ATTRIBUTES.iter().find(|a| a.0 == word);
        let recursive = || {
            let rest = word.strip_prefix('r')?;
            ATTRIBUTES.iter().find(|a| a.0 == rest)
        };
        match plain
            .map(|a| (a, false))
            .or_else(|| Some((recursive()?, true)))
        {
            Some((&(_, bits, set), below)) => {
                self.attr_recursive |= below;
                let field = if bits & attr::ATIME != 0 || word.ends_with("relatime") {
                    attr::ATIME
                } else {
                    bits
                };
                self.attr_set &= !field;
                self.attr_clear |= field;
                if set {
                    self.attr_set |= bits;
                    if field != attr::ATIME {
                        self.attr_clear &= !field;
                    }
                }
            }
            None => self.data.push(word.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_bits() {
        let m = Mount::parse(
            "tmpfs",
            "tmpfs",
            "/dev",
            ["nosuid", "strictatime", "mode=755", "size=65536k"],
        );
        assert_eq!(m.attr_set, attr::NOSUID | attr::STRICTATIME);
        assert_eq!(m.data, ["mode=755", "size=65536k"]);
        assert_eq!(
            m.source,
            MountSource::Filesystem {
                fstype: "tmpfs".into(),
                source: "tmpfs".into()
            }
        );
    }

    #[test]
    fn binds_take_the_last_word() {
        let m = Mount::parse(
            "none",
            "/x",
            "/y",
            ["rbind", "ro", "rw", "rprivate", "noatime"],
        );
        assert_eq!(
            m.source,
            MountSource::Bind {
                source: "/x".into(),
                recursive: true
            }
        );
        assert_eq!(m.attr_set, attr::NOATIME);
        assert_eq!(m.attr_clear, attr::RDONLY | attr::ATIME);
        assert_eq!(m.propagation, Some((Propagation::Private, true)));
        assert!(!m.attr_recursive);
    }

    #[test]
    fn recursive_words_and_relatime() {
        let m = Mount::parse("bind", "/x", "/y", ["rro", "relatime"]);
        assert!(m.attr_recursive);
        assert_eq!(m.attr_set, attr::RDONLY);
        assert_eq!(m.attr_clear, attr::ATIME);
        assert_eq!(
            Mount::parse("cgroup", "cgroup", "/c", ["ro"]).source,
            MountSource::Cgroup
        );
    }
}
