//! What a log line says of its container beside its text: the `attrs` of the json-file format.

use std::collections::BTreeMap;

use regex::Regex;

use crate::container::record::Record;
use crate::{EngineError, Result};

/// Checks the options that choose attributes.
///
/// # Errors
/// Expressions and templates that are none.
pub(super) fn check(options: &BTreeMap<String, String>) -> Result<()> {
    for name in ["labels-regex", "env-regex"] {
        expression(options, name)?;
    }
    options
        .get("tag")
        .map_or(Ok(()), |tag| render(tag, |_| Some(String::new())).map(drop))
}

/// The JSON object of a container's attributes; empty when there are none.
///
/// # Errors
/// As [`check`].
pub(super) fn of(record: &Record) -> Result<String> {
    let options = &record.host_config.log_config.config;
    let mut attrs: BTreeMap<&str, String> = BTreeMap::new();
    let environment = record
        .config
        .env
        .iter()
        .flatten()
        .filter_map(|variable| variable.split_once('='));
    for (name, value) in chosen(options, "labels", record.config.labels.iter())? {
        attrs.insert(name, value.clone());
    }
    for (name, value) in chosen(options, "env", environment)? {
        attrs.insert(name, value.to_owned());
    }
    if let Some(tag) = options.get("tag").filter(|tag| !tag.is_empty()) {
        attrs.insert("tag", render(tag, |field| self::field(record, field))?);
    }
    if attrs.is_empty() {
        return Ok(String::new());
    }
    serde_json::to_string(&attrs).map_err(|e| EngineError::internal(e.to_string()))
}

/// The pairs that `<key>` lists or `<key>-regex` matches.
fn chosen<'a, K: AsRef<str> + ?Sized + 'a, V: 'a>(
    options: &BTreeMap<String, String>,
    key: &str,
    pairs: impl Iterator<Item = (&'a K, V)>,
) -> Result<Vec<(&'a str, V)>> {
    let listed: Vec<&str> = options
        .get(key)
        .map(|list| list.split(',').collect())
        .unwrap_or_default();
    let matching = expression(options, &format!("{key}-regex"))?;
    Ok(pairs
        .map(|(name, value)| (name.as_ref(), value))
        .filter(|(name, _)| {
            listed.contains(name) || matching.as_ref().is_some_and(|regex| regex.is_match(name))
        })
        .collect())
}

fn expression(options: &BTreeMap<String, String>, key: &str) -> Result<Option<Regex>> {
    let Some(text) = options.get(key).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    Regex::new(text)
        .map(Some)
        .map_err(|_| EngineError::bad_request(format!("invalid value for log opt {key}: {text:?}")))
}

fn field(record: &Record, field: &str) -> Option<String> {
    let hex = record.image.hex();
    Some(match field {
        ".ID" => record.id.short().to_owned(),
        ".FullID" => record.id.to_string(),
        ".Name" => record.name.clone(),
        ".ImageID" => hex[..12].to_owned(),
        ".ImageFullID" => record.image.to_string(),
        ".ImageName" => record.config.image.clone(),
        ".DaemonName" => "docker".to_owned(),
        _ => return None,
    })
}

/// Replaces `{{.Field}}`.
fn render(template: &str, field: impl Fn(&str) -> Option<String>) -> Result<String> {
    let invalid =
        || EngineError::bad_request(format!("invalid value for log opt tag: {template:?}"));
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or_else(invalid)?;
        text.push_str(before);
        text.push_str(&field(name.trim()).ok_or_else(invalid)?);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn lists_and_expressions() {
        let labels = options(&[("a", "1"), ("b", "2"), ("cc", "3")]);
        let names = |o: &BTreeMap<String, String>| {
            let all = chosen(o, "labels", labels.iter()).unwrap();
            all.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(&options(&[("labels", "a,cc,x")])), ["a", "cc"]);
        assert_eq!(names(&options(&[("labels-regex", "^c")])), ["cc"]);
        assert!(names(&options(&[])).is_empty());
        assert!(check(&options(&[("env-regex", "(")])).is_err());
    }

    #[test]
    fn tags() {
        let with = |template: &str| render(template, |f| (f == ".ID").then(|| "x".to_owned()));
        assert_eq!(with("a/{{.ID}}/{{ .ID }}").unwrap(), "a/x/x");
        assert_eq!(with("plain").unwrap(), "plain");
        assert!(with("{{.Nope}}").is_err());
        assert!(with("{{.ID").is_err());
    }
}
