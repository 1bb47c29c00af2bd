//! What a command can end with besides success.

use std::path::Path;

/// A failed conversation with the daemon.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The daemon answered with an error of its own.
    #[error("Error response from daemon: {message}")]
    Daemon { status: u16, message: String },
    /// Nobody listens at the daemon's address.
    #[error("Cannot connect to the Docker daemon at {host}. Is the docker daemon running?")]
    Unreachable { host: String },
    /// The socket is there, but not for this user.
    #[error(
        "permission denied while trying to connect to the Docker daemon socket at {host}: dial unix {path}: connect: permission denied"
    )]
    Denied { host: String, path: String },
    /// The connection broke, or what came over it was not HTTP.
    #[error("error during connect: {0}")]
    Transport(String),
    /// Reading or writing the connection failed.
    #[error("error during connect: {0}")]
    Io(#[from] std::io::Error),
    /// The daemon's answer was not what the API defines.
    #[error("invalid reply from daemon: {0}")]
    Reply(String),
}

impl From<hyper::Error> for ApiError {
    fn from(error: hyper::Error) -> Self {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Self::Transport(cause.to_string())
    }
}

/// Ends the program with `code`; `message` is printed to standard error unless empty.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Exit {
    pub(crate) code: i32,
    pub(crate) message: String,
}

impl Exit {
    /// Ends with `code` and says nothing: what there was to say has been said.
    pub(crate) fn silent(code: i32) -> anyhow::Error {
        Self {
            code,
            message: String::new(),
        }
        .into()
    }

    pub(crate) fn with(code: i32, message: impl Into<String>) -> anyhow::Error {
        Self {
            code,
            message: message.into(),
        }
        .into()
    }
}

/// Whether the daemon said that the object does not exist.
pub(crate) fn is_not_found(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(ApiError::Daemon { status: 404, .. })
    )
}

/// Words a file error as Go does: `open PATH: no such file or directory`.
pub(crate) fn path_error(verb: &str, path: &Path, error: &std::io::Error) -> anyhow::Error {
    anyhow::anyhow!("{verb} {}: {}", path.display(), os_text(error))
}

/// The C library's text for an error, in Go's lower case and without Rust's `(os error N)`.
pub(crate) fn os_text(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    }
}

/// Runs `work` for every item, prints each error as it comes, and fails with code 1 if there was one.
pub(crate) async fn for_each<T, F>(items: Vec<T>, mut work: F) -> anyhow::Result<()>
where
    F: AsyncFnMut(T) -> anyhow::Result<()>,
{
    let mut failed = false;
    for item in items {
        if let Err(error) = work(item).await {
            eprintln!("{error:#}");
            failed = true;
        }
    }
    if failed { Err(Exit::silent(1)) } else { Ok(()) }
}
