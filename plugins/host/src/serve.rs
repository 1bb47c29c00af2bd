//! The driver's process: loads one plugin and answers requests until the engine is gone.
//!
//! Every thread of a small pool receives, runs and answers; the kernel wakes one of them for each packet. There is
//! always one that waits, up to a bound.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gantry_driver_api::{DriverError, decode, encode};
use gantry_plugin_abi::host::{Instance, Library, Outcome};
use gantry_plugin_abi::{HostCallbacks, Level};
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use crate::wire::{self, PACKET, ReplyStatus, WIRE};

/// Calls that may run (or hang) at once.
const MAX_THREADS: usize = 64;

/// The first request: what to load.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The format of the packets that follow.
    pub(crate) wire: u32,
    /// The engine's copy of the plugin.
    pub(crate) plugin: PathBuf,
    /// The encoded [`gantry_driver_api::DriverConfig`].
    #[serde(with = "serde_bytes")]
    pub(crate) config: Vec<u8>,
}

/// Runs the driver's process on its end of the socket; ends the process when the engine is gone, whatever the driver is
/// doing.
///
/// # Errors
/// When the first request does not come or makes no sense. That the plugin cannot be loaded is told to the engine.
pub fn serve(socket: OwnedFd) -> io::Result<()> {
    let mut buffer = vec![0; PACKET];
    let Some(mut packet) = wire::receive(socket.as_fd(), &mut buffer, None)? else {
        return Ok(());
    };
    let request = wire::parse_request(&buffer[..packet.length], &mut packet.fds)?;
    let id = request.id;
    let mut body = Vec::new();
    request.body.read_into(&mut body)?;
    let mut said = Vec::new();
    match start(&body) {
        Ok((instance, manifest)) => {
            let server = Arc::new(Server {
                socket,
                instance,
                idle: AtomicUsize::new(0),
                threads: AtomicUsize::new(1),
            });
            let watched = server.clone();
            std::thread::Builder::new()
                .stack_size(64 * 1024)
                .spawn(move || exit_with_engine(&watched.socket))?;
            wire::send_reply(server.socket.as_fd(), id, ReplyStatus::Ok, manifest)?;
            server.run();
            Ok(())
        }
        Err((Outcome::Panicked, text)) => {
            wire::send_reply(socket.as_fd(), id, ReplyStatus::Panicked, &text)
        }
        Err((_, fault)) => {
            said.extend_from_slice(&fault);
            wire::send_reply(socket.as_fd(), id, ReplyStatus::Fault, &said)
        }
    }
}

type Started = (Instance, &'static [u8]);

fn start(hello: &[u8]) -> Result<Started, (Outcome, Vec<u8>)> {
    let fault = |text: String| {
        let mut bytes = Vec::new();
        // An empty fault reads as an unnamed one.
        let _ = encode(&DriverError::internal(text), &mut bytes);
        (Outcome::Fault, bytes)
    };
    let hello: Hello = decode(hello).map_err(|e| fault(e.message))?;
    if hello.wire != WIRE {
        return Err(fault(format!(
            "the engine speaks packet format {}, this driver host {WIRE}",
            hello.wire
        )));
    }
    let library = Library::load(&hello.plugin)
        .map_err(|e| fault(format!("{} {e}", hello.plugin.display())))?;
    let instance = library.create(&hello.config, HostCallbacks::new(log))?;
    Ok((instance, library.manifest()))
}

/// One line on standard error, which the engine reads: the level as syslog's priority, then the text.
fn log(level: Level, message: &str) {
    let priority = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    };
    let line = format!("<{priority}>{}\n", message.replace('\n', " "));
    // Without a reader there is nobody to tell.
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Waits for the engine's end of the socket to close.
fn exit_with_engine(socket: &OwnedFd) {
    loop {
        let mut fds = [PollFd::new(socket, PollFlags::empty())];
        let hung_up = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        if poll(&mut fds, None).is_ok() && fds[0].revents().intersects(hung_up) {
            std::process::exit(0);
        }
    }
}

struct Server {
    socket: OwnedFd,
    instance: Instance,
    /// Threads that wait for a packet.
    idle: AtomicUsize,
    threads: AtomicUsize,
}

impl Server {
    fn run(self: Arc<Self>) {
        let mut buffer = vec![0; PACKET];
        let (mut body, mut reply) = (Vec::new(), Vec::new());
        loop {
            self.idle.fetch_add(1, Ordering::AcqRel);
            let received = wire::receive(self.socket.as_fd(), &mut buffer, None);
            if self.idle.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.add_thread();
            }
            match received {
                Ok(Some(mut packet)) => {
                    let bytes = &buffer[..packet.length];
                    if let Err(error) = self.answer(bytes, &mut packet.fds, &mut body, &mut reply) {
                        log(Level::ERROR, &format!("answering the engine: {error}"));
                        std::process::exit(1);
                    }
                }
                Ok(None) => std::process::exit(0),
                Err(error) => {
                    log(Level::ERROR, &format!("listening to the engine: {error}"));
                    std::process::exit(1);
                }
            }
        }
    }

    fn answer(
        &self,
        bytes: &[u8],
        fds: &mut Vec<OwnedFd>,
        body: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> io::Result<()> {
        let request = wire::parse_request(bytes, fds)?;
        request.body.read_into(body)?;
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let outcome = self.instance.invoke(
            request.method,
            request.operation,
            request.timeout,
            &borrowed,
            body,
            reply,
        );
        drop(borrowed);
        // The engine must find its descriptors to be the only ones when the reply is there.
        fds.clear();
        let status = match outcome {
            Outcome::Reply => ReplyStatus::Ok,
            Outcome::Fault => ReplyStatus::Fault,
            Outcome::Panicked => ReplyStatus::Panicked,
        };
        wire::send_reply(self.socket.as_fd(), request.id, status, reply)
    }

    /// Somebody must wait for the next packet while this thread is busy.
    fn add_thread(self: &Arc<Self>) {
        if self.threads.fetch_add(1, Ordering::AcqRel) >= MAX_THREADS {
            self.threads.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let server = self.clone();
        if std::thread::Builder::new()
            .spawn(move || server.run())
            .is_err()
        {
            self.threads.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
