//! An exec: a child of the monitor that joins the container, then is born again in its PID namespace and runs a program.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use gantry_monitor::plan::{Cgroup, ExecPlan, Hooks, Namespace, Namespaces};
use gantry_monitor::protocol::{Stage, from_bytes};
use rustix::fs::{Mode, OFlags};

use crate::fault::{At, Step, plain};
use crate::init::{control_terminal, open_terminal, own_streams, report};
use crate::process::{self, Labels, Prepared};
use crate::sync::{self, Packet};
use crate::sys::{self, Fork};

/// What the monitor hands to the child.
#[derive(Debug)]
pub(crate) struct Inherited<'a> {
    /// A pidfd of the container's first process.
    pub(crate) init: OwnedFd,
    /// The container's namespaces.
    pub(crate) namespaces: &'a Namespaces,
    /// The host's numbers of root in the container's own user namespace.
    pub(crate) owner: Option<(u32, u32)>,
    /// The container's cgroups.
    pub(crate) cgroup: &'a Cgroup,
    /// The encoded [`ExecPlan`].
    pub(crate) plan: &'a [u8],
    /// The child's end.
    pub(crate) sync: OwnedFd,
    /// Standard input, output and error; none with a terminal.
    pub(crate) stdio: Option<[OwnedFd; 3]>,
    /// How many descriptors from 3 on it keeps.
    pub(crate) keep_fds: u32,
    /// The container has a time namespace of its own.
    pub(crate) time: bool,
}

/// Runs as the child; ends with its program, or with an exit after the failure was reported.
pub(crate) fn run(inherited: &Inherited<'_>) -> ! {
    let failure = match set_up(inherited) {
        Ok(prepared) => prepared.exec(&Hooks::default()),
        Err(failure) => failure,
    };
    report(inherited.sync.as_fd(), failure)
}

fn set_up(inherited: &Inherited<'_>) -> Step<Prepared> {
    let plan: ExecPlan =
        from_bytes(inherited.plan).map_err(|e| plain(Stage::Plan, format!("read plan: {e}")))?;
    if let Some(score) = plan.oom_score_adj {
        set_oom_score("self", score)?;
    }
    let labels = Labels::open(&plan.process)?;
    join_cgroups(inherited.cgroup)?;
    if let (Some(fds), Some(owner)) = (&inherited.stdio, inherited.owner) {
        own_streams(fds, owner);
    }
    if let Some([i, o, e]) = &inherited.stdio {
        process::set_stdio([i.as_fd(), o.as_fd(), e.as_fd()])
            .at(Stage::Setup, || "set up standard streams".into())?;
    }
    be_born(inherited, &labels)?;
    rustix::process::setsid().at(Stage::Setup, || "setsid".into())?;
    rustix::process::umask(Mode::empty());
    if inherited.stdio.is_none() {
        let (master, slave) = open_terminal(plan.size)?;
        sync::send(inherited.sync.as_fd(), &Packet::Terminal(master));
        let slave = slave.as_fd();
        process::set_stdio([slave, slave, slave])
            .at(Stage::Setup, || "set up standard streams".into())?;
        control_terminal()?;
    }
    let prepared = process::prepare(plan.process, labels)?;
    process::own_stdio(prepared.uid());
    Ok(prepared)
}

/// Joins the container's namespaces and goes on as a new child of the monitor in its PID namespace.
///
/// The container may trace what it sees (`CAP_SYS_PTRACE`): it is to see a process that has nothing of the host left,
/// neither its root nor descriptors.
fn be_born(inherited: &Inherited<'_>, labels: &Labels) -> Step<()> {
    let what = || "join the container's namespaces".to_owned();
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).at(Stage::Setup, what)?;
    let n = inherited.namespaces;
    let mut kinds = libc::CLONE_NEWNS;
    for (namespace, kind) in [
        (&n.pid, libc::CLONE_NEWPID),
        (&n.net, libc::CLONE_NEWNET),
        (&n.ipc, libc::CLONE_NEWIPC),
        (&n.uts, libc::CLONE_NEWUTS),
        (&n.cgroup, libc::CLONE_NEWCGROUP),
        (&n.user, libc::CLONE_NEWUSER),
    ] {
        if *namespace != Namespace::Host {
            kinds |= kind;
        }
    }
    if inherited.time {
        kinds |= libc::CLONE_NEWTIME;
    }
    sys::setns(inherited.init.as_fd(), kinds).at(Stage::Namespace, what)?;
    if n.user != Namespace::Host {
        sys::set_groups(&[]).at(Stage::Namespace, what)?;
        sys::set_ids(0, 0).at(Stage::Namespace, what)?;
    }
    let kept = 3..3 + i32::try_from(inherited.keep_fds).unwrap_or(0);
    sys::close_all_but(labels.fds().chain([inherited.sync.as_raw_fd()]).chain(kept))
        .at(Stage::Setup, || "close descriptors".into())?;
    match sys::clone3(libc::CLONE_PARENT as u64, None).at(Stage::Namespace, what)? {
        Fork::Child => Ok(()),
        Fork::Parent(pid) => {
            sync::send(inherited.sync.as_fd(), &Packet::Pid(pid));
            sys::exit(0)
        }
    }
}

/// Enters the v1 cgroups; the child was born in the v2 one.
fn join_cgroups(cgroup: &Cgroup) -> Step<()> {
    for tasks in open_tasks(cgroup)? {
        rustix::io::write(&tasks, b"0").at(Stage::Cgroup, || "join cgroup".into())?;
    }
    Ok(())
}

/// The files through which a process enters the v1 cgroups by itself.
pub(crate) fn open_tasks(cgroup: &Cgroup) -> Step<Vec<OwnedFd>> {
    let open = |dir: &std::path::PathBuf| {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::open(dir.join("tasks"), flags, Mode::empty())
            .at(Stage::Cgroup, || format!("open cgroup {}", dir.display()))
    };
    cgroup.v1.iter().map(open).collect()
}

/// Writes the `oom_score_adj` of the process with this name in `/proc`; lowering it needs a privilege that may be missing, which is not fatal.
pub(crate) fn set_oom_score(name: &str, score: i32) -> Step<()> {
    let path = format!("/proc/{name}/oom_score_adj");
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let write = || {
        let fd = rustix::fs::open(path.as_str(), flags, Mode::empty())?;
        rustix::io::write(&fd, score.to_string().as_bytes())
    };
    match write() {
        Ok(_) | Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => Ok(()),
        Err(e) => Err(crate::fault::failure(
            Stage::Setup,
            e,
            format!("write {path}"),
        )),
    }
}
