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
                Self { kind: ErrorKind::$kind, message: message.into() }
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
    /// A 500.
    internal => Internal,
    /// A 501.
    not_implemented => NotImplemented,
    /// A 503.
    unavailable => Unavailable,
}

impl EngineError {
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
