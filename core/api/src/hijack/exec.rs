//! Joining a client to an exec's streams.

use std::io;
use std::pin::pin;

use gantry_engine::{EngineError, ExecIo, ExecReader, ExecWriter};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;

use super::{DetachKeys, Outcome, Taken, linger};
use crate::reply::frame_header;

const OUTPUT: usize = 32 << 10;
const INPUT: usize = 16 << 10;
const HEADER: usize = 8;

/// Where output goes: nowhere, once the client detached or left. The exec is not told, and goes on as under dockerd.
type Sink<W> = Mutex<Option<W>>;

/// Carries bytes both ways until the exec's output ends. The client may detach or leave before.
///
/// `detached` is called when the client types its keys. The exec is being started while the client reads the head. Why it does not run is told where the client waits for
/// output, as by dockerd; the exit code is in inspect.
pub(crate) async fn pump(
    taken: Taken,
    started: impl Future<Output = Result<ExecIo, EngineError>>,
    tty: bool,
    keys: DetachKeys,
    detached: impl FnOnce(),
) -> io::Result<()> {
    let head = taken.head_read();
    let (mut client, mut to_client) = taken.split();
    let exec = match started.await {
        Ok(exec) => exec,
        Err(error) => {
            head.await;
            to_client.write_all(&refusal(&error.message, tty)).await?;
            to_client.shutdown().await?;
            linger(client).await;
            return Ok(());
        }
    };
    let sink = Mutex::new(Some(to_client));
    let mut outputs = pin!(async {
        head.await;
        tokio::try_join!(
            output(exec.stdout, 1, tty, &sink),
            output(exec.stderr, 2, tty, &sink),
        )
    });
    let keys = tty.then_some(keys);
    // Its input is not to end with the client's detaching.
    let (_stdin, outcome) = tokio::select! {
        result = &mut outputs => {
            result?;
            (None, Outcome::Ended)
        }
        stdin = input(&mut client, exec.stdin, keys) => (stdin, Outcome::Detached),
    };
    if let Some(mut to_client) = sink.lock().await.take() {
        to_client.shutdown().await?;
    }
    match outcome {
        Outcome::Ended => linger(client).await,
        Outcome::Detached => {
            detached();
            drop(client);
            outputs.await?;
        }
    }
    Ok(())
}

fn refusal(message: &str, tty: bool) -> Vec<u8> {
    let words = format!("{message}\r\n");
    let header = match tty {
        true => Vec::new(),
        false => frame_header(1, words.len()).to_vec(),
    };
    [header, words.into_bytes()].concat()
}

async fn output(
    reader: Option<ExecReader>,
    stream: u8,
    tty: bool,
    sink: &Sink<impl AsyncWrite + Unpin>,
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
        let mut sink = sink.lock().await;
        if let Some(client) = &mut *sink
            && client
                .write_all(&buffer[from..HEADER + count])
                .await
                .is_err()
        {
            *sink = None;
        }
    }
}

/// Resolves when the client detaches, with what it would have written to.
async fn input(
    mut client: impl AsyncRead + Unpin,
    mut exec: Option<ExecWriter>,
    mut keys: Option<DetachKeys>,
) -> Option<ExecWriter> {
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
            return exec;
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
        let sink = Mutex::new(Some(Vec::new()));
        let reader = |bytes: &'static [u8]| Some(Box::pin(bytes) as ExecReader);
        output(reader(b"out"), 1, false, &sink).await.unwrap();
        output(reader(b"err"), 2, false, &sink).await.unwrap();
        output(reader(b"raw"), 1, true, &sink).await.unwrap();
        output(None, 1, true, &sink).await.unwrap();
        assert_eq!(
            sink.into_inner().unwrap(),
            b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03errraw"
        );
    }

    #[tokio::test]
    async fn an_exec_whose_client_left_is_read_to_its_end() {
        let (ours, client) = tokio::io::duplex(16);
        drop(client);
        let sink = Mutex::new(Some(ours));
        let reader = Box::pin(io::Cursor::new(vec![b'x'; 3 * OUTPUT])) as ExecReader;
        output(Some(reader), 1, false, &sink).await.unwrap();
        assert!(sink.into_inner().is_none());
    }
}
