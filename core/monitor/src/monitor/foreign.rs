//! Containers of other OCI runtimes (runc, crun, youki): made by their executables, adopted by the monitor, which is the
//! subreaper of all that they leave behind.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use gantry_monitor::plan::{self, ExecPlan, Launch};
use gantry_monitor::protocol::{Failure, Message, Stage, from_bytes};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::fault::{At, Step, plain};
use crate::monitor::execs::Exec;
use crate::monitor::oom::Oom;
use crate::monitor::{Monitor, Phase, oci};
use crate::process::resolve;
use crate::sys;

/// The runtime and what it is doing.
#[derive(Debug)]
pub(crate) struct Foreign {
    config: plan::Foreign,
    id: String,
    /// The root file system, to look users up.
    root: OwnedFd,
    jobs: Vec<Job>,
    /// The container's process ended before its runtime had said that it was started.
    pub(crate) ended: Option<i32>,
    count: u32,
    deleted: bool,
}

/// A call of the runtime that has not returned.
#[derive(Debug)]
struct Job {
    pid: i32,
    what: What,
    files: Files,
    console: Option<OwnedFd>,
}

#[derive(Debug)]
enum What {
    Create,
    Start,
    Exec { id: String, from: (u64, u64) },
}

/// The names of a call's files in the bundle.
#[derive(Debug)]
struct Files {
    pid: PathBuf,
    log: PathBuf,
    process: PathBuf,
    console: PathBuf,
}

impl Foreign {
    /// Begins to create the container. Its end is told by [`Monitor::runtime_ended`].
    pub(crate) fn create(
        config: plan::Foreign,
        launch: &Launch,
        root: OwnedFd,
        stdio: Option<[OwnedFd; 3]>,
    ) -> Step<Self> {
        let mut foreign = Self {
            config,
            id: launch.id.clone(),
            root,
            jobs: Vec::new(),
            ended: None,
            count: 0,
            deleted: false,
        };
        let bundle = foreign.config.bundle.clone().into_os_string();
        foreign.call(What::Create, stdio, |command, files| {
            command.args(["create", "--bundle"]).arg(bundle);
            command.arg("--pid-file").arg(&files.pid);
        })?;
        Ok(foreign)
    }

    /// Begins to start it.
    pub(crate) fn start(&mut self) -> Step<()> {
        self.call(What::Start, None, |command, _| {
            command.arg("start");
        })
    }

    /// Whether a call of it has not returned.
    pub(crate) fn busy(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Whether an exec of this name is about to run.
    pub(crate) fn execs(&self, id: &str) -> bool {
        let same = |job: &Job| matches!(&job.what, What::Exec { id: known, .. } if known == id);
        self.jobs.iter().any(same)
    }

    /// Begins an exec.
    pub(crate) fn exec(
        &mut self,
        from: (u64, u64),
        id: &str,
        encoded: &[u8],
        stdio: Option<[OwnedFd; 3]>,
    ) -> Step<()> {
        let exec: ExecPlan =
            from_bytes(encoded).map_err(|e| plain(Stage::Plan, format!("read plan: {e}")))?;
        let identity = resolve(self.root.as_fd(), &exec.process.user)?;
        let text = oci::process(&exec, &identity, stdio.is_none());
        let process = self.files(self.count + 1).process;
        std::fs::write(&process, text).at(Stage::Monitor, || "write process.json".into())?;
        let what = What::Exec {
            id: id.to_owned(),
            from,
        };
        self.call(what, stdio, |command, files| {
            command
                .args(["exec", "--detach", "--pid-file"])
                .arg(&files.pid);
            command.arg("--process").arg(&files.process);
        })
    }

    fn files(&self, n: u32) -> Files {
        let at = |name: &str| self.config.bundle.join(format!("{name}.{n}"));
        Files {
            pid: at("pid"),
            log: at("runtime.log"),
            process: at("process.json"),
            console: at("console"),
        }
    }

    /// Calls the runtime. What makes a process gets the streams, or a console socket when there are none.
    fn call(
        &mut self,
        what: What,
        stdio: Option<[OwnedFd; 3]>,
        args: impl FnOnce(&mut Command, &Files),
    ) -> Step<()> {
        self.count += 1;
        let files = self.files(self.count);
        let mut command = self.command(&files);
        args(&mut command, &files);
        let mut console = None;
        match stdio {
            Some([stdin, stdout, stderr]) => {
                command.stdin(stdin).stdout(stdout).stderr(stderr);
            }
            None if matches!(what, What::Start) => {}
            None => {
                console = Some(listen(&files.console)?);
                // Relative to the bundle, for a socket's address is short.
                command.arg("--console-socket");
                command.arg(files.console.file_name().unwrap_or_default());
            }
        }
        let child = command.arg(&self.id).spawn();
        let child = child.at(Stage::Runtime, || {
            format!("run {}", self.config.runtime.display())
        })?;
        self.jobs.push(Job {
            pid: child.id() as i32,
            what,
            files,
            console,
        });
        Ok(())
    }

    fn command(&self, files: &Files) -> Command {
        let mut command = Command::new(&self.config.runtime);
        command.current_dir(&self.config.bundle);
        command.args(&self.config.args);
        command
            .arg("--log")
            .arg(&files.log)
            .args(["--log-format", "json"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Removes what the runtime keeps of the container, with the container if it still is there.
    fn delete(&mut self) {
        if std::mem::replace(&mut self.deleted, true) {
            return;
        }
        self.count += 1;
        let files = self.files(self.count);
        let mut command = self.command(&files);
        let _ = command.args(["delete", "--force"]).arg(&self.id).status();
        files.remove();
    }
}

impl Files {
    fn remove(&self) {
        for path in [&self.pid, &self.log, &self.process, &self.console] {
            let _ = std::fs::remove_file(path);
        }
    }

    fn read_pid(&self) -> Step<i32> {
        let text = std::fs::read_to_string(&self.pid);
        let text = text.at(Stage::Runtime, || "read the runtime's pid file".into())?;
        let pid = text.trim().parse().ok().filter(|pid| *pid > 0);
        pid.ok_or_else(|| {
            plain(
                Stage::Runtime,
                format!("the runtime's pid file has {text:?}"),
            )
        })
    }

    /// Why the runtime failed, by its log.
    fn failure(&self, status: i32) -> Failure {
        let log = std::fs::read(&self.log).unwrap_or_default();
        match oci::last_error(&log) {
            Some(message) => Failure {
                stage: oci::stage(&message),
                errno: 0,
                message,
            },
            None => {
                let status = std::process::ExitStatus::from_raw(status);
                plain(
                    Stage::Runtime,
                    format!("the runtime failed without a word ({status})"),
                )
            }
        }
    }
}

impl Job {
    /// The master side of the terminal, which the runtime has sent by now.
    fn terminal(&self) -> Step<Option<OwnedFd>> {
        let Some(console) = &self.console else {
            return Ok(None);
        };
        let what = || "receive the terminal from the runtime".to_owned();
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::accept_with(console, flags).at(Stage::Runtime, what)?;
        let (mut buffer, mut fds) = ([0; 4096], Vec::new());
        gantry_monitor::client::receive_bytes(socket.as_fd(), &mut buffer, &mut fds)
            .at(Stage::Runtime, what)?;
        fds.pop()
            .ok_or_else(|| plain(Stage::Runtime, "the runtime sent no terminal"))
            .map(Some)
    }
}

/// A listening socket for the terminal; it does not wait.
fn listen(path: &std::path::Path) -> Step<OwnedFd> {
    let open = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let dir = rustix::fs::open(
            path.parent().unwrap_or(path),
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        let dir = std::os::fd::AsRawFd::as_raw_fd(&dir);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{dir}/{name}"))?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, 1)?;
        Ok::<_, rustix::io::Errno>(socket)
    };
    open().at(Stage::Monitor, || "open console socket".into())
}

impl Monitor {
    /// A call of the runtime returned. `false`: this child is somebody else's.
    pub(crate) fn runtime_ended(&mut self, pid: i32, status: i32) -> bool {
        let Some(foreign) = &mut self.foreign else {
            return false;
        };
        let Some(at) = foreign.jobs.iter().position(|j| j.pid == pid) else {
            return false;
        };
        let job = foreign.jobs.swap_remove(at);
        let done = if status == 0 {
            Ok(())
        } else {
            Err(job.files.failure(status))
        };
        match &job.what {
            What::Create => {
                if let Err(failure) = done.and_then(|()| self.adopt(&job)) {
                    job.files.remove();
                    self.abandon(failure);
                }
            }
            What::Start => match (done, self.phase) {
                (Ok(()), Phase::Starting { conn, seq }) => {
                    self.started(conn, seq);
                    if let Some(status) = self.foreign.as_mut().and_then(|f| f.ended.take()) {
                        self.phase = Phase::Ended(status);
                    }
                }
                (Err(failure), _) => {
                    job.files.remove();
                    if self.foreign.as_ref().is_some_and(|f| f.ended.is_some()) {
                        self.init = 0;
                    }
                    self.abandon(failure);
                }
                (Ok(()), _) => {}
            },
            What::Exec { id, from } => {
                let begun = done.and_then(|()| Ok((job.files.read_pid()?, job.terminal()?)));
                match begun {
                    Ok((pid, terminal)) => self.adopt_exec(id.clone(), *from, pid, terminal),
                    Err(f) => self.answer(from.0, from.1, Message::ExecFailed(f), None),
                }
            }
        }
        job.files.remove();
        true
    }

    /// The runtime has created the container: its process is a child of this one now.
    fn adopt(&mut self, job: &Job) -> Step<()> {
        self.init = job.files.read_pid()?;
        if let Some(master) = job.terminal()? {
            self.streams
                .set_terminal(master)
                .at(Stage::Monitor, || "take the terminal".into())?;
        }
        self.oom = Oom::open(self.cgroup.memory.as_deref());
        self.created();
        if let Some(status) = self.take_stray(self.init) {
            self.phase = Phase::Ended(status);
        }
        Ok(())
    }

    fn adopt_exec(&mut self, id: String, from: (u64, u64), pid: i32, terminal: Option<OwnedFd>) {
        self.exec_adopted(Exec {
            id,
            pid,
            sync: None,
            terminal,
            from,
            failure: None,
        });
        if let Some(status) = self.take_stray(pid) {
            self.exec_ended(pid, status);
        }
    }

    /// Lets the runtime forget the container; execs that it was about to make fail.
    pub(crate) fn delete_foreign(&mut self) {
        let Some(mut foreign) = self.foreign.take() else {
            return;
        };
        for job in std::mem::take(&mut foreign.jobs) {
            sys::kill_and_wait(job.pid);
            job.files.remove();
            if let What::Exec { from, .. } = job.what {
                let failure = plain(Stage::Gone, "the container ended");
                self.answer(from.0, from.1, Message::ExecFailed(failure), None);
            }
        }
        foreign.delete();
    }
}
