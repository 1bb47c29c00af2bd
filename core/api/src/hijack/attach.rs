//! Joining a client to a container's streams.

use std::io;
use std::pin::pin;

use futures_util::StreamExt;
use gantry_engine::Attachment;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{DetachKeys, Taken, linger};
use crate::reply::log_bytes;

/// Output is moved in pieces of this size; the monitor's frames are not looked into.
const OUTPUT: usize = 64 << 10;
const INPUT: usize = 16 << 10;

/// What the client sends is for the container, for nobody, or scanned first.
enum Input {
    None,
    Plain,
    Scanned(DetachKeys),
}

/// Plays the log, then carries bytes both ways until the container's output ends, the client leaves or detaches.
pub(crate) async fn pump(
    mut taken: Taken,
    attachment: Attachment,
    stdin: bool,
    keys: DetachKeys,
) -> io::Result<()> {
    let input = match (stdin, attachment.tty) {
        (false, _) => Input::None,
        (true, false) => Input::Plain,
        (true, true) => Input::Scanned(keys),
    };
    if let Some(logs) = attachment.replay {
        let mut chunks = pin!(log_bytes(logs));
        while let Some(chunk) = chunks.next().await {
            taken.writer.write_all(&chunk).await?;
        }
    }
    let Some(container) = attachment.stream else {
        return taken.writer.shutdown().await;
    };
    let container = tokio::select! {
        container = container => container,
        () = taken.conn.clone().left() => return Ok(()),
    };
    let Ok(container) = container else {
        // It will not start; the start's own caller is told why.
        return taken.writer.shutdown().await;
    };
    let left = taken.conn.clone().left();
    let (mut client, mut to_client) = taken.split();
    let (from_container, to_container) = container.into_split();
    tokio::select! {
        result = output(from_container, &mut to_client) => result?,
        result = forward(&mut client, to_container, input, left) => result?,
    }
    to_client.shutdown().await?;
    linger(client).await;
    Ok(())
}

async fn output(
    mut container: impl AsyncRead + Unpin,
    client: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
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
) -> io::Result<()> {
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
                    return Ok(());
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::UnixStream;
    use tokio::sync::oneshot;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::socket::{Conn, Shared, Socket};
    use crate::transport::Stream;

    fn taken() -> (Taken, UnixStream) {
        let (here, client) = UnixStream::pair().unwrap();
        let socket = Arc::new(Socket::Unix(here));
        let (reader, writer) = tokio::io::split(Stream::Plain(Shared(Arc::clone(&socket))));
        let conn = Arc::new(Conn::new(socket, CancellationToken::new()));
        let taken = Taken {
            conn,
            early: bytes::Bytes::from_static(b"early "),
            reader,
            writer,
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

    fn keys() -> DetachKeys {
        DetachKeys::parse(None).unwrap()
    }

    #[tokio::test]
    async fn input_ends_before_output() {
        let (taken, mut client) = taken();
        let (attachment, mut monitor) = attachment(false);
        let pump = tokio::spawn(pump(taken, attachment, true, keys()));
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
        let pump = tokio::spawn(pump(taken, attachment, true, keys()));
        client.write_all(b"ls\x10\x11").await.unwrap();
        pump.await.unwrap().unwrap();
        let mut input = Vec::new();
        monitor.read_to_end(&mut input).await.unwrap();
        assert_eq!(input, b"early ls");
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    }
}
