//! A pipe or terminal as an asynchronous stream.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Sleep;

use crate::exec::Stage;

/// Registers a descriptor with the event loop.
///
/// # Errors
/// A descriptor that cannot be polled.
#[expect(
    deprecated,
    reason = "unsound for types that do not own their descriptor; an `OwnedFd` does"
)]
pub(crate) fn pollable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

/// A descriptor that can be polled. Reading the master side of a terminal that nobody has open any more ends the stream.
pub(crate) struct FdStream(AsyncFd<OwnedFd>);

impl FdStream {
    /// Makes the descriptor non-blocking.
    ///
    /// # Errors
    /// A descriptor that cannot be polled.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = fcntl_getfl(fd.as_fd())?;
        fcntl_setfl(fd.as_fd(), flags | OFlags::NONBLOCK)?;
        Ok(Self(pollable(fd)?))
    }
}

impl AsyncRead for FdStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            let read = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), unfilled)?));
            return match read {
                Ok(Ok(length)) => {
                    buffer.advance(length);
                    Poll::Ready(Ok(()))
                }
                Ok(Err(error)) if error.raw_os_error() == Some(EIO) => Poll::Ready(Ok(())),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(Err(error)) => Poll::Ready(Err(error)),
                Err(_would_block) => continue,
            };
        }
    }
}

/// How long output may be held open by others after the process has ended.
const GRACE: Duration = Duration::from_secs(2);

/// Output of an exec. It ends after the exit code has been noted, so that a client that has read everything can ask for
/// it; and soon after that even when a process left behind holds the pipe.
pub(crate) struct UntilExit {
    stream: Option<FdStream>,
    exit: Option<Waiting>,
    grace: Option<Pin<Box<Sleep>>>,
}

type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

impl UntilExit {
    /// The stage becomes [`Stage::Ended`] when the exit code has been noted.
    pub(crate) fn new(stream: FdStream, stage: watch::Receiver<Stage>) -> Self {
        Self {
            stream: Some(stream),
            ..Self::silent(stage)
        }
    }

    /// Of an exec whose output nobody wants.
    pub(crate) fn silent(mut stage: watch::Receiver<Stage>) -> Self {
        Self {
            stream: None,
            exit: Some(Box::pin(async move {
                // An error means that the exec has been forgotten: it has ended then.
                let _ = stage.wait_for(|stage| *stage == Stage::Ended).await;
            })),
            grace: None,
        }
    }
}

impl AsyncRead for UntilExit {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(stream) = &mut self.stream {
            let before = buffer.filled().len();
            match Pin::new(stream).poll_read(context, buffer) {
                Poll::Ready(Ok(())) if buffer.filled().len() == before => self.stream = None,
                Poll::Ready(outcome) => return Poll::Ready(outcome),
                Poll::Pending => {}
            }
        }
        if let Some(exit) = &mut self.exit {
            ready!(exit.as_mut().poll(context));
            self.exit = None;
        }
        if self.stream.is_none() {
            return Poll::Ready(Ok(()));
        }
        let grace = self
            .grace
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(GRACE)));
        ready!(grace.as_mut().poll(context));
        Poll::Ready(Ok(()))
    }
}

/// What the kernel answers once the last process has closed its side of a terminal.
const EIO: i32 = rustix::io::Errno::IO.raw_os_error();

impl AsyncWrite for FdStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(context))?;
            match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(outcome) => return Poll::Ready(outcome),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn through_a_pipe() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let (mut read, mut write) = (FdStream::new(read).unwrap(), FdStream::new(write).unwrap());
        let sent = vec![7u8; 300_000];
        let copy = sent.clone();
        let writer = tokio::spawn(async move { write.write_all(&copy).await.unwrap() });
        let mut got = Vec::new();
        read.read_to_end(&mut got).await.unwrap();
        writer.await.unwrap();
        assert_eq!(got, sent);
    }

    #[tokio::test(start_paused = true)]
    async fn output_ends_after_the_exit() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let stage = watch::Sender::new(Stage::Runs);
        let mut output = UntilExit::new(FdStream::new(read).unwrap(), stage.subscribe());
        drop(write);
        let mut byte = [0u8];
        let early = tokio::time::timeout(Duration::from_secs(9), output.read(&mut byte)).await;
        assert!(early.is_err(), "ended before the exit");
        stage.send_replace(Stage::Ended);
        assert_eq!(output.read(&mut byte).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn without_output_the_exit_is_the_end() {
        let stage = watch::Sender::new(Stage::Runs);
        let mut output = UntilExit::silent(stage.subscribe());
        let mut byte = [0u8];
        let mut end = Box::pin(output.read(&mut byte));
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(end.as_mut().poll(&mut context).is_pending());
        stage.send_replace(Stage::Ended);
        assert_eq!(end.await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_holds_it_open_for_ever() {
        let (read, _write) = rustix::pipe::pipe().unwrap();
        let stage = watch::Sender::new(Stage::Ended);
        let mut output = UntilExit::new(FdStream::new(read).unwrap(), stage.subscribe());
        assert_eq!(output.read(&mut [0u8]).await.unwrap(), 0);
    }
}
