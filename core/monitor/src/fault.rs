//! Errors of a start: a system error, where it happened and what was tried.

use gantry_monitor::protocol::{Failure, Stage};
use rustix::io::Errno;

/// The result of a step of a start.
pub(crate) type Step<T> = Result<T, Failure>;

/// Gives a system error its place and words.
pub(crate) trait At<T> {
    /// The message becomes `what: strerror`.
    fn at(self, stage: Stage, what: impl FnOnce() -> String) -> Step<T>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, stage: Stage, what: impl FnOnce() -> String) -> Step<T> {
        self.map_err(|errno| failure(stage, errno, what()))
    }
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, stage: Stage, what: impl FnOnce() -> String) -> Step<T> {
        self.map_err(|e| match e.raw_os_error() {
            Some(n) => failure(stage, Errno::from_raw_os_error(n), what()),
            None => plain(stage, format!("{}: {e}", what())),
        })
    }
}

/// `what: strerror`.
pub(crate) fn failure(stage: Stage, errno: Errno, what: String) -> Failure {
    Failure {
        stage,
        errno: errno.raw_os_error(),
        message: format!("{what}: {}", words(errno)),
    }
}

/// A failure that no system call reported.
pub(crate) fn plain(stage: Stage, message: impl Into<String>) -> Failure {
    Failure {
        stage,
        errno: 0,
        message: message.into(),
    }
}

/// The error as Go prints it (`no such file or directory`), which is what Docker's users know.
pub(crate) fn words(errno: Errno) -> String {
    words_of(&errno.into())
}

/// A system's error as Go prints it: `no such file or directory`.
#[must_use]
pub fn words_of(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if !text.starts_with("RPC") => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_gos() {
        assert_eq!(words(Errno::NOENT), "no such file or directory");
        assert_eq!(words(Errno::ACCESS), "permission denied");
        let e = Err::<(), _>(Errno::PERM).at(Stage::Mount, || "mount /x".into());
        let e = e.unwrap_err();
        assert_eq!(
            (e.errno, e.message.as_str()),
            (1, "mount /x: operation not permitted")
        );
    }
}
