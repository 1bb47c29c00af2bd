//! Object identifiers: 256 random bits as 64 lower-case hex digits, as Docker's.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A string that is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid identifier {0:?}: want 64 hexadecimal digits")]
pub struct IdError(pub String);

fn is_hex_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// 64 random hex digits. An identifier whose short form is all digits could be read as a number by clients and
/// host-name rules, so such ones are drawn again (Docker does the same).
fn random_hex() -> String {
    loop {
        let mut bytes = [0u8; 32];
        // The kernel's generator fails only before it is seeded, which is before any daemon runs.
        getrandom::fill(&mut bytes).expect("the kernel's random generator answers");
        let text = hex::encode(bytes);
        if !text[..12].bytes().all(|b| b.is_ascii_digit()) {
            return text;
        }
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// A new identifier from the kernel's random generator.
            #[must_use]
            pub fn generate() -> Self {
                Self(random_hex())
            }
            /// The full 64 digits.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
            /// The first twelve digits, as clients show it.
            #[must_use]
            pub fn short(&self) -> &str {
                &self.0[..12]
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                if is_hex_id(&text) { Ok(Self(text)) } else { Err(IdError(text)) }
            }
        }
        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::try_from(text.to_owned())
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }
    };
}

hex_id!(
    /// Identifies a container.
    ContainerId
);
hex_id!(
    /// Identifies a network.
    NetworkId
);
hex_id!(
    /// Identifies one attachment of a container to a network.
    EndpointId
);
hex_id!(
    /// Identifies a process started inside a running container.
    ExecId
);

/// Identifies an image: the digest of its configuration blob.
pub type ImageId = crate::Digest;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_identifiers_parse_and_differ() {
        let a = ContainerId::generate();
        let b = ContainerId::generate();
        assert_ne!(a, b);
        assert_eq!(a.as_str().parse::<ContainerId>().unwrap(), a);
        assert_eq!(a.short().len(), 12);
    }

    #[test]
    fn others_are_refused() {
        for bad in ["", "abc", &"g".repeat(64), &"A".repeat(64), &"a".repeat(65)] {
            assert!(bad.parse::<NetworkId>().is_err(), "{bad}");
        }
    }
}
