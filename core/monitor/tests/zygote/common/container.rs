//! One container: its monitor's answers, its output.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use gantry_monitor::client;
use gantry_monitor::plan::*;
use gantry_monitor::protocol::*;

use super::*;

pub(crate) struct Container {
    pub(crate) control: Control,
    pub(crate) pid: i32,
    pub(crate) monitor: i32,
    pub(crate) spec: Spec,
}

impl Container {
    pub(crate) fn start(&mut self) {
        match self.control.ask(Request::Start) {
            Message::Started { at } => assert!(at > 0),
            other => panic!("not started: {other:?}"),
        }
    }

    pub(crate) fn exited(&mut self) -> ExitRecord {
        match self.control.event() {
            Message::Exited(record) => {
                let text =
                    std::fs::read(&self.spec.launch.exit_path).expect("record is there first");
                assert_eq!(serde_json::from_slice::<ExitRecord>(&text).unwrap(), record);
                self.control.ends();
                record
            }
            other => panic!("not exited: {other:?}"),
        }
    }

    pub(crate) fn signal(&mut self, signo: i32) {
        let request = Request::Signal {
            signo,
            all: false,
            exec: None,
        };
        assert_eq!(self.control.ask(request), Message::Done);
    }

    pub(crate) fn kill(mut self) {
        self.signal(libc::SIGKILL);
        assert_eq!(self.exited().code, 137);
    }

    pub(crate) fn log(&self) -> Vec<(String, String)> {
        read_log(&self.spec.dir.join("json.log"))
    }

    pub(crate) fn output(&self) -> String {
        self.log().into_iter().map(|(_, text)| text).collect()
    }

    /// Waits until the log has this text.
    pub(crate) fn logs(&self, text: &str) {
        eventually(&format!("the log has {text:?}"), || {
            self.output().contains(text)
        });
    }

    pub(crate) fn attach(&self, stdin: bool) -> (UnixStream, AttachReply) {
        self.attach_with(Request::Attach {
            stdin,
            stdout: true,
            stderr: true,
            partial: false,
        })
    }

    pub(crate) fn attach_with(&self, request: Request) -> (UnixStream, AttachReply) {
        let mut stream = client::connect(&self.spec.dir).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let bytes = encode(&ToMonitor { seq: 1, request }).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut reply = [0; AttachReply::LEN];
        stream.read_exact(&mut reply).unwrap();
        (stream, AttachReply::from_bytes(reply))
    }

    /// Execs without a terminal, with pipes: code, standard output, standard error.
    pub(crate) fn exec(&mut self, process: Process) -> Result<(i32, String, String), Failure> {
        let (mut out, their_out) = std::io::pipe().unwrap();
        let (mut err, their_err) = std::io::pipe().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let plan = ExecPlan {
            process,
            ..ExecPlan::default()
        };
        let fds = [null.as_fd(), their_out.as_fd(), their_err.as_fd()];
        let request = Request::Exec {
            id: "e".into(),
            tty: false,
            plan: to_bytes(&plan).unwrap(),
        };
        let answer = self.control.ask_with(request, &fds);
        drop((their_out, their_err));
        match answer {
            Message::ExecStarted { pid } => assert!(pid > 0),
            Message::ExecFailed(failure) => return Err(failure),
            other => panic!("no exec: {other:?}"),
        }
        let (mut o, mut e) = (String::new(), String::new());
        out.read_to_string(&mut o).unwrap();
        err.read_to_string(&mut e).unwrap();
        match self.control.next() {
            Message::ExecExited { code, .. } => Ok((code, o, e)),
            other => panic!("exec did not exit: {other:?}"),
        }
    }
}
