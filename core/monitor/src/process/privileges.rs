//! Giving up privileges: groups, user, capabilities, seccomp.

use gantry_monitor::plan::{Capabilities, Process};
use gantry_monitor::protocol::Stage;
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::fault::{At, Step, failure};
use crate::process::Identity;
use crate::sys;

/// `CAP_SYS_ADMIN`, kept until the filter is installed.
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Groups, user, capabilities and seccomp, in the order in which each step still has the right to be taken.
pub(crate) fn give_up(process: &Process, identity: &Identity) -> Step<()> {
    let setup = |what: &'static str| move || what.to_owned();
    let have = rustix::thread::capabilities(None).at(Stage::Setup, setup("get capabilities"))?;
    let have = have.permitted.bits();
    let want = limit(&process.capabilities, have);
    for cap in 0..64 {
        if want.bounding & 1 << cap == 0 {
            // EINVAL: the kernel knows no more capabilities.
            match sys::prctl(libc::PR_CAPBSET_DROP, cap, 0) {
                Ok(_) => {}
                Err(Errno::INVAL) => break,
                Err(e) => return Err(failure(Stage::Setup, e, "drop bounding set".into())),
            }
        }
    }
    let keep = |on| sys::prctl(libc::PR_SET_KEEPCAPS, on, 0);
    keep(1).at(Stage::Setup, setup("keep capabilities"))?;
    set_identity(identity)?;
    if process.no_new_privileges {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
            .at(Stage::Setup, setup("set no new privileges"))?;
    }
    if let Some(filter) = &process.seccomp {
        if !process.no_new_privileges {
            let until = CAP_SYS_ADMIN & have;
            set_caps(
                want.effective | until,
                want.permitted | until,
                want.inheritable,
            )
            .at(Stage::Setup, setup("set capabilities"))?;
        }
        sys::seccomp(&filter.program, filter.flags)
            .at(Stage::Setup, setup("install seccomp filter"))?;
    }
    set_caps(want.effective, want.permitted, want.inheritable)
        .at(Stage::Setup, setup("set capabilities"))?;
    for cap in (0..64).filter(|cap| want.ambient & 1 << cap != 0) {
        let raise = libc::PR_CAP_AMBIENT_RAISE as u64;
        match sys::prctl(libc::PR_CAP_AMBIENT, raise, cap) {
            // What is not permitted and inheritable cannot be ambient: left out, as runc does.
            Ok(_) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(e) => return Err(failure(Stage::Setup, e, "set ambient set".into())),
        }
    }
    Ok(())
}

fn set_identity(identity: &Identity) -> Step<()> {
    match sys::set_groups(&identity.groups) {
        // A user namespace may forbid it; without groups there is nothing to lose.
        Err(Errno::PERM) if identity.groups.is_empty() => {}
        other => other.at(Stage::User, || "setgroups".into())?,
    }
    sys::set_ids(identity.uid, identity.gid).at(Stage::User, || {
        format!("set user {}:{}", identity.uid, identity.gid)
    })
}

/// The sets without what this process cannot give.
fn limit(wanted: &Capabilities, have: u64) -> Capabilities {
    Capabilities {
        bounding: wanted.bounding,
        effective: wanted.effective & have & wanted.permitted,
        permitted: wanted.permitted & have,
        inheritable: wanted.inheritable & have,
        ambient: wanted.ambient & have & wanted.permitted & wanted.inheritable,
    }
}

fn set_caps(effective: u64, permitted: u64, inheritable: u64) -> Result<(), Errno> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(effective),
        permitted: CapabilitySet::from_bits_retain(permitted),
        inheritable: CapabilitySet::from_bits_retain(inheritable),
    };
    rustix::thread::set_capabilities(None, sets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_left_out_consistently() {
        let wanted = Capabilities {
            bounding: 0b1111,
            effective: 0b1111,
            permitted: 0b0111,
            inheritable: 0b0011,
            ambient: 0b0111,
        };
        let got = limit(&wanted, 0b1110);
        assert_eq!(got.bounding, 0b1111);
        assert_eq!(got.effective, 0b0110);
        assert_eq!(got.permitted, 0b0110);
        assert_eq!(got.ambient, 0b0010);
    }
}
