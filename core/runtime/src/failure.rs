//! From the words of monitors, other runtimes and the kernel to the classes of [`RuntimeError`].

use gantry_model::Timestamp;
use gantry_monitor::protocol::{Failure, Stage};
use gantry_sys::cgroup::CgroupError;

use crate::{ExitStatus, RuntimeError, SpecError, StartError, StartErrorKind};

pub(crate) fn start_error(failure: Failure) -> StartError {
    StartError {
        kind: match failure.stage {
            Stage::NotFound => StartErrorKind::NotFound,
            Stage::NotExecutable => StartErrorKind::Permission,
            _ => StartErrorKind::Other,
        },
        message: failure.message,
    }
}

pub(crate) fn create_error(failure: Failure) -> RuntimeError {
    match failure.stage {
        Stage::NotFound | Stage::NotExecutable | Stage::Cwd => start_error(failure).into(),
        Stage::User => SpecError::Invalid(failure.message).into(),
        Stage::Runtime => match foreign_start(&failure.message) {
            Some(kind) => RuntimeError::Start(StartError {
                kind,
                message: failure.message,
            }),
            None => set_up_failed(failure),
        },
        _ => set_up_failed(failure),
    }
}

fn set_up_failed(failure: Failure) -> RuntimeError {
    RuntimeError::Create {
        stage: format!("{:?}", failure.stage).to_lowercase(),
        errno: failure.errno,
        message: failure.message,
    }
}

/// Whether another runtime's words are about the program; the same words that Docker looks for.
fn foreign_start(message: &str) -> Option<StartErrorKind> {
    let message = message.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| message.contains(w));
    if has(&["executable file", "no such file or directory"]) {
        Some(StartErrorKind::NotFound)
    } else if has(&["permission denied", "is a directory"]) {
        Some(StartErrorKind::Permission)
    } else {
        None
    }
}

/// A process that never was, as Docker counts it.
pub(crate) fn never_ran(kind: StartErrorKind) -> ExitStatus {
    ExitStatus {
        code: match kind {
            StartErrorKind::NotFound => 127,
            StartErrorKind::Permission => 126,
            StartErrorKind::Other => 128,
        },
        signal: None,
        oom: false,
        started_at: Timestamp::zero(),
        exited_at: Timestamp::now(),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "serves map_err")]
pub(crate) fn cgroup(e: CgroupError) -> RuntimeError {
    RuntimeError::Cgroup(e.to_string())
}
