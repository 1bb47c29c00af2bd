//! What registries hold, through the engine: it knows their mirrors, certificates and proxies.

use anyhow::{Result, anyhow};
use clap::Args;
use gantry_wire::Reference;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::with_credentials;
use crate::client::{Client, name_path};
use crate::format::outln;

/// Flags of `manifest inspect`.
#[derive(Args, Debug)]
pub(crate) struct ManifestInspect {
    /// Allow communication with an insecure registry
    #[arg(long, hide = true)]
    pub(crate) _insecure: bool,
    /// Output additional info including layers and platform
    #[arg(long, short)]
    verbose: bool,
    #[arg(value_name = "MANIFEST")]
    name: String,
}

/// `registry tags`.
#[derive(Args, Debug)]
pub(crate) struct Tags {
    #[arg(value_name = "NAME")]
    name: String,
}

/// `registry referrers`.
#[derive(Args, Debug)]
pub(crate) struct Referrers {
    #[arg(value_name = "NAME")]
    name: String,
}

/// `registry rm`.
#[derive(Args, Debug)]
pub(crate) struct Remove {
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// JSON as docker's commands about manifests print it.
fn print(value: &Value) -> Result<()> {
    let mut text = Vec::new();
    let tabs = PrettyFormatter::with_indent(b"\t");
    value.serialize(&mut Serializer::with_formatter(&mut text, tabs))?;
    outln!("{}", String::from_utf8_lossy(&text))
}

fn path(name: &str, what: &str) -> String {
    format!("/gantry/registry/{}/{what}", name_path(name))
}

impl ManifestInspect {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let reference = Reference::parse(&self.name)?.with_default_tag();
        let client = app.client()?;
        let document = manifest(app, client, &reference).await?;
        if !self.verbose {
            return print(&document);
        }
        let Some(entries) = document["manifests"].as_array() else {
            let described: Value = describe(app, client, &reference).await?;
            return print(&shown(&reference, &described, document));
        };
        let mut all = Vec::new();
        for entry in entries {
            let digest = entry["digest"].as_str().unwrap_or_default();
            let digest = digest
                .parse()
                .map_err(|_| anyhow!("invalid digest {digest:?}"))?;
            let one = reference.with_digest(digest);
            let document = manifest(app, client, &one).await?;
            all.push(shown(&one, entry, document));
        }
        print(&Value::from(all))
    }
}

async fn manifest(app: &App, client: &Client, reference: &Reference) -> Result<Value> {
    let request = client.get(path(&reference.to_string(), "manifest"));
    let bytes = with_credentials(app, reference, request).bytes().await?;
    Ok(serde_json::from_slice(&bytes)?)
}

async fn describe(app: &App, client: &Client, reference: &Reference) -> Result<Value> {
    let request = client.get(format!(
        "/distribution/{}/json",
        name_path(&reference.to_string())
    ));
    let found = with_credentials(app, reference, request).value().await?;
    let mut descriptor = found["Descriptor"].clone();
    if let Some(platform) = found["Platforms"].get(0) {
        descriptor["platform"] = platform.clone();
    }
    Ok(descriptor)
}

/// One manifest as `docker manifest inspect --verbose` shows it.
fn shown(reference: &Reference, descriptor: &Value, document: Value) -> Value {
    let kind = match document["mediaType"].as_str() {
        Some("application/vnd.docker.distribution.manifest.v2+json") => "SchemaV2Manifest",
        _ => "OCIManifest",
    };
    json!({"Ref": reference.to_string(), "Descriptor": descriptor, kind: document})
}

impl Tags {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let reference = Reference::parse(&self.name)?;
        let request = app.client()?.get(path(&self.name, "tags"));
        let found = with_credentials(app, &reference, request).value().await?;
        for tag in found["Tags"].as_array().into_iter().flatten() {
            outln!("{}", tag.as_str().unwrap_or_default())?;
        }
        Ok(())
    }
}

impl Referrers {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let reference = Reference::parse(&self.name)?;
        let request = app.client()?.get(path(&self.name, "referrers"));
        print(&with_credentials(app, &reference, request).value().await?)
    }
}

impl Remove {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        for name in &self.names {
            let reference = Reference::parse(name)?;
            let request = app.client()?.delete(path(name, "manifest"));
            let deleted = with_credentials(app, &reference, request).value().await?;
            outln!("{}", deleted["Deleted"].as_str().unwrap_or_default())?;
        }
        Ok(())
    }
}
