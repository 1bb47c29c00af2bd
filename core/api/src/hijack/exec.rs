//! Joining a client to an exec's streams.

use std::io;

use gantry_engine::{ExecIo, ExecReader, ExecWriter};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;

use super::{DetachKeys, Taken, linger};
use crate::reply::frame_header;

const OUTPUT: usize = 32 << 10;
const INPUT: usize = 16 << 10;
const HEADER: usize = 8;

/// Carries bytes both ways until the exec's output ends or the client detaches.
pub(crate) async fn pump(taken: Taken, exec: ExecIo, keys: DetachKeys) -> io::Result<()> {
    let (mut client, to_client) = taken.split();
    let to_client = Mutex::new(to_client);
    let outputs = async {
        tokio::try_join!(
            output(exec.stdout, 1, exec.tty, &to_client),
            output(exec.stderr, 2, exec.tty, &to_client),
        )
    };
    let keys = exec.tty.then_some(keys);
    tokio::select! {
        result = outputs => drop(result?),
        result = input(&mut client, exec.stdin, keys) => result?,
    }
    to_client.lock().await.shutdown().await?;
    linger(client).await;
    Ok(())
}

/// Tells the client why nothing runs, where it waits for output.
pub(crate) async fn refuse(mut taken: Taken, tty: bool, message: String) -> io::Result<()> {
    let words = format!("{message}\r\n");
    if !tty {
        let header = frame_header(1, words.len());
        taken.writer.write_all(&header).await?;
    }
    taken.writer.write_all(words.as_bytes()).await?;
    taken.writer.shutdown().await
}

async fn output(
    reader: Option<ExecReader>,
    stream: u8,
    tty: bool,
    client: &Mutex<impl AsyncWrite + Unpin>,
) -> io::Result<()> {
    let Some(mut reader) = reader else {
        return Ok(());
    };
    let mut buffer = vec![0; HEADER + OUTPUT];
    loop {
        let count = reader.read(&mut buffer[HEADER..]).await?;
        if count == 0 {
            return Ok(());
        }
        buffer[..HEADER].copy_from_slice(&frame_header(stream, count));
        let from = if tty { HEADER } else { 0 };
        let mut client = client.lock().await;
        client.write_all(&buffer[from..HEADER + count]).await?;
    }
}

/// Resolves when the client detaches.
async fn input(
    mut client: impl AsyncRead + Unpin,
    mut exec: Option<ExecWriter>,
    mut keys: Option<DetachKeys>,
) -> io::Result<()> {
    let mut buffer = vec![0; INPUT];
    let mut passed = Vec::new();
    loop {
        let count = client.read(&mut buffer).await.unwrap_or(0);
        if count == 0 {
            break;
        }
        let Some(writer) = &mut exec else { continue };
        let mut typed = &buffer[..count];
        let mut detached = false;
        if let Some(keys) = &mut keys {
            passed.clear();
            detached = keys.pass(typed, &mut passed);
            typed = &passed;
        }
        if writer.write_all(typed).await.is_err() || writer.flush().await.is_err() {
            // It reads no more; its output goes on.
            exec = None;
        }
        if detached {
            return Ok(());
        }
    }
    drop(exec);
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn outputs_are_framed_and_interleaved_whole() {
        let client = Mutex::new(Vec::new());
        let reader = |bytes: &'static [u8]| Some(Box::pin(bytes) as ExecReader);
        output(reader(b"out"), 1, false, &client).await.unwrap();
        output(reader(b"err"), 2, false, &client).await.unwrap();
        output(reader(b"raw"), 1, true, &client).await.unwrap();
        output(None, 1, true, &client).await.unwrap();
        assert_eq!(
            client.into_inner(),
            b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03errraw"
        );
    }
}
