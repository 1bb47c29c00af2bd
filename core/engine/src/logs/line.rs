//! One line of a json-file log: `{"log":"...","stream":"stdout","attrs":{...},"time":"..."}`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use gantry_model::Timestamp;
use serde::Deserialize;

use super::LogLine;
use crate::query::LogsQuery;

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(default)]
    attrs: Option<BTreeMap<String, String>>,
    #[serde(borrow, default)]
    time: Cow<'a, str>,
}

/// What a client wants to see of each line.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    stdout: bool,
    stderr: bool,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    timestamps: bool,
    details: bool,
}

/// What became of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// To be shown.
    Show(LogLine),
    /// Not wanted, or not understood (a line torn by a full disk).
    Skip,
    /// Younger than asked for, and so is everything after it.
    End,
}

impl Filter {
    pub(super) fn new(query: &LogsQuery) -> Self {
        Self {
            stdout: query.stdout,
            stderr: query.stderr,
            since: query.since.filter(|t| !t.is_zero()),
            until: query.until.filter(|t| !t.is_zero()),
            timestamps: query.timestamps,
            details: query.details,
        }
    }

    /// Reads one line, without its newline.
    pub(super) fn read(&self, line: &[u8]) -> Outcome {
        let Ok(entry) = serde_json::from_slice::<Entry<'_>>(line) else {
            return Outcome::Skip;
        };
        let (stream, wanted) = match &*entry.stream {
            "stderr" => (2, self.stderr),
            _ => (1, self.stdout),
        };
        if self.since.is_some() || self.until.is_some() {
            let time: Timestamp = entry.time.parse().unwrap_or_default();
            if self.until.is_some_and(|until| time > until) {
                return Outcome::End;
            }
            if self.since.is_some_and(|since| time < since) {
                return Outcome::Skip;
            }
        }
        if !wanted {
            return Outcome::Skip;
        }
        Outcome::Show(LogLine {
            stream,
            bytes: self.render(&entry),
        })
    }

    fn render(&self, entry: &Entry<'_>) -> Bytes {
        if !self.timestamps && !self.details {
            return Bytes::copy_from_slice(entry.log.as_bytes());
        }
        let mut text = String::with_capacity(entry.log.len() + 32);
        if self.timestamps {
            fixed_width(&entry.time, &mut text);
            text.push(' ');
        }
        if self.details {
            if let Some(attrs) = &entry.attrs {
                let pairs: Vec<String> = attrs
                    .iter()
                    .map(|(key, value)| format!("{}={}", escape(key), escape(value)))
                    .collect();
                text.push_str(&pairs.join(","));
            }
            text.push(' ');
        }
        text.push_str(&entry.log);
        Bytes::from(text)
    }
}

/// The time with all nine decimals, so that lines align.
fn fixed_width(time: &str, into: &mut String) {
    let body = time.strip_suffix('Z').unwrap_or(time);
    let (seconds, decimals) = body.split_once('.').unwrap_or((body, ""));
    into.push_str(seconds);
    into.push('.');
    into.push_str(decimals);
    for _ in decimals.len()..9 {
        into.push('0');
    }
    into.push('Z');
}

/// Go's `url.QueryEscape`, with which Docker writes attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            b' ' => escaped.push('+'),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] =
        br#"{"log":"a\u003cb\n","stream":"stderr","attrs":{"k":"v w"},"time":"2024-05-06T07:08:09.12Z"}"#;

    fn filter(change: impl FnOnce(&mut LogsQuery)) -> Filter {
        let mut query = LogsQuery {
            stdout: true,
            stderr: true,
            ..LogsQuery::default()
        };
        change(&mut query);
        Filter::new(&query)
    }

    fn shown(filter: &Filter) -> Option<(u8, String)> {
        match filter.read(LINE) {
            Outcome::Show(line) => {
                Some((line.stream, String::from_utf8(line.bytes.to_vec()).unwrap()))
            }
            _ => None,
        }
    }

    #[test]
    fn forms() {
        assert_eq!(shown(&filter(|_| {})), Some((2, "a<b\n".into())));
        let all = filter(|q| {
            q.timestamps = true;
            q.details = true;
        });
        assert_eq!(
            shown(&all),
            Some((2, "2024-05-06T07:08:09.120000000Z k=v+w a<b\n".into()))
        );
        assert_eq!(shown(&filter(|q| q.stderr = false)), None);
    }

    #[test]
    fn times() {
        let at = |text: &str| Some(text.parse().unwrap());
        assert_eq!(
            shown(&filter(|q| q.since = at("2024-05-06T07:08:10Z"))),
            None
        );
        assert!(shown(&filter(|q| q.since = at("2024-05-06T07:08:09.12Z"))).is_some());
        let until = filter(|q| q.until = at("2024-05-06T07:08:09Z"));
        assert_eq!(until.read(LINE), Outcome::End);
        assert_eq!(filter(|_| {}).read(b"{\"log\":\"torn"), Outcome::Skip);
    }
}
