//! From a bundle to what the monitor's init does. The runtime's own lowering does most of it; what a process passes on to
//! its children by itself (scheduling, time namespace, personality) is set here before the container's is made.

use std::path::{Path, PathBuf};

use gantry_driver_api::{Mount, MountPlan};
use gantry_monitor::plan::{Launch, Plan, Propagation, Stdio};
use gantry_runtime::standalone::{Parts, Standalone};
use gantry_sys::host::HostFacts;
use oci_spec::runtime as oci;
use serde_json::json;

use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::process::{Inherited, TimeNamespace};
use crate::resources::Extra;

/// A container to be made.
#[derive(Debug)]
pub(crate) struct Lowered {
    pub(crate) launch: Launch,
    pub(crate) plan: Plan,
    pub(crate) parts: Limits,
    /// What the calling process takes on, for its children to have.
    pub(crate) inherited: Inherited,
    pub(crate) tty: bool,
}

/// What its cgroup is to enforce.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) limits: gantry_sys::cgroup::Limits,
    pub(crate) devices: Vec<gantry_sys::cgroup::DeviceRule>,
    pub(crate) extra: Extra,
    /// Relative to the hierarchies' roots.
    pub(crate) cgroup: PathBuf,
}

pub(crate) fn lower(bundle: &Bundle, id: &str, host: &HostFacts) -> Result<Lowered> {
    let mut spec = bundle.spec.clone();
    let inherited = Inherited::take(&mut spec)?;
    let mut linux = spec.linux().clone().unwrap_or_default();
    let extra = Extra::take(&mut linux);
    linux.set_cgroups_path(Some(cgroup_path(linux.cgroups_path().as_deref(), id)?));
    linux.set_mount_label(None);
    // Of the devices that the runtime adds itself, what the bundle mounted in their places stays.
    let listed: Vec<PathBuf> = linux
        .devices()
        .iter()
        .flatten()
        .map(|d| d.path().clone())
        .collect();
    spec.set_linux(Some(linux));
    complete_mounts(&mut spec, &bundle.dir);
    let (tty, size) = terminal(&spec);
    let rootfs = MountPlan {
        mounts: vec![Mount::Bind {
            source: bundle.rootfs.clone(),
            read_only: false,
        }],
    };
    let Parts {
        mut plan,
        namespaces,
        uid_map,
        gid_map,
        limits,
        device_rules,
        cgroup,
        oom_score_adj,
        mut hooks,
    } = Standalone::new(host)?.lower(spec, rootfs)?;
    for device in &mut plan.devices {
        device.exact = listed.contains(&device.path);
    }
    hooks.state = state(bundle, id);
    // Hooks look for the container's files where the bundle has them. Mounts that are to be shared stay peers of the
    // host's only when the root is mounted apart from them.
    if plan.rootfs_propagation != Some(Propagation::Shared) {
        plan.root_at.clone_from(&bundle.rootfs);
    }
    Ok(Lowered {
        launch: Launch {
            id: id.to_owned(),
            stdio: Stdio {
                tty,
                size,
                ..Stdio::default()
            },
            namespaces,
            uid_map,
            gid_map,
            oom_score_adj,
            hooks,
            ..Launch::default()
        },
        plan,
        parts: Limits {
            limits: crate::resources::given(limits),
            devices: device_rules,
            extra,
            cgroup,
        },
        inherited,
        tty,
    })
}

/// The container's place in the hierarchies. One that is not absolute is below their roots too.
fn cgroup_path(given: Option<&Path>, id: &str) -> Result<PathBuf> {
    let given = given.filter(|p| !p.as_os_str().is_empty());
    let Some(path) = given else {
        return Ok(PathBuf::from(format!("/gantry-oci-{id}")));
    };
    if path.to_string_lossy().contains(':') {
        return Err(Error::refused(format!(
            "cgroupsPath {path:?} is one of systemd's: have the caller use cgroupfs"
        )));
    }
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    if clean == Path::new("/") {
        return Err(Error::refused(format!("invalid cgroupsPath {path:?}")));
    }
    Ok(clean)
}

/// Sources of binds are relative to the bundle, destinations to the root.
fn complete_mounts(spec: &mut oci::Spec, bundle: &Path) {
    let Some(mut mounts) = spec.mounts().clone() else {
        return;
    };
    for mount in &mut mounts {
        if !mount.destination().is_absolute() {
            mount.set_destination(Path::new("/").join(mount.destination()));
        }
        let is_bind = matches!(
            mount.typ().as_deref(),
            None | Some("bind" | "rbind" | "none")
        ) || mount
            .options()
            .iter()
            .flatten()
            .any(|o| o == "bind" || o == "rbind");
        if is_bind && let Some(source) = mount.source() {
            mount.set_source(Some(bundle.join(source)));
        }
    }
    spec.set_mounts(Some(mounts));
}

fn terminal(spec: &oci::Spec) -> (bool, Option<(u16, u16)>) {
    let Some(process) = spec.process() else {
        return (false, None);
    };
    let tty = process.terminal() == Some(true);
    (tty, console_size(process).filter(|_| tty))
}

/// Rows and columns, where both are given.
pub(crate) fn console_size(process: &oci::Process) -> Option<(u16, u16)> {
    let size = process.console_size()?;
    let number = |n: u64| u16::try_from(n).ok().filter(|n| *n > 0);
    Some((number(size.height())?, number(size.width())?))
}

/// The container's state as hooks are told it, without what changes.
fn state(bundle: &Bundle, id: &str) -> String {
    let spec = &bundle.spec;
    let mut state = json!({
        "ociVersion": spec.version(),
        "id": id,
        "bundle": bundle.dir,
    });
    if let Some(annotations) = spec.annotations().as_ref().filter(|a| !a.is_empty()) {
        state["annotations"] = json!(annotations);
    }
    state.to_string()
}

impl Inherited {
    /// Takes out of a specification what this process can set for its children.
    fn take(spec: &mut oci::Spec) -> Result<Self> {
        let mut inherited = Self::default();
        if let Some(mut linux) = spec.linux().clone() {
            inherited.personality = linux.personality().clone();
            linux.set_personality(None);
            let offsets = linux.time_offsets().clone().unwrap_or_default();
            linux.set_time_offsets(None);
            let mut namespaces = linux.namespaces().clone().unwrap_or_default();
            let is_time = |n: &oci::LinuxNamespace| n.typ() == oci::LinuxNamespaceType::Time;
            let time = namespaces.iter().position(is_time);
            inherited.time = time.map(|at| TimeNamespace {
                path: namespaces.remove(at).path().clone(),
                offsets: offsets.clone(),
            });
            if time.is_none() && !offsets.is_empty() {
                return Err(Error::refused(
                    "time namespace offsets specified, but time namespace isn't enabled in the config",
                ));
            }
            linux.set_namespaces(Some(namespaces));
            spec.set_linux(Some(linux));
        }
        if let Some(mut process) = spec.process().clone() {
            inherited.take_of_process(&mut process);
            spec.set_process(Some(process));
        }
        Ok(inherited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_are_below_the_roots() {
        let path = |given: &str| cgroup_path(Some(Path::new(given)), "x");
        assert_eq!(cgroup_path(None, "x").unwrap(), Path::new("/gantry-oci-x"));
        assert_eq!(path("").unwrap(), Path::new("/gantry-oci-x"));
        assert_eq!(path("/a/../../b/./c").unwrap(), Path::new("/b/c"));
        assert_eq!(path("b/c").unwrap(), Path::new("/b/c"));
        assert!(path("/").is_err());
        let systemd = path("system.slice:libpod:x").unwrap_err().to_string();
        assert!(systemd.contains("cgroupfs"), "{systemd}");
    }
}
