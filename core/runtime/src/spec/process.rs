//! The container's first process.

use gantry_sys::caps::CapSet;
use oci_spec::runtime as oci;

use super::{SpecError, SpecInput, Ulimit};

/// Docker's PATH where the image has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the init program is bound in the container.
pub(crate) const INIT_TARGET: &str = "/sbin/docker-init";

pub(super) fn build(input: &SpecInput, caps: CapSet) -> Result<oci::Process, SpecError> {
    let mut process = oci::Process::default();
    process.set_terminal(Some(input.tty));
    let mut argv = input.argv.clone();
    if input.init.is_some() {
        argv.splice(0..0, [INIT_TARGET.to_owned(), "--".to_owned()]);
    }
    process.set_args(Some(argv));
    process.set_env(Some(environment(input)));
    let cwd = if input.cwd.is_empty() {
        "/"
    } else {
        &input.cwd
    };
    if !cwd.starts_with('/') {
        return Err(SpecError::Invalid(format!(
            "the working directory '{cwd}' is invalid, it needs to be an absolute path"
        )));
    }
    process.set_cwd(cwd.into());
    process.set_capabilities(Some(capabilities(caps, &input.user)?));
    process.set_rlimits(Some(
        input.ulimits.iter().map(rlimit).collect::<Result<_, _>>()?,
    ));
    process.set_no_new_privileges(Some(input.no_new_privileges));
    process.set_apparmor_profile(input.apparmor_profile.clone());
    process.set_oom_score_adj(Some(input.oom_score_adj));
    let mut user = oci::User::default();
    let (uid, gid) = numeric_user(&input.user).unwrap_or((0, 0));
    user.set_uid(uid);
    user.set_gid(gid);
    process.set_user(user);
    Ok(process)
}

/// PATH, HOSTNAME and TERM, then the container's own, each replacing what stands there already.
fn environment(input: &SpecInput) -> Vec<String> {
    let mut base = vec![format!("PATH={DEFAULT_PATH}")];
    if !input.hostname.is_empty() {
        base.push(format!("HOSTNAME={}", input.hostname));
    }
    if input.tty {
        base.push("TERM=xterm".into());
    }
    merge_env(&base, &input.env)
}

/// `over` over `base`, in place where the name is known; `NAME` without a value takes it out.
pub(crate) fn merge_env(base: &[String], over: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut out: Vec<String> = base.to_vec();
    for entry in over {
        let wanted = name(entry);
        let at = out.iter().position(|e| name(e) == wanted);
        match (at, entry.contains('=')) {
            (Some(at), true) => out[at].clone_from(entry),
            (Some(at), false) => {
                out.remove(at);
            }
            (None, true) => out.push(entry.clone()),
            (None, false) => {}
        }
    }
    out
}

/// User and group of `uid[:gid]` in numbers; `None` for names, which only the container's own files know.
fn numeric_user(user: &str) -> Option<(u32, u32)> {
    if user.is_empty() {
        return Some((0, 0));
    }
    let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// As execve(2) leaves them: others than root have theirs only in the bounding set.
pub(crate) fn capabilities(caps: CapSet, user: &str) -> Result<oci::LinuxCapabilities, SpecError> {
    let set = to_oci(caps)?;
    let mut out = oci::LinuxCapabilities::default();
    let root = numeric_user(user).is_none_or(|(uid, _)| uid == 0);
    let held = if root {
        set.clone()
    } else {
        oci::Capabilities::new()
    };
    out.set_effective(Some(held.clone()));
    out.set_permitted(Some(held));
    out.set_bounding(Some(set));
    out.set_inheritable(None);
    out.set_ambient(None);
    Ok(out)
}

fn to_oci(caps: CapSet) -> Result<oci::Capabilities, SpecError> {
    caps.names()
        .map(|name| {
            let bare = name.trim_start_matches("CAP_");
            bare.parse()
                .map_err(|_| SpecError::Unsupported(format!("capability {name}")))
        })
        .collect()
}

fn rlimit(ulimit: &Ulimit) -> Result<oci::PosixRlimit, SpecError> {
    let word = format!("RLIMIT_{}", ulimit.name.to_uppercase());
    let kind: oci::PosixRlimitType = serde_json::from_value(word.into())
        .map_err(|_| SpecError::Invalid(format!("invalid ulimit type: {}", ulimit.name)))?;
    let value = |n: i64| match n {
        -1 => Ok(u64::MAX),
        n => u64::try_from(n).map_err(|_| {
            SpecError::Invalid(format!("invalid ulimit value of {}: {n}", ulimit.name))
        }),
    };
    let (soft, hard) = (value(ulimit.soft)?, value(ulimit.hard)?);
    if soft > hard {
        return Err(SpecError::Invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {} > {}",
            ulimit.soft, ulimit.hard
        )));
    }
    Ok(oci::PosixRlimitBuilder::default()
        .typ(kind)
        .soft(soft)
        .hard(hard)
        .build()?)
}
