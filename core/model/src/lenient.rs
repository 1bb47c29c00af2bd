//! JSON as Go's decoder reads it, which is what clients of the Docker Engine API were written against.
//!
//! Keys match without regard to case, the last of several wins; `null` is the zero value; unknown keys are ignored;
//! whole numbers may be written as floats (`1e9`); fixed arrays are padded or cut. A value of the wrong type is an error in
//! Go's words. Nesting is bounded by `serde_json` (128), size by the caller.

mod deserializer;
mod names;
mod syntax;

use serde::de::{DeserializeOwned, Expected, Unexpected};
use serde_json::Value;

use deserializer::Lenient;

/// Why JSON was refused. The wording is dockerd's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing but white space.
    #[error("invalid JSON: got EOF while reading request body")]
    Empty,
    /// Not JSON; Go's description.
    #[error("invalid JSON: {0}")]
    Syntax(String),
    /// A second value after the first.
    #[error("unexpected content after JSON")]
    Trailing,
    /// A value of a type that the field does not take.
    #[error("invalid JSON: {0}")]
    Type(TypeError),
    /// Refused by the type itself.
    #[error("invalid JSON: {0}")]
    Other(String),
}

/// Go's `json.UnmarshalTypeError`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeError {
    /// What was found: `string`, `number 1.5`, `object` ...
    pub found: String,
    /// Go's name of the type that was wanted.
    pub wanted: String,
    /// Innermost struct that the field belongs to; empty outside structs.
    pub owner: &'static str,
    /// Keys from the field up to the root.
    pub path: Vec<String>,
}

impl std::fmt::Display for TypeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "json: cannot unmarshal {} into Go ", self.found)?;
        if self.owner.is_empty() {
            return write!(f, "value of type {}", self.wanted);
        }
        write!(f, "struct field {}", self.owner)?;
        for key in self.path.iter().rev() {
            write!(f, ".{key}")?;
        }
        write!(f, " of type {}", self.wanted)
    }
}

impl serde::de::Error for Error {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Other(message.to_string())
    }
    /// Of types that take more than one kind of value; in Go each of these is read as strings.
    fn invalid_type(found: Unexpected<'_>, _: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "bool",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "number",
            Unexpected::Seq => "array",
            Unexpected::Map => "object",
            _ => "string",
        };
        Self::Type(TypeError {
            found: found.into(),
            wanted: "string".into(),
            owner: "",
            path: Vec::new(),
        })
    }
}

/// Reads one JSON value and nothing after it.
///
/// # Errors
/// See [`Error`].
pub fn from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    from_value(syntax::parse(json)?)
}

/// Reads a value that is parsed already.
///
/// # Errors
/// [`Error::Type`] and [`Error::Other`].
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(Lenient(value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Outer {
        name: String,
        inner: Inner,
        list: Vec<Inner>,
        map: BTreeMap<String, String>,
        maybe: Option<bool>,
    }
    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Inner {
        count: i64,
        small: u16,
        pair: [u32; 2],
    }

    fn error(json: &str) -> String {
        from_slice::<Outer>(json.as_bytes())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn keys_match_without_case_and_the_last_wins() {
        let read: Outer =
            from_slice(br#"{"name": "a", "NAME": "b", "iNNer": {"COUNT": 3}}"#).unwrap();
        assert_eq!((read.name.as_str(), read.inner.count), ("b", 3));
    }

    #[test]
    fn null_is_the_zero_value_everywhere() {
        let read: Outer = from_slice(
            br#"{"Name": null, "Inner": {"Count": null}, "List": [null], "Map": {"k": null}, "Maybe": null}"#,
        )
        .unwrap();
        assert_eq!(read.list, vec![Inner::default()]);
        assert_eq!(read.map["k"], "");
        assert_eq!(read.maybe, None);
        assert_eq!(from_slice::<Outer>(b"null").unwrap(), Outer::default());
    }

    #[test]
    fn whole_floats_are_integers_and_arrays_are_fitted() {
        let read: Inner = from_slice(br#"{"Count": 1e9, "Pair": [7], "Small": 2.0}"#).unwrap();
        assert_eq!(
            read,
            Inner {
                count: 1_000_000_000,
                small: 2,
                pair: [7, 0]
            }
        );
        assert_eq!(
            from_slice::<Inner>(br#"{"Pair": [1,2,3]}"#).unwrap().pair,
            [1, 2]
        );
    }

    #[test]
    fn type_errors_are_in_gos_words() {
        for (json, want) in [
            (
                r#"{"Inner": {"Count": "x"}}"#,
                "string into Go struct field Inner.Inner.Count of type int64",
            ),
            (
                r#"{"Inner": {"Count": 1.5}}"#,
                "number 1.5 into Go struct field Inner.Inner.Count of type int64",
            ),
            (
                r#"{"inner": {"small": 70000}}"#,
                "number 70000 into Go struct field Inner.Inner.Small of type uint16",
            ),
            (
                r#"{"Name": {}}"#,
                "object into Go struct field Outer.Name of type string",
            ),
            (
                r#"{"Maybe": 1}"#,
                "number into Go struct field Outer.Maybe of type bool",
            ),
            ("[]", "array into Go value of type Outer"),
        ] {
            assert_eq!(
                error(json),
                format!("invalid JSON: json: cannot unmarshal {want}")
            );
        }
    }

    #[test]
    fn syntax_errors_are_in_gos_words() {
        for (json, want) in [
            ("", "invalid JSON: got EOF while reading request body"),
            (" \n", "invalid JSON: got EOF while reading request body"),
            ("{", "invalid JSON: unexpected EOF"),
            (
                "hello",
                "invalid JSON: invalid character 'h' looking for beginning of value",
            ),
            (
                "{]",
                "invalid JSON: invalid character ']' looking for beginning of object key string",
            ),
            (
                r#"{"a" 1}"#,
                "invalid JSON: invalid character '1' after object key",
            ),
            (
                r#"{"a": 1 x}"#,
                "invalid JSON: invalid character 'x' after object key:value pair",
            ),
            (
                "[1 2]",
                "invalid JSON: invalid character '2' after array element",
            ),
            ("{} {}", "unexpected content after JSON"),
        ] {
            assert_eq!(error(json), want, "{json}");
        }
    }
}
