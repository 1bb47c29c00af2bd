use anyhow::{Result, anyhow, bail};
use clap::Args;
use serde_json::{Value, json};

use super::inspect::print;
use crate::app::App;
use crate::contexts::{Context, DEFAULT, Store, TLS_NAMES, check_name};
use crate::error::{for_each, path_error};
use crate::format::units::parse_bool;
use crate::format::{Fields, Layout, ellipsis, outln, print_list};
use crate::opts::values::csv;

/// What the default context says of itself.
const DEFAULT_DESCRIPTION: &str = "Current DOCKER_HOST based configuration";

fn store(app: &App) -> Store {
    Store::new(app.config().directory())
}

/// The default context: what flags and environment come to.
fn default_context(app: &App) -> Result<Context> {
    let mut context = Context {
        name: DEFAULT.into(),
        ..Context::default()
    };
    context.endpoints.docker.host = app.default_host()?.to_string();
    Ok(context)
}

fn get(app: &App, name: &str) -> Result<Context> {
    if name == DEFAULT {
        default_context(app)
    } else {
        store(app).get(name)
    }
}

/// Flags of `context ls`.
#[derive(Args, Debug)]
pub(crate) struct ContextLs {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Only show context names
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

const LAYOUT: Layout = Layout {
    columns: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("DockerEndpoint", "DOCKER ENDPOINT"),
        ("Error", "ERROR"),
    ],
    more_headings: &[("Current", "CURRENT")],
    quiet: "{{.Name}}",
    raw: "",
};
/// Longer texts are cut in the table.
const WIDTH: usize = 60;

impl ContextLs {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let current = app.context_name();
        let mut contexts = store(app).list();
        let mut default = default_context(app)?;
        default.metadata.description = DEFAULT_DESCRIPTION.into();
        contexts.push(default);
        contexts.sort_by(|a, b| a.name.cmp(&b.name));
        let format = self.format.as_deref().unwrap_or_default();
        let table = !self.quiet && (format.is_empty() || format.starts_with("table"));
        let row = |context: Context| {
            let is_current = context.name == current;
            let name = if is_current && table {
                format!("{} *", context.name)
            } else {
                context.name
            };
            Fields::default()
                .set("Name", name)
                .set(
                    "Description",
                    ellipsis(&context.metadata.description, WIDTH),
                )
                .set("DockerEndpoint", context.endpoints.docker.host)
                .set("Error", "")
                .set_json("Current", &is_current.into())
        };
        print_list(
            &LAYOUT,
            format,
            self.quiet,
            contexts.into_iter().map(row).collect(),
        )
    }
}

/// `context show`.
#[derive(Args, Debug)]
pub(crate) struct ContextShow {}

impl ContextShow {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        outln!("{}", app.context_name())
    }
}

/// `context use`.
#[derive(Args, Debug)]
pub(crate) struct ContextUse {
    context: String,
}

impl ContextUse {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let name = self.context;
        get(app, &name)?;
        let current = app.config().text("currentContext").unwrap_or(DEFAULT);
        if current != name {
            app.config().update(|values| {
                if name == DEFAULT {
                    values.shift_remove("currentContext");
                } else {
                    values.insert("currentContext".into(), name.as_str().into());
                }
            })?;
        }
        outln!("{name}")?;
        eprintln!("Current context is now {name:?}");
        Ok(())
    }
}

/// Flags of `context inspect`.
#[derive(Args, Debug)]
pub(crate) struct ContextInspect {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, short, value_name = "string")]
    pub(crate) format: Option<String>,
    contexts: Vec<String>,
}

impl ContextInspect {
    pub(crate) async fn execute(mut self, app: &App) -> Result<()> {
        if self.contexts.is_empty() {
            self.contexts.push(app.context_name());
        }
        print(self.format.as_deref(), &self.contexts, async |name| {
            describe(app, name)
        })
        .await
    }
}

fn describe(app: &App, name: &str) -> Result<Value> {
    let mut value = serde_json::to_value(get(app, name)?)?;
    let store = store(app);
    let (material, storage) = if name == DEFAULT {
        (
            json!({}),
            json!({"MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>"}),
        )
    } else {
        let files = store.tls_names(name);
        let material = if files.is_empty() {
            json!({})
        } else {
            json!({"docker": files})
        };
        (
            material,
            json!({"MetadataPath": store.metadata_path(name), "TLSPath": store.tls_path(name)}),
        )
    };
    value["TLSMaterial"] = material;
    value["Storage"] = storage;
    Ok(value)
}

/// Flags of `context create`.
#[derive(Args, Debug)]
pub(crate) struct ContextCreate {
    /// Description of the context
    #[arg(long, value_name = "string")]
    pub(crate) description: Option<String>,
    /// set the docker endpoint
    #[arg(long, value_name = "stringToString")]
    pub(crate) docker: Vec<String>,
    /// create context from a named context
    #[arg(long, value_name = "string")]
    pub(crate) from: Option<String>,
    context: String,
}

impl ContextCreate {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let store = store(app);
        check_name(&self.context)?;
        if store.exists(&self.context) {
            bail!("context {:?} already exists", self.context);
        }
        let from = match self.from.as_deref() {
            Some(from) if self.docker.is_empty() => get(app, from)?,
            Some(_) => bail!("cannot use --docker flag when --from is set"),
            None => {
                let mut default = default_context(app)?;
                if self.docker.is_empty() {
                    default.metadata.description = DEFAULT_DESCRIPTION.into();
                }
                default
            }
        };
        let tls = self
            .from
            .as_deref()
            .map(|from| store.endpoint(from))
            .transpose()
            .unwrap_or_default();
        let mut context = Context {
            name: self.context,
            ..from
        };
        if let Some(description) = self.description {
            context.metadata.description = description;
        }
        let files = change_endpoint(app, &mut context, &self.docker)
            .map_err(|error| anyhow!("unable to create docker endpoint config: {error}"))?;
        store.put(&context)?;
        if let Some((_, Some(tls))) = tls {
            for (name, path) in TLS_NAMES.iter().zip([tls.ca, tls.cert, tls.key]) {
                if let Ok(bytes) = std::fs::read(path) {
                    store.put_tls(&context.name, name, &bytes)?;
                }
            }
        }
        for (name, bytes) in files {
            store.put_tls(&context.name, name, &bytes)?;
        }
        outln!("{}", context.name)?;
        eprintln!("Successfully created context {:?}", context.name);
        Ok(())
    }
}

/// Flags of `context update`.
#[derive(Args, Debug)]
pub(crate) struct ContextUpdate {
    /// Description of the context
    #[arg(long, value_name = "string")]
    pub(crate) description: Option<String>,
    /// set the docker endpoint
    #[arg(long, value_name = "stringToString")]
    pub(crate) docker: Vec<String>,
    context: String,
}

impl ContextUpdate {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let store = store(app);
        check_name(&self.context)?;
        let mut context = store.get(&self.context)?;
        if let Some(description) = self.description {
            context.metadata.description = description;
        }
        let files = change_endpoint(app, &mut context, &self.docker)
            .map_err(|error| anyhow!("unable to create docker endpoint config: {error}"))?;
        store.put(&context)?;
        for (name, bytes) in files {
            store.put_tls(&context.name, name, &bytes)?;
        }
        outln!("{}", context.name)?;
        eprintln!("Successfully updated context {:?}", context.name);
        Ok(())
    }
}

type TlsBytes = Vec<(&'static str, Vec<u8>)>;

/// Applies `--docker host=...,ca=...`; returns the TLS files to keep.
fn change_endpoint(app: &App, context: &mut Context, docker: &[String]) -> Result<TlsBytes> {
    let mut files = TlsBytes::new();
    for field in docker {
        for pair in csv(field).map_err(|error| anyhow!(error))? {
            let Some((key, value)) = pair.split_once('=') else {
                bail!("{pair} must be formatted as key=value")
            };
            match key {
                "host" => context.endpoints.docker.host = value.into(),
                "from" => context.endpoints = get(app, value)?.endpoints,
                "skip-tls-verify" => {
                    context.endpoints.docker.skip_tls_verify =
                        parse_bool(value).map_err(|error| anyhow!(error))?;
                }
                "ca" | "cert" | "key" => {
                    let path = std::path::Path::new(value);
                    let bytes =
                        std::fs::read(path).map_err(|error| path_error("open", path, &error))?;
                    let name = TLS_NAMES
                        .iter()
                        .find(|name| name.strip_suffix(".pem") == Some(key));
                    files.extend(name.map(|name| (*name, bytes)));
                }
                _ => bail!("unrecognized config key: {key}"),
            }
        }
    }
    Ok(files)
}

/// Flags of `context rm`.
#[derive(Args, Debug)]
pub(crate) struct ContextRm {
    /// Force the removal of a context in use
    #[arg(long, short)]
    pub(crate) force: bool,
    #[arg(required = true)]
    contexts: Vec<String>,
}

impl ContextRm {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let (store, current) = (store(app), app.context_name());
        for_each(self.contexts, async |name| {
            if name == DEFAULT {
                bail!("context \"default\" cannot be removed");
            }
            if !self.force && !store.exists(&name) {
                bail!("context {name:?} does not exist");
            }
            if name == current {
                if !self.force {
                    bail!("context {name:?} is in use, set -f flag to force remove");
                }
                app.config()
                    .update(|values| drop(values.shift_remove("currentContext")))?;
            }
            store.remove(&name)?;
            outln!("{name}")
        })
        .await
    }
}
