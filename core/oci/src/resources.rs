//! A container's cgroup: made, limited, and what the engine's limits do not know.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_monitor::plan::Cgroup;
use gantry_sys::cgroup::{Cgroups, Group};
use gantry_sys::host::HostFacts;
use oci_spec::runtime as oci;

use crate::error::{Context, Error, Result};
use crate::lower::Limits;

/// Limits beyond the engine's: huge pages, network classes, RDMA, and version 2's files by name.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Extra {
    hugepages: Vec<oci::LinuxHugepageLimit>,
    network: Option<oci::LinuxNetwork>,
    rdma: HashMap<String, oci::LinuxRdma>,
    unified: HashMap<String, String>,
}

impl Extra {
    /// Takes them out of a specification.
    pub(crate) fn take(linux: &mut oci::Linux) -> Self {
        let Some(mut resources) = linux.resources().clone() else {
            return Self::default();
        };
        let extra = Self::take_of(&mut resources);
        linux.set_resources(Some(resources));
        extra
    }
    pub(crate) fn take_of(resources: &mut oci::LinuxResources) -> Self {
        let extra = Self {
            hugepages: resources.hugepage_limits().clone().unwrap_or_default(),
            network: resources.network().clone(),
            rdma: resources.rdma().clone().unwrap_or_default(),
            unified: resources.unified().clone().unwrap_or_default(),
        };
        resources.set_hugepage_limits(None);
        resources.set_network(None);
        resources.set_rdma(None);
        resources.set_unified(None);
        extra
    }
    /// Writes them into the files of a group.
    pub(crate) fn apply(&self, cgroups: &Cgroups, group: &Group) -> Result<()> {
        let v2 = group.v2_dir();
        let file = |controller: &str, name: String| -> Result<PathBuf> {
            let dir = match &v2 {
                Some(dir) => Some(dir.clone()),
                None => cgroups.v1().get(controller).map(|m| m.join(group.path())),
            };
            dir.map(|dir| dir.join(name)).ok_or_else(|| {
                Error::refused(format!("this host has no cgroup controller {controller}"))
            })
        };
        let end = if v2.is_some() {
            "max"
        } else {
            "limit_in_bytes"
        };
        for limit in &self.hugepages {
            let name = format!("hugetlb.{}.{end}", word(limit.page_size())?);
            write(&file("hugetlb", name)?, &limit.limit().to_string())?;
        }
        for (device, limit) in &self.rdma {
            let value = |n: Option<u32>| n.map_or("max".to_owned(), |n| n.to_string());
            let (handles, objects) = (value(limit.hca_handles()), value(limit.hca_objects()));
            let line = format!("{device} hca_handle={handles} hca_object={objects}");
            write(&file("rdma", "rdma.max".into())?, &line)?;
        }
        if let Some(network) = &self.network {
            if v2.is_some() {
                return Err(Error::refused(
                    "linux.resources.network is for cgroup version 1",
                ));
            }
            if let Some(class) = network.class_id() {
                write(
                    &file("net_cls", "net_cls.classid".into())?,
                    &class.to_string(),
                )?;
            }
            for priority in network.priorities().iter().flatten() {
                let line = format!("{} {}", priority.name(), priority.priority());
                write(&file("net_prio", "net_prio.ifpriomap".into())?, &line)?;
            }
        }
        self.apply_unified(v2.as_deref())
    }

    fn apply_unified(&self, v2: Option<&Path>) -> Result<()> {
        for (name, value) in &self.unified {
            let Some(dir) = v2 else {
                return Err(Error::refused(
                    "invalid configuration: cannot use unified on cgroup v1",
                ));
            };
            let path = dir.join(word(name)?);
            if !path.exists() {
                return Err(Error::refused(format!(
                    "unified resource {name:?} can't be set"
                )));
            }
            value
                .split('\n')
                .filter(|line| !line.is_empty())
                .try_for_each(|line| write(&path, line))?;
        }
        Ok(())
    }
}

/// The limits that are meant: callers written in Go send 0, or nothing in a string, for those that are not.
pub(crate) fn given(limits: gantry_sys::cgroup::Limits) -> gantry_sys::cgroup::Limits {
    let signed = |n: Option<i64>| n.filter(|n| *n != 0);
    let unsigned = |n: Option<u64>| n.filter(|n| *n != 0);
    let text = |s: Option<String>| s.filter(|s| !s.is_empty());
    gantry_sys::cgroup::Limits {
        memory: signed(limits.memory),
        memory_swap: signed(limits.memory_swap),
        memory_reservation: signed(limits.memory_reservation),
        // -1 is another word for nothing.
        memory_swappiness: limits.memory_swappiness.filter(|n| *n <= 100),
        cpu_shares: unsigned(limits.cpu_shares),
        cpu_quota: signed(limits.cpu_quota),
        cpu_period: unsigned(limits.cpu_period),
        cpu_realtime_runtime: signed(limits.cpu_realtime_runtime),
        cpu_realtime_period: unsigned(limits.cpu_realtime_period),
        cpuset_cpus: text(limits.cpuset_cpus),
        cpuset_mems: text(limits.cpuset_mems),
        pids: signed(limits.pids),
        blkio_weight: limits.blkio_weight.filter(|n| *n != 0),
        ..limits
    }
}

/// A name that stays in its directory.
fn word(name: &str) -> Result<&str> {
    if name.is_empty() || name.contains('/') {
        return Err(Error::refused(format!("invalid resource name {name:?}")));
    }
    Ok(name)
}

fn write(path: &Path, value: &str) -> Result<()> {
    let open = || {
        use std::io::Write;
        let mut file = std::fs::File::options().write(true).open(path)?;
        file.write_all(value.as_bytes())
    };
    open().context(|| format!("write {value:?} to {}", path.display()))
}

/// The cgroups of this host.
pub(crate) fn cgroups(host: &HostFacts) -> Result<Arc<Cgroups>> {
    let found = host.cgroups.clone();
    found
        .map(Arc::new)
        .ok_or_else(|| Error::refused("no control groups are mounted on this host"))
}

/// This host.
pub(crate) fn host() -> Result<HostFacts> {
    HostFacts::probe(Path::new("/proc"), Path::new("/sys")).context(|| "look at /proc".into())
}

/// The group of a container, by its path in the hierarchies.
pub(crate) fn group(path: &Path) -> Result<Group> {
    let found = Cgroups::detect(Path::new("/sys/fs/cgroup"), Path::new("/proc"));
    Ok(Group::new(
        Arc::new(found.context(|| "control groups".into())?),
        path,
    ))
}

/// Makes and limits a container's group.
pub(crate) fn make(host: &HostFacts, limits: &Limits) -> Result<(Group, Cgroup)> {
    let cgroups = cgroups(host)?;
    let group = Group::new(Arc::clone(&cgroups), &limits.cgroup);
    let fresh = !group.exists();
    let fill = || -> Result<()> {
        group.create()?;
        group.apply(&limits.limits)?;
        limits.extra.apply(&cgroups, &group)?;
        if !host.in_user_namespace {
            group.set_devices(&limits.devices)?;
        }
        Ok(())
    };
    if let Err(e) = fill() {
        if fresh {
            group.remove_if_empty();
        }
        return Err(e);
    }
    let places = Cgroup {
        v1: group.v1_dirs(),
        v2: group.v2_dir(),
        memory: group.memory_dir(),
    };
    Ok((group, places))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_not_a_limit() {
        let limits = gantry_sys::cgroup::Limits {
            memory: Some(0),
            memory_swap: Some(-1),
            blkio_weight: Some(0),
            cpuset_cpus: Some(String::new()),
            pids: Some(0),
            cpu_shares: Some(512),
            ..Default::default()
        };
        let want = gantry_sys::cgroup::Limits {
            memory_swap: Some(-1),
            cpu_shares: Some(512),
            ..Default::default()
        };
        assert_eq!(given(limits), want);
    }

    #[test]
    fn unified_files_are_only_version_twos_and_stay_in_their_directory() {
        let extra = |name: &str, value: &str| Extra {
            unified: HashMap::from([(name.to_owned(), value.to_owned())]),
            ..Extra::default()
        };
        let why = |e: Result<()>| e.unwrap_err().to_string();
        assert!(why(extra("memory.high", "1").apply_unified(None)).contains("cgroup v1"));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("memory.high"), "").unwrap();
        extra("memory.high", "123\n")
            .apply_unified(Some(dir.path()))
            .unwrap();
        let text = std::fs::read_to_string(dir.path().join("memory.high")).unwrap();
        assert_eq!(text, "123");
        let outside = extra("../x", "1").apply_unified(Some(dir.path()));
        assert!(why(outside).contains("invalid resource name"));
        assert!(
            why(extra("no.such", "1").apply_unified(Some(dir.path()))).contains("can't be set")
        );
    }
}
