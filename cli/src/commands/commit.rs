use anyhow::Result;
use clap::Args;
use gantry_wire::Reference;
use serde_json::json;

use crate::app::App;
use crate::format::outln;

/// Flags of `commit`.
#[derive(Args, Debug)]
pub(crate) struct Commit {
    /// Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
    #[arg(long, short, value_name = "string")]
    pub(crate) author: Option<String>,
    /// Apply Dockerfile instruction to the created image
    #[arg(long, short, value_name = "list")]
    pub(crate) change: Vec<String>,
    /// Commit message
    #[arg(long, short, value_name = "string")]
    pub(crate) message: Option<String>,
    /// Pause container during commit (default true)
    #[arg(long, short, default_value = "true", action = clap::ArgAction::Set, hide_default_value = true)]
    pub(crate) pause: bool,
    container: String,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

impl Commit {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let reference = match self.reference.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => Some(Reference::parse(text)?.with_default_tag()),
            None => None,
        };
        let mut request = app
            .client()?
            .post("/commit")
            .query("container", &self.container)
            .maybe("repo", reference.as_ref().map(Reference::name))
            .maybe("tag", reference.as_ref().and_then(Reference::tag))
            .maybe("comment", self.message.as_ref())
            .maybe("author", self.author.as_ref());
        for change in &self.change {
            request = request.query("changes", change);
        }
        if !self.pause {
            request = request.query("pause", "0");
        }
        let image = request.json(&json!({}))?.value().await?;
        outln!("{}", image["Id"].as_str().unwrap_or_default())
    }
}
