//! What long operations tell while they run, in the words of Docker's JSON messages.

use std::time::Duration;

use serde::Serialize;

/// Receives messages; called from several threads at once, and must not block for long.
pub trait Progress: Send + Sync {
    /// Something happened.
    fn report(&self, message: Message);
    /// Whether the one who asked has gone: the operation then ends with [`crate::Error::Cancelled`] soon.
    fn cancelled(&self) -> bool {
        false
    }
}

impl<F: Fn(Message) + Send + Sync> Progress for F {
    fn report(&self, message: Message) {
        self(message);
    }
}

/// Ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn report(&self, _: Message) {}
}

/// How far a step has come, in bytes. Both zero: not known, sent as `{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Detail {
    /// Done.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// Of how many; zero when unknown.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// One message. Its JSON is what clients of `/images/create` and `/images/load` read, one a line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Message {
    /// Text to print as it is (`Loaded image: x:y\n`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// What is being done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// How far it has come; steps of a layer always have it.
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub detail: Option<Detail>,
    /// What it is done to: a layer's short identifier, or the tag that is pulled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// For programs: what a push has stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

impl Message {
    /// A line about the whole.
    #[must_use]
    pub fn status(text: impl Into<String>) -> Self {
        Self {
            status: Some(text.into()),
            ..Self::default()
        }
    }
    /// A line about `id`.
    #[must_use]
    pub fn about(id: &str, text: impl Into<String>) -> Self {
        Self {
            id: Some(id.into()),
            ..Self::status(text)
        }
    }
    /// Text to print.
    #[must_use]
    pub fn stream(text: impl Into<String>) -> Self {
        Self {
            stream: Some(text.into()),
            ..Self::default()
        }
    }
    /// A step of a layer without numbers (`Pull complete`).
    #[must_use]
    pub fn step(id: &str, text: &str) -> Self {
        Self {
            detail: Some(Detail::default()),
            ..Self::about(id, text)
        }
    }
    /// A step of a layer that is tried again after `wait`.
    pub(crate) fn retrying(id: &str, wait: Duration) -> Self {
        let seconds = wait.as_secs().max(1);
        let plural = if seconds == 1 { "" } else { "s" };
        Self::step(id, &format!("Retrying in {seconds} second{plural}"))
    }
    /// A step of a layer with numbers (`Downloading`).
    #[must_use]
    pub fn moving(id: &str, text: &str, current: u64, total: u64) -> Self {
        Self {
            detail: Some(Detail { current, total }),
            ..Self::about(id, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_json() {
        let json = |message: Message| serde_json::to_string(&message).unwrap();
        assert_eq!(
            json(Message::step("abc", "Pulling fs layer")),
            r#"{"status":"Pulling fs layer","progressDetail":{},"id":"abc"}"#
        );
        assert_eq!(
            json(Message::about("latest", "Pulling from library/x")),
            r#"{"status":"Pulling from library/x","id":"latest"}"#
        );
        assert_eq!(
            json(Message::moving("abc", "Downloading", 1_234_567, 2_469_134)),
            r#"{"status":"Downloading","progressDetail":{"current":1234567,"total":2469134},"id":"abc"}"#
        );
        assert_eq!(json(Message::stream("x\n")), r#"{"stream":"x\n"}"#);
    }
}
