//! Joining a client to a container's streams.

use std::io;
use std::pin::pin;

use futures_util::StreamExt;
use gantry_engine::Attachment;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Input, Outcome, Taken, linger};
use crate::reply::log_bytes;

/// Output is moved in pieces of this size; the monitor's frames are not looked into.
const OUTPUT: usize = 256 << 10;
const INPUT: usize = 16 << 10;

/// Plays the log, then carries bytes both ways until the container's output ends, the client leaves or detaches.
pub(crate) async fn pump(
    taken: Taken,
    attachment: Attachment,
    input: Input,
) -> io::Result<Outcome> {
    let left = taken.conn.clone().left();
    let head = taken.head_read();
    let (mut client, mut writer) = taken.split();
    let replay = attachment.replay;
    let mut played = Box::pin(async move {
        head.await;
        if let Some(logs) = replay {
            let mut chunks = pin!(log_bytes(logs));
            while let Some(chunk) = chunks.next().await {
                writer.write_all(&chunk).await?;
            }
        }
        io::Result::Ok(writer)
    });
    // Where live output goes, once what was before it has been played.
    let mut to_client = None;
    let mut left = pin!(left);
    let container = match attachment.stream {
        None => None,
        Some(mut stream) => loop {
            tokio::select! {
                // An error means that it will not start; the start's own caller is told why.
                container = &mut stream => break container.ok(),
                writer = &mut played, if to_client.is_none() => to_client = Some(writer?),
                () = left.as_mut() => return Ok(Outcome::Ended),
            }
        },
    };
    let outcome = match container {
        None => {
            live(&mut to_client, played, tokio::io::empty()).await?;
            Outcome::Ended
        }
        Some(container) => {
            let (from_container, to_container) = container.into_split();
            tokio::select! {
                result = live(&mut to_client, played, from_container) => {
                    result.map(|()| Outcome::Ended)?
                }
                result = forward(&mut client, to_container, input, left) => result?,
            }
        }
    };
    if let Some(mut to_client) = to_client {
        to_client.shutdown().await?;
        linger(client).await;
    }
    Ok(outcome)
}

/// Finishes what is `played` first, unless it is done and left its writer in the slot, then copies.
async fn live<W: AsyncWrite + Unpin>(
    slot: &mut Option<W>,
    played: impl Future<Output = io::Result<W>>,
    mut container: impl AsyncRead + Unpin,
) -> io::Result<()> {
    let client = match slot {
        Some(client) => client,
        None => slot.insert(played.await?),
    };
    let mut buffer = vec![0; OUTPUT];
    loop {
        match container.read(&mut buffer).await? {
            0 => return Ok(()),
            count => client.write_all(&buffer[..count]).await?,
        }
    }
}

/// Resolves when the client detaches or leaves. The end of its input ends the container's, and is no reason to stop the
/// output.
async fn forward(
    mut client: impl AsyncRead + Unpin,
    mut container: tokio::net::unix::OwnedWriteHalf,
    mut input: Input,
    left: impl Future<Output = ()>,
) -> io::Result<Outcome> {
    let mut buffer = vec![0; INPUT];
    let mut passed = Vec::new();
    loop {
        let count = client.read(&mut buffer).await.unwrap_or(0);
        if count == 0 {
            break;
        }
        let typed = &buffer[..count];
        let written = match &mut input {
            Input::None => continue,
            Input::Plain => container.write_all(typed).await,
            Input::Scanned(keys) => {
                passed.clear();
                let detached = keys.pass(typed, &mut passed);
                let written = container.write_all(&passed).await;
                if detached {
                    // Dropping the half would shut it down, which is the end of input.
                    container.forget();
                    return Ok(Outcome::Detached);
                }
                written
            }
        };
        // It takes no more input; its output goes on.
        if written.is_err() {
            break;
        }
    }
    if matches!(input, Input::None) {
        container.forget();
    } else {
        let _ = container.shutdown().await;
    }
    left.await;
    Ok(Outcome::Ended)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::UnixStream;
    use tokio::sync::oneshot;
    use tokio_util::sync::CancellationToken;

    use super::super::DetachKeys;
    use super::*;
    use crate::socket::{Conn, Shared, Socket};
    use crate::transport::Stream;

    fn taken() -> (Taken, UnixStream) {
        let (here, client) = UnixStream::pair().unwrap();
        let socket = Arc::new(Socket::Unix(here));
        let stream = Stream::Plain(Shared(Arc::clone(&socket)));
        let conn = Arc::new(Conn::new(socket, CancellationToken::new()));
        let taken = Taken {
            conn,
            early: bytes::Bytes::from_static(b"early "),
            stream,
        };
        (taken, client)
    }

    fn attachment(tty: bool) -> (Attachment, UnixStream) {
        let (ours, monitor) = UnixStream::pair().unwrap();
        let (sender, stream) = oneshot::channel();
        sender.send(ours).unwrap();
        let attachment = Attachment {
            tty,
            replay: None,
            stream: Some(stream),
        };
        (attachment, monitor)
    }

    fn input(tty: bool) -> Input {
        Input::new(true, tty, DetachKeys::parse(None).unwrap())
    }

    #[tokio::test]
    async fn input_ends_before_output() {
        let (taken, mut client) = taken();
        let (attachment, mut monitor) = attachment(false);
        let pump = tokio::spawn(pump(taken, attachment, input(false)));
        client.write_all(b"input").await.unwrap();
        client.shutdown().await.unwrap();
        let mut input = Vec::new();
        monitor.read_to_end(&mut input).await.unwrap();
        assert_eq!(input, b"early input");
        monitor.write_all(b"output").await.unwrap();
        drop(monitor);
        let mut output = Vec::new();
        client.read_to_end(&mut output).await.unwrap();
        assert_eq!(output, b"output");
        pump.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn keys_detach_from_a_terminal() {
        let (taken, mut client) = taken();
        let (attachment, mut monitor) = attachment(true);
        let pump = tokio::spawn(pump(taken, attachment, input(true)));
        client.write_all(b"ls\x10\x11").await.unwrap();
        assert_eq!(pump.await.unwrap().unwrap(), Outcome::Detached);
        let mut input = Vec::new();
        monitor.read_to_end(&mut input).await.unwrap();
        assert_eq!(input, b"early ls");
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    }
}
