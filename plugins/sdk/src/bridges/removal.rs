//! Links whose removal was answered before the kernel was done.
//!
//! A bridge takes the kernel some 30 ms, in which nobody's links can be changed; a hundred that go together take no longer.
//! So links are gathered for a moment and removed as one group. Their addresses, and with them the routes, go at once.
//! Until a link is gone it stands in a journal, by which the driver's next process goes on.
//!
//! Links of endpoints are removed alone where somebody waits for it, or go with their namespaces.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};

use gantry_driver_api::DriverResult;
use gantry_sys::netlink::{Change, RouteSocket, remove_link};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::ending::Endings;
use super::failed;
use crate::Log;
use crate::notes::Notes;

/// Links are removed when none has come for this long,
const QUIET: Duration = Duration::from_millis(50);
/// or the first has waited for this long.
const LONGEST: Duration = Duration::from_secs(1);
/// `errno` of a link that is not there.
const ENODEV: i32 = 19;

/// What the journal has of a link. An index means the link only until the machine is started again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    boot: String,
    index: u32,
}

#[derive(Debug, Default)]
struct Gathered {
    /// Indexes by name, of links that wait and of those that are being removed.
    pending: HashMap<String, u32>,
    waiting: Vec<String>,
    /// When the first and the last of those that wait came.
    since: Option<(Instant, Instant)>,
    /// Somebody waits for them.
    hurry: bool,
    /// There is a thread.
    working: bool,
}

#[derive(Debug)]
struct Shared {
    gathered: Mutex<Gathered>,
    changed: Condvar,
    journal: Notes<Entry>,
    /// The kernel's name for the time since the machine was started.
    boot: String,
    group: u32,
    log: Log,
}

/// Removes links on a thread of its own.
#[derive(Debug, Clone)]
pub struct Removals {
    shared: Arc<Shared>,
    endings: Endings,
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// The journal's name for a link: names of links have characters that names of notes have not.
fn entry(link: &str) -> String {
    link.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn link_of(entry: &str) -> Option<String> {
    let byte = |at: usize| u8::from_str_radix(entry.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..entry.len()).step_by(2).map(byte).collect();
    String::from_utf8(bytes?).ok()
}

/// Removes those of the links that still are what they were, and tells what could not be.
fn remove(links: &[(String, u32)], group: u32) -> Vec<(String, io::Error)> {
    let mut failed = Vec::new();
    let mut there = Vec::new();
    for (name, index) in links {
        let found = RouteSocket::open().and_then(|mut socket| socket.link(name));
        match found {
            Ok(found) => there.extend(found.filter(|f| f.index == *index).map(|_| (name, *index))),
            Err(e) => failed.push((name.clone(), e)),
        }
    }
    if there.len() > 1 && remove_together(&there, group).is_ok() {
        return failed;
    }
    for (name, index) in there {
        let removed = RouteSocket::open()
            .and_then(|mut socket| Ok(socket.apply(vec![Change::delete(index)])?));
        match removed {
            Err(e) if e.raw_os_error() != Some(ENODEV) => failed.push((name.clone(), e)),
            _ => {}
        }
    }
    failed
}

fn remove_together(links: &[(&String, u32)], group: u32) -> io::Result<()> {
    let mut socket = RouteSocket::open()?;
    let grouped = links.iter().map(|(_, index)| Change::group(*index, group));
    socket.apply(grouped.collect())?;
    Ok(socket.apply(vec![Change::delete_group(group)])?)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Gathered> {
        // A panic makes the driver faulted; nobody comes here after it.
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be removed next, once it is time; none when nothing is left to do.
    fn take(&self) -> Option<Vec<(String, u32)>> {
        let mut gathered = self.lock();
        loop {
            let Some((first, last)) = gathered.since else {
                gathered.working = false;
                return None;
            };
            let due = (last + QUIET).min(first + LONGEST);
            let rest = due.saturating_duration_since(Instant::now());
            if gathered.hurry || rest.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(gathered, rest);
            gathered = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        gathered.since = None;
        gathered.hurry = false;
        let names = std::mem::take(&mut gathered.waiting);
        let index = |name: &String| gathered.pending.get(name).copied();
        Some(
            names
                .into_iter()
                .filter_map(|name| Some((index(&name)?, name)))
                .map(|(index, name)| (name, index))
                .collect(),
        )
    }

    fn work(&self) {
        while let Some(links) = self.take() {
            let failed = remove(&links, self.group);
            for (name, _) in &links {
                match failed.iter().find(|(failed, _)| failed == name) {
                    None => self.forget(name),
                    Some((_, e)) => self.log.warn(format!("removing link {name}: {e}")),
                }
            }
            let mut gathered = self.lock();
            for (name, _) in &links {
                gathered.pending.remove(name);
            }
            drop(gathered);
            self.changed.notify_all();
        }
    }

    fn forget(&self, link: &str) {
        if let Err(e) = self.journal.remove(&entry(link)) {
            self.log.warn(format!("link {link} is gone: {e}"));
        }
    }

    fn wait_while(&self, busy: impl Fn(&Gathered) -> bool) {
        let mut gathered = self.lock();
        gathered.hurry = gathered.since.is_some() && busy(&gathered);
        self.changed.notify_all();
        let waited = self.changed.wait_while(gathered, |gathered| busy(gathered));
        drop(waited);
    }
}

impl Removals {
    /// Goes on with what is in the journal, which is kept in a directory below `root`. The engine's `tag` tells its links
    /// from others'. Failures are logged; the driver's next reconciliation finds what was left.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn open(root: &Path, tag: &str, log: Log) -> DriverResult<Self> {
        let hash = tag.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        let shared = Arc::new(Shared {
            gathered: Mutex::default(),
            changed: Condvar::new(),
            journal: Notes::open(root.join("removals"))?,
            boot: boot(),
            // People number their groups from 1 on.
            group: hash | 1 << 31,
            log,
        });
        let removals = Self {
            shared,
            endings: Endings::default(),
        };
        for (name, Entry { boot, index }) in removals.shared.journal.all() {
            match link_of(&name).filter(|_| boot == removals.shared.boot) {
                Some(link) => removals.gather(link, index),
                None => drop(removals.shared.journal.remove(&name)?),
            }
        }
        removals.start();
        Ok(removals)
    }

    /// Removes links soon. They are in the calling thread's namespace, and lead nowhere from now on.
    pub fn begin(&self, links: &[&str]) {
        if let Err(e) = self.retire(links) {
            self.shared
                .log
                .warn(format!("removing links {}: {e}", links.join(", ")));
        }
        self.start();
    }

    /// An endpoint's link is about to be made with these addresses. What has one of them still, in a namespace that is
    /// ending, is removed before.
    pub fn join(&self, link: &str, addresses: &[IpNet]) {
        for going in self.endings.come(link, addresses) {
            if let Err(e) = remove_link(&going) {
                let log = &self.shared.log;
                log.warn(format!(
                    "removing link {going}, whose addresses {link} gets: {e}"
                ));
            }
        }
    }

    /// Removes an endpoint's link, if it is there. When its namespace `stays`, nobody sees it any more when this returns, and
    /// what it was called and the addresses it had are free; the kernel may still be freeing it. Otherwise the kernel takes
    /// it along with the namespace, and nobody waits; if somebody is in that still, the link is removed a little later.
    ///
    /// # Errors
    /// The kernel's.
    pub fn leave(&self, link: String, stays: bool) -> DriverResult<()> {
        let failed = failed(format!("removing link {link}"));
        if stays {
            self.endings.forget(&link);
            return remove_link(&link).map_err(failed);
        }
        let removals = self.clone();
        let added = self.endings.add(link, move |links| removals.begin(links));
        added.map_err(failed)
    }

    fn retire(&self, links: &[&str]) -> io::Result<()> {
        let mut socket = RouteSocket::open()?;
        for link in links {
            let Some(found) = socket.link(link)? else {
                continue;
            };
            let index = found.index;
            let noted = Entry {
                boot: self.shared.boot.clone(),
                index,
            };
            if let Err(e) = self.shared.journal.put(&entry(link), noted) {
                self.shared.log.warn(format!("removing link {link}: {e}"));
            }
            let addresses = socket.addresses_of(index)?.into_iter();
            let changes: Vec<_> = addresses
                .map(|net| Change::delete_address(index, net))
                .collect();
            // Those that cannot be taken off go with the link.
            let _ = socket.apply(changes);
            self.gather((*link).to_owned(), index);
        }
        Ok(())
    }

    fn gather(&self, link: String, index: u32) {
        let mut gathered = self.shared.lock();
        if gathered.pending.insert(link.clone(), index).is_none() {
            let now = Instant::now();
            let first = gathered.since.map_or(now, |(first, _)| first);
            gathered.since = Some((first, now));
            gathered.waiting.push(link);
        }
    }

    /// Sees to it that what was gathered is removed.
    fn start(&self) {
        let mut gathered = self.shared.lock();
        if gathered.since.is_none() || gathered.working {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let spawned = std::thread::Builder::new()
            .name("link-removal".into())
            .stack_size(128 * 1024)
            .spawn(move || shared.work());
        match spawned {
            Ok(_) => gathered.working = true,
            Err(e) => {
                self.shared.log.warn(format!("removing links: {e}"));
                gathered.pending.clear();
                gathered.waiting.clear();
                gathered.since = None;
            }
        }
    }

    /// Waits until a name is free again.
    pub fn wait_for(&self, link: &str) {
        self.shared
            .wait_while(|gathered| gathered.pending.contains_key(link));
    }

    /// Waits until nothing is under way.
    pub fn finish(&self) {
        self.endings.finish();
        self.shared
            .wait_while(|gathered| !gathered.pending.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use gantry_sys::netns;

    use super::*;

    fn links(prefix: &str) -> usize {
        let links = RouteSocket::open().unwrap().links().unwrap();
        links.iter().filter(|l| l.name.starts_with(prefix)).count()
    }

    fn make(name: &str) -> u32 {
        let mut socket = RouteSocket::open().unwrap();
        socket.apply(vec![Change::bridge(name, None)]).unwrap();
        socket.link(name).unwrap().unwrap().index
    }

    #[test]
    fn many_go_together_and_others_stay() {
        let root = tempfile::tempdir().unwrap();
        netns::create(|| {
            let removals = Removals::open(root.path(), "0badcafe", Log::none()).unwrap();
            let names: Vec<String> = (0..9).map(|n| format!("br.{n}")).collect();
            let indexes: Vec<u32> = names.iter().map(|name| make(name)).collect();
            let index = indexes[0];
            make("mine");
            let mut socket = RouteSocket::open()?;
            socket.apply(vec![
                Change::address(index, "10.9.0.1/24".parse().unwrap()),
                Change::up(index),
            ])?;
            removals.begin(&names.iter().map(String::as_str).collect::<Vec<_>>());
            assert!(
                socket
                    .addresses_of(index)?
                    .iter()
                    .all(|net| net.addr().is_ipv6())
            );
            removals.wait_for("br.3");
            assert_eq!(links("br."), 0);
            removals.begin(&["br.3", "absent"]);
            removals.finish();
            assert_eq!(
                (links("mine"), removals.shared.journal.all()),
                (1, Vec::new())
            );
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn the_next_process_goes_on() {
        let root = tempfile::tempdir().unwrap();
        netns::create(|| {
            let (gone, again, later) = (make("gone"), make("again"), make("later"));
            let journal: Notes<Entry> = Notes::open(root.path().join("removals")).unwrap();
            let note = |link: &str, boot: String, index: u32| {
                journal.put(&entry(link), Entry { boot, index }).unwrap();
            };
            note("gone", boot(), gone);
            note("absent", boot(), 7);
            // Somebody else's by now, and of before the machine was started.
            note("again", boot(), again + 100);
            note("later", "another".into(), later);
            let removals = Removals::open(root.path(), "0badcafe", Log::none()).unwrap();
            removals.finish();
            assert_eq!((links("gone"), links("again"), links("later")), (0, 1, 1));
            let journal: Notes<Entry> = Notes::open(root.path().join("removals")).unwrap();
            assert_eq!(journal.all(), Vec::new());
            Ok(())
        })
        .unwrap();
    }
}
