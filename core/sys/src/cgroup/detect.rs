//! How control groups are mounted here, and where this process stands in them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The set-up of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only version 1 hierarchies.
    V1,
    /// Version 1 hierarchies with controllers, and an empty unified one beside them.
    Hybrid,
    /// The unified hierarchy alone.
    V2,
}

impl Mode {
    /// `1` or `2`, as the API's `CgroupVersion` says it.
    #[must_use]
    pub fn version(self) -> &'static str {
        match self {
            Self::V1 | Self::Hybrid => "1",
            Self::V2 => "2",
        }
    }
}

/// The mounted hierarchies. A value; it keeps no descriptors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    root: PathBuf,
    mode: Mode,
    /// Version 1 mount points by controller; two controllers may share one.
    v1: BTreeMap<String, PathBuf>,
    /// Mount point of the unified hierarchy.
    unified: Option<PathBuf>,
    /// Controllers the unified root offers.
    v2_controllers: Vec<String>,
    /// Mount points of version 1 hierarchies without a controller (`name=systemd`).
    named: Vec<PathBuf>,
}

impl Cgroups {
    /// Looks at what is mounted under `root` (`/sys/fs/cgroup`): `cgroup.controllers` in it means version 2;
    /// otherwise each directory in it is a hierarchy, named after its controllers, and `unified` the empty one.
    ///
    /// # Errors
    /// When nothing there is a control group.
    pub fn detect(root: &Path, proc: &Path) -> io::Result<Self> {
        if root.join("cgroup.controllers").exists() {
            let controllers = std::fs::read_to_string(root.join("cgroup.controllers"))?;
            return Ok(Self {
                root: root.to_owned(),
                mode: Mode::V2,
                v1: BTreeMap::new(),
                unified: Some(root.to_owned()),
                v2_controllers: controllers.split_whitespace().map(str::to_owned).collect(),
                named: Vec::new(),
            });
        }
        let known = std::fs::read_to_string(proc.join("self/cgroup")).unwrap_or_default();
        let mut v1 = BTreeMap::new();
        let mut named = Vec::new();
        for controllers in known.lines().filter_map(|l| l.split(':').nth(1)) {
            for controller in controllers.split(',').filter(|c| !c.is_empty()) {
                let name = controller.strip_prefix("name=");
                let dir = [controllers, name.unwrap_or(controller)]
                    .iter()
                    .map(|dir| root.join(dir))
                    .find(|dir| dir.join("cgroup.procs").exists());
                // `cpu` is often a link to `cpu,cpuacct`.
                let Some(dir) = dir.map(|d| d.canonicalize()).transpose()? else {
                    continue;
                };
                match name {
                    Some(_) => named.push(dir),
                    None => drop(v1.insert(controller.to_owned(), dir)),
                }
            }
        }
        let unified = root.join("unified");
        let unified = unified.join("cgroup.procs").exists().then_some(unified);
        if v1.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no cgroup hierarchy is mounted under {}", root.display()),
            ));
        }
        Ok(Self {
            root: root.to_owned(),
            mode: if unified.is_some() {
                Mode::Hybrid
            } else {
                Mode::V1
            },
            v1,
            unified,
            v2_controllers: Vec::new(),
            named,
        })
    }
    /// `/sys/fs/cgroup`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Version 1, 2 or both.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }
    /// Version 1 mount points by controller.
    #[must_use]
    pub fn v1(&self) -> &BTreeMap<String, PathBuf> {
        &self.v1
    }
    /// The unified hierarchy's mount point.
    #[must_use]
    pub fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }
    /// Mount points of hierarchies that limit nothing: no container of ours has a place there, but other runtimes make
    /// one.
    pub(super) fn idle(&self) -> impl Iterator<Item = &PathBuf> {
        let unified = self.unified.iter().filter(|_| self.mode == Mode::Hybrid);
        self.named.iter().chain(unified)
    }
    /// Whether limits of that controller can be set here (`memory`, `cpu`, `cpuset`, `pids`, `blkio`/`io`, ...).
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        match self.mode {
            Mode::V2 => {
                let name = if controller == "blkio" {
                    "io"
                } else {
                    controller
                };
                self.v2_controllers.iter().any(|c| c == name)
            }
            Mode::V1 | Mode::Hybrid => self.v1.contains_key(controller),
        }
    }
    /// Whether groups below a hierarchy's root have one of these files, which depends on the kernel's configuration. Some
    /// of them are not in the root itself; where it has no groups yet, one is made for a moment.
    #[must_use]
    pub fn has_file(&self, controller: &str, names: &[&str]) -> bool {
        let mount = match self.mode {
            Mode::V2 => self.unified.as_ref().filter(|_| self.has(controller)),
            Mode::V1 | Mode::Hybrid => self.v1.get(controller),
        };
        let Some(mount) = mount else {
            return false;
        };
        let there = |dir: &Path| names.iter().any(|name| dir.join(name).exists());
        if there(mount) {
            return true;
        }
        let entries = std::fs::read_dir(mount).into_iter().flatten().flatten();
        let mut groups = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .peekable();
        if groups.peek().is_some() {
            return groups.any(|group| there(&group));
        }
        let thread = std::thread::current().id();
        let probe = mount.join(format!("gantry-probe-{}-{thread:?}", std::process::id()));
        let found = std::fs::create_dir(&probe).is_ok() && there(&probe);
        let _ = std::fs::remove_dir(&probe);
        found
    }
}
