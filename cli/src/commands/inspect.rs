use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use super::push::platform_json;
use crate::app::App;
use crate::client::{Client, name_path, segment};
use crate::error::{Exit, is_not_found};
use crate::format::template::{check, render};
use crate::format::{indented, put};

/// Flags of `inspect`.
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, short, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Display total file sizes if the type is container
    #[arg(long, short)]
    pub(crate) size: bool,
    /// Only inspect objects of the given type
    #[arg(long = "type", value_name = "string")]
    pub(crate) type_: Option<String>,
    #[arg(required = true)]
    names: Vec<String>,
}

/// What `--type` may name.
const KINDS: &[&str] = &[
    "config",
    "container",
    "image",
    "network",
    "node",
    "plugin",
    "secret",
    "service",
    "task",
    "volume",
];
/// Where an object without a type is looked for, in this order.
const SEARCHED: &[&str] = &["container", "image", "network", "volume", "plugin"];

impl Inspect {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let kinds = match self.type_.as_deref() {
            None | Some("") => SEARCHED,
            Some(kind) => match KINDS.iter().position(|known| *known == kind) {
                Some(at) => &KINDS[at..=at],
                None => bail!(
                    "unknown type: {kind:?}: must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\""
                ),
            },
        };
        let client = app.client()?;
        let query = [("size", if self.size { "1" } else { "" })];
        print(self.format.as_deref(), &self.names, async |name| {
            for kind in kinds {
                match get(client, kind, name, &query).await {
                    Err(error) if kinds.len() > 1 && skips(&error) => {}
                    other => return other,
                }
            }
            bail!("Error: No such object: {name}")
        })
        .await
    }
}

/// Whether another kind of object may still be meant: this one is not there, or the daemon knows no such kind.
fn skips(error: &anyhow::Error) -> bool {
    is_not_found(error)
        || matches!(
            error.downcast_ref(),
            Some(crate::error::ApiError::Daemon {
                status: 405 | 501 | 503 | 406,
                ..
            })
        )
}

/// Fetches one object as the API describes it.
pub(crate) async fn get(
    client: &Client,
    kind: &str,
    name: &str,
    query: &[(&str, &str)],
) -> Result<Value> {
    let path = match kind {
        "container" => format!("/containers/{}/json", segment(name)),
        "image" => format!("/images/{}/json", name_path(name)),
        "plugin" => format!("/plugins/{}/json", name_path(name)),
        kind => format!("/{kind}s/{}", segment(name)),
    };
    let request = query
        .iter()
        .filter(|(parameter, _)| (*parameter == "size") == (kind == "container"))
        .fold(client.get(path), |request, (parameter, value)| {
            request.maybe(parameter, Some(value))
        });
    Ok(request.value().await?)
}

/// Prints every object that `fetch` finds, as one JSON list or each through the template, and then what went wrong.
pub(crate) async fn print(
    format: Option<&str>,
    names: &[String],
    mut fetch: impl AsyncFnMut(&str) -> Result<Value>,
) -> Result<()> {
    if let Some(template) = format.filter(|format| !matches!(*format, "" | "json")) {
        check(template)?;
    }
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for name in names {
        match fetch(name).await {
            Ok(value) => found.push(value),
            Err(error)
                if error
                    .downcast_ref::<crate::error::ApiError>()
                    .is_some_and(|error| {
                        !matches!(error, crate::error::ApiError::Daemon { .. })
                    }) =>
            {
                return Err(error);
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    match format {
        None | Some("") => put(&format!("{}\n", indented(&Value::Array(found))?))?,
        Some("json") => put(&format!("{}\n", Value::Array(found)))?,
        Some(template) => {
            for value in &found {
                put(&format!("{}\n", render(template, value)?))?;
            }
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Exit::with(1, errors.join("\n")))
    }
}

/// `container inspect`.
#[derive(Args, Debug)]
pub(crate) struct ContainerInspect {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, short, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Display total file sizes
    #[arg(long, short)]
    pub(crate) size: bool,
    #[arg(required = true)]
    names: Vec<String>,
}

impl ContainerInspect {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        let query = [("size", if self.size { "1" } else { "" })];
        print(self.format.as_deref(), &self.names, async |name| {
            get(client, "container", name, &query).await
        })
        .await
    }
}

/// `image inspect`.
#[derive(Args, Debug)]
pub(crate) struct ImageInspect {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, short, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Inspect a specific platform of the multi-platform image.
    #[arg(long, value_name = "string")]
    pub(crate) platform: Option<String>,
    #[arg(required = true)]
    names: Vec<String>,
}

impl ImageInspect {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        let platform = self
            .platform
            .as_deref()
            .map(platform_json)
            .transpose()?
            .unwrap_or_default();
        let query = [("platform", platform.as_str())];
        print(self.format.as_deref(), &self.names, async |name| {
            get(client, "image", name, &query).await
        })
        .await
    }
}

/// `network inspect`.
#[derive(Args, Debug)]
pub(crate) struct NetworkInspect {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, short, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Verbose output for diagnostics
    #[arg(long, short)]
    pub(crate) verbose: bool,
    #[arg(required = true)]
    names: Vec<String>,
}

impl NetworkInspect {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        let query = [("verbose", if self.verbose { "true" } else { "" })];
        print(self.format.as_deref(), &self.names, async |name| {
            get(client, "network", name, &query).await
        })
        .await
    }
}

/// `volume inspect`.
#[derive(Args, Debug)]
pub(crate) struct VolumeInspect {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, short, value_name = "string")]
    pub(crate) format: Option<String>,
    #[arg(required = true)]
    names: Vec<String>,
}

impl VolumeInspect {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        print(self.format.as_deref(), &self.names, async |name| {
            get(client, "volume", name, &[]).await
        })
        .await
    }
}
