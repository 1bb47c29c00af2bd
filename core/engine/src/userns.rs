//! Which user namespace a container gets: the daemon's numbers, a range of its own, another container's, or the host's.
//!
//! A range belongs to the record of its container: it is free again when the record is gone. Layers and volumes keep their
//! owners on the disk; mounts show them as the container's numbers (see `docs/adr`).

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;

use gantry_model::ContainerId;
use gantry_model::container::HostConfig;
use gantry_runtime::UserNs;
use parking_lot::Mutex;

use crate::container::record::Record;
use crate::{Engine, EngineError, Result};

/// How many numbers a container of its own range gets.
const DEFAULT_SIZE: u32 = 1 << 16;

/// Fewer would not hold the groups that every system has.
const MIN_SIZE: u32 = 1 << 10;

/// What the daemon decides about user namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsernsConfig {
    /// The numbers of every container that does not say otherwise (`userns-remap`).
    pub remap: Option<UserNs>,
    /// Where containers get ranges of their own from, users and groups alike.
    pub pool: Range<u32>,
}

impl Default for UsernsConfig {
    /// No remapping; ranges from the upper half of the numbers, which distributions leave alone.
    fn default() -> Self {
        Self {
            remap: None,
            pool: 1 << 31..u32::MAX - (1 << 16),
        }
    }
}

/// Ranges that are chosen for containers of which there is no record yet.
#[derive(Debug, Default)]
pub(crate) struct Pending(Mutex<BTreeMap<ContainerId, UserNs>>);

/// Keeps a chosen range until the container's record does.
pub(crate) struct Held<'a> {
    pending: &'a Pending,
    id: ContainerId,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.pending.0.lock().remove(&self.id);
    }
}

/// What a `UsernsMode` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Host,
    Daemon,
    Own(u32),
}

/// Understands `host`, `private`, `auto`, `auto:size=N` and nothing at all.
fn wish(mode: &str) -> Result<Wish> {
    let bad = || EngineError::bad_request(format!("invalid user namespace mode: {mode}"));
    Ok(match mode {
        "" => Wish::Daemon,
        "host" => Wish::Host,
        "private" | "auto" => Wish::Own(DEFAULT_SIZE),
        _ => {
            let size = mode.strip_prefix("auto:size=").ok_or_else(bad)?;
            let size: u32 = size.parse().map_err(|_| bad())?;
            if size < MIN_SIZE {
                return Err(EngineError::bad_request(format!(
                    "{mode}: a user namespace needs at least {MIN_SIZE} numbers"
                )));
            }
            Wish::Own(size)
        }
    })
}

/// The containers whose namespaces are shared.
fn shared(host: &HostConfig) -> impl Iterator<Item = &str> {
    [&host.network_mode, &host.ipc_mode, &host.pid_mode]
        .into_iter()
        .filter_map(|mode| mode.strip_prefix("container:"))
}

impl Engine {
    /// Decides on a new container's numbers; a range is held until the guard is dropped, which is to be after the record
    /// is known.
    pub(crate) fn choose_userns(
        &self,
        id: &ContainerId,
        host: &HostConfig,
    ) -> Result<(Option<UserNs>, Held<'_>)> {
        let held = Held {
            pending: &self.userns,
            id: id.clone(),
        };
        let config = self.config.load();
        let wish = wish(&host.userns_mode)?;
        let own = match (&wish, &config.userns.remap) {
            (Wish::Host, _) | (Wish::Daemon, None) => return Ok((None, held)),
            (Wish::Daemon, Some(maps)) => Some(maps.clone()),
            (Wish::Own(_), _) => None,
        };
        conflicts(host)?;
        if !self.services.runtime.host().kernel_at_least(5, 19) {
            return Err(EngineError::bad_request(
                "user namespaces need ID-mapped mounts: Linux 5.19 or later",
            ));
        }
        let theirs = self.shared_userns(host, own.as_ref())?;
        let maps = match (theirs, own, wish) {
            (Some(maps), _, _) | (None, Some(maps), _) => maps,
            (None, None, Wish::Own(size)) => self.free_range(id, &config.userns.pool, size)?,
            (None, None, _) => return Ok((None, held)),
        };
        Ok((Some(maps), held))
    }

    /// The numbers of the containers whose namespaces are shared: only who has them may be in both.
    fn shared_userns(&self, host: &HostConfig, own: Option<&UserNs>) -> Result<Option<UserNs>> {
        let mut found = own.cloned();
        let mut any = false;
        for other in shared(host) {
            let record = self.find(other)?.record();
            match (&record.userns, &found) {
                (Some(theirs), None) => found = Some(theirs.clone()),
                (Some(theirs), Some(known)) if theirs == known => {}
                _ => {
                    return Err(EngineError::conflict(format!(
                        "cannot join namespaces of container {}: it has another user namespace",
                        record.name
                    )));
                }
            }
            any = true;
        }
        Ok(found.filter(|_| any))
    }

    fn free_range(&self, id: &ContainerId, pool: &Range<u32>, size: u32) -> Result<UserNs> {
        let mut pending = self.userns.0.lock();
        let records = self.containers.all();
        let records = records.iter().filter_map(|c| c.record().userns.clone());
        let mut used: Vec<Range<u64>> = records
            .chain(pending.values().cloned())
            .flat_map(|maps| maps.uid.into_iter().chain(maps.gid))
            .map(|m| u64::from(m.outside)..u64::from(m.outside) + u64::from(m.count))
            .collect();
        let remap = self.config.load().userns.remap.clone().unwrap_or_default();
        let remap = remap.uid.into_iter().chain(remap.gid);
        used.extend(remap.map(|m| u64::from(m.outside)..u64::from(m.outside) + u64::from(m.count)));
        let begin = start(pool, &self.config.load().data_root);
        let first = find_free(pool, size, begin, used).ok_or_else(|| {
            EngineError::internal("no range of user numbers is free for a new user namespace")
        })?;
        let maps = UserNs::range(first, size);
        pending.insert(id.clone(), maps.clone());
        Ok(maps)
    }

    /// The namespaces that a start of this container needs made or opened first: the user namespace and, unless it is
    /// another container's, the network namespace that belongs to it.
    pub(crate) async fn user_namespaces(
        &self,
        record: &Record,
    ) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
        let Some(maps) = &record.userns else {
            return Ok((None, None));
        };
        let runtime = &self.services.runtime;
        let Some(other) = shared(&record.host_config).next() else {
            let made = runtime.make_namespaces(maps).await?;
            return Ok((Some(made.user), Some(made.network)));
        };
        let path = self.other_namespace(other, "user", "user")?;
        let user: OwnedFd = File::open(&path)
            .map_err(|e| EngineError::io(path.display(), &e))?
            .into();
        let network = match record.host_config.network_mode.starts_with("container:") {
            true => None,
            false => Some(runtime.make_network_in(&user).await?),
        };
        Ok((Some(user), network))
    }
}

/// What root of a user namespace may not share with the host, in Docker's words.
fn conflicts(host: &HostConfig) -> Result<()> {
    let refused = |words: String| Err(EngineError::bad_request(words));
    if host.privileged {
        return refused(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode".into(),
        );
    }
    if host.network_mode == "host" {
        return refused(
            "cannot share the host's network namespace when user namespaces are enabled".into(),
        );
    }
    if host.pid_mode == "host" {
        return refused(
            "cannot share the host PID namespace when user namespaces are enabled".into(),
        );
    }
    if !matches!(host.runtime.as_str(), "" | "gantry") {
        return refused(format!(
            "user namespaces are not supported with the runtime {}: use this engine's own",
            host.runtime
        ));
    }
    Ok(())
}

/// Engines side by side begin to look at different places, so that their ranges rarely meet.
fn start(pool: &Range<u32>, data_root: &Path) -> u32 {
    let bytes = data_root.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    let slots = (pool.end - pool.start) / DEFAULT_SIZE;
    pool.start + hash.checked_rem(slots).unwrap_or(0) * DEFAULT_SIZE
}

/// The first free range of the pool from `begin` on, then from its start.
fn find_free(pool: &Range<u32>, size: u32, begin: u32, used: Vec<Range<u64>>) -> Option<u32> {
    let size = u64::from(size);
    let find = |from: u32| {
        let mut first = u64::from(from);
        while first + size <= u64::from(pool.end) {
            let taken = used
                .iter()
                .find(|u| u.start < first + size && first < u.end);
            match taken {
                None => return u32::try_from(first).ok(),
                Some(taken) => first = taken.end,
            }
        }
        None
    };
    find(begin).or_else(|| find(pool.start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        assert_eq!(wish("").unwrap(), Wish::Daemon);
        assert_eq!(wish("host").unwrap(), Wish::Host);
        assert_eq!(wish("private").unwrap(), Wish::Own(65_536));
        assert_eq!(wish("auto").unwrap(), Wish::Own(65_536));
        assert_eq!(wish("auto:size=2000").unwrap(), Wish::Own(2000));
        for bad in ["keep-id", "auto:size=", "auto:size=12", "auto:uid=1"] {
            assert!(wish(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_do_not_overlap_and_are_used_again() {
        let pool = 1000..10_000;
        let mut used = Vec::new();
        let mut got = Vec::new();
        while let Some(first) = find_free(&pool, 2000, 5000, used.clone()) {
            got.push(first);
            used.push(u64::from(first)..u64::from(first) + 2000);
        }
        assert_eq!(got, [5000, 7000, 1000, 3000]);
        used.remove(2);
        assert_eq!(find_free(&pool, 1500, 5000, used.clone()), Some(1000));
        assert_eq!(find_free(&pool, 2001, 5000, used), None);
        assert_eq!(find_free(&pool, 9001, 1000, Vec::new()), None);
    }

    #[test]
    fn what_cannot_be_shared_with_the_host() {
        let refused = |change: fn(&mut HostConfig)| {
            let mut host = HostConfig::default();
            change(&mut host);
            conflicts(&host).map_or_else(|e| e.message, |()| "accepted".into())
        };
        assert_eq!(refused(|_| ()), "accepted");
        assert!(refused(|h| h.privileged = true).starts_with("privileged mode is incompatible"));
        assert!(refused(|h| h.network_mode = "host".into()).contains("network namespace"));
        assert!(refused(|h| h.pid_mode = "host".into()).contains("host PID namespace"));
        assert!(refused(|h| h.runtime = "runc".into()).contains("runtime runc"));
    }

    #[test]
    fn engines_start_apart() {
        let pool = UsernsConfig::default().pool;
        let (a, b) = (start(&pool, Path::new("/a")), start(&pool, Path::new("/b")));
        assert!(pool.contains(&a) && pool.contains(&b) && a != b);
    }
}
