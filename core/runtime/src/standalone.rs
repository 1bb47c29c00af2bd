//! The lowering alone, for a program that starts containers of given OCI specifications without an engine.

use std::path::PathBuf;

use gantry_driver_api::MountPlan;
use gantry_monitor::plan::{Hooks, IdMap, Namespaces, Plan, Process, Seccomp as Filter, User};
use gantry_sys::cgroup::{DeviceRule, Limits};
use gantry_sys::host::HostFacts;
use oci_spec::runtime as oci;

use crate::lower::{bare_process, lower};
use crate::seccomp::Seccomp;
use crate::spec::{ContainerSpec, SpecError, UserSpec, resources};

/// Lowers specifications as the engine's own are.
#[derive(Debug)]
pub struct Standalone {
    seccomp: Seccomp,
}

/// A specification taken apart.
#[derive(Debug)]
pub struct Parts {
    /// What the container's first process does.
    pub plan: Plan,
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// User numbers of its own user namespace.
    pub uid_map: Vec<IdMap>,
    /// Group numbers of its own user namespace.
    pub gid_map: Vec<IdMap>,
    /// Limits of its cgroup.
    pub limits: Limits,
    /// Devices it may use.
    pub device_rules: Vec<DeviceRule>,
    /// Its cgroup, relative to the hierarchies' roots.
    pub cgroup: PathBuf,
    /// `oom_score_adj` of its first process.
    pub oom_score_adj: Option<i32>,
    /// Its hooks, without the state that they are told.
    pub hooks: Hooks,
}

impl Standalone {
    /// For containers on this host.
    ///
    /// # Errors
    /// None on an architecture that has system call tables.
    pub fn new(host: &HostFacts) -> Result<Self, SpecError> {
        Ok(Self {
            seccomp: Seccomp::new(host)?,
        })
    }
    /// Takes a specification apart. Users are numbers, nothing is looked up in the container.
    ///
    /// # Errors
    /// What is invalid, or not done by the monitor's init.
    pub fn lower(&self, spec: oci::Spec, rootfs: MountPlan) -> Result<Parts, SpecError> {
        let spec = ContainerSpec {
            oci: spec,
            user: UserSpec::default(),
        };
        let mut lowered = lower(&spec, rootfs, &self.seccomp)?;
        if let Some(process) = spec.oci.process() {
            lowered.plan.process.user = user(process.user());
        }
        Ok(Parts {
            plan: lowered.plan,
            namespaces: lowered.namespaces,
            uid_map: lowered.userns.uid,
            gid_map: lowered.userns.gid,
            limits: lowered.limits,
            device_rules: lowered.device_rules,
            cgroup: lowered.cgroup,
            oom_score_adj: lowered.oom_score_adj,
            hooks: lowered.hooks,
        })
    }
    /// A further process of a container with that filter.
    ///
    /// # Errors
    /// What is invalid.
    pub fn process(
        &self,
        process: &oci::Process,
        filter: Option<&oci::LinuxSeccomp>,
    ) -> Result<Process, SpecError> {
        let program = filter.map(|f| self.seccomp.program(f)).transpose()?;
        Ok(Process {
            user: user(process.user()),
            seccomp: program.map(|p| Filter {
                program: p.bytes.clone(),
                flags: p.flags,
            }),
            ..bare_process(process)?
        })
    }
}

/// The kernel's form of limits.
///
/// # Errors
/// What is invalid, or not limited here.
pub fn limits(resources: &oci::LinuxResources) -> Result<Limits, SpecError> {
    resources::from_oci(resources)
}

fn user(user: &oci::User) -> User {
    User::Ids {
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
    }
}
