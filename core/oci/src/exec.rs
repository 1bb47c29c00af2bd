//! `exec`: another process in a container.

use std::collections::BTreeSet;
use std::path::Path;

use gantry_monitor::direct::{self, Target};
use gantry_monitor::plan::ExecPlan;
use gantry_runtime::standalone::Standalone;
use oci_spec::runtime as oci;

use crate::attend::attend;
use crate::bundle::{self, check_process};
use crate::capabilities::drop_unknown;
use crate::cli::ExecArgs;
use crate::console;
use crate::error::{Context, Error, Result};
use crate::log::Log;
use crate::lower::console_size;
use crate::process::Inherited;
use crate::resources;
use crate::state::{Container, Status, write_file};

/// The command; the process's exit code, or 0 when it is left alone.
pub(crate) fn exec(root: &Path, args: &ExecArgs, log: &Log) -> Result<u8> {
    let container = Container::open(root, &args.id)?;
    match container.status() {
        Status::Running | Status::Created => {}
        Status::Paused if args.ignore_paused => {}
        Status::Paused => {
            return Err(Error::refused(
                "cannot exec in a paused container (use --ignore-paused to override)",
            ));
        }
        Status::Creating | Status::Stopped => {
            return Err(Error::refused("cannot exec in a stopped container"));
        }
    }
    direct::protect().map_err(|e| Error::refused(format!("protect the runtime's program: {e}")))?;
    direct::become_parent();
    let spec = container.spec()?;
    let (mut process, unknown) = wanted(&spec, args)?;
    bundle::warn_unknown(&unknown, log);
    check_process(&process)?;
    let tty = process.terminal() == Some(true);
    console::check(tty, args.console_socket.as_deref(), args.detach)?;
    let mut inherited = Inherited::default();
    inherited.take_of_process(&mut process);
    let plan = plan(&spec, &process)?;
    inherited.apply()?;
    let record = &container.record;
    let target = Target {
        pid: record.pid,
        namespaces: &record.namespaces,
        uid_map: &record.uid_map,
        gid_map: &record.gid_map,
        cgroup: &record.cgroup,
        time: record.time,
    };
    // Held while the number is used.
    let _first = container.process()?;
    let mut born = direct::exec(&target, &plan, tty, args.preserve_fds).map_err(Error::Exec)?;
    if let (Some(socket), Some(terminal)) = (&args.console_socket, &born.terminal) {
        let sent = console::send(socket, terminal);
        if let Err(e) = sent {
            born.kill();
            return Err(e);
        }
    }
    if let Some(path) = &args.pid_file
        && let Err(e) = write_file(path, born.pid.to_string().as_bytes())
    {
        born.kill();
        return Err(e);
    }
    if args.detach {
        return Ok(0);
    }
    attend(born.pid, born.terminal.take())
}

fn plan(spec: &oci::Spec, process: &oci::Process) -> Result<ExecPlan> {
    let filter = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    let mut lowered = Standalone::new(&resources::host()?)?.process(process, filter)?;
    lowered.create_cwd = false;
    Ok(ExecPlan {
        process: lowered,
        oom_score_adj: process.oom_score_adj(),
        size: console_size(process),
    })
}

/// The process of a file, or the container's own with another command and what else was said; and the capabilities that it
/// names and that are not known here.
fn wanted(spec: &oci::Spec, args: &ExecArgs) -> Result<(oci::Process, BTreeSet<String>)> {
    if let Some(path) = &args.process {
        let text = bundle::read(path).context(|| format!("read {}", path.display()))?;
        let invalid = |e: serde_json::Error| Error::refused(format!("invalid process: {e}"));
        let mut value: serde_json::Value = serde_json::from_str(&text).map_err(invalid)?;
        let unknown = drop_unknown(&mut value);
        let mut process: oci::Process = serde_json::from_value(value).map_err(invalid)?;
        if args.tty {
            process.set_terminal(Some(true));
        }
        return Ok((process, unknown));
    }
    if args.command.is_empty() {
        return Err(Error::refused("exec args cannot be empty"));
    }
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(args.command.clone()));
    process.set_terminal(Some(args.tty));
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    if !args.env.is_empty() {
        let mut env = process.env().clone().unwrap_or_default();
        for new in &args.env {
            let name = new.split_once('=').map_or(new.as_str(), |(name, _)| name);
            env.retain(|old| old.split_once('=').is_none_or(|(old, _)| old != name));
            env.push(new.clone());
        }
        process.set_env(Some(env));
    }
    let mut user = process.user().clone();
    if let Some(given) = &args.user {
        let (uid, gid) = given.split_once(':').unwrap_or((given, ""));
        let number = |text: &str| {
            text.parse::<u32>()
                .map_err(|_| Error::refused(format!("invalid user {given:?}: want UID[:GID]")))
        };
        user.set_uid(number(uid)?);
        if !gid.is_empty() {
            user.set_gid(number(gid)?);
        }
    }
    if !args.additional_gids.is_empty() {
        let mut gids = user.additional_gids().clone().unwrap_or_default();
        gids.extend(&args.additional_gids);
        user.set_additional_gids(Some(gids));
    }
    process.set_user(user);
    if args.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if args.apparmor.is_some() {
        process.set_apparmor_profile(args.apparmor.clone());
    }
    if args.process_label.is_some() {
        process.set_selinux_label(args.process_label.clone());
    }
    add_capabilities(&mut process, &args.cap)?;
    Ok((process, BTreeSet::new()))
}

/// Further capabilities, in every set but the ambient one for a user that is not root, as with runc.
fn add_capabilities(process: &mut oci::Process, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let more: Vec<oci::Capability> = names
        .iter()
        .map(|name| {
            let name = name.to_ascii_uppercase();
            let name = name.strip_prefix("CAP_").unwrap_or(&name);
            serde_json::from_value(format!("CAP_{name}").into())
                .map_err(|_| Error::refused(format!("unknown capability CAP_{name}")))
        })
        .collect::<Result<_>>()?;
    let mut sets = process.capabilities().clone().unwrap_or_default();
    let with = |set: &Option<oci::Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(more.iter().copied());
        Some(set)
    };
    sets.set_bounding(with(sets.bounding()));
    sets.set_effective(with(sets.effective()));
    sets.set_permitted(with(sets.permitted()));
    process.set_capabilities(Some(sets));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn process(line: &str) -> Result<oci::Process> {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Exec(args) = cli.command else {
            panic!("not an exec")
        };
        let spec = serde_json::from_value(crate::spec::default()).unwrap();
        wanted(&spec, &args).map(|(process, _)| process)
    }

    #[test]
    fn options_change_the_containers_own_process() {
        let line =
            "gantry-oci exec -u 7:8 -g 9 --cwd /x -e PATH=/p -e A=1 --cap NET_ADMIN -t x id -u";
        let p = process(line).unwrap();
        assert_eq!(p.args().clone().unwrap(), ["id", "-u"]);
        assert_eq!((p.user().uid(), p.user().gid()), (7, 8));
        assert_eq!(p.user().additional_gids().clone().unwrap(), [9]);
        assert_eq!(p.cwd(), Path::new("/x"));
        let env = p.env().clone().unwrap();
        assert!(env.contains(&"PATH=/p".to_owned()) && env.contains(&"A=1".to_owned()));
        assert_eq!(env.iter().filter(|e| e.starts_with("PATH=")).count(), 1);
        let sets = p.capabilities().clone().unwrap();
        assert!(
            sets.effective()
                .as_ref()
                .unwrap()
                .contains(&oci::Capability::NetAdmin)
        );
        assert_eq!(p.terminal(), Some(true));
        assert!(process("gantry-oci exec x").is_err());
        assert!(process("gantry-oci exec -u root x id").is_err());
        assert!(process("gantry-oci exec --cap FLY x id").is_err());
    }
}
