//! `userns-remap`: a user and its subordinate numbers in `/etc/subuid` and `/etc/subgid` (see `subuid(5)`).

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, bail};
use gantry_runtime::{IdMap, UserNs};

/// Whom `userns-remap=default` means.
const DEFAULT_USER: &str = "dockremap";

/// Whose numbers containers with a range of their own get; Podman's word for the same.
const POOL_USER: &str = "containers";

/// The databases are small; what comes after is not read.
const MAX_FILE: u64 = 4 << 20;

/// Where the databases are.
#[derive(Debug, Clone)]
pub(crate) struct Databases<'a> {
    /// `/etc`.
    pub(crate) etc: &'a Path,
}

/// An account or group: name and number, as far as either is known.
#[derive(Debug, PartialEq, Eq)]
struct Who {
    name: String,
    number: String,
}

impl Databases<'_> {
    /// The numbers of every container, for a `userns-remap` of `default`, `user`, `uid`, `user:group` or `uid:gid`.
    ///
    /// # Errors
    /// In dockerd's words: who is not there or has no subordinate numbers. Nobody is created here.
    pub(crate) fn remap(&self, wanted: &str) -> anyhow::Result<UserNs> {
        let (user, group) = match wanted.split(':').collect::<Vec<_>>().as_slice() {
            [user] => (*user, *user),
            [user, group] => (*user, *group),
            _ => bail!("invalid user/group specification in --userns-remap: {wanted:?}"),
        };
        let named = |name: &str| match name {
            "default" => DEFAULT_USER.to_owned(),
            name => name.to_owned(),
        };
        let (user, group) = (named(user), named(group));
        let uid = self.lookup("passwd", &user).with_context(|| {
            let hint = match user.as_str() {
                DEFAULT_USER => {
                    ": make it, for example by useradd --system --user-group dockremap and \
                     usermod --add-subuids 231072-296607 --add-subgids 231072-296607 dockremap"
                }
                _ => "",
            };
            format!("Error during uid lookup for {user:?}{hint}")
        })?;
        // The user's name will do for a group that has no entry of its own.
        let gid = self.lookup("group", &group).unwrap_or(Who {
            name: group.clone(),
            number: group.clone(),
        });
        let uids = self.ranges("subuid", &uid)?;
        if uids.is_empty() {
            bail!("Can't create ID mappings: no subuid ranges found for user {user:?}");
        }
        let mut gids = self.ranges("subgid", &gid)?;
        if gids.is_empty() {
            gids = self.ranges("subgid", &uid)?;
        }
        if gids.is_empty() {
            bail!("Can't create ID mappings: no subgid ranges found for user {user:?}");
        }
        Ok(UserNs {
            uid: one_after_another(&uids),
            gid: one_after_another(&gids),
        })
    }

    /// Where containers get ranges of their own from: the numbers of the user `containers` where it has any.
    pub(crate) fn pool(&self) -> anyhow::Result<Option<Range<u32>>> {
        let who = Who {
            name: POOL_USER.into(),
            number: POOL_USER.into(),
        };
        let (uids, gids) = (self.ranges("subuid", &who)?, self.ranges("subgid", &who)?);
        // Users and groups are numbered alike: what both have.
        let shared = uids.iter().flat_map(|u| {
            gids.iter()
                .map(|g| u.start.max(g.start)..u.end.min(g.end))
                .filter(|r| !r.is_empty())
        });
        Ok(shared.max_by_key(|r| r.end - r.start))
    }

    fn read(&self, file: &str) -> anyhow::Result<String> {
        use std::io::Read;
        let path = self.etc.join(file);
        let mut text = String::new();
        match std::fs::File::open(&path) {
            Ok(file) => {
                let read = file.take(MAX_FILE).read_to_string(&mut text);
                read.with_context(|| format!("read {}", path.display()))?;
                Ok(text)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(text),
            Err(e) => Err(e).with_context(|| format!("open {}", path.display())),
        }
    }

    /// Finds a name or a number in passwd(5) or group(5): both have the number in the third column.
    fn lookup(&self, file: &str, wanted: &str) -> anyhow::Result<Who> {
        let text = self.read(file)?;
        let found = text.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, number) = (fields.next()?, fields.nth(1)?);
            (name == wanted || number == wanted).then(|| Who {
                name: name.to_owned(),
                number: number.to_owned(),
            })
        });
        found.with_context(|| format!("{wanted:?} has no entry in /etc/{file}"))
    }

    /// The ranges of one owner, lowest first.
    fn ranges(&self, file: &str, who: &Who) -> anyhow::Result<Vec<Range<u32>>> {
        let text = self.read(file)?;
        let mut ranges = Vec::new();
        for line in text.lines().filter(|l| !l.trim_start().starts_with('#')) {
            let fields: Vec<&str> = line.trim().split(':').collect();
            let [owner, first, count] = fields.as_slice() else {
                continue;
            };
            if *owner != who.name && *owner != who.number {
                continue;
            }
            let bad = || format!("invalid line in /etc/{file}: {line:?}");
            let first: u32 = first.parse().with_context(bad)?;
            let count: u32 = count.parse().with_context(bad)?;
            let end = first.checked_add(count).with_context(bad)?;
            if count > 0 {
                ranges.push(first..end);
            }
        }
        ranges.sort_by_key(|r| r.start);
        Ok(ranges)
    }
}

/// A container's numbers from 0 on, range by range.
fn one_after_another(ranges: &[Range<u32>]) -> Vec<IdMap> {
    let mut inside = 0u32;
    ranges
        .iter()
        .map(|range| {
            let map = IdMap {
                inside,
                outside: range.start,
                count: range.end - range.start,
            };
            inside = inside.saturating_add(map.count);
            map
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [(&str, &str); 4] = [
        (
            "passwd",
            "root:x:0:0::/root:/bin/sh\nalice:x:1000:1001::/:/bin/sh\n",
        ),
        ("group", "root:x:0:\nstaff:x:1001:alice\n"),
        (
            "subuid",
            "# numbers\nalice:200000:1000\n1000:100000:65536\ncontainers:3000000:9000\nbad line\n",
        ),
        (
            "subgid",
            "1001:300000:10\nalice:100000:65536\ncontainers:3000500:9000\n",
        ),
    ];

    fn with<T>(then: impl FnOnce(&Databases<'_>) -> T) -> T {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in FILES {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        then(&Databases { etc: dir.path() })
    }

    fn map(inside: u32, outside: u32, count: u32) -> IdMap {
        IdMap {
            inside,
            outside,
            count,
        }
    }

    #[test]
    fn users_and_groups_by_name_and_number() {
        let uids = vec![map(0, 100_000, 65_536), map(65_536, 200_000, 1000)];
        with(|d| {
            for wanted in ["alice", "1000"] {
                let maps = d.remap(wanted).unwrap();
                assert_eq!(maps.uid, uids);
                assert_eq!(maps.gid, [map(0, 100_000, 65_536)]);
            }
            for wanted in ["alice:staff", "1000:1001"] {
                assert_eq!(d.remap(wanted).unwrap().gid, [map(0, 300_000, 10)]);
            }
            assert_eq!(d.pool().unwrap(), Some(3_000_500..3_009_000));
        });
    }

    #[test]
    fn who_is_not_there_is_refused() {
        let refused = |wanted: &str| with(|d| format!("{:#}", d.remap(wanted).unwrap_err()));
        assert_eq!(
            refused("a:b:c"),
            "invalid user/group specification in --userns-remap: \"a:b:c\""
        );
        assert_eq!(
            refused("root"),
            "Can't create ID mappings: no subuid ranges found for user \"root\""
        );
        assert!(refused("bob").starts_with("Error during uid lookup for \"bob\""));
        assert!(refused("default").contains("useradd --system --user-group dockremap"));
        let dir = tempfile::tempdir().unwrap();
        let none = Databases { etc: dir.path() };
        assert_eq!(none.pool().unwrap(), None);
        std::fs::write(dir.path().join("subuid"), "containers:1:x\n").unwrap();
        assert!(none.pool().is_err());
    }
}
