//! A monitor: the parent of one container. One thread, one `poll(2)` loop, all state in [`Monitor`].

mod conn;
mod control;
mod create;
mod execs;
mod finish;
mod foreign;
mod json;
mod log;
mod oci;
mod oom;
mod streams;

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Instant;

use gantry_monitor::hooks;
use gantry_monitor::plan::{Cgroup, Hooks, Namespaces};
use gantry_monitor::protocol::{Failure, Message, Stage};
use rustix::io::Errno;

use crate::fault::{failure, plain};
use crate::sync::{self, Packet};
use crate::sys;
use conn::{Conn, Mode};
pub(crate) use create::{first_process, open_cgroup2};
use execs::Exec;
use foreign::Foreign;
use log::Log;
use oom::Oom;
use streams::Streams;

/// How far the container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its first process sets itself up.
    Creating,
    /// It waits for `Start`.
    Created,
    /// It execs; the answer goes to this connection under this number.
    Starting { conn: u64, seq: u64 },
    /// It runs.
    Running,
    /// It ended, with this wait status.
    Ended(i32),
}

/// The parent of one container.
#[derive(Debug)]
struct Monitor {
    id: String,
    phase: Phase,
    init: i32,
    started_at: i64,
    sync: Option<OwnedFd>,
    namespaces: Namespaces,
    cgroup: Cgroup,
    hooks: Hooks,
    /// The host's numbers of root in the container's own user namespace.
    owner: Option<(u32, u32)>,
    socket_dir: PathBuf,
    exit_path: PathBuf,
    listener: OwnedFd,
    signals: OwnedFd,
    /// The root of the container's mount tree. The last to hold an overlay has the kernel sync the whole file system below
    /// it, which can take seconds: that is to be this process after it has told of the exit, not the container before.
    root: Option<OwnedFd>,
    streams: Streams,
    log: Log,
    oom: Oom,
    conns: Vec<Conn>,
    next_conn: u64,
    execs: Vec<Exec>,
    /// Deaths of processes that nobody knows yet: one of them may be an exec's, or the container's of another runtime.
    strays: Vec<(i32, i32)>,
    /// Set when another runtime makes and runs the container.
    foreign: Option<Foreign>,
}

/// What a polled descriptor is.
#[derive(Debug, Clone, Copy)]
enum Token {
    Sync,
    Exec(i32),
    Signals,
    Listener,
    Output(usize),
    Log,
    Input,
    Conn(u64),
}

/// Runs as a freshly forked monitor on a launch as it came; never returns.
pub(crate) fn run(bytes: Vec<u8>, fds: Vec<OwnedFd>) -> ! {
    sys::signal_default(libc::SIGCHLD, false);
    let _ = rustix::process::setsid();
    let _ = sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0);
    let (launch, control, plan) = match create::parse(&bytes, fds) {
        Ok(parsed) => parsed,
        Err((failure, control)) => create_failed(control, failure),
    };
    if launch.only_namespaces {
        create::only_namespaces(&launch, control);
    }
    create::set_title(&launch.id);
    // The first connection gets it back when something fails.
    let spare = rustix::io::fcntl_dupfd_cloexec(&control.socket, 3).ok();
    let created = create::create(launch, control, plan, bytes);
    match created {
        Ok(monitor) => {
            // Or the connection would not end before the process.
            drop(spare);
            monitor.serve()
        }
        Err(failure) => create_failed(spare, failure),
    }
}

/// Answers a launch for which no monitor could be made.
pub(crate) fn refuse(bytes: &[u8], fds: Vec<OwnedFd>, errno: Errno) {
    let failure = failure(Stage::Monitor, errno, "fork monitor".into());
    let control = match create::parse(bytes, fds) {
        Ok((_, control, _)) => Some(control.socket),
        Err((_, control)) => control,
    };
    if let Some(socket) = control {
        Conn::new(0, socket).say(0, Message::CreateFailed(failure), None);
    }
}

/// Tells the first connection and leaves; there is nothing of the container.
fn create_failed(control: Option<OwnedFd>, failure: Failure) -> ! {
    match control {
        Some(socket) => Conn::new(0, socket).say(0, Message::CreateFailed(failure), None),
        None => eprintln!("gantry-monitor: launch: {}", failure.message),
    }
    sys::exit(1)
}

impl Monitor {
    /// Serves until the container has ended and everybody knows.
    fn serve(mut self) -> ! {
        let (mut fds, mut tokens) = (Vec::new(), Vec::new());
        loop {
            self.interests(&mut fds, &mut tokens);
            if !sys::poll(&mut fds, self.patience()) {
                continue;
            }
            for (fd, token) in fds.iter().zip(&tokens) {
                if fd.revents != 0 {
                    self.dispatch(*token, fd.revents);
                }
            }
            self.sweep();
            if let Phase::Ended(status) = self.phase {
                self.finish(status);
            }
        }
    }

    /// What to wait for now. Handshakes come before signals: the death of a process is told after its last words.
    fn interests(&self, fds: &mut Vec<libc::pollfd>, tokens: &mut Vec<Token>) {
        fds.clear();
        tokens.clear();
        let mut add = |fd: RawFd, events: i16, token: Token| {
            fds.push(libc::pollfd {
                fd,
                events,
                revents: 0,
            });
            tokens.push(token);
        };
        if let Some(fd) = &self.sync {
            add(fd.as_raw_fd(), libc::POLLIN, Token::Sync);
        }
        for exec in &self.execs {
            if let Some(fd) = &exec.sync {
                add(fd.as_raw_fd(), libc::POLLIN, Token::Exec(exec.pid));
            }
        }
        add(self.signals.as_raw_fd(), libc::POLLIN, Token::Signals);
        add(self.listener.as_raw_fd(), libc::POLLIN, Token::Listener);
        let attached = |c: &&Conn| c.mode != Mode::Control;
        // A slow client stalls the container's output rather than the monitor's memory.
        if !self.conns.iter().filter(attached).any(Conn::backlog) {
            for stream in 0..2 {
                if let Some(fd) = self.streams.output(stream) {
                    add(fd, libc::POLLIN, Token::Output(stream));
                }
            }
        }
        if let Some(fd) = self.log.blocked() {
            add(fd, libc::POLLOUT, Token::Log);
        }
        if let Some(fd) = self.streams.blocked_input() {
            add(fd, libc::POLLOUT, Token::Input);
        }
        for conn in &self.conns {
            let reads = match conn.mode {
                Mode::Control => true,
                Mode::Attach { stdin, .. } => {
                    stdin && !conn.input_ended && self.streams.takes_input()
                }
            };
            let mut events = if reads { libc::POLLIN } else { 0 };
            if conn.backlog() {
                events |= libc::POLLOUT;
            }
            add(conn.socket.as_raw_fd(), events, Token::Conn(conn.id));
        }
    }

    fn dispatch(&mut self, token: Token, events: i16) {
        match token {
            Token::Sync => self.init_says(),
            Token::Exec(pid) => self.exec_says(pid),
            Token::Signals => self.reap(),
            Token::Listener => self.accept(),
            Token::Output(stream) => {
                self.streams.pump(stream, &mut self.log, &mut self.conns);
            }
            Token::Log => self.log.push(),
            Token::Input => self.streams.write_input(),
            Token::Conn(id) => self.conn_ready(id, events),
        }
    }

    fn conn_ready(&mut self, id: u64, events: i16) {
        let Some(at) = self.conns.iter().position(|c| c.id == id && !c.dead) else {
            return;
        };
        let conn = &mut self.conns[at];
        if events & libc::POLLOUT != 0 {
            conn.flush();
        }
        if events & libc::POLLIN != 0 {
            match conn.mode {
                Mode::Control => {
                    conn.receive();
                    while let Some(asked) = self.conns[at].request() {
                        self.serve_request(at, asked);
                    }
                }
                Mode::Attach { .. } => self.streams.read_input(conn),
            }
        } else if events & (libc::POLLHUP | libc::POLLERR) != 0 {
            conn.dead = true;
        }
    }

    /// For how many milliseconds there is nothing to do unless something happens; -1 for ever.
    fn patience(&self) -> i32 {
        let now = Instant::now();
        let left = self.conns.iter().filter_map(|c| c.patience(now)).min();
        left.map_or(-1, |left| {
            i32::try_from(left.as_millis()).map_or(i32::MAX, |ms| ms + 1)
        })
    }

    /// Removes connections that are gone or were waited for in vain. One that gave input ends it.
    fn sweep(&mut self) {
        let now = Instant::now();
        for conn in &mut self.conns {
            conn.dead |= conn.patience(now).is_some_and(|left| left.is_zero());
        }
        let mut ended = false;
        self.conns.retain(|c| {
            ended |= c.dead && !c.input_ended && matches!(c.mode, Mode::Attach { stdin: true, .. });
            !c.dead
        });
        if ended {
            self.streams.client_ended();
        }
    }

    fn accept(&mut self) {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        if let Ok(socket) = rustix::net::accept_with(&self.listener, flags) {
            self.conns.push(Conn::new(self.next_conn, socket));
            self.next_conn += 1;
        }
    }

    /// Reads what the container's first process has to say before it execs.
    fn init_says(&mut self) {
        while let Some(packet) = self.sync.as_ref().and_then(|s| sync::receive(s.as_fd())) {
            match packet {
                Packet::Terminal(master) => {
                    if self.streams.set_terminal(master).is_err() {
                        let _ = sys::kill(self.init, libc::SIGKILL);
                    }
                }
                Packet::Root(root) => self.root = Some(root),
                Packet::Ready => self.created(),
                Packet::Failed(failure) => self.abandon(failure),
                Packet::Hooks => self.run_hooks(),
                Packet::Go | Packet::Pid(_) | Packet::End => {
                    self.sync = None;
                    self.init_execed();
                }
            }
        }
    }

    /// Runs what is to run before the container's root is its root. The container ends where one fails.
    fn run_hooks(&mut self) {
        let hooks = &self.hooks;
        let (list, state) = (&hooks.create_runtime, &hooks.state);
        match hooks::run(list, "createRuntime", state, "creating", self.init) {
            Ok(()) => {
                if let Some(sync) = &self.sync {
                    sync::send(sync.as_fd(), &Packet::Go);
                }
            }
            Err(e) => self.abandon(plain(Stage::Setup, e.to_string())),
        }
    }

    /// Everything is set up.
    fn created(&mut self) {
        self.phase = Phase::Created;
        let created = Message::Created {
            version: gantry_monitor::plan::VERSION,
            pid: self.init,
            monitor: std::process::id() as i32,
        };
        self.tell_all(&created);
    }

    /// The container's process runs.
    fn started(&mut self, conn: u64, seq: u64) {
        self.phase = Phase::Running;
        self.started_at = sys::now();
        let at = self.started_at;
        self.answer(conn, seq, Message::Started { at }, None);
        let hooks = std::mem::take(&mut self.hooks.poststart);
        for e in hooks::run_each(&hooks, "poststart", &self.hooks.state, "running", self.init) {
            eprintln!("gantry-monitor: {}: {e}", self.id);
        }
    }

    /// The handshake's end: the process execed, or it was killed.
    fn init_execed(&mut self) {
        match self.phase {
            Phase::Creating => self.abandon(Failure {
                stage: Stage::Gone,
                errno: Errno::SRCH.raw_os_error(),
                message: "the container's process died while it was set up".into(),
            }),
            Phase::Starting { conn, seq } => self.started(conn, seq),
            _ => {}
        }
    }

    /// Reaps whatever died.
    fn reap(&mut self) {
        let mut buffer = [0; 1024];
        while rustix::io::read(&self.signals, &mut buffer).is_ok() {}
        while let Some((pid, status)) = sys::reap() {
            if pid == self.init {
                self.init_says();
                self.init_ended(status);
            } else if !self.log.reaped(pid, status) && !self.runtime_ended(pid, status) {
                self.exec_ended(pid, status);
            }
        }
    }

    fn init_ended(&mut self, status: i32) {
        match &mut self.foreign {
            // Its runtime has yet to say whether it was started.
            Some(foreign) if matches!(self.phase, Phase::Starting { .. }) => {
                foreign.ended = Some(status);
            }
            _ => self.phase = Phase::Ended(status),
        }
    }

    /// Sends an event to every control connection.
    fn tell_all(&mut self, message: &Message) {
        for conn in &mut self.conns {
            conn.say(0, message.clone(), None);
        }
    }

    /// Answers a request, if its connection is still there.
    fn answer(&mut self, conn: u64, seq: u64, message: Message, fd: Option<OwnedFd>) {
        if let Some(conn) = self.conns.iter_mut().find(|c| c.id == conn) {
            conn.say(seq, message, fd);
        }
    }
}
