//! Filters of the image list.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_model::{Reference, Timestamp};

use crate::record::ImageRecord;
use crate::service::Shared;
use crate::{Error, Result};

/// Decoded filters; all must accept, and of several values of one name any.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    dangling: Option<bool>,
    labels: Vec<String>,
    not_labels: Vec<String>,
    references: Vec<String>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Filters {
    /// # Errors
    /// [`Error::Invalid`] in Docker's words for unknown names and bad values; [`Error::NoSuchImage`] for `before` and
    /// `since`.
    pub(crate) fn parse(shared: &Shared, filters: &BTreeMap<String, Vec<String>>) -> Result<Self> {
        let mut parsed = Self::default();
        let created = |name: &String| -> Result<Timestamp> {
            let id = shared.find(name)?;
            Ok(shared.image(&id)?.created.unwrap_or_default())
        };
        for (name, values) in filters {
            match name.as_str() {
                "dangling" => {
                    for value in values {
                        parsed.dangling = Some(boolean(value)?);
                    }
                }
                "label" => parsed.labels = values.clone(),
                "label!" => parsed.not_labels = values.clone(),
                "reference" => parsed.references = values.clone(),
                "before" => parsed.before = values.first().map(created).transpose()?,
                "since" => parsed.since = values.first().map(created).transpose()?,
                "until" => {
                    parsed.until = values.first().map(|text| until(text)).transpose()?;
                }
                other => return Err(Error::Invalid(format!("invalid filter '{other}'"))),
            }
        }
        Ok(parsed)
    }

    /// The names to show of an image; `None` to leave it out.
    pub(crate) fn accept(
        &self,
        record: &ImageRecord,
        names: &[Reference],
    ) -> Option<Vec<Reference>> {
        let created = record.created.unwrap_or_default();
        let old_enough = self.before.is_none_or(|before| created < before)
            && self.until.is_none_or(|until| created <= until);
        let new_enough = self.since.is_none_or(|since| created > since);
        let tagged = names.iter().any(|name| name.digest().is_none());
        let dangling = match self.dangling {
            None => true,
            Some(true) => !tagged,
            Some(false) => !names.is_empty(),
        };
        if !(old_enough && new_enough && dangling && self.has_labels(record)) {
            return None;
        }
        if self.references.is_empty() {
            return Some(names.to_vec());
        }
        let shown: Vec<Reference> = names
            .iter()
            .filter(|name| self.references.iter().any(|pattern| matches(pattern, name)))
            .cloned()
            .collect();
        (!shown.is_empty()).then_some(shown)
    }

    fn has_labels(&self, record: &ImageRecord) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((name, value)) => record.labels.get(name).is_some_and(|v| v == value),
            None => record.labels.contains_key(wanted),
        };
        self.labels.iter().all(has) && !self.not_labels.iter().any(has)
    }
}

fn boolean(text: &str) -> Result<bool> {
    match text {
        "1" | "true" | "True" | "TRUE" | "t" | "T" => Ok(true),
        "0" | "false" | "False" | "FALSE" | "f" | "F" => Ok(false),
        other => Err(Error::Invalid(format!(
            "invalid filter 'dangling=[{other}]'"
        ))),
    }
}

/// A moment: Unix seconds, RFC 3339, a date, or a duration before now.
fn until(text: &str) -> Result<Timestamp> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(Timestamp::from_unix(seconds, 0));
    }
    if let Some(ago) = duration(text) {
        let now = Timestamp::now();
        let seconds = i64::try_from(ago.as_secs()).unwrap_or(i64::MAX);
        return Ok(Timestamp::from_unix(
            now.seconds().saturating_sub(seconds),
            0,
        ));
    }
    for candidate in [
        text.to_owned(),
        format!("{text}Z"),
        format!("{text}:00Z"),
        format!("{text}T00:00:00Z"),
    ] {
        if let Ok(time) = candidate.parse() {
            return Ok(time);
        }
    }
    Err(Error::Invalid(format!("invalid filter 'until=[{text}]'")))
}

/// Go's durations (`1h30m`).
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += value
            * match &rest[..end] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(total)
        .ok()
        .filter(|_| !text.is_empty())
}

/// Docker's `reference` filter: shell patterns on the name as shown, with or without its tag.
fn matches(pattern: &str, name: &Reference) -> bool {
    let familiar = name.familiar();
    let bare = name.familiar_name();
    [familiar.as_str(), bare.as_str()]
        .iter()
        .any(|text| glob(pattern.as_bytes(), text.as_bytes()))
}

/// Go's `path.Match`: `*` and `?` do not cross slashes; classes as in shells.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => {
            glob(&pattern[1..], text)
                || matches!(text.first(), Some(byte) if *byte != b'/') && glob(pattern, &text[1..])
        }
        (Some(b'?'), Some(byte)) if *byte != b'/' => glob(&pattern[1..], &text[1..]),
        (Some(b'['), Some(byte)) => match class(&pattern[1..], *byte) {
            Some((true, rest)) => glob(rest, &text[1..]),
            _ => false,
        },
        (Some(b'\\'), Some(byte)) => {
            pattern.get(1) == Some(byte) && glob(&pattern[2..], &text[1..])
        }
        (Some(a), Some(b)) if a == b => glob(&pattern[1..], &text[1..]),
        _ => false,
    }
}

/// Whether a byte is in the class that begins here, and what follows the class.
fn class(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match pattern.first()? {
        b'^' => (true, &pattern[1..]),
        _ => (false, pattern),
    };
    let mut found = false;
    let mut first = true;
    while first || *rest.first()? != b']' {
        first = false;
        let low = *rest.first()?;
        if rest.get(1) == Some(&b'-') && rest.get(2).is_some_and(|b| *b != b']') {
            found |= (low..=rest[2]).contains(&byte);
            rest = &rest[3..];
        } else {
            found |= low == byte;
            rest = &rest[1..];
        }
    }
    Some((found != negated, &rest[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_patterns() {
        for (pattern, name, hit) in [
            ("busybox", "busybox:1", true),
            ("busy*", "busybox:1", true),
            ("busybox:1", "busybox:1", true),
            ("busybox:*", "busybox:1", true),
            ("*", "a/b:1", false),
            ("*/*", "a/b:1", true),
            ("b?[a-t]ybox", "busybox:1", true),
            ("b?[^a-t]ybox", "busybox:1", false),
            ("[", "busybox:1", false),
            ("127.0.0.1:5000/*", "127.0.0.1:5000/x:y", true),
        ] {
            let name = Reference::parse(name).unwrap();
            assert_eq!(matches(pattern, &name), hit, "{pattern} {name}");
        }
    }

    #[test]
    fn moments() {
        assert_eq!(until("100").unwrap(), Timestamp::from_unix(100, 0));
        assert_eq!(
            until("2024-01-02T03:04:05").unwrap(),
            until("2024-01-02T03:04:05Z").unwrap()
        );
        assert!(until("2024-01-02").is_ok());
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("10"), None);
        assert!(until("soon").is_err());
    }
}
