//! One container's control group, in all hierarchies at once.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::files::{self, CgroupError};
use super::writes::{Restore, Writes};
use super::{Cgroups, DeviceRule, Limits, Mode, Stats, devices, read, v1, v2};

/// How often, and how long apart, what the kernel finishes on its own time is looked at again: 5 s in all.
const ATTEMPTS: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(5);

/// A group by its path below the mount points. It need not exist; making the value does nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    cgroups: Arc<Cgroups>,
    path: PathBuf,
}

impl Group {
    /// The group at `path` (`gantry-1a2b/<id>`), relative to the roots of the hierarchies. `.` and `..` are dropped.
    #[must_use]
    pub fn new(cgroups: Arc<Cgroups>, path: &Path) -> Self {
        let path = path
            .components()
            .filter(|c| matches!(c, std::path::Component::Normal(_)))
            .collect();
        Self { cgroups, path }
    }
    /// Its path below the mount points.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Its directories in the version 1 hierarchies; none where those have no controllers.
    #[must_use]
    pub fn v1_dirs(&self) -> Vec<PathBuf> {
        let mounts: BTreeSet<&PathBuf> = self.cgroups.v1().values().collect();
        mounts.into_iter().map(|m| m.join(&self.path)).collect()
    }
    /// Its directory in the unified hierarchy where that has the controllers.
    #[must_use]
    pub fn v2_dir(&self) -> Option<PathBuf> {
        match self.cgroups.mode() {
            Mode::V2 => self.cgroups.unified().map(|m| m.join(&self.path)),
            Mode::V1 | Mode::Hybrid => None,
        }
    }
    /// The directory whose files tell of the memory controller.
    #[must_use]
    pub fn memory_dir(&self) -> Option<PathBuf> {
        self.dir("memory")
    }
    /// The directory of a controller.
    pub(super) fn dir(&self, controller: &str) -> Option<PathBuf> {
        match self.v2_dir() {
            Some(dir) => Some(dir),
            None => Some(self.cgroups.v1().get(controller)?.join(&self.path)),
        }
    }
    /// Every directory it has.
    fn dirs(&self) -> Vec<PathBuf> {
        self.v2_dir()
            .map_or_else(|| self.v1_dirs(), |dir| vec![dir])
    }
    /// Also those that only another runtime makes.
    fn all_dirs(&self) -> impl Iterator<Item = PathBuf> {
        let idle = self.cgroups.idle().map(|mount| mount.join(&self.path));
        self.dirs().into_iter().chain(idle)
    }
    /// Makes its directories, and those above it; on version 1 processors and memory nodes are inherited. Existing
    /// ones are taken as they are.
    ///
    /// # Errors
    /// The first directory or file that cannot be made; others may have been made.
    pub fn create(&self) -> Result<(), CgroupError> {
        match self.cgroups.mode() {
            Mode::V2 => v2::create(self.cgroups.root(), &self.path),
            Mode::V1 | Mode::Hybrid => {
                let cpuset = self.cgroups.v1().get("cpuset");
                let mounts: BTreeSet<&PathBuf> = self.cgroups.v1().values().collect();
                mounts
                    .into_iter()
                    .try_for_each(|mount| v1::create(mount, &self.path, cpuset == Some(mount)))
            }
        }
    }
    /// Whether any of its directories is there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.dirs().iter().any(|dir| dir.exists())
    }
    /// Sets the limits of a new group.
    ///
    /// # Errors
    /// The first file that refuses; those before it stay written.
    pub fn apply(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.write(limits, &Writes::plain())
    }
    /// Changes the limits of a group in use: all of them or none. The answer undoes it.
    ///
    /// # Errors
    /// The first file that refuses.
    pub fn update(&self, limits: &Limits) -> Result<Restore, CgroupError> {
        let writes = Writes::remembering();
        let done = self.write(limits, &writes);
        let restore = writes.remembered();
        match done {
            Ok(()) => Ok(restore),
            Err(error) => {
                restore.put_back();
                Err(error)
            }
        }
    }
    fn write(&self, limits: &Limits, writes: &Writes) -> Result<(), CgroupError> {
        match self.v2_dir() {
            Some(dir) => v2::apply(&dir, limits, writes),
            None => v1::apply(self, limits, writes),
        }
    }
    /// Replaces the device rules of a new group; see [`DeviceRule`] for their meaning.
    ///
    /// # Errors
    /// Where the host has no device controller, or refuses.
    pub fn set_devices(&self, rules: &[DeviceRule]) -> Result<(), CgroupError> {
        let Some(dir) = self.v2_dir() else {
            return v1::set_devices(self, rules);
        };
        std::fs::File::open(&dir)
            .and_then(|group| devices::attach(group, rules))
            .map_err(|e| CgroupError::new("device program for", &dir, e))
    }
    /// Stops every process, and waits until they stand.
    ///
    /// # Errors
    /// Where there is no freezer, or some process cannot be stopped.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.set_frozen(true)
    }
    /// Lets them run again.
    ///
    /// # Errors
    /// As [`Group::freeze`].
    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.set_frozen(false)
    }
    /// Whether its processes are stopped, or about to be.
    ///
    /// # Errors
    /// Where there is no freezer.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        let freezer = self.freezer()?;
        Ok(files::read(&freezer.request)? != freezer.words[0])
    }
    fn freezer(&self) -> Result<Freezer, CgroupError> {
        if let Some(dir) = self.v2_dir() {
            return Ok(Freezer {
                request: dir.join("cgroup.freeze"),
                words: ["0", "1"],
                events: Some(dir.join("cgroup.events")),
            });
        }
        let dir = self
            .dir("freezer")
            .ok_or_else(|| no_controller("freezer"))?;
        Ok(Freezer {
            request: dir.join("freezer.state"),
            words: ["THAWED", "FROZEN"],
            events: None,
        })
    }
    fn set_frozen(&self, frozen: bool) -> Result<(), CgroupError> {
        let freezer = self.freezer()?;
        let wanted = freezer.words[usize::from(frozen)];
        for _ in 0..ATTEMPTS {
            // Version 1 has to be asked again: a process that forks meanwhile undoes the request.
            files::write(&freezer.request, wanted)?;
            let done = match &freezer.events {
                Some(events) => files::field(events, "frozen") == Some(u64::from(frozen)),
                None => files::read(&freezer.request)? == wanted,
            };
            if done {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        if frozen {
            // Rather running than half frozen.
            let _ = files::write(&freezer.request, freezer.words[0]);
        }
        let e = io::Error::from_raw_os_error(libc::EBUSY);
        Err(CgroupError::new("unable to freeze", &freezer.request, e))
    }
    /// Every process in it and in groups below, ascending.
    ///
    /// # Errors
    /// Reading a file; a group that is gone has no processes.
    pub fn pids(&self) -> Result<Vec<i32>, CgroupError> {
        let dir = ["pids", "freezer", "memory", "cpu"]
            .iter()
            .find_map(|c| self.dir(c))
            .or_else(|| self.dirs().into_iter().next());
        let mut pids = BTreeSet::new();
        if let Some(dir) = dir {
            collect_pids(&dir, &mut pids)?;
        }
        Ok(pids.into_iter().collect())
    }
    /// SIGKILL to every process in it, frozen ones too. Does not wait for their end.
    ///
    /// # Errors
    /// As [`Group::pids`].
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        if let Some(dir) = self.v2_dir() {
            match files::write(&dir.join("cgroup.kill"), "1") {
                Ok(()) => return Ok(()),
                Err(e) if e.errno() == libc::ENOENT && !dir.exists() => return Ok(()),
                // Kernels before 5.14 do not have the file.
                Err(_) => {}
            }
        }
        // Frozen processes neither fork nor end, so that each number is still the process that was listed. Where they
        // cannot be frozen, those forked meanwhile are found by looking again.
        let frozen = self.freeze().is_ok();
        for _ in 0..16 {
            let pids = self.pids()?;
            for pid in &pids {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(*pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
            if frozen || pids.is_empty() {
                break;
            }
        }
        match if frozen { self.thaw() } else { Ok(()) } {
            // The last process ended and somebody removed the group meanwhile.
            Err(e) if matches!(e.errno(), libc::ENOENT | libc::ENODEV) => Ok(()),
            done => done,
        }
    }
    /// What the kernel accounts to it.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        read::stats(self)
    }
    /// How many processes in it the out-of-memory killer has killed.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let Some(dir) = self.memory_dir() else {
            return 0;
        };
        let file = if self.v2_dir().is_some() {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        files::field(&dir.join(file), "oom_kill").unwrap_or(0)
    }
    /// Removes it where nothing is in or below it.
    pub fn remove_if_empty(&self) {
        for dir in self.all_dirs() {
            let _ = rustix::fs::rmdir(&dir);
        }
    }
    /// Removes it with the groups below. One that is not there is removed already. A group whose processes have just
    /// been killed is busy for a moment: that is waited for.
    ///
    /// # Errors
    /// `EBUSY` when processes stay in it.
    pub fn remove(&self) -> Result<(), CgroupError> {
        self.all_dirs().try_for_each(|dir| remove_tree(&dir))
    }
}

/// How a group is frozen.
struct Freezer {
    /// The file the wish is written to.
    request: PathBuf,
    /// What is written to let run and to stop.
    words: [&'static str; 2],
    /// Where the outcome is read, when it is not `request` itself.
    events: Option<PathBuf>,
}

impl Cgroups {
    /// Names of the groups directly below `parent`, in any hierarchy.
    #[must_use]
    pub fn list(&self, parent: &Path) -> BTreeSet<String> {
        let mounts: Vec<&Path> = match self.mode() {
            Mode::V2 => self.unified().into_iter().collect(),
            Mode::V1 | Mode::Hybrid => self.v1().values().map(PathBuf::as_path).collect(),
        };
        mounts
            .into_iter()
            .chain(self.idle().map(PathBuf::as_path))
            .flat_map(|mount| subdirectories(&mount.join(parent)))
            .filter_map(|dir| dir.file_name()?.to_str().map(str::to_owned))
            .collect()
    }
}

/// The error of a host that lacks a controller.
pub(super) fn no_controller(name: &str) -> CgroupError {
    CgroupError::new(
        "this host has no cgroup controller",
        Path::new(name),
        io::Error::from_raw_os_error(libc::EOPNOTSUPP),
    )
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect()
}

fn collect_pids(dir: &Path, pids: &mut BTreeSet<i32>) -> Result<(), CgroupError> {
    let text = match files::read(&dir.join("cgroup.procs")) {
        Err(e) if matches!(e.errno(), libc::ENOENT | libc::ENODEV) => return Ok(()),
        // A threaded group has no list of processes; its parent has them.
        Err(e) if e.errno() == libc::EOPNOTSUPP => String::new(),
        other => other?,
    };
    // 0 stands for a process outside this PID namespace.
    pids.extend(
        text.lines()
            .filter_map(|l| l.parse().ok())
            .filter(|p: &i32| *p > 0),
    );
    subdirectories(dir)
        .iter()
        .try_for_each(|below| collect_pids(below, pids))
}

fn remove_tree(dir: &Path) -> Result<(), CgroupError> {
    for attempt in 0..=ATTEMPTS {
        match rustix::fs::rmdir(dir) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => break,
            Err(rustix::io::Errno::BUSY | rustix::io::Errno::NOTEMPTY) if attempt < ATTEMPTS => {
                let below = subdirectories(dir);
                if below.is_empty() {
                    std::thread::sleep(PAUSE);
                }
                below.iter().try_for_each(|b| remove_tree(b))?;
            }
            Err(e) => return Err(CgroupError::new("rmdir", dir, e.into())),
        }
    }
    Ok(())
}
