//! An exec's streams, and why there are none.

use gantry_runtime::{ConsoleSize, ExecStdio, RuntimeError, StartErrorKind};

use super::{Exec, ExecIo, ExecReader};
use crate::stream::{FdStream, UntilExit};
use crate::{EngineError, ErrorKind, Result};

/// Why a program was not executed, and the exit code that clients show.
pub(crate) fn refused(error: RuntimeError) -> (EngineError, i32) {
    let RuntimeError::Start(error) = error else {
        return (error.into(), 126);
    };
    let (kind, exit_code) = match error.kind {
        StartErrorKind::NotFound => (ErrorKind::BadRequest, 127),
        StartErrorKind::Permission => (ErrorKind::BadRequest, 126),
        StartErrorKind::Other => (ErrorKind::Internal, 126),
    };
    let message = words(&error.message);
    (EngineError { kind, message }, exit_code)
}

/// As [`refused`], for a variable without a name.
pub(super) fn refused_variable(variable: &str) -> (EngineError, i32) {
    let why = format!("environment variable name can't be empty: {variable:?}");
    (EngineError::internal(words(&why)), 126)
}

fn words(why: &str) -> String {
    format!(
        "OCI runtime exec failed: exec failed: unable to start container process: {why}: unknown"
    )
}

/// A size that is one.
pub(super) fn console_size([height, width]: [u32; 2]) -> Option<ConsoleSize> {
    let size = ConsoleSize {
        height: u16::try_from(height).ok()?,
        width: u16::try_from(width).ok()?,
    };
    (height > 0 && width > 0).then_some(size)
}

/// An exec's ends as streams.
pub(super) fn streams(stdio: ExecStdio, exec: &Exec) -> Result<ExecIo> {
    let asked = &exec.request;
    let failed = |e: std::io::Error| EngineError::io("exec streams", &e);
    let reader = |fd| -> Result<ExecReader> {
        let stream = FdStream::new(fd).map_err(failed)?;
        Ok(Box::pin(UntilExit::new(stream, exec.stage.subscribe())))
    };
    match stdio {
        ExecStdio::Pipes {
            stdin,
            stdout: None,
            stderr: None,
        } => Ok(ExecIo {
            tty: false,
            stdin: match stdin {
                Some(fd) => Some(Box::pin(FdStream::new(fd).map_err(failed)?)),
                None => None,
            },
            // A client that joined nothing waits for the end all the same.
            stdout: Some(Box::pin(UntilExit::silent(exec.stage.subscribe()))),
            stderr: None,
        }),
        ExecStdio::Pipes {
            stdin,
            stdout,
            stderr,
        } => Ok(ExecIo {
            tty: false,
            stdin: match stdin {
                Some(fd) => Some(Box::pin(FdStream::new(fd).map_err(failed)?)),
                None => None,
            },
            stdout: stdout.map(reader).transpose()?,
            stderr: stderr.map(reader).transpose()?,
        }),
        ExecStdio::Pty(master) => {
            let input = match asked.attach_stdin {
                true => Some(master.try_clone().map_err(failed)?),
                false => None,
            };
            Ok(ExecIo {
                tty: true,
                stdin: match input {
                    Some(fd) => Some(Box::pin(FdStream::new(fd).map_err(failed)?)),
                    None => None,
                },
                stdout: Some(reader(master)?),
                stderr: None,
            })
        }
    }
}

/// A detached exec with a terminal must not be stopped by a terminal that nobody reads, or end with it.
pub(super) fn drain(stdio: Option<ExecStdio>) {
    let Some(ExecStdio::Pty(master)) = stdio else {
        return;
    };
    tokio::spawn(async move {
        if let Ok(mut master) = FdStream::new(master) {
            let _ = tokio::io::copy(&mut master, &mut tokio::io::sink()).await;
        }
    });
}
