use anyhow::Result;
use clap::Args;
use gantry_wire::Reference;

use super::load::upload;
use crate::app::App;
use crate::client::Body;
use crate::progress::{Target, show};

/// Flags of `import`.
#[derive(Args, Debug)]
pub(crate) struct Import {
    /// Apply Dockerfile instruction to the created image
    #[arg(long, short, value_name = "list")]
    pub(crate) change: Vec<String>,
    /// Set commit message for imported image
    #[arg(long, short, value_name = "string")]
    pub(crate) message: Option<String>,
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "string")]
    pub(crate) platform: Option<String>,
    #[arg(value_name = "file|URL|-")]
    source: String,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

impl Import {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let reference = match self.reference.as_deref() {
            Some(text) if !text.is_empty() => {
                // What to call it is checked before anything is uploaded.
                Reference::parse(text)?;
                text
            }
            _ => "",
        };
        let is_url = ["http://", "https://", "ftp://"]
            .iter()
            .any(|scheme| self.source.starts_with(scheme));
        let (source, body) = match self.source.as_str() {
            url if is_url => (url, Body::Empty),
            path => ("-", upload((path != "-").then_some(path))?),
        };
        let mut request = app
            .client()?
            .post("/images/create")
            .query("fromSrc", source)
            .maybe("repo", Some(reference))
            .maybe("message", self.message.as_ref())
            .maybe("platform", self.platform.as_deref().map(str::to_lowercase));
        for change in &self.change {
            request = request.query("changes", change);
        }
        let reply = request.body(body, "application/x-tar").send().await?;
        show(reply, Target::Stdout).await
    }
}
