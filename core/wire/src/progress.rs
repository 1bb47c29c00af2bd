//! The lines of pull, push, load, import and build.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One line of a progress stream. Which members are there depends on what the line tells.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JsonMessage {
    /// Text to print as it is (load, build).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// `Pulling from library/busybox`, `Downloading`, `Pull complete` ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Numbers behind a bar; an empty object where there is nothing to count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// The bar as text. Filled in by [`crate::shape`] for the versions that have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// The layer or object the line is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why the operation failed; the last line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    /// The message of `error_detail`. Filled in by [`crate::shape`] for the versions that have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What a program reads: digests and identifiers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<Value>,
}

impl JsonMessage {
    /// A line `status`.
    pub fn status(status: impl Into<String>) -> Self {
        Self {
            status: Some(status.into()),
            ..Self::default()
        }
    }
    /// A line `id: status` with a bar at `current` of `total` bytes (`None` for no bar).
    pub fn progress(
        id: impl Into<String>,
        status: impl Into<String>,
        at: Option<(i64, i64)>,
    ) -> Self {
        let (current, total) = at.unwrap_or_default();
        Self {
            status: Some(status.into()),
            id: Some(id.into()),
            progress_detail: Some(ProgressDetail {
                current,
                total,
                ..ProgressDetail::default()
            }),
            ..Self::default()
        }
    }
    /// Text to print.
    pub fn stream(text: impl Into<String>) -> Self {
        Self {
            stream: Some(text.into()),
            ..Self::default()
        }
    }
    /// The line that ends a failed operation.
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            error_detail: Some(ErrorDetail {
                code: 0,
                message: message.into(),
            }),
            ..Self::default()
        }
    }
}

/// Numbers behind a progress bar, in bytes unless `units` says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressDetail {
    /// Done.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: i64,
    /// All; zero when it is not known.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: i64,
    /// When it began, seconds since the epoch.
    #[serde(skip_serializing_if = "is_zero")]
    pub start: i64,
    /// Show no counts.
    #[serde(rename = "hidecounts", skip_serializing_if = "std::ops::Not::not")]
    pub hide_counts: bool,
    /// What is counted; empty means bytes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub units: String,
}

/// Why an operation failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    /// Exit code of a build step; zero otherwise.
    #[serde(skip_serializing_if = "is_zero")]
    pub code: i64,
    /// One line for people.
    pub message: String,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}
