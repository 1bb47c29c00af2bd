//! How results are written: tables, templates, JSON.

pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod time;
pub(crate) mod units;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use anyhow::Result;
use gotmpl::Value as TValue;

use crate::error::Exit;

/// Writes to standard output; a reader that has gone away ends the program quietly.
pub(crate) fn put(text: &str) -> Result<()> {
    put_bytes(text.as_bytes())
}

/// [`put`] for bytes that need not be text.
pub(crate) fn put_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Exit::silent(141)),
        other => Ok(other?),
    }
}

/// `println!` that returns its error.
macro_rules! outln {
    ($($arg:tt)*) => {
        $crate::format::put(&format!("{}\n", format_args!($($arg)*)))
    };
}
pub(crate) use outln;

/// One row of a list: the names a template may use and their values.
#[derive(Default)]
pub(crate) struct Fields(BTreeMap<Arc<str>, TValue>);

impl Fields {
    pub(crate) fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0
            .insert(name.into(), TValue::String(value.into().into()));
        self
    }

    /// Sets what is not text: a list, a number, a whole object.
    pub(crate) fn set_json(mut self, name: &str, value: &serde_json::Value) -> Self {
        self.0.insert(name.into(), template::from_json(value));
        self
    }

    /// `.Labels` (all, joined) and `.Label "key"` from an object of strings.
    pub(crate) fn labels(self, labels: &serde_json::Value) -> Self {
        let map: BTreeMap<String, String> = labels
            .as_object()
            .map(|members| {
                members
                    .iter()
                    .map(|(key, value)| {
                        (key.clone(), value.as_str().unwrap_or_default().to_owned())
                    })
                    .collect()
            })
            .unwrap_or_default();
        let joined = map
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
            .join(",");
        let mut this = self.set("Labels", joined);
        let lookup = move |args: &[TValue]| {
            let key = args.first().map(ToString::to_string).unwrap_or_default();
            Ok(TValue::String(
                map.get(&key).cloned().unwrap_or_default().into(),
            ))
        };
        this.0
            .insert("Label".into(), TValue::Function(Arc::new(lookup)));
        this
    }

    fn into_value(self) -> TValue {
        TValue::Map(Arc::new(self.0))
    }
}

/// What a kind of list looks like when nobody says otherwise.
pub(crate) struct Layout {
    /// Columns: the template of the cell and its heading.
    pub(crate) columns: &'static [(&'static str, &'static str)],
    /// Headings of the names that are not columns of the default table.
    pub(crate) more_headings: &'static [(&'static str, &'static str)],
    /// What `--quiet` prints.
    pub(crate) quiet: &'static str,
    /// What `--format raw` prints.
    pub(crate) raw: &'static str,
}

/// Prints `rows` in the way that `format` (the flag's value, or the user's configured default) asks for.
pub(crate) fn print_list(
    layout: &Layout,
    format: &str,
    quiet: bool,
    rows: Vec<Fields>,
) -> Result<()> {
    put(&render_list(layout, format, quiet, rows)?)
}

fn render_list(layout: &Layout, format: &str, quiet: bool, rows: Vec<Fields>) -> Result<String> {
    let default_table = || {
        layout
            .columns
            .iter()
            .map(|(name, _)| format!("{{{{.{name}}}}}"))
            .collect::<Vec<_>>()
            .join("\t")
    };
    let (is_table, source) = match format {
        _ if quiet && format != "raw" => (false, layout.quiet.to_owned()),
        "" | "table" => (true, default_table()),
        "raw" => (false, layout.raw.to_owned()),
        "json" => (false, "{{json .}}".to_owned()),
        other => match other.strip_prefix("table") {
            Some(rest) => (true, rest.trim().to_owned()),
            None => (false, other.to_owned()),
        },
    };
    let template = template::Row::parse(&source)?;
    let mut out = String::new();
    if is_table {
        let headings = layout
            .columns
            .iter()
            .chain(layout.more_headings)
            .fold(Fields::default(), |fields, (name, heading)| {
                fields.set(name, *heading)
            });
        let headings = headings.set_label_heading();
        out.push_str(&template.render(&headings.into_value())?);
        out.push('\n');
    }
    for row in rows {
        out.push_str(&template.render(&row.into_value())?);
        out.push('\n');
    }
    Ok(if is_table { table::align(&out) } else { out })
}

impl Fields {
    /// In a heading, `.Label "some.key"` is the last word of the key.
    fn set_label_heading(mut self) -> Self {
        let last_word = |args: &[TValue]| {
            let key = args.first().map(ToString::to_string).unwrap_or_default();
            let last = key
                .rsplit('.')
                .next()
                .unwrap_or(&key)
                .replace(['-', '_'], " ");
            Ok(TValue::String(last.into()))
        };
        self.0
            .insert("Label".into(), TValue::Function(Arc::new(last_word)));
        self
    }
}

/// The first twelve digits of an ID, without its algorithm.
pub(crate) fn short_id(id: &str) -> &str {
    let id = id.split_once(':').map_or(id, |(_, digits)| digits);
    id.get(..12).unwrap_or(id)
}

/// Shortens to `width` columns, the last of which is an ellipsis.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars()
        .take(width.saturating_sub(1))
        .chain(['…'])
        .collect()
}

/// A table of fixed layout: `TEMPLATE table` with nothing but text in the cells.
pub(crate) fn plain_table(
    headings: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut out = headings.join("\t");
    out.push('\n');
    for row in rows {
        out.push_str(&row.join("\t"));
        out.push('\n');
    }
    table::align(&out)
}

/// JSON with Docker's four blanks of indentation.
pub(crate) fn indented(value: &serde_json::Value) -> Result<String> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    serde::Serialize::serialize(
        value,
        &mut serde_json::Serializer::with_formatter(&mut out, formatter),
    )?;
    Ok(String::from_utf8(out)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LAYOUT: Layout = Layout {
        columns: &[("ID", "THING ID"), ("Name", "NAME")],
        more_headings: &[("Labels", "LABELS")],
        quiet: "{{.ID}}",
        raw: "id: {{.ID}}",
    };

    fn rows() -> Vec<Fields> {
        vec![
            Fields::default()
                .set("ID", "1")
                .set("Name", "one")
                .labels(&json!({"a.b-c": "x", "z": "y"})),
        ]
    }

    #[test]
    fn every_kind_of_format_is_understood() {
        for (format, quiet, text) in [
            ("", false, "THING ID   NAME\n1          one\n"),
            ("", true, "1\n"),
            ("raw", false, "id: 1\n"),
            (
                "json",
                false,
                "{\"ID\":\"1\",\"Labels\":\"a.b-c=x,z=y\",\"Name\":\"one\"}\n",
            ),
            ("{{.Name}}\\t{{.Label \"z\"}}", false, "one\ty\n"),
            (
                "table {{.Name}}\\t{{.Label \"a.b-c\"}}",
                false,
                "NAME      b c\none       x\n",
            ),
        ] {
            assert_eq!(
                render_list(&LAYOUT, format, quiet, rows()).unwrap(),
                text,
                "{format}"
            );
        }
        assert!(render_list(&LAYOUT, "{{.Nope}}", false, rows()).is_err());
    }

    #[test]
    fn ids_and_texts_are_shortened() {
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("abc"), "abc");
        assert_eq!(ellipsis("abcdef", 4), "abc…");
        assert_eq!(ellipsis("abcd", 4), "abcd");
    }
}
