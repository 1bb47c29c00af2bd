use anyhow::{Result, bail};
use clap::Args;
use gantry_wire::Reference;

use crate::app::App;
use crate::auth::with_credentials;
use crate::format::outln;
use crate::progress::{Target, show};

/// Flags of `pull`.
#[derive(Args, Debug)]
pub(crate) struct Pull {
    /// Download all tagged images in the repository
    #[arg(long, short)]
    pub(crate) all_tags: bool,
    /// Skip image verification (default true)
    #[arg(long = "disable-content-trust", default_value = "true", action = clap::ArgAction::Set, hide = true)]
    pub(crate) _disable_content_trust: bool,
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "string")]
    pub(crate) platform: Option<String>,
    /// Suppress verbose output
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
}

impl Pull {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let reference = named(&self.image, self.all_tags, self.quiet)?;
        let target = if self.quiet {
            Target::Nowhere
        } else {
            Target::Stdout
        };
        pull(app, &reference, self.platform.as_deref(), target).await?;
        outln!("{reference}")
    }
}

/// What is to be pulled or pushed: one image, or with `all_tags` all of a repository. Tells of the tag that is meant where
/// none is given, unless `quiet`.
pub(crate) fn named(image: &str, all_tags: bool, quiet: bool) -> Result<Reference> {
    let reference = Reference::parse(image)?;
    let name_only = reference.tag().is_none() && reference.digest().is_none();
    match (all_tags, name_only) {
        (true, false) => bail!("tag can't be used with --all-tags/-a"),
        (false, true) => {
            if !quiet {
                outln!("Using default tag: latest")?;
            }
            Ok(reference.with_default_tag())
        }
        _ => Ok(reference),
    }
}

/// Has the daemon pull an image; all its tags if `reference` names none.
pub(crate) async fn pull(
    app: &App,
    reference: &Reference,
    platform: Option<&str>,
    target: Target,
) -> Result<()> {
    let request = app
        .client()?
        .post("/images/create")
        .query("fromImage", reference.name())
        .maybe(
            "tag",
            reference
                .digest()
                .map(|digest| digest.as_str())
                .or(reference.tag()),
        )
        .maybe("platform", platform);
    let reply = with_credentials(app, reference, request).send().await?;
    show(reply, target).await
}
