//! The end of a container: what is left of it is killed and reaped, its output drained, its record written, everybody told.

use std::os::fd::AsRawFd;
use std::path::Path;

use gantry_monitor::client::SOCKET_NAME;
use gantry_monitor::hooks;
use gantry_monitor::plan::{Cgroup, Namespace};
use gantry_monitor::protocol::{ExitRecord, Failure, Message};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::monitor::conn::{Conn, Mode as ConnMode};
use crate::monitor::{Monitor, Phase};
use crate::sys;

/// So often, for so many milliseconds, clients may keep the container's mounts by not reading what it wrote.
const FLUSH_ROUNDS: u32 = 20;
const FLUSH_STEP: i32 = 10;

/// How often the cgroup is looked through for processes that were forked while it was killed.
const KILL_ROUNDS: u32 = 100;

/// Exit code (128 + the signal when killed) and signal of a wait status.
pub(crate) fn decode(status: i32) -> (i32, Option<i32>) {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        (128 + signal, Some(signal))
    } else {
        (libc::WEXITSTATUS(status), None)
    }
}

/// Sends a signal to every process of a cgroup, and says how many there were.
pub(crate) fn signal_all(cgroup: &Cgroup, signo: i32) -> usize {
    let dir = cgroup.v2.as_ref().filter(|_| cgroup.v1.is_empty());
    let Some(dir) = dir.or(cgroup.v1.first()) else {
        return 0;
    };
    let pids = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let pids: Vec<i32> = pids.lines().filter_map(|l| l.parse().ok()).collect();
    for pid in pids.iter().filter(|pid| **pid > 0) {
        let _ = sys::kill(*pid, signo);
    }
    pids.len()
}

impl Monitor {
    /// The container could not be created or started: kills and reaps, tells, leaves.
    pub(crate) fn abandon(&mut self, failure: Failure) -> ! {
        sys::kill_and_wait(self.init);
        self.kill_rest();
        self.delete_foreign();
        match self.phase {
            Phase::Starting { conn, seq } => {
                self.answer(conn, seq, Message::StartFailed(failure), None);
            }
            _ => self.tell_all(&Message::CreateFailed(failure)),
        }
        self.leave()
    }

    /// The container ended.
    pub(crate) fn finish(&mut self, status: i32) -> ! {
        let exited_at = sys::now();
        self.kill_rest();
        while let Some((pid, status)) = sys::reap() {
            if !self.log.reaped(pid, status) {
                self.exec_ended(pid, status);
            }
        }
        self.execs_gone();
        self.streams.drain(&mut self.log, &mut self.conns);
        self.log.finish(exited_at);
        let (code, signal) = decode(status);
        let record = ExitRecord {
            code,
            signal,
            oom: self.oom.happened(),
            started_at: self.started_at,
            exited_at,
            log_errors: self.log.errors,
        };
        if let Err(errno) = write_record(&self.exit_path, &record) {
            let path = self.exit_path.display();
            eprintln!("gantry-monitor: cannot write {path}: {errno}");
        }
        self.delete_foreign();
        self.tell_all(&Message::Exited(record));
        self.leave()
    }

    /// Kills what outlived the first process. In a PID namespace of its own the kernel has done so.
    fn kill_rest(&mut self) {
        if self.namespaces.pid == Namespace::New {
            return;
        }
        for _ in 0..KILL_ROUNDS {
            if signal_all(&self.cgroup, libc::SIGKILL) == 0 {
                break;
            }
            while let Some((pid, status)) = sys::reap() {
                if !self.log.reaped(pid, status) {
                    self.exec_ended(pid, status);
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Everything is said and recorded: lets go of the container, sends what clients have not taken yet, and leaves. A
    /// client that neither reads nor goes keeps this process for as long as it is waited for, but nothing else.
    fn leave(&mut self) -> ! {
        let _ = std::fs::remove_file(self.socket_dir.join(SOCKET_NAME));
        let (list, state) = (&self.hooks.poststop, &self.hooks.state);
        for e in hooks::run_each(list, "poststop", state, "stopped", 0) {
            eprintln!("gantry-monitor: {}: {e}", self.id);
        }
        let is_control = |c: &Conn| c.mode == ConnMode::Control;
        for _ in 0..FLUSH_ROUNDS {
            self.close_if(|c| !c.backlog() && !is_control(c));
            if !self.flush(FLUSH_STEP) {
                break;
            }
        }
        // Unmounting may take its time. The end of a control connection says that nothing is held any more.
        self.root = None;
        self.close_if(|c| !c.backlog());
        while self.flush(self.patience()) {
            self.sweep();
            self.close_if(|c| !c.backlog());
        }
        sys::exit(0)
    }

    /// Waits (milliseconds; -1: for ever) for clients to take what they have not yet. `false`: they all have.
    fn flush(&mut self, wait: i32) -> bool {
        let waiting = self.conns.iter().filter(|c| c.backlog());
        let mut fds: Vec<libc::pollfd> = waiting
            .map(|c| libc::pollfd {
                fd: c.socket.as_raw_fd(),
                events: libc::POLLOUT,
                revents: 0,
            })
            .collect();
        if fds.is_empty() {
            return false;
        }
        sys::poll(&mut fds, wait);
        for conn in self.conns.iter_mut().filter(|c| c.backlog()) {
            conn.flush();
        }
        true
    }

    fn close_if(&mut self, done: impl Fn(&Conn) -> bool) {
        self.conns.retain(|conn| {
            if done(conn) {
                // Input that nobody will read would turn the end of the stream into a reset.
                let mut buffer = [0; 4096];
                let mut budget = 1024;
                let read = |buffer: &mut [u8]| rustix::io::read(&conn.socket, buffer);
                while budget > 0 && read(&mut buffer).is_ok_and(|n| n > 0) {
                    budget -= 1;
                }
                return false;
            }
            true
        });
    }
}

/// Writes the record beside its place and renames it there. No fsync: it has to survive this process, not the machine.
fn write_record(path: &Path, record: &ExitRecord) -> Result<(), Errno> {
    let text = encode(record);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&temporary, flags, Mode::from_raw_mode(0o600))?;
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&fd, rest)?..];
    }
    rustix::fs::rename(&temporary, path)
}

fn encode(r: &ExitRecord) -> String {
    let signal = r
        .signal
        .map_or_else(|| "null".to_owned(), |s| s.to_string());
    format!(
        "{{\"code\":{},\"signal\":{signal},\"oom\":{},\"started_at\":{},\"exited_at\":{},\"log_errors\":{}}}\n",
        r.code, r.oom, r.started_at, r.exited_at, r.log_errors
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_json() {
        let record = ExitRecord {
            code: 137,
            signal: Some(9),
            oom: true,
            started_at: 1,
            exited_at: 2,
            log_errors: 0,
        };
        let back: ExitRecord = serde_json::from_str(&encode(&record)).unwrap();
        assert_eq!(back, record);
        let plain = ExitRecord {
            signal: None,
            ..record
        };
        assert_eq!(
            serde_json::from_str::<ExitRecord>(&encode(&plain)).unwrap(),
            plain
        );
    }

    #[test]
    fn statuses() {
        assert_eq!(decode(3 << 8), (3, None));
        assert_eq!(decode(9), (137, Some(9)));
    }
}
