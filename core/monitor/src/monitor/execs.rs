//! Execs: children of the monitor beside the container's first process.

use std::os::fd::{AsFd, OwnedFd};

use gantry_monitor::protocol::{Failure, Message, Stage};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use crate::exec::{self, Inherited};
use crate::fault::{At, Step, failure, plain};
use crate::monitor::create::open_cgroup2;
use crate::monitor::foreign::Foreign;
use crate::monitor::{Monitor, Phase, finish};
use crate::sync::{self, Packet};
use crate::sys::{self, Fork};

/// How many deaths of processes that nobody knows yet are remembered.
const MAX_STRAYS: usize = 64;

/// A running exec, or one that is about to run.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) pid: i32,
    /// Until it execs.
    pub(crate) sync: Option<OwnedFd>,
    /// The master side: kept so that the exec outlives a daemon that held the other copy.
    pub(crate) terminal: Option<OwnedFd>,
    /// Who asked, and under which number.
    pub(crate) from: (u64, u64),
    /// Why it could not run; told when it is gone.
    pub(crate) failure: Option<Failure>,
}

impl Monitor {
    /// Begins an exec. Its answer comes when it has execed or failed.
    pub(crate) fn exec(
        &mut self,
        (conn, seq): (u64, u64),
        id: String,
        tty: bool,
        plan: &[u8],
        fds: Vec<OwnedFd>,
    ) {
        match self.try_exec((conn, seq), &id, tty, plan, fds) {
            // Another runtime is at it.
            Ok(None) => {}
            Ok(Some((pid, sync))) => self.execs.push(Exec {
                id,
                pid,
                sync: Some(sync),
                terminal: None,
                from: (conn, seq),
                failure: None,
            }),
            Err(failure) => self.answer(conn, seq, Message::ExecFailed(failure), None),
        }
    }

    fn try_exec(
        &mut self,
        from: (u64, u64),
        id: &str,
        tty: bool,
        plan: &[u8],
        fds: Vec<OwnedFd>,
    ) -> Step<Option<(i32, OwnedFd)>> {
        if self.phase != Phase::Running {
            return Err(failure(
                Stage::Gone,
                Errno::SRCH,
                "the container is not running".into(),
            ));
        }
        let running = self.foreign.as_ref().is_some_and(|f| f.execs(id));
        if running || self.execs.iter().any(|e| e.id == id) {
            return Err(failure(Stage::Plan, Errno::EXIST, format!("exec {id}")));
        }
        let stdio = match (tty, <[OwnedFd; 3]>::try_from(fds)) {
            (true, _) => None,
            (false, Ok(fds)) => Some(fds),
            (false, Err(_)) => return Err(plain(Stage::Plan, "an exec needs three descriptors")),
        };
        if let Some(foreign) = &mut self.foreign {
            return foreign.exec(from, id, plan, stdio).map(|()| None);
        }
        let what = || "make the exec's process".to_owned();
        let pid = Pid::from_raw(self.init).ok_or_else(|| plain(Stage::Gone, what()))?;
        let init = rustix::process::pidfd_open(pid, PidfdFlags::empty()).at(Stage::Gone, what)?;
        let (ours, theirs) = sync::pair().at(Stage::Monitor, what)?;
        let cgroup = open_cgroup2(self.cgroup.v2.as_deref())?;
        let forked = sys::clone3(0, cgroup.as_ref().map(AsFd::as_fd));
        match forked.at(Stage::Namespace, what)? {
            Fork::Parent(pid) => Ok(Some((pid, ours))),
            Fork::Child => exec::run(&Inherited {
                init,
                namespaces: &self.namespaces,
                owner: self.owner,
                cgroup: &self.cgroup,
                plan,
                sync: theirs,
                stdio,
                keep_fds: 0,
                time: false,
            }),
        }
    }

    /// Reads what an exec has to say before it execs.
    pub(crate) fn exec_says(&mut self, pid: i32) {
        let Some(at) = self.execs.iter().position(|e| e.pid == pid) else {
            return;
        };
        while let Some(packet) = self.execs[at]
            .sync
            .as_ref()
            .and_then(|s| sync::receive(s.as_fd()))
        {
            let exec = &mut self.execs[at];
            match packet {
                Packet::Terminal(master) => exec.terminal = Some(master),
                Packet::Failed(failure) => {
                    exec.failure = Some(failure);
                    exec.sync = None;
                }
                // From here on this one: the first has set it up and is gone.
                Packet::Pid(pid) => {
                    exec.pid = pid;
                    if let Some(status) = self.take_stray(pid) {
                        return self.exec_ended(pid, status);
                    }
                }
                Packet::Hooks | Packet::Ready | Packet::Go | Packet::Root(_) => {}
                Packet::End => return self.exec_started(at),
            }
        }
    }

    /// A child that is not the container's first process is dead.
    pub(crate) fn exec_ended(&mut self, pid: i32, status: i32) {
        self.exec_says(pid);
        let Some(at) = self.execs.iter().position(|e| e.pid == pid) else {
            return self.stray(pid, status);
        };
        // The one that made it may still hold the socket whose end says that it execed.
        if self.execs[at].sync.is_some() {
            self.exec_started(at);
        }
        let exec = self.execs.swap_remove(at);
        let message = match exec.failure {
            Some(failure) => Message::ExecFailed(failure),
            None => {
                let (code, signal) = finish::decode(status);
                Message::ExecExited { code, signal }
            }
        };
        self.answer(exec.from.0, exec.from.1, message, None);
    }

    /// Remembers a death while an exec or a foreign runtime has yet to say which process is its own.
    fn stray(&mut self, pid: i32, status: i32) {
        let pending = self.execs.iter().any(|e| e.sync.is_some());
        if !pending && !self.foreign.as_ref().is_some_and(Foreign::busy) {
            self.strays = Vec::new();
        } else {
            if self.strays.len() == MAX_STRAYS {
                self.strays.remove(0);
            }
            self.strays.push((pid, status));
        }
    }

    /// The status of a process that died before it was known.
    pub(crate) fn take_stray(&mut self, pid: i32) -> Option<i32> {
        let at = self.strays.iter().position(|(p, _)| *p == pid)?;
        Some(self.strays.swap_remove(at).1)
    }

    /// Begins to keep an exec that another runtime has made.
    pub(crate) fn exec_adopted(&mut self, exec: Exec) {
        self.execs.push(exec);
        self.exec_started(self.execs.len() - 1);
    }

    /// An exec runs: its terminal goes to who asked, and stays here too.
    fn exec_started(&mut self, at: usize) {
        let exec = &mut self.execs[at];
        exec.sync = None;
        let copy = |fd| rustix::io::fcntl_dupfd_cloexec(fd, 3).ok();
        let fd = exec.terminal.as_ref().and_then(copy);
        let ((conn, seq), pid) = (exec.from, exec.pid);
        self.answer(conn, seq, Message::ExecStarted { pid }, fd);
    }

    /// Execs that are still there as the container ends die with it.
    pub(crate) fn execs_gone(&mut self) {
        for exec in std::mem::take(&mut self.execs) {
            let message = match (exec.failure, &exec.sync) {
                (Some(failure), _) => Message::ExecFailed(failure),
                (None, Some(_)) => {
                    let words = "the container ended".to_owned();
                    Message::ExecFailed(failure(Stage::Gone, Errno::SRCH, words))
                }
                (None, None) => {
                    let (code, signal) = (128 + libc::SIGKILL, Some(libc::SIGKILL));
                    Message::ExecExited { code, signal }
                }
            };
            self.answer(exec.from.0, exec.from.1, message, None);
        }
    }
}
