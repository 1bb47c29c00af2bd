//! The process: who it is, what it may do.

use gantry_monitor::plan::{self, Process, Rlimit, User};
use gantry_sys::caps;
use oci_spec::runtime as oci;

use crate::seccomp::Seccomp;
use crate::spec::{SpecError, UserSpec};

pub(super) fn process(
    source: &oci::Process,
    linux: &oci::Linux,
    user: &UserSpec,
    seccomp: &Seccomp,
) -> Result<Process, SpecError> {
    let program = linux
        .seccomp()
        .as_ref()
        .map(|filter| seccomp.program(filter))
        .transpose()?;
    Ok(Process {
        user: lower_user(source.user(), user),
        seccomp: program.map(|p| plan::Seccomp {
            program: p.bytes.clone(),
            flags: p.flags,
        }),
        ..bare_process(source)?
    })
}

/// A process without its user and filter.
pub(crate) fn bare_process(source: &oci::Process) -> Result<Process, SpecError> {
    let rlimits = source.rlimits().iter().flatten();
    Ok(Process {
        argv: source.args().clone().unwrap_or_default(),
        env: source.env().clone().unwrap_or_default(),
        cwd: source.cwd().clone(),
        create_cwd: true,
        umask: source.user().umask(),
        capabilities: capabilities(source.capabilities().as_ref())?,
        no_new_privileges: source.no_new_privileges() == Some(true),
        rlimits: rlimits
            .map(|limit| Rlimit {
                resource: resource(limit.typ()),
                soft: limit.soft(),
                hard: limit.hard(),
            })
            .collect(),
        apparmor: source.apparmor_profile().clone(),
        selinux: source.selinux_label().clone(),
        new_keyring: true,
        ..Process::default()
    })
}

/// A specification made by hand may give numbers; Docker's are looked up inside, numbers too (for their groups).
fn lower_user(oci: &oci::User, named: &UserSpec) -> User {
    let groups = oci.additional_gids().clone().unwrap_or_default();
    if named.name.is_empty() && (oci.uid() != 0 || oci.gid() != 0 || !groups.is_empty()) {
        return User::Ids {
            uid: oci.uid(),
            gid: oci.gid(),
            groups,
        };
    }
    User::Name {
        spec: named.name.clone(),
        groups: named.groups.clone(),
    }
}

fn capabilities(sets: Option<&oci::LinuxCapabilities>) -> Result<plan::Capabilities, SpecError> {
    let Some(sets) = sets else {
        return Ok(plan::Capabilities::default());
    };
    let bits = |set: &Option<oci::Capabilities>| -> Result<u64, SpecError> {
        set.iter().flatten().try_fold(0, |bits, cap| {
            let bit = caps::bit(&cap.to_string())
                .ok_or_else(|| SpecError::Unsupported(format!("capability {cap}")))?;
            Ok(bits | 1 << bit)
        })
    };
    Ok(plan::Capabilities {
        bounding: bits(sets.bounding())?,
        effective: bits(sets.effective())?,
        permitted: bits(sets.permitted())?,
        inheritable: bits(sets.inheritable())?,
        ambient: bits(sets.ambient())?,
    })
}

/// `RLIMIT_*` of the generic architectures, x86 and ARM among them.
fn resource(kind: oci::PosixRlimitType) -> u32 {
    use oci::PosixRlimitType as T;
    match kind {
        T::RlimitCpu => 0,
        T::RlimitFsize => 1,
        T::RlimitData => 2,
        T::RlimitStack => 3,
        T::RlimitCore => 4,
        T::RlimitRss => 5,
        T::RlimitNproc => 6,
        T::RlimitNofile => 7,
        T::RlimitMemlock => 8,
        T::RlimitAs => 9,
        T::RlimitLocks => 10,
        T::RlimitSigpending => 11,
        T::RlimitMsgqueue => 12,
        T::RlimitNice => 13,
        T::RlimitRtprio => 14,
        T::RlimitRttime => 15,
    }
}
