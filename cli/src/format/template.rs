//! `--format`: Go templates with Docker's functions over JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use gotmpl::{MissingKey, Template, TemplateError, Value as TValue};
use serde_json::Value;

use crate::error::Exit;

/// Members that Docker's own types know under another name than the JSON they are printed as.
const GO_NAMES: &[(&str, &str)] = &[
    ("ID", "Id"),
    ("Id", "ID"),
    ("APIVersion", "ApiVersion"),
    ("ImageID", "ImageId"),
    ("NanoCPUs", "NanoCpus"),
    ("CPUShares", "CpuShares"),
    ("CPUPeriod", "CpuPeriod"),
    ("CPUQuota", "CpuQuota"),
    ("CPURealtimePeriod", "CpuRealtimePeriod"),
    ("CPURealtimeRuntime", "CpuRealtimeRuntime"),
    ("CPUCount", "CpuCount"),
    ("CPUPercent", "CpuPercent"),
    ("DNS", "Dns"),
    ("DNSOptions", "DnsOptions"),
    ("DNSSearch", "DnsSearch"),
    ("IOMaximumIOps", "IOMaximumIOps"),
    ("CPUCfsPeriod", "CpuCfsPeriod"),
    ("CPUCfsQuota", "CpuCfsQuota"),
];

/// Members that Docker's types always have although the JSON leaves them out when they are unset.
const OPTIONAL: &[&str] = &[
    "Health",
    "Init",
    "Healthcheck",
    "StopTimeout",
    "StopSignal",
    "Shell",
    "MacAddress",
    "NetworkDisabled",
    "OnBuild",
    "ExposedPorts",
    "Annotations",
    "Tmpfs",
    "Sysctls",
    "Mounts",
    "StorageOpt",
    "GraphDriver",
    "SizeRw",
    "SizeRootFs",
    "Runtime",
    "UsageData",
    "ClusterVolume",
    "Status",
    "CreatedAt",
    "Parent",
    "Comment",
    "Container",
    "DockerVersion",
    "Author",
    "Variant",
    "OsVersion",
    "Metadata",
    "Labels",
    "Warnings",
    "IPRange",
    "Gateway",
    "AuxiliaryAddresses",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "Env",
    "ArgsEscaped",
    "CPUCount",
    "Config",
    "Descriptor",
    "Manifests",
    "ImageManifestDescriptor",
];

/// Renders `source` over `data`, as `inspect --format` and the like do: a name that is not there is an error.
pub(crate) fn render(source: &str, data: &Value) -> Result<String> {
    let data = from_json(data);
    let mut source = source.to_owned();
    for _ in 0..GO_NAMES.len() {
        let error = match compile(&source, MissingKey::Error)?.execute_to_string(&data) {
            Ok(text) => return Ok(text),
            Err(error) => error,
        };
        let TemplateError::MissingKey { key } = &error else {
            return Err(execution(error));
        };
        let renamed = GO_NAMES
            .iter()
            .find(|(go, _)| go == key)
            .and_then(|(go, json)| rename(&source, go, json));
        match renamed {
            Some(next) => source = next,
            None if OPTIONAL.contains(&key.as_str()) => {
                let text = compile(&source, MissingKey::ZeroValue)?
                    .execute_to_string(&data)
                    .map_err(execution)?;
                return Ok(text.replace("<no value>", "<nil>"));
            }
            None => {
                return Err(anyhow!(
                    "template parsing error: template: :1:2: executing \"\" at <.{key}>: map has no entry for key {key:?}"
                ));
            }
        }
    }
    Err(anyhow!("template parsing error: too many unknown names"))
}

/// Refuses a template that does not parse, before anything is asked of the daemon.
pub(crate) fn check(source: &str) -> Result<()> {
    compile(source, MissingKey::Error)
        .map(drop)
        .map_err(|error| Exit::with(64, format!("template parsing error: {error}")))
}

/// A template that is rendered for every row of a list.
pub(crate) struct Row(Template);

impl Row {
    /// Parses `source`, in which `\t` and `\n` may be written out.
    pub(crate) fn parse(source: &str) -> Result<Self> {
        let source = source
            .replace("\\t", "\t")
            .replace("\\n", "\n")
            .replace(".Label ", "call .Label ");
        let template = compile(&source, MissingKey::Error)
            .map_err(|error| anyhow!("failed to parse template: {error}"))?;
        Ok(Self(template.func("json", |args| {
            string(escaped(&to_json(&argument(args, 0)?)))
        })))
    }

    pub(crate) fn render(&self, data: &TValue) -> Result<String> {
        self.0.execute_to_string(data).map_err(|error| match error {
            TemplateError::MissingKey { key } => {
                anyhow!("failed to execute template: template: :1:2: executing \"\" at <.{key}>: can't evaluate field {key}")
            }
            other => anyhow!("failed to execute template: {other}"),
        })
    }
}

fn compile(source: &str, missing: MissingKey) -> Result<Template> {
    Template::new("")
        .missing_key(missing)
        .func("json", |args| {
            string(to_json(&argument(args, 0)?).to_string())
        })
        .func("split", |args| {
            let (text, separator) = (text(args, 0)?, text(args, 1)?);
            Ok(TValue::List(
                text.split(separator.as_str())
                    .map(|part| TValue::String(part.into()))
                    .collect(),
            ))
        })
        .func("join", |args| {
            let separator = text(args, 1)?;
            match argument(args, 0)? {
                TValue::List(items) => string(
                    items
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(&separator),
                ),
                TValue::Nil => string(String::new()),
                other => Err(TemplateError::Exec(format!(
                    "join of {}",
                    other.type_name()
                ))),
            }
        })
        .func("lower", |args| string(text(args, 0)?.to_lowercase()))
        .func("upper", |args| string(text(args, 0)?.to_uppercase()))
        .func("title", |args| string(title(&text(args, 0)?)))
        .func("pad", |args| {
            let text = text(args, 0)?;
            if text.is_empty() {
                return string(text);
            }
            string(format!(
                "{}{text}{}",
                " ".repeat(count(args, 1)?),
                " ".repeat(count(args, 2)?)
            ))
        })
        .func("truncate", |args| {
            let (text, length) = (text(args, 0)?, count(args, 1)?);
            string(text.chars().take(length).collect())
        })
        .parse(source)
        .map_err(|error| anyhow!("{}", located(&error)))
}

fn execution(error: TemplateError) -> anyhow::Error {
    anyhow!("template parsing error: template: :1:2: executing \"\": {error}")
}

/// Go names the (empty) template and the line, but not the column, of what does not parse.
fn located(error: &TemplateError) -> String {
    match error {
        TemplateError::Parse { line, message, .. } | TemplateError::Lex { line, message, .. } => {
            format!("template: :{line}: {message}")
        }
        other => other.to_string(),
    }
}

fn rename(source: &str, from: &str, to: &str) -> Option<String> {
    let needle = format!(".{from}");
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut changed = false;
    while let Some(at) = rest.find(&needle) {
        let end = at + needle.len();
        let whole = !rest[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        out.push_str(&rest[..at]);
        out.push('.');
        out.push_str(if whole { to } else { from });
        changed |= whole;
        rest = &rest[end..];
    }
    out.push_str(rest);
    changed.then_some(out)
}

type FuncResult<T> = std::result::Result<T, TemplateError>;

fn argument(args: &[TValue], index: usize) -> FuncResult<TValue> {
    args.get(index)
        .cloned()
        .ok_or_else(|| TemplateError::Exec("wrong number of args".into()))
}

fn text(args: &[TValue], index: usize) -> FuncResult<String> {
    Ok(match argument(args, index)? {
        TValue::Nil => String::new(),
        other => other.to_string(),
    })
}

fn count(args: &[TValue], index: usize) -> FuncResult<usize> {
    Ok(argument(args, index)?.as_int().unwrap_or(0).max(0) as usize)
}

fn string(text: String) -> FuncResult<TValue> {
    Ok(TValue::String(text.into()))
}

fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .map(|c| {
            let upper = start && c.is_alphabetic();
            start = !(c.is_alphanumeric() || c == '_' || c == '\'');
            if upper {
                c.to_uppercase().next().unwrap_or(c)
            } else {
                c
            }
        })
        .collect()
}

/// Rows of a list are written with the characters escaped that mean something in HTML, as Go does by default.
fn escaped(value: &Value) -> String {
    let text = value.to_string();
    if !value.is_object() {
        return text;
    }
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// JSON as template data.
pub(crate) fn from_json(value: &Value) -> TValue {
    match value {
        Value::Null => TValue::Nil,
        Value::Bool(flag) => TValue::Bool(*flag),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(signed), _) => TValue::Int(signed),
            (None, Some(unsigned)) => TValue::Uint(unsigned),
            _ => TValue::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => TValue::String(text.as_str().into()),
        Value::Array(items) => TValue::List(items.iter().map(from_json).collect()),
        Value::Object(members) => {
            let map: BTreeMap<Arc<str>, TValue> = members
                .iter()
                .map(|(key, value)| (key.as_str().into(), from_json(value)))
                .collect();
            TValue::Map(Arc::new(map))
        }
    }
}

fn to_json(value: &TValue) -> Value {
    match value {
        TValue::Nil | TValue::Function(_) => Value::Null,
        TValue::Bool(flag) => (*flag).into(),
        TValue::Int(number) => (*number).into(),
        TValue::Uint(number) => (*number).into(),
        TValue::Float(number) => (*number).into(),
        TValue::String(text) => text.as_ref().into(),
        TValue::List(items) => items.iter().map(to_json).collect(),
        TValue::Map(members) => Value::Object(
            members
                .iter()
                .filter(|(_, member)| !matches!(member, TValue::Function(_)))
                .map(|(key, member)| (key.to_string(), to_json(member)))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dockers_functions_are_there() {
        let data = json!({"Name": "web app", "List": ["a", "b"], "N": 3, "Path": "/usr/bin"});
        for (source, text) in [
            ("{{json .List}}", r#"["a","b"]"#),
            ("{{join .List \"-\"}}", "a-b"),
            ("{{index (split .Path \"/\") 2}}", "bin"),
            (
                "{{upper .Name}} {{title .Name}} {{lower \"ABC\"}}",
                "WEB APP Web App abc",
            ),
            ("{{truncate .Name 3}}|{{pad .Name 1 2}}|", "web| web app  |"),
            (
                "{{range $i, $v := .List}}{{if $i}},{{end}}{{$v}}{{end}}",
                "a,b",
            ),
            ("{{println .N}}", "3\n"),
        ] {
            assert_eq!(render(source, &data).unwrap(), text, "{source}");
        }
    }

    #[test]
    fn names_of_dockers_types_find_their_json() {
        let data = json!({"Id": "abc", "HostConfig": {"NanoCpus": 5}, "State": {"Running": true}});
        assert_eq!(
            render("{{.ID}} {{.HostConfig.NanoCPUs}}", &data).unwrap(),
            "abc 5"
        );
        assert_eq!(
            render("{{if .State.Health}}yes{{else}}no{{end}}", &data).unwrap(),
            "no"
        );
        let error = render("{{.Nope}}", &data).unwrap_err().to_string();
        assert!(
            error.contains("map has no entry for key \"Nope\""),
            "{error}"
        );
    }

    #[test]
    fn a_template_that_does_not_parse_says_so() {
        let error = check("{{.A").unwrap_err().to_string();
        assert!(
            error.starts_with("template parsing error: template: :1"),
            "{error}"
        );
    }
}
