use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Args;

use super::pull::named;
use crate::app::App;
use crate::auth::with_credentials;
use crate::format::outln;
use crate::progress::{Target, show};

/// Flags of `push`.
#[derive(Args, Debug)]
pub(crate) struct Push {
    /// Push all tags of an image to the repository
    #[arg(long, short)]
    pub(crate) all_tags: bool,
    /// Skip image signing (default true)
    #[arg(long = "disable-content-trust", default_value = "true", action = clap::ArgAction::Set, hide = true)]
    pub(crate) _disable_content_trust: bool,
    /// Push a platform-specific manifest as a single-platform image to the registry.
    #[arg(long, value_name = "string")]
    pub(crate) platform: Option<String>,
    /// Suppress verbose output
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[arg(value_name = "NAME[:TAG]")]
    image: String,
}

impl Push {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let reference = named(&self.image, self.all_tags, self.quiet)?;
        let platform = self.platform.as_deref().map(platform_json).transpose()?;
        // Slashes in the name are part of the path here.
        let request = app
            .client()?
            .post(format!("/images/{}/push", reference.name()))
            .maybe("tag", reference.tag())
            .maybe("platform", platform);
        let reply = with_credentials(app, &reference, request).send().await?;
        let target = if self.quiet {
            Target::Nowhere
        } else {
            Target::Stdout
        };
        show(reply, target).await?;
        if self.quiet {
            outln!("{}", reference)?;
        }
        Ok(())
    }
}

/// `os[/arch[/variant]]` in the API's form.
pub(crate) fn platform_json(text: &str) -> Result<String> {
    let parts: Vec<&str> = text.split('/').collect();
    if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
        bail!("invalid platform: {text:?} is an invalid OS component");
    }
    let members: BTreeMap<&str, &str> = ["os", "architecture", "variant"]
        .into_iter()
        .zip(parts)
        .collect();
    Ok(serde_json::json!(members).to_string())
}
