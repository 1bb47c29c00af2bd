//! Who a process runs as: names looked up in the container's own user database, in runc's and Docker's manner.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::BorrowedFd;

use gantry_monitor::plan::User;
use gantry_monitor::protocol::Stage;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use crate::fault::{Step, plain};

/// A database larger than this is read so far and no further.
const MAX_DATABASE: u64 = 4 << 20;

/// Numbers to run as.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Resolves a user inside a root.
pub(crate) fn resolve(root: BorrowedFd<'_>, user: &User) -> Step<Identity> {
    let passwd = || lines(root, "/etc/passwd");
    match user {
        User::Ids { uid, gid, groups } => Ok(Identity {
            uid: *uid,
            gid: *gid,
            groups: groups.clone(),
            home: passwd()
                .filter_map(|l| Account::parse(&l))
                .find(|a| a.uid == *uid)
                .map_or_else(|| "/".into(), |a| a.home),
        }),
        User::Name { spec, groups } => lookup(spec, groups, passwd(), || lines(root, "/etc/group")),
    }
}

struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

impl Account {
    fn parse(line: &str) -> Option<Self> {
        let mut f = line.trim().split(':');
        let name = f.next().filter(|n| !n.is_empty() && !n.starts_with('#'))?;
        Some(Self {
            name: name.to_owned(),
            uid: f.nth(1)?.parse().ok()?,
            gid: f.next()?.parse().ok()?,
            home: f.nth(1).filter(|h| !h.is_empty()).unwrap_or("/").to_owned(),
        })
    }
}

struct Group {
    name: String,
    gid: u32,
    members: String,
}

impl Group {
    fn parse(line: &str) -> Option<Self> {
        let mut f = line.trim().split(':');
        let name = f.next().filter(|n| !n.is_empty() && !n.starts_with('#'))?;
        Some(Self {
            name: name.to_owned(),
            gid: f.nth(1)?.parse().ok()?,
            members: f.next().unwrap_or_default().to_owned(),
        })
    }
}

fn lookup<I: Iterator<Item = String>>(
    spec: &str,
    more: &[String],
    passwd: impl Iterator<Item = String>,
    group: impl Fn() -> I,
) -> Step<Identity> {
    let (user, group_spec) = spec.split_once(':').unwrap_or((spec, ""));
    let number = number(user)?;
    let account = passwd
        .filter_map(|l| Account::parse(&l))
        .find(|a| match number {
            Some(uid) => a.uid == uid,
            None if user.is_empty() => a.uid == 0,
            None => a.name == user,
        });
    let mut found = match (account, number) {
        (Some(a), _) => (Some(a.name), a.uid, a.gid, a.home),
        (None, Some(uid)) => (None, uid, 0, "/".into()),
        (None, None) if user.is_empty() => (None, 0, 0, "/".into()),
        (None, None) => {
            let message = format!("unable to find user {user}: no matching entries in passwd file");
            return Err(plain(Stage::User, message));
        }
    };
    if !group_spec.is_empty() {
        found.2 = group_id(group_spec, &group)?;
    }
    // The primary group is among the supplementary ones, as in Docker since CVE-2022-36109.
    let mut groups = vec![found.2];
    if group_spec.is_empty()
        && let Some(name) = &found.0
    {
        let member = |g: &Group| g.members.split(',').any(|m| m == name);
        let gids = group().filter_map(|l| Group::parse(&l)).filter(member);
        groups.extend(gids.map(|g| g.gid).filter(|gid| *gid != found.2));
    }
    for name in more {
        let gid = group_id(name, &group)?;
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    let (_, uid, gid, home) = found;
    Ok(Identity {
        uid,
        gid,
        groups,
        home,
    })
}

fn group_id<I: Iterator<Item = String>>(spec: &str, group: impl Fn() -> I) -> Step<u32> {
    // A name made of digits wins over the number, as in runc.
    let named = group()
        .filter_map(|l| Group::parse(&l))
        .find(|g| g.name == spec);
    if let Some(g) = named {
        return Ok(g.gid);
    }
    number(spec)?.ok_or_else(|| {
        let message = format!("unable to find group {spec}: no matching entries in group file");
        plain(Stage::User, message)
    })
}

/// A user or group given as a number.
fn number(spec: &str) -> Step<Option<u32>> {
    match spec.parse::<i64>() {
        Ok(n) if (0..=i64::from(i32::MAX)).contains(&n) => Ok(Some(n as u32)),
        Ok(_) => Err(plain(
            Stage::User,
            "uids and gids must be in range 0-2147483647",
        )),
        Err(_) => Ok(None),
    }
}

/// The lines of a database; none when it is missing or no plain file.
fn lines(root: BorrowedFd<'_>, path: &str) -> impl Iterator<Item = String> + use<> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
        .ok()
        .filter(|fd| {
            rustix::fs::fstat(fd)
                .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile)
        });
    file.into_iter().flat_map(|fd| {
        let reader = BufReader::new(std::fs::File::from(fd).take(MAX_DATABASE));
        reader
            .split(b'\n')
            .map_while(Result::ok)
            .map(|l| String::from_utf8_lossy(&l).into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# no:x:1\nbroken\nweb:x:33:44:Web:/srv:/bin/false\n";
    const GROUP: &str = "root:x:0:\nwww:x:44:\nextra:x:50:web,other\nmore:x:51:web\n1000:x:7:\n";

    fn find(spec: &str, more: &[&str]) -> Step<Identity> {
        let more: Vec<String> = more.iter().map(ToString::to_string).collect();
        let of = |text: &'static str| text.lines().map(str::to_owned);
        lookup(spec, &more, of(PASSWD), || of(GROUP))
    }

    fn ids(spec: &str, more: &[&str]) -> (u32, u32, Vec<u32>, String) {
        let i = find(spec, more).unwrap();
        (i.uid, i.gid, i.groups, i.home)
    }

    #[test]
    fn users_and_groups_by_name_and_number() {
        assert_eq!(ids("", &[]), (0, 0, vec![0], "/root".into()));
        assert_eq!(ids("web", &[]), (33, 44, vec![44, 50, 51], "/srv".into()));
        assert_eq!(
            ids("33", &["www", "51", "7"]),
            (33, 44, vec![44, 50, 51, 7], "/srv".into())
        );
        assert_eq!(ids("web:extra", &[]), (33, 50, vec![50], "/srv".into()));
        assert_eq!(ids("1234", &[]), (1234, 0, vec![0], "/".into()));
        assert_eq!(ids("1234:1000", &[]), (1234, 7, vec![7], "/".into()));
        assert_eq!(ids("0:99", &[]), (0, 99, vec![99], "/root".into()));
    }

    #[test]
    fn who_is_not_there_is_named() {
        assert_eq!(
            find("nobody", &[]).unwrap_err().message,
            "unable to find user nobody: no matching entries in passwd file"
        );
        assert_eq!(
            find("web:none", &[]).unwrap_err().message,
            "unable to find group none: no matching entries in group file"
        );
        assert_eq!(
            find("4294967295", &[]).unwrap_err().message,
            "uids and gids must be in range 0-2147483647"
        );
        assert!(
            find("0", &["-1"])
                .unwrap_err()
                .message
                .contains("must be in range")
        );
    }
}
