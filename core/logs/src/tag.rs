//! `--log-opt tag`: a Go template over what Docker calls the log info.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::{MissingKey, Template, TemplateError, Value};

use crate::LogOptionError;
use crate::attrs::Subject;

/// What drivers that always have a tag use when none is given.
pub(crate) const DEFAULT: &str = "{{.ID}}";

/// Renders a template.
///
/// # Errors
/// What does not parse, names that there are not.
pub(crate) fn render(template: &str, subject: &Subject) -> Result<String, LogOptionError> {
    compile(template)?
        .execute_to_string(&fields(subject))
        .map_err(|error| invalid(template, &error))
}

/// Checks a template before there is a container.
pub(crate) fn check(template: &str) -> Result<(), LogOptionError> {
    let sample = Subject {
        id: "0".repeat(64),
        image_id: format!("sha256:{}", "0".repeat(64)),
        ..Subject::default()
    };
    render(template, &sample).map(drop)
}

/// What is wrong, as Go's templates say it of Docker's type.
fn invalid(template: &str, error: &TemplateError) -> LogOptionError {
    LogOptionError::new(match error {
        TemplateError::Parse { line, message, .. } | TemplateError::Lex { line, message, .. } => {
            format!("template: log-tag:{line}: {message}")
        }
        TemplateError::MissingKey { key } => {
            let column = template.find(&format!(".{key}")).unwrap_or(0);
            format!(
                "template: log-tag:1:{column}: executing \"log-tag\" at <.{key}>: can't evaluate field {key} in type *logger.Info"
            )
        }
        other => format!("template: log-tag: {other}"),
    })
}

fn compile(template: &str) -> Result<Template, LogOptionError> {
    let text =
        |args: &[Value], at: usize| args.get(at).map(ToString::to_string).unwrap_or_default();
    let string = |text: String| Ok(Value::String(text.into()));
    Template::new("log-tag")
        .missing_key(MissingKey::Error)
        .func("lower", move |args| string(text(args, 0).to_lowercase()))
        .func("upper", move |args| string(text(args, 0).to_uppercase()))
        .func("join", move |args| {
            let Some(Value::List(items)) = args.first() else {
                return Err(TemplateError::Exec("join of what is no list".into()));
            };
            let items: Vec<String> = items.iter().map(ToString::to_string).collect();
            string(items.join(&text(args, 1)))
        })
        .func("split", move |args| {
            let (whole, separator) = (text(args, 0), text(args, 1));
            let parts = whole.split(separator.as_str());
            Ok(Value::List(
                parts.map(|part| Value::String(part.into())).collect(),
            ))
        })
        .func("truncate", move |args| {
            let length = args.get(1).and_then(Value::as_int).unwrap_or(0);
            let length = usize::try_from(length).unwrap_or(0);
            string(text(args, 0).chars().take(length).collect())
        })
        .parse(template)
        .map_err(|error| invalid(template, &error))
}

/// Fields and methods of Docker's `logger.Info`.
fn fields(subject: &Subject) -> Value {
    let text = |text: &str| Value::String(text.into());
    let list = |items: &[String]| Value::List(items.iter().map(|item| text(item)).collect());
    let labels: BTreeMap<Arc<str>, Value> = subject
        .labels
        .iter()
        .map(|(name, value)| (name.as_str().into(), text(value)))
        .collect();
    let short = |id: &str| id.get(..12).unwrap_or(id).to_owned();
    let fields = [
        ("ID", text(&short(&subject.id))),
        ("FullID", text(&subject.id)),
        ("Name", text(&subject.name)),
        ("ImageID", text(&short(&subject.image_id))),
        ("ImageFullID", text(&subject.image_id)),
        ("ImageName", text(&subject.image_name)),
        ("Command", text(&subject.command())),
        ("DaemonName", text("docker")),
        ("ContainerID", text(&subject.id)),
        ("ContainerName", text(&format!("/{}", subject.name))),
        ("ContainerEntrypoint", text(&subject.program)),
        ("ContainerArgs", list(&subject.args)),
        ("ContainerImageID", text(&subject.image_id)),
        ("ContainerImageName", text(&subject.image_name)),
        ("ContainerCreated", text(&subject.created.to_string())),
        ("ContainerEnv", list(&subject.env)),
        ("ContainerLabels", Value::Map(Arc::new(labels))),
        ("LogPath", text(&subject.log_path)),
        ("Hostname", text(&hostname())),
    ];
    let fields: BTreeMap<Arc<str>, Value> = fields
        .into_iter()
        .map(|(name, value)| (name.into(), value))
        .collect();
    Value::Map(Arc::new(fields))
}

/// The host's name.
pub(crate) fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attrs::tests::subject;

    #[test]
    fn templates() {
        let subject = subject();
        let tag = |template: &str| render(template, &subject).map_err(|e| e.to_string());
        assert_eq!(tag(DEFAULT).unwrap(), "0123456789ab");
        assert_eq!(tag("{{.FullID}}").unwrap(), subject.id);
        assert_eq!(
            tag("{{.ImageName}}/{{.Name}}/{{.DaemonName}}").unwrap(),
            "busybox:1/web/docker"
        );
        assert_eq!(tag("{{.Command}}").unwrap(), "sh -c date");
        assert_eq!(
            tag("{{upper .Name}}:{{index .ContainerLabels \"a\"}}").unwrap(),
            "WEB:1"
        );
        assert_eq!(
            tag("{{range .ContainerArgs}}{{.}},{{end}}").unwrap(),
            "-c,date,"
        );
        assert_eq!(tag("{{if eq .Name \"web\"}}yes{{end}}").unwrap(), "yes");
        assert_eq!(tag("plain").unwrap(), "plain");
        assert_eq!(
            tag("{{.Nope}}").unwrap_err(),
            "template: log-tag:1:2: executing \"log-tag\" at <.Nope>: can't evaluate field Nope in type *logger.Info"
        );
        assert_eq!(
            tag("{{.ID").unwrap_err(),
            "template: log-tag:1: unclosed action"
        );
        assert!(check("{{.ImageID}} {{.ImageFullID}}").is_ok());
    }
}
