//! The connection to one monitor: requests numbered, answers matched, events kept.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gantry_monitor::client;
use gantry_monitor::protocol::{
    Decoder, ExitRecord, Failure, FromMonitor, Message, Request, ToMonitor, encode,
};
use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};

use crate::RuntimeError;

/// An answer, with the descriptor that rides on some.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) message: Message,
    pub(crate) fd: Option<OwnedFd>,
}

/// How a creation went: the process and its monitor, or why not.
pub(crate) type Creation = Result<(i32, i32), Failure>;

/// How an exec ended: exit code and signal. `None` while it runs.
pub(crate) type ExecEnd = Option<Result<(i32, Option<i32>), ()>>;

/// What is known of the container's end.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// It has not come.
    Running,
    /// The monitor told it.
    Exited(ExitRecord),
    /// The connection ended without a word.
    Lost,
}

/// One who waits for answers to one request.
#[derive(Debug)]
struct Waiter {
    answer: Option<oneshot::Sender<Answer>>,
    /// Set for an exec: told of its end after the answer.
    exec: Option<watch::Sender<ExecEnd>>,
    /// Whether the good answer carries a descriptor.
    carries_fd: bool,
}

#[derive(Debug)]
struct Shared {
    socket: UnixStream,
    waiters: Mutex<HashMap<u64, Waiter>>,
    end: watch::Sender<End>,
    /// Set when the other side has hung up.
    closed: watch::Sender<bool>,
}

/// A connection in use. Dropping it ends the reading; the container does not care.
#[derive(Debug)]
pub(crate) struct Control {
    shared: Arc<Shared>,
    /// Held while a message is written, so that two never mix.
    writer: tokio::sync::Mutex<()>,
    next: AtomicU64,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Control {
    /// Takes a connection over. On the first one of a container also answers what `first` waits for: the outcome of
    /// the creation, which comes unasked.
    pub(crate) fn new(
        socket: StdStream,
        first: Option<oneshot::Sender<Creation>>,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            socket: UnixStream::from_std(socket)?,
            waiters: Mutex::default(),
            end: watch::Sender::new(End::Running),
            closed: watch::Sender::new(false),
        });
        Ok(Self {
            reader: tokio::spawn(read(Arc::clone(&shared), first)),
            shared,
            writer: tokio::sync::Mutex::new(()),
            next: AtomicU64::new(1),
        })
    }
    /// The container's end, now and later.
    pub(crate) fn end(&self) -> watch::Receiver<End> {
        self.shared.end.subscribe()
    }
    /// Waits until the monitor has hung up: then it holds nothing of the container any more, its mounts included.
    pub(crate) async fn closed(&self) {
        // The sender lives as long as the connection, which we hold.
        let _ = self.shared.closed.subscribe().wait_for(|c| *c).await;
    }
    /// Whether the container has ended, as far as is known here.
    pub(crate) fn is_over(&self) -> bool {
        !matches!(*self.shared.end.borrow(), End::Running)
    }
    /// Asks and waits for the answer.
    pub(crate) async fn ask(&self, request: Request) -> Result<Answer, RuntimeError> {
        let carries_fd = matches!(request, Request::TakeNetns);
        let (answer, _) = self.send(request, &[], carries_fd, None).await?;
        answer.await.map_err(|_| RuntimeError::NotRunning)
    }
    /// Asks for what has no answer but `Done`.
    pub(crate) async fn command(&self, request: Request) -> Result<(), RuntimeError> {
        match self.ask(request).await?.message {
            Message::Done => Ok(()),
            Message::Error { errno, .. } if errno == nix::libc::ESRCH => {
                Err(RuntimeError::NotRunning)
            }
            other => Err(unexpected(other)),
        }
    }
    /// Starts an exec; its end comes through the second value.
    pub(crate) async fn exec(
        &self,
        request: Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Answer, watch::Receiver<ExecEnd>), RuntimeError> {
        let (end, ended) = watch::channel(None);
        let carries_fd = matches!(request, Request::Exec { tty: true, .. });
        let (answer, _) = self.send(request, fds, carries_fd, Some(end)).await?;
        let answer = answer.await.map_err(|_| RuntimeError::NotRunning)?;
        Ok((answer, ended))
    }
    async fn send(
        &self,
        request: Request,
        fds: &[BorrowedFd<'_>],
        carries_fd: bool,
        exec: Option<watch::Sender<ExecEnd>>,
    ) -> Result<(oneshot::Receiver<Answer>, u64), RuntimeError> {
        let seq = self.next.fetch_add(1, Ordering::Relaxed);
        let bytes = encode(&ToMonitor { seq, request })
            .map_err(|e| RuntimeError::Protocol(e.to_string()))?;
        let (answer, answered) = oneshot::channel();
        self.shared.waiters.lock().insert(
            seq,
            Waiter {
                answer: Some(answer),
                exec,
                carries_fd,
            },
        );
        // The reader may have left just before: then nobody answers.
        if self.is_over() {
            self.shared.waiters.lock().remove(&seq);
            return Err(RuntimeError::NotRunning);
        }
        let written = {
            let _turn = self.writer.lock().await;
            write(&self.shared.socket, &bytes, fds).await
        };
        if written.is_err() {
            self.shared.waiters.lock().remove(&seq);
            return Err(RuntimeError::NotRunning);
        }
        Ok((answered, seq))
    }
}

/// An answer that makes no sense there, or a refusal.
pub(crate) fn unexpected(message: Message) -> RuntimeError {
    match message {
        Message::Error { message, .. } => RuntimeError::Unsupported(message),
        other => RuntimeError::Protocol(format!("unexpected answer {other:?}")),
    }
}

/// Writes all of a message; descriptors go with its first byte.
pub(crate) async fn write(
    socket: &UnixStream,
    mut bytes: &[u8],
    mut fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.writable().await?;
        match socket.try_io(Interest::WRITABLE, || {
            client::send(socket.as_fd(), bytes, fds)
        }) {
            Ok(n) => {
                bytes = &bytes[n..];
                fds = &[];
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads until the other side hangs up; then everyone who waits is told.
async fn read(shared: Arc<Shared>, mut first: Option<oneshot::Sender<Creation>>) {
    let mut decoder = Decoder::default();
    let mut fds = Vec::new();
    loop {
        match receive(&shared.socket, &mut decoder, &mut fds).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(e) => {
                tracing::warn!("reading from a monitor: {e}");
                break;
            }
        }
        let more = loop {
            match decoder.next_message::<FromMonitor>() {
                Ok(Some(message)) => dispatch(&shared, &mut first, message, &mut fds),
                Ok(None) => break true,
                Err(e) => {
                    tracing::error!("a monitor does not speak the protocol: {e}");
                    break false;
                }
            }
        };
        if !more {
            break;
        }
    }
    shared.end.send_if_modified(|end| {
        let lost = matches!(end, End::Running);
        if lost {
            *end = End::Lost;
        }
        lost
    });
    shared.closed.send_replace(true);
    for (_, waiter) in shared.waiters.lock().drain() {
        if let Some(exec) = waiter.exec {
            exec.send_replace(Some(Err(())));
        }
    }
}

async fn receive(
    socket: &UnixStream,
    decoder: &mut Decoder,
    fds: &mut Vec<OwnedFd>,
) -> io::Result<bool> {
    loop {
        socket.readable().await?;
        match socket.try_io(Interest::READABLE, || {
            client::receive(socket.as_fd(), decoder, fds)
        }) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

fn dispatch(
    shared: &Shared,
    first: &mut Option<oneshot::Sender<Creation>>,
    from: FromMonitor,
    fds: &mut Vec<OwnedFd>,
) {
    match from.message {
        Message::Created { pid, monitor, .. } => {
            if let Some(first) = first.take() {
                let _ = first.send(Ok((pid, monitor)));
            }
        }
        Message::CreateFailed(failure) => {
            if let Some(first) = first.take() {
                let _ = first.send(Err(failure));
            }
        }
        Message::Exited(record) => {
            shared.end.send_replace(End::Exited(record));
        }
        Message::ExecExited { code, signal } => {
            exec_ended(shared, from.seq, (code, signal));
        }
        message => answer(shared, from.seq, message, fds),
    }
}

/// The end of a short process may overtake the word that it was started: whoever waits for that stays.
fn exec_ended(shared: &Shared, seq: u64, end: (i32, Option<i32>)) {
    let mut waiters = shared.waiters.lock();
    let Some(waiter) = waiters.get_mut(&seq) else {
        return;
    };
    if let Some(exec) = waiter.exec.take() {
        exec.send_replace(Some(Ok(end)));
    }
    if waiter.answer.is_none() {
        waiters.remove(&seq);
    }
}

fn answer(shared: &Shared, seq: u64, message: Message, fds: &mut Vec<OwnedFd>) {
    let mut waiters = shared.waiters.lock();
    let Some(waiter) = waiters.get_mut(&seq) else {
        tracing::debug!("a monitor answered what nobody asked: {message:?}");
        return;
    };
    let good = matches!(message, Message::Netns | Message::ExecStarted { .. });
    let fd = (good && waiter.carries_fd && !fds.is_empty()).then(|| fds.remove(0));
    let sender = waiter.answer.take();
    let goes_on = matches!(message, Message::ExecStarted { .. }) && waiter.exec.is_some();
    if !goes_on {
        waiters.remove(&seq);
    }
    if let Some(sender) = sender {
        let _ = sender.send(Answer { message, fd });
    }
}
