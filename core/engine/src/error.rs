//! What clients are told when something fails.

use std::fmt;

/// The class of an [`EngineError`]; the API turns it into an HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong whatever the state (400).
    BadRequest,
    /// Credentials are missing or wrong (401).
    Unauthorized,
    /// Known and not allowed (403).
    Forbidden,
    /// The object does not exist (404).
    NotFound,
    /// Nothing to do: the object is in the wanted state (304).
    NotModified,
    /// The object's state forbids it (409).
    Conflict,
    /// It was there and is not kept any more (410).
    Gone,
    /// The other side asks for patience (429).
    TooManyRequests,
    /// Anything else (500).
    Internal,
    /// Not supported by this engine (501).
    NotImplemented,
    /// A part the engine needs is away (503).
    Unavailable,
}

/// An error with the words that clients see; they are Docker's where clients match on them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct EngineError {
    /// The class.
    pub kind: ErrorKind,
    /// One line for people.
    pub message: String,
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The result of every use case.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident,)*) => {
        impl EngineError {
            $($(#[$doc])*
            pub fn $name(message: impl Into<String>) -> Self {
                Self::new(ErrorKind::$kind, message)
            })*
        }
    };
}

constructors! {
    /// A 400.
    bad_request => BadRequest,
    /// A 401.
    unauthorized => Unauthorized,
    /// A 403.
    forbidden => Forbidden,
    /// A 404.
    not_found => NotFound,
    /// A 304.
    not_modified => NotModified,
    /// A 409.
    conflict => Conflict,
    /// A 410.
    gone => Gone,
    /// A 500.
    internal => Internal,
    /// A 501.
    not_implemented => NotImplemented,
    /// A 503.
    unavailable => Unavailable,
}

/// System errors in Go's words, which clients match on: `no space left on device` where Rust says `No space left on
/// device (os error 28)`.
fn go_wording(mut message: String) -> String {
    while let Some(end) = message.find(" (os error ") {
        let start = message[..end].rfind(": ").map_or(0, |colon| colon + 2);
        if let Some(first) = message.get_mut(start..=start) {
            first.make_ascii_lowercase();
        }
        let close = message[end..]
            .find(')')
            .map_or(message.len(), |i| end + i + 1);
        message.replace_range(end..close, "");
    }
    message
}

impl EngineError {
    /// An error of class `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: go_wording(message.into()),
        }
    }
    /// The same error with words before its own.
    #[must_use]
    pub fn context(mut self, words: impl fmt::Display) -> Self {
        self.message = format!("{words}: {}", self.message);
        self
    }
    /// An I/O error that no client caused.
    pub fn io(doing: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::internal(format!("{doing}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_are_in_gos_words() {
        let full = std::io::Error::from_raw_os_error(28);
        let said = EngineError::io("write /x", &full).message;
        assert_eq!(said, "write /x: no space left on device");
        let twice = format!("a: {full}; b: {full}");
        assert_eq!(
            EngineError::internal(twice).message,
            "a: no space left on device; b: no space left on device"
        );
        assert_eq!(EngineError::internal("Plain words").message, "Plain words");
    }
}
