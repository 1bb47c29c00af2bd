//! What is kept of a container from one command to the next.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use gantry_monitor::direct::GATE;
use gantry_monitor::plan::{Cgroup, Hooks, IdMap, Namespaces};
use gantry_sys::cgroup::Group;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Context, Error, Result};
use crate::{bundle, resources};

const RECORD: &str = "state.json";
const CONFIG: &str = "config.json";
const MAX_ID: usize = 1024;

/// A container on disk.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) oci_version: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) annotations: BTreeMap<String, String>,
    /// RFC 3339.
    pub(crate) created: String,
    /// The first process; 0 until there is one.
    pub(crate) pid: i32,
    /// When that one started, in the kernel's ticks since the boot: tells it from another with its number.
    pub(crate) start_ticks: u64,
    pub(crate) namespaces: Namespaces,
    /// It has a time namespace of its own.
    pub(crate) time: bool,
    pub(crate) uid_map: Vec<IdMap>,
    pub(crate) gid_map: Vec<IdMap>,
    pub(crate) cgroup: Cgroup,
    /// Relative to the hierarchies' roots.
    pub(crate) cgroup_path: PathBuf,
    pub(crate) hooks: Hooks,
}

/// The states of the specification, and runc's `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A container of a root directory.
#[derive(Debug)]
pub(crate) struct Container {
    dir: PathBuf,
    pub(crate) record: Record,
}

/// Held by who changes a container; let go of with the descriptor.
#[derive(Debug)]
pub(crate) struct Lock {
    _dir: File,
}

/// A name is a directory's.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id.len() > MAX_ID || !id.chars().all(fits) || id == "." || id == ".." {
        return Err(Error::refused(format!(
            "invalid container ID format: {id:?}"
        )));
    }
    Ok(())
}

impl Container {
    /// Claims a name, with what is known at first; the lock is the claimant's.
    pub(crate) fn make(root: &Path, record: Record, config: &str) -> Result<(Self, Lock)> {
        check_id(&record.id)?;
        let what = || format!("make {}", root.display());
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o711)
            .create(root)
            .context(what)?;
        let root = root.canonicalize().context(what)?;
        let dir = root.join(&record.id);
        match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists(record.id));
            }
            made => made.context(|| format!("make {}", dir.display()))?,
        }
        let container = Self { dir, record };
        let fill = || {
            let lock = container.lock()?;
            std::fs::write(container.dir.join(CONFIG), config)
                .context(|| "copy config.json".into())?;
            container.save()?;
            Ok(lock)
        };
        match fill() {
            Ok(lock) => Ok((container, lock)),
            Err(e) => {
                container.remove()?;
                Err(e)
            }
        }
    }
    /// The container of that name.
    pub(crate) fn open(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let dir = root.join(id);
        let text = match bundle::read(&dir.join(RECORD)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                // One whose `create` has just begun, or was cut off then, has no record yet.
                if !dir.is_dir() {
                    return Err(Error::NoContainer(id.to_owned()));
                }
                return Ok(Self {
                    dir,
                    record: Record {
                        id: id.to_owned(),
                        ..Record::default()
                    },
                });
            }
            other => other.context(|| format!("state of container {id}"))?,
        };
        let record = serde_json::from_str(&text)
            .map_err(|e| Error::refused(format!("state of container {id}: {e}")))?;
        Ok(Self { dir, record })
    }
    /// All containers of a root.
    pub(crate) fn all(root: &Path) -> Result<Vec<Self>> {
        let entries = match std::fs::read_dir(root) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.context(|| format!("read {}", root.display()))?,
        };
        let mut ids: Vec<String> = entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        ids.sort();
        // One that is being removed is passed over.
        Ok(ids
            .iter()
            .filter_map(|id| Self::open(root, id).ok())
            .collect())
    }
    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
    /// Its specification, as it was when it was made.
    pub(crate) fn spec(&self) -> Result<oci_spec::runtime::Spec> {
        let text = bundle::read(&self.dir.join(CONFIG));
        let (spec, _) = bundle::parse(&text.context(|| "read config.json".into())?)?;
        Ok(spec)
    }
    /// Writes its record, whole or not at all.
    pub(crate) fn save(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.record)
            .map_err(|e| Error::refused(format!("encode state: {e}")))?;
        write_file(&self.dir.join(RECORD), &text)
    }
    /// Waits for whoever else changes it.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let what = || format!("lock container {}", self.record.id);
        let dir = match File::open(&self.dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoContainer(self.record.id.clone()));
            }
            other => other.context(what)?,
        };
        rustix::fs::flock(&dir, FlockOperation::LockExclusive).context(what)?;
        Ok(Lock { _dir: dir })
    }
    fn is_locked(&self) -> bool {
        let Ok(dir) = File::open(&self.dir) else {
            return false;
        };
        let busy = rustix::fs::flock(&dir, FlockOperation::NonBlockingLockShared);
        busy == Err(Errno::WOULDBLOCK)
    }
    /// Forgets it.
    pub(crate) fn remove(&self) -> Result<()> {
        match std::fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.context(|| format!("remove {}", self.dir.display())),
        }
    }
    /// Notes that it was started.
    pub(crate) fn close_gate(&self) {
        // Missing already, or the directory is gone: either way nobody waits there.
        let _ = std::fs::remove_file(self.dir.join(GATE));
    }
    /// How far it is.
    pub(crate) fn status(&self) -> Status {
        if self.record.pid == 0 {
            return if self.is_locked() {
                Status::Creating
            } else {
                Status::Stopped
            };
        }
        if !self.is_alive() {
            Status::Stopped
        } else if self.dir.join(GATE).exists() {
            Status::Created
        } else if self.is_frozen() {
            Status::Paused
        } else {
            Status::Running
        }
    }
    fn is_alive(&self) -> bool {
        start_ticks(self.record.pid).is_some_and(|ticks| ticks == self.record.start_ticks)
    }
    fn is_frozen(&self) -> bool {
        self.group()
            .is_ok_and(|group| group.is_frozen().unwrap_or(false))
    }
    /// Its cgroup.
    pub(crate) fn group(&self) -> Result<Group> {
        resources::group(&self.record.cgroup_path)
    }
    /// Its first process, held so that its number can be no other's.
    pub(crate) fn process(&self) -> Result<std::os::fd::OwnedFd> {
        let pid = Pid::from_raw(self.record.pid).ok_or(Error::NotRunning)?;
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty());
        match process {
            Ok(process) if self.is_alive() => Ok(process),
            _ => Err(Error::NotRunning),
        }
    }
    /// The state as the specification has it, and runc's additions.
    pub(crate) fn state(&self) -> Value {
        let (record, status) = (&self.record, self.status());
        let mut state = json!({
            "ociVersion": record.oci_version,
            "id": record.id,
            "pid": if status == Status::Stopped { 0 } else { record.pid },
            "status": status.word(),
            "bundle": record.bundle,
            "rootfs": record.rootfs,
            "created": record.created,
        });
        if !record.annotations.is_empty() {
            state["annotations"] = json!(record.annotations);
        }
        state["owner"] = json!("");
        state
    }
}

/// Writes a file under another name first.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.{}", std::process::id()));
    std::fs::write(&new, bytes)
        .and_then(|()| std::fs::rename(&new, path))
        .context(|| format!("write {}", path.display()))
}

/// When a living process started; see `/proc/PID/stat` in proc(5). None for one that is dead or reaped.
pub(crate) fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name may hold anything; it ends with the last bracket.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        Record {
            id: id.into(),
            ..Record::default()
        }
    }

    #[test]
    fn names_stay_in_the_root() {
        for bad in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(MAX_ID + 1)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
        assert!(check_id("Ab_1+2-3.4").is_ok());
    }

    #[test]
    fn a_name_is_claimed_once_and_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let (container, lock) = Container::make(root.path(), record("x"), "{}").unwrap();
        let again = Container::make(root.path(), record("x"), "{}").unwrap_err();
        assert!(matches!(again, Error::Exists(_)));
        let found = Container::open(root.path(), "x").unwrap();
        assert_eq!(found.status(), Status::Creating);
        drop(lock);
        assert_eq!(found.status(), Status::Stopped);
        container.remove().unwrap();
        container.remove().unwrap();
        let gone = Container::open(root.path(), "x").unwrap_err().to_string();
        assert!(gone.contains("does not exist"), "{gone}");
    }

    #[test]
    fn another_process_with_the_number_is_not_the_containers() {
        let root = tempfile::tempdir().unwrap();
        let own = std::process::id().cast_signed();
        let mut record = record("x");
        (record.pid, record.start_ticks) = (own, start_ticks(own).unwrap());
        let (mut container, _lock) = Container::make(root.path(), record, "{}").unwrap();
        assert_eq!(container.status(), Status::Running);
        assert!(container.process().is_ok());
        container.record.start_ticks += 1;
        assert_eq!(container.status(), Status::Stopped);
        assert!(matches!(container.process(), Err(Error::NotRunning)));
        assert_eq!(start_ticks(i32::MAX), None);
    }
}
