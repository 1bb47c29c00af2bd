//! `create`: from a bundle to a process that waits to be started.

use std::path::Path;

use gantry_monitor::direct::{self, Born};
use gantry_monitor::hooks;
use gantry_sys::cgroup::Group;

use crate::bundle::{self, Bundle};
use crate::cli::CreateArgs;
use crate::console;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::lower::{Lowered, lower};
use crate::resources;
use crate::state::{Container, Lock, Record, check_id, start_ticks, write_file};

/// A created container.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) container: Container,
    pub(crate) lock: Lock,
    /// Its first process; the terminal is still there when no socket took it.
    pub(crate) born: Born,
}

/// The command.
pub(crate) fn create(root: &Path, args: &CreateArgs, log: &Log) -> Result<()> {
    let mut created = make(root, args, true, log)?;
    created.born.terminal = None;
    Ok(())
}

/// Makes a container and lets it outlive this process. `detached` says that nobody here serves its terminal.
pub(crate) fn make(root: &Path, args: &CreateArgs, detached: bool, log: &Log) -> Result<Created> {
    if args.no_pivot {
        return Err(Error::refused("--no-pivot is not supported"));
    }
    check_id(&args.id)?;
    direct::protect().map_err(|e| Error::refused(format!("protect the runtime's program: {e}")))?;
    direct::become_parent();
    let bundle = Bundle::load(&args.bundle)?;
    bundle::warn_unknown(&bundle.unknown_capabilities, log);
    let host = resources::host()?;
    let mut lowered = lower(&bundle, &args.id, &host)?;
    console::check(lowered.tty, args.console_socket.as_deref(), detached)?;
    lowered.launch.keep_fds = args.preserve_fds + passed_sockets(&mut lowered);
    lowered.plan.process.new_keyring = !args.no_new_keyring;

    let record = record(&bundle, &args.id, &lowered);
    let (mut container, lock) = Container::make(root, record, &bundle.text)?;
    let (group, cgroup) = match resources::make(&host, &lowered.parts) {
        Ok(made) => made,
        Err(e) => {
            container.remove()?;
            return Err(e);
        }
    };
    container.record.cgroup = cgroup.clone();
    lowered.launch.cgroup = cgroup;
    lowered.launch.socket_dir = container.dir().to_owned();
    match set_up(&mut container, &lowered, args) {
        Ok(born) => Ok(Created {
            container,
            lock,
            born,
        }),
        Err(e) => {
            undo(&container, &group);
            Err(e)
        }
    }
}

/// Makes the first process and tells everybody who wants to know.
fn set_up(container: &mut Container, lowered: &Lowered, args: &CreateArgs) -> Result<Born> {
    lowered.inherited.apply()?;
    let born =
        direct::create(&lowered.launch, &lowered.plan, container.dir()).map_err(Error::Start)?;
    match announce(container, born, args) {
        Ok(born) => {
            born.release();
            Ok(born)
        }
        Err((e, born)) => {
            born.kill();
            Err(e)
        }
    }
}

fn announce(
    container: &mut Container,
    mut born: Born,
    args: &CreateArgs,
) -> std::result::Result<Born, (Error, Born)> {
    let mut tell = || -> Result<()> {
        if let (Some(socket), Some(terminal)) = (&args.console_socket, &born.terminal) {
            console::send(socket, terminal)?;
            born.terminal = None;
        }
        container.record.pid = born.pid;
        container.record.start_ticks = start_ticks(born.pid).unwrap_or(0);
        container.save()?;
        match &args.pid_file {
            Some(path) => write_file(path, born.pid.to_string().as_bytes()),
            None => Ok(()),
        }
    };
    match tell() {
        Ok(()) => Ok(born),
        Err(e) => Err((e, born)),
    }
}

/// Takes back what was made. What cannot be removed now is by `delete`.
fn undo(container: &Container, group: &Group) {
    let _ = group.kill_all();
    if group.remove().is_ok() {
        let _ = container.remove();
    }
    let hooks = &container.record.hooks;
    hooks::run_each(&hooks.poststop, "poststop", &hooks.state, "stopped", 0).for_each(drop);
}

fn record(bundle: &Bundle, id: &str, lowered: &Lowered) -> Record {
    Record {
        id: id.to_owned(),
        oci_version: bundle.spec.version().clone(),
        bundle: bundle.dir.clone(),
        rootfs: bundle.rootfs.clone(),
        annotations: bundle
            .spec
            .annotations()
            .iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        created: jiff::Timestamp::now().to_string(),
        namespaces: lowered.launch.namespaces.clone(),
        time: lowered.inherited.time.is_some(),
        uid_map: lowered.launch.uid_map.clone(),
        gid_map: lowered.launch.gid_map.clone(),
        cgroup_path: lowered.parts.cgroup.clone(),
        hooks: lowered.launch.hooks.clone(),
        ..Record::default()
    }
}

/// Descriptors in the manner of systemd's socket activation, which are the container's then.
fn passed_sockets(lowered: &mut Lowered) -> u32 {
    let count = std::env::var("LISTEN_FDS")
        .ok()
        .and_then(|n| n.parse::<u32>().ok())
        .filter(|n| (1..=1024).contains(n));
    if let Some(count) = count {
        let env = &mut lowered.plan.process.env;
        env.push(format!("LISTEN_FDS={count}"));
        env.push("LISTEN_PID=1".into());
    }
    count.unwrap_or(0)
}
