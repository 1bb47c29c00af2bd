//! What the daemon asks for.

use std::os::fd::{AsFd, OwnedFd};

use gantry_monitor::plan::VERSION;
use gantry_monitor::protocol::{AttachReply, Info, Message, Request, ToMonitor};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::fault::words;
use crate::init::set_terminal_size;
use crate::monitor::{Monitor, Phase, finish};
use crate::sync::{self, Packet};
use crate::sys;

/// An answer, or the error that becomes one; `None` when it comes later.
type Answer = Result<Option<(Message, Option<OwnedFd>)>, Errno>;

impl Monitor {
    /// Serves a request of the connection at this place.
    pub(crate) fn serve_request(&mut self, at: usize, asked: ToMonitor) {
        let (conn, seq) = (self.conns[at].id, asked.seq);
        let answer = match asked.request {
            Request::Start => self.start(conn, seq),
            Request::Signal { signo, all, exec } => self.signal(signo, all, exec.as_deref()),
            Request::Resize {
                height,
                width,
                exec,
            } => self.resize(height, width, exec.as_deref()),
            Request::Info => Ok(Some((Message::Info(self.info()), None))),
            Request::TakeNetns => self.netns(),
            Request::Exec { id, tty, plan } => {
                let fds = self.conns[at].take_fds();
                self.exec((conn, seq), id, tty, &plan, fds);
                Ok(None)
            }
            Request::Attach {
                stdin,
                stdout,
                stderr,
                partial,
            } => {
                self.attach(at, stdin, [stdout, stderr], partial);
                Ok(None)
            }
            Request::ReopenLog => self.log.reopen().map(|()| Some((Message::Done, None))),
        };
        match answer {
            Ok(None) => {}
            Ok(Some((message, fd))) => self.answer(conn, seq, message, fd),
            Err(errno) => {
                let error = Message::Error {
                    errno: errno.raw_os_error(),
                    message: words(errno),
                };
                self.answer(conn, seq, error, None);
            }
        }
    }

    fn start(&mut self, conn: u64, seq: u64) -> Answer {
        match self.phase {
            Phase::Created => {}
            Phase::Creating => return Err(Errno::AGAIN),
            Phase::Starting { .. } | Phase::Running => return Err(Errno::ALREADY),
            Phase::Ended(_) => return Err(Errno::SRCH),
        }
        match (&mut self.foreign, &self.sync) {
            (Some(foreign), _) => foreign.start().map_err(|_| Errno::IO)?,
            (None, Some(sync)) => sync::send(sync.as_fd(), &Packet::Go),
            (None, None) => return Err(Errno::SRCH),
        }
        self.phase = Phase::Starting { conn, seq };
        Ok(None)
    }

    fn signal(&mut self, signo: i32, all: bool, exec: Option<&str>) -> Answer {
        // None of these is reaped before its turn in the loop, so the numbers are still theirs.
        if let Some(id) = exec {
            let exec = self.execs.iter().find(|e| e.id == id).ok_or(Errno::SRCH)?;
            sys::kill(exec.pid, signo)?;
        } else if self.init == 0 || matches!(self.phase, Phase::Ended(_)) {
            return Err(Errno::SRCH);
        } else if all && finish::signal_all(&self.cgroup, signo) > 0 {
            // Among them the first one.
        } else {
            sys::kill(self.init, signo)?;
        }
        Ok(Some((Message::Done, None)))
    }

    fn resize(&mut self, rows: u16, columns: u16, exec: Option<&str>) -> Answer {
        let terminal = match exec {
            Some(id) => {
                let exec = self.execs.iter().find(|e| e.id == id).ok_or(Errno::SRCH)?;
                exec.terminal.as_ref()
            }
            None => self.streams.terminal(),
        };
        set_terminal_size(terminal.ok_or(Errno::NOTTY)?, rows, columns)?;
        Ok(Some((Message::Done, None)))
    }

    fn info(&self) -> Info {
        Info {
            version: VERSION,
            id: self.id.clone(),
            pid: self.init,
            monitor: std::process::id() as i32,
            started_at: self.started_at,
            execs: self.execs.iter().map(|e| (e.id.clone(), e.pid)).collect(),
            log_errors: self.log.errors,
        }
    }

    fn netns(&self) -> Answer {
        if self.init == 0 || matches!(self.phase, Phase::Ended(_)) {
            return Err(Errno::SRCH);
        }
        let path = format!("/proc/{}/ns/net", self.init);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Some((Message::Netns, Some(fd))))
    }

    fn attach(&mut self, at: usize, stdin: bool, outputs: [bool; 2], partial: bool) {
        let conn = &mut self.conns[at];
        let early = conn.attach(stdin, outputs);
        let (rotations, log_offset) = self.log.position();
        let reply = AttachReply {
            errno: 0,
            rotations,
            log_offset,
        };
        conn.push(&[&reply.to_bytes()], None);
        if partial {
            self.streams.replay(&self.log, conn);
        }
        if stdin {
            self.streams.input(&early);
        }
    }
}
