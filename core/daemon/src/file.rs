//! The configuration file, and what it says together with the flags.

use std::path::Path;

use serde_json::{Map, Value};

use crate::options::{Effect, by_key};

/// Configuration files are small; a huge one is a mistake.
const MAX_FILE: u64 = 1 << 20;

/// Reads the file's members; one that need not exist and does not has none.
pub(crate) fn read(path: &Path, required: bool) -> Result<Map<String, Value>, String> {
    use std::io::Read;
    let mut text = String::new();
    match std::fs::File::open(path) {
        Ok(file) => file
            .take(MAX_FILE)
            .read_to_string(&mut text)
            .map_err(|e| format!("open {}: {}", path.display(), words(&e)))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !required => 0,
        Err(e) => return Err(format!("open {}: {}", path.display(), words(&e))),
    };
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err("invalid JSON: want an object".into()),
        Err(e) => Err(format!("invalid JSON: {e}")),
    }
}

/// An I/O error as people know it from Go programs.
fn words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

/// Keys that may stand in both places: their members are joined.
const JOINED: &[&str] = &["runtimes"];

/// Joins flags and file.
///
/// # Errors
/// In dockerd's words.
pub(crate) fn merge(
    given: &Map<String, Value>,
    file: Map<String, Value>,
) -> Result<Map<String, Value>, String> {
    let unknown: Vec<&str> = file
        .keys()
        .map(String::as_str)
        .filter(|key| by_key(key).is_none())
        .collect();
    if !unknown.is_empty() {
        return Err(format!(
            "the following directives don't match any configuration option: {}",
            unknown.join(", ")
        ));
    }
    let twice: Vec<String> = file
        .iter()
        .filter(|(key, _)| !JOINED.contains(&key.as_str()))
        .filter_map(|(key, in_file)| {
            let flag = given.get(key)?;
            Some(format!(
                "{key}: (from flag: {}, from file: {})",
                shown(flag),
                shown(in_file)
            ))
        })
        .collect();
    if !twice.is_empty() {
        return Err(format!(
            "the following directives are specified both as a flag and in the configuration file: {}",
            twice.join(", ")
        ));
    }
    let mut merged = file;
    for (key, value) in given {
        match (merged.get_mut(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => old.extend(new.clone()),
            (_, value) => {
                merged.insert(key.clone(), value.clone());
            }
        }
    }
    refuse_unsupported(&merged)?;
    // A key set to null is a key not set.
    merged.retain(|_, value| !value.is_null());
    Ok(merged)
}

fn refuse_unsupported(merged: &Map<String, Value>) -> Result<(), String> {
    for (key, value) in merged {
        let wanted = match value {
            Value::Null | Value::Bool(false) => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            _ => true,
        };
        if wanted && by_key(key).is_some_and(|option| option.effect == Effect::Refused) {
            return Err(format!("{key} is not supported by this engine"));
        }
    }
    Ok(())
}

/// A value as Go's `%v` prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(shown).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(members) => {
            let items: Vec<String> = members
                .iter()
                .map(|(k, v)| format!("{k}:{}", shown(v)))
                .collect();
            format!("map[{}]", items.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn printed_like_go() {
        assert_eq!(shown(&json!({"a": ["b", 1]})), "map[a:[b 1]]");
    }
}
