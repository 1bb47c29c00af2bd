//! Docker's `USER[:GROUP]` looked up in a container's passwd(5) and group(5) files.

use super::{SpecError, UserSpec};

/// A user in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, each once.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// A line of passwd(5): name, user, group, home.
fn passwd(text: &str) -> impl Iterator<Item = (&str, u32, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some((name, uid, gid, fields.nth(1).unwrap_or("/")))
    })
}

/// A line of group(5): name, group, members.
fn group(text: &str) -> impl Iterator<Item = (&str, u32, std::str::Split<'_, char>)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or("").split(',')))
    })
}

/// User and group by number of `name|uid[:group|gid]`, looked up in a container's passwd(5) and group(5).
///
/// # Errors
/// Names that are not there.
pub fn user_ids(name: &str, passwd_text: &str, group_text: &str) -> Result<(u32, u32), SpecError> {
    let user = UserSpec {
        name: name.to_owned(),
        groups: Vec::new(),
    };
    find(&user, passwd_text, group_text).map(|found| (found.uid, found.gid))
}

/// Names come before numbers, as a name may look like one. A user by number that no line has is itself with group 0.
/// With a group given, supplementary groups come from the request alone.
pub(crate) fn find(
    user: &UserSpec,
    passwd_text: &str,
    group_text: &str,
) -> Result<Found, SpecError> {
    let (who, which) = user.name.split_once(':').unwrap_or((&user.name, ""));
    let who = if who.is_empty() { "0" } else { who };
    let number = who.parse::<u32>().ok();
    let entry = passwd(passwd_text)
        .find(|(name, ..)| *name == who)
        .or_else(|| passwd(passwd_text).find(|(_, uid, ..)| Some(*uid) == number));
    let missing = |what, name: &str, file| SpecError::NoSuchUser {
        what,
        name: name.to_owned(),
        file,
    };
    let (name, uid, mut gid, home) = match (entry, number) {
        (Some(entry), _) => entry,
        (None, Some(uid)) => ("", uid, 0, "/"),
        (None, None) => return Err(missing("user", who, "passwd")),
    };
    let named_group = |wanted: &str| {
        let number = wanted.parse::<u32>().ok();
        group(group_text)
            .find(|(name, gid, _)| *name == wanted || Some(*gid) == number)
            .map(|(_, gid, _)| gid)
            .or(number)
            .ok_or_else(|| missing("group", wanted, "group"))
    };
    let mut groups = Vec::new();
    if which.is_empty() {
        let member = |members: &mut std::str::Split<'_, char>| members.any(|m| m == name);
        let of = group(group_text).filter_map(|(_, gid, mut members)| {
            (!name.is_empty() && member(&mut members)).then_some(gid)
        });
        groups.extend(of);
    } else {
        gid = named_group(which)?;
    }
    for wanted in &user.groups {
        groups.push(named_group(wanted)?);
    }
    // The primary group too: a process must not get rid of it (CVE-2022-36109).
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    Ok(Found {
        uid,
        gid,
        groups,
        home: home.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:w:/srv:/bin/sh\n7:x:70:71::/seven:\nbad line\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,web\nweb:x:34:\naudio:x:29:web\n";

    fn find(name: &str, groups: &[&str]) -> Result<Found, SpecError> {
        let user = UserSpec {
            name: name.into(),
            groups: groups.iter().map(|&g| g.to_owned()).collect(),
        };
        super::find(&user, PASSWD, GROUP)
    }

    fn ids(name: &str, groups: &[&str]) -> (u32, u32, Vec<u32>, String) {
        let found = find(name, groups).unwrap();
        (found.uid, found.gid, found.groups, found.home)
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(ids("", &[]), (0, 0, vec![0, 10], "/root".into()));
        assert_eq!(ids("web", &[]), (33, 34, vec![10, 29, 34], "/srv".into()));
        assert_eq!(ids("33", &[]), (33, 34, vec![10, 29, 34], "/srv".into()));
        assert_eq!(
            ids("web:audio", &["wheel"]),
            (33, 29, vec![10, 29], "/srv".into())
        );
        assert_eq!(ids("1000", &["5", "5"]), (1000, 0, vec![0, 5], "/".into()));
        assert_eq!(ids("1000:2000", &[]), (1000, 2000, vec![2000], "/".into()));
        assert_eq!(ids("7", &[]), (70, 71, vec![71], "/seven".into()));
    }

    #[test]
    fn strangers_are_named() {
        let message = |name, groups: &[&str]| find(name, groups).unwrap_err().to_string();
        assert_eq!(
            message("nobody", &[]),
            "unable to find user nobody: no matching entries in passwd file"
        );
        assert_eq!(
            message("web:none", &[]),
            "unable to find group none: no matching entries in group file"
        );
        assert!(find("", &["none"]).is_err());
    }
}
