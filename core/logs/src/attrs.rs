//! What a log says of its container beside the text.

use std::collections::BTreeMap;

use gantry_model::Timestamp;
use regex::Regex;

use crate::{LogOptionError, tag};

/// The container that a log belongs to.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// Its identifier, 64 hex digits.
    pub id: String,
    /// Its name, without slash.
    pub name: String,
    /// The first word of what it runs.
    pub program: String,
    /// The other words.
    pub args: Vec<String>,
    /// The image's identifier, `sha256:...`.
    pub image_id: String,
    /// The image as the container's creator named it.
    pub image_name: String,
    /// When it was created.
    pub created: Timestamp,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The current log file.
    pub log_path: String,
}

impl Subject {
    /// Program and arguments with spaces in between.
    pub(crate) fn command(&self) -> String {
        let mut words = vec![self.program.as_str()];
        words.extend(self.args.iter().map(String::as_str));
        words.join(" ")
    }
}

/// Checks the options that choose attributes.
pub(crate) fn check(options: &BTreeMap<String, String>) -> Result<(), LogOptionError> {
    for name in ["labels-regex", "env-regex"] {
        expression(options, name)?;
    }
    options.get("tag").map_or(Ok(()), |tag| tag::check(tag))
}

/// The labels and variables that the options choose.
pub(crate) fn chosen(
    options: &BTreeMap<String, String>,
    subject: &Subject,
) -> Result<BTreeMap<String, String>, LogOptionError> {
    let labels = subject.labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    let env = subject.env.iter().filter_map(|line| line.split_once('='));
    let mut found = pick(options, "labels", labels)?;
    found.extend(pick(options, "env", env)?);
    Ok(found)
}

/// The JSON object of attributes in every line of the local file; empty when there are none.
///
/// # Errors
/// Expressions and templates that are none.
pub fn attributes(
    options: &BTreeMap<String, String>,
    subject: &Subject,
) -> Result<String, LogOptionError> {
    let mut found = chosen(options, subject)?;
    // No default here: Docker writes a tag only when it is asked for.
    if let Some(template) = options.get("tag").filter(|tag| !tag.is_empty()) {
        found.insert("tag".into(), tag::render(template, subject)?);
    }
    if found.is_empty() {
        return Ok(String::new());
    }
    serde_json::to_string(&found).map_err(|error| LogOptionError::new(error.to_string()))
}

/// The pairs that `<key>` lists or `<key>-regex` matches.
fn pick<'a>(
    options: &BTreeMap<String, String>,
    key: &str,
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<BTreeMap<String, String>, LogOptionError> {
    let listed: Vec<&str> = options
        .get(key)
        .map(|list| list.split(',').collect())
        .unwrap_or_default();
    let matching = expression(options, &format!("{key}-regex"))?;
    Ok(pairs
        .filter(|(name, _)| {
            listed.contains(name) || matching.as_ref().is_some_and(|regex| regex.is_match(name))
        })
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

fn expression(
    options: &BTreeMap<String, String>,
    key: &str,
) -> Result<Option<Regex>, LogOptionError> {
    let Some(text) = options.get(key).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    Regex::new(text)
        .map(Some)
        .map_err(|_| LogOptionError::new(format!("error parsing regexp: {key}: `{text}`")))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    pub(crate) fn subject() -> Subject {
        Subject {
            id: "0123456789abcdef".repeat(4),
            name: "web".into(),
            program: "sh".into(),
            args: vec!["-c".into(), "date".into()],
            image_id: format!("sha256:{}", "5".repeat(64)),
            image_name: "busybox:1".into(),
            created: Timestamp::from_unix(1, 0),
            env: vec!["A=x=y".into(), "B=2".into(), "NOVALUE".into()],
            labels: options(&[("a", "1"), ("b", "2"), ("cc", "3")]),
            log_path: "/x.log".into(),
        }
    }

    #[test]
    fn lists_expressions_and_tags() {
        let attributes = |pairs: &[(&str, &str)]| attributes(&options(pairs), &subject()).unwrap();
        assert_eq!(attributes(&[]), "");
        assert_eq!(attributes(&[("labels", "a,cc,x")]), r#"{"a":"1","cc":"3"}"#);
        assert_eq!(attributes(&[("labels-regex", "^c")]), r#"{"cc":"3"}"#);
        assert_eq!(
            attributes(&[("env", "A"), ("env-regex", "^B$"), ("tag", "{{.Name}}")]),
            r#"{"A":"x=y","B":"2","tag":"web"}"#
        );
        let error = check(&options(&[("env-regex", "(")])).unwrap_err();
        assert_eq!(error.to_string(), "error parsing regexp: env-regex: `(`");
    }
}
