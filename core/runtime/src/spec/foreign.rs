//! A bundle's `config.json` for another OCI runtime: names become numbers, descriptors become paths.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_driver_api::MountPlan;
use gantry_monitor::plan;
use gantry_sys::{inroot, mount};
use oci_spec::runtime as oci;

use super::{ContainerSpec, SpecError, UserSpec, users};
use crate::ConsoleSize;
use crate::lower;

/// The longest `/etc/passwd` or `/etc/group` that is read.
const MAX_DATABASE: u64 = 4 << 20;

/// The specification as another runtime takes it. The namespace's path is good as long as `netns` stays open.
pub(crate) fn bundle(
    spec: &ContainerSpec,
    rootfs: &MountPlan,
    netns: Option<&OwnedFd>,
    tty: bool,
    size: Option<ConsoleSize>,
) -> Result<oci::Spec, SpecError> {
    let mut out = spec.oci.clone();
    let mut root = out.root().clone().unwrap_or_default();
    root.set_path("rootfs".into());
    out.set_root(Some(root));
    let mut process = out.process().clone().unwrap_or_default();
    process.set_terminal(Some(tty));
    if let Some(size) = size {
        let console = oci::BoxBuilder::default()
            .height(size.height)
            .width(size.width)
            .build()?;
        process.set_console_size(Some(console));
    }
    let tree = mount::detached(rootfs).map_err(|e| SpecError::Rootfs(e.to_string()))?;
    let found = lookup(&tree, &spec.user)?;
    let mut user = process.user().clone();
    user.set_uid(found.uid);
    user.set_gid(found.gid);
    user.set_additional_gids((!found.groups.is_empty()).then_some(found.groups));
    process.set_user(user);
    let mut env = process.env().clone().unwrap_or_default();
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        env.push(format!("HOME={}", found.home));
    }
    process.set_env(Some(env));
    out.set_process(Some(process));
    if let Some(netns) = netns {
        let path = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
        set_network(&mut out, path.into());
    }
    Ok(out)
}

fn set_network(spec: &mut oci::Spec, path: PathBuf) {
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    namespaces.retain(|n| n.typ() != oci::LinuxNamespaceType::Network);
    let mut network = oci::LinuxNamespace::default();
    network.set_typ(oci::LinuxNamespaceType::Network);
    network.set_path(Some(path));
    namespaces.push(network);
    linux.set_namespaces(Some(namespaces));
    spec.set_linux(Some(linux));
}

/// Looks a user up in a root file system. Without the files only numbers are known.
fn lookup(root: impl AsFd, user: &UserSpec) -> Result<users::Found, SpecError> {
    let read =
        |path: &str| match inroot::read_to_string(root.as_fd(), Path::new(path), MAX_DATABASE) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            other => other.map_err(|e| SpecError::Rootfs(format!("{path}: {e}"))),
        };
    users::find(user, &read("/etc/passwd")?, &read("/etc/group")?)
}

/// What execs start from: the process of the bundle in the plan's form. The filter is the runtime's own affair.
pub(crate) fn process(bundle: &oci::Spec) -> Result<plan::Process, SpecError> {
    let process = bundle.process().clone().unwrap_or_default();
    let user = process.user();
    Ok(plan::Process {
        user: plan::User::Ids {
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
        },
        seccomp: None,
        ..lower::bare_process(&process)?
    })
}
