//! From bytes to one JSON value, with Go's description of what is wrong.

use serde_json::Value;

use super::Error;

/// The one value in `json`.
pub(super) fn parse(json: &[u8]) -> Result<Value, Error> {
    let mut stream = serde_json::Deserializer::from_slice(json).into_iter::<Value>();
    let value = match stream.next() {
        None => return Err(Error::Empty),
        Some(Err(error)) if error.is_eof() => return Err(Error::Syntax("unexpected EOF".into())),
        Some(Err(error)) => return Err(Error::Syntax(describe(json, &error))),
        Some(Ok(value)) => value,
    };
    let rest = &json[stream.byte_offset()..];
    if rest.iter().all(u8::is_ascii_whitespace) {
        Ok(value)
    } else {
        Err(Error::Trailing)
    }
}

fn describe(json: &[u8], error: &serde_json::Error) -> String {
    let text = error.to_string();
    let context = if text.starts_with("key must be a string") {
        "looking for beginning of object key string"
    } else if text.starts_with("expected `:`") {
        "after object key"
    } else if text.starts_with("expected `,` or `}`") {
        "after object key:value pair"
    } else if text.starts_with("expected `,` or `]`") {
        "after array element"
    } else if text.starts_with("expected ident") {
        "in literal"
    } else if text.starts_with("control character") {
        "in string literal"
    } else if text.starts_with("invalid escape") {
        "in string escape code"
    } else if text.starts_with("recursion limit") {
        return "exceeded max depth".into();
    } else {
        "looking for beginning of value"
    };
    format!(
        "invalid character {} {context}",
        quoted(offender(json, error))
    )
}

/// The byte `serde_json` stopped at: columns count from one, and the column of the offender or of the one before it,
/// according to whether it was consumed.
fn offender(json: &[u8], error: &serde_json::Error) -> u8 {
    let line = json
        .split(|byte| *byte == b'\n')
        .nth(error.line().saturating_sub(1))
        .unwrap_or_default();
    let column = error.column().max(1) - 1;
    line.get(column)
        .or_else(|| line.last())
        .copied()
        .unwrap_or(b' ')
}

/// A byte as Go quotes it.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".into(),
        b'"' => "'\"'".into(),
        _ => format!("'{}'", char::from(byte).escape_default()),
    }
}
