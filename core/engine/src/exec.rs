//! Processes executed in running containers.

use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// Output of an exec.
pub type ExecReader = Pin<Box<dyn AsyncRead + Send>>;
/// Input of an exec; dropping it ends the input.
pub type ExecWriter = Pin<Box<dyn AsyncWrite + Send>>;

/// The streams of a started exec, those that were asked for at its creation.
pub struct ExecIo {
    /// Whether it has a terminal: then everything comes out of `stdout`.
    pub tty: bool,
    /// Standard input.
    pub stdin: Option<ExecWriter>,
    /// Standard output.
    pub stdout: Option<ExecReader>,
    /// Standard error.
    pub stderr: Option<ExecReader>,
}

/// One exec.
pub struct Exec {}
