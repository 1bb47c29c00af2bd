use std::path::Path;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use gantry_wire::{ContainerCreateReply, ContainerCreateRequest, Reference};

use super::pull::pull;
use crate::app::App;
use crate::client::Client;
use crate::client::host::Host;
use crate::error::{Exit, is_not_found, path_error};
use crate::format::outln;
use crate::opts::build::create_request;
use crate::opts::flags::ContainerFlags;
use crate::opts::mounts::parse_mount;
use crate::progress::Target;

/// Flags of `run` and `create` that are not about the container's configuration.
#[derive(Args, Debug)]
pub(crate) struct CreateFlags {
    /// Skip image verification (default true)
    #[arg(long = "disable-content-trust", default_value = "true", action = clap::ArgAction::Set, hide = true)]
    pub(crate) _disable_content_trust: bool,
    /// Assign a name to the container
    #[arg(long, value_name = "string")]
    pub(crate) name: Option<String>,
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "string")]
    pub(crate) platform: Option<String>,
    /// Pull image before running ("always", "missing", "never") (default "missing")
    #[arg(long, value_name = "string")]
    pub(crate) pull: Option<String>,
    /// Suppress the pull output
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Bind mount Docker API socket and required auth
    #[arg(long)]
    pub(crate) use_api_socket: bool,
}

/// Flags of `create`.
#[derive(Args, Debug)]
pub(crate) struct Create {
    #[command(flatten)]
    container: ContainerFlags,
    #[command(flatten)]
    create: CreateFlags,
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE")]
    command: Vec<String>,
}

impl Create {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let (image, command) = self
            .command
            .split_first()
            .map_or(("", &[][..]), |(image, rest)| (image.as_str(), rest));
        let body = create_request(&self.container, image, command).and_then(|mut body| {
            self.create.complete(app, &mut body)?;
            Ok(body)
        });
        let body = body.map_err(|error| misused(app.program, "create", &error))?;
        let cidfile = self.container.cidfile.as_deref();
        outln!("{}", create(app, &self.create, cidfile, &body).await?)
    }
}

impl CreateFlags {
    /// Adds what depends on the user's configuration rather than on the command line.
    pub(crate) fn complete(&self, app: &App, body: &mut ContainerCreateRequest) -> Result<()> {
        if !matches!(
            self.pull.as_deref(),
            None | Some("always" | "missing" | "never" | "")
        ) {
            bail!(
                "invalid pull option: '{}': must be one of \"always\", \"missing\" or \"never\"",
                self.pull.as_deref().unwrap_or_default()
            );
        }
        if app.config().member("proxies").is_some() {
            let host = app.client()?.host().to_string();
            for (name, value) in app.config().proxy_environment(&host) {
                let is_set = |entry: &String| entry.split('=').next() == Some(&name);
                let env = body.config.env.get_or_insert_default();
                if !env.iter().any(is_set) {
                    env.push(format!("{name}={value}"));
                }
            }
        }
        if self.use_api_socket {
            let Host::Unix(socket) = app.client()?.host() else {
                bail!(
                    "the API socket can be mounted only where the daemon listens on a Unix socket"
                );
            };
            let mount = parse_mount(&format!(
                "type=bind,source={},target=/var/run/docker.sock",
                socket.display()
            ));
            body.host_config
                .mounts
                .get_or_insert_default()
                .push(mount.map_err(|error| anyhow!(error))?);
        }
        Ok(())
    }
}

/// Creates a container, pulling its image if that is wanted, and returns its ID.
pub(crate) async fn create(
    app: &App,
    flags: &CreateFlags,
    cidfile: Option<&str>,
    body: &ContainerCreateRequest,
) -> Result<String> {
    let cidfile = cidfile.filter(|path| !path.is_empty()).map(Path::new);
    if let Some(path) = cidfile
        && path.exists()
    {
        bail!(
            "container ID file found, make sure the other container isn't running or delete {}",
            path.display()
        );
    }
    let image = &body.config.image;
    let reference = if is_image_id(image) {
        None
    } else {
        Some(Reference::parse(image)?.with_default_tag())
    };
    let target = if flags.quiet {
        Target::Nowhere
    } else {
        Target::Stderr
    };
    let policy = flags.pull.as_deref().unwrap_or("missing");
    if let ("always", Some(reference)) = (policy, &reference) {
        pull(app, reference, flags.platform.as_deref(), target).await?;
    }
    let client = app.client()?;
    let created = match request(client, flags, body).await {
        Err(error) if is_not_found(&error) && !matches!(policy, "never" | "always") => {
            let Some(reference) = &reference else {
                return Err(error);
            };
            if !flags.quiet {
                eprintln!("Unable to find image '{}' locally", reference.familiar());
            }
            pull(app, reference, flags.platform.as_deref(), target).await?;
            request(client, flags, body).await?
        }
        created => created?,
    };
    for warning in &created.warnings {
        eprintln!("WARNING: {warning}");
    }
    if let Some(path) = cidfile {
        std::fs::write(path, &created.id).map_err(|error| {
            path_error(
                "failed to write the container ID to the file:",
                path,
                &error,
            )
        })?;
    }
    Ok(created.id)
}

/// An ID is never pulled.
fn is_image_id(image: &str) -> bool {
    let digits = image.strip_prefix("sha256:").unwrap_or(image);
    digits.len() == 64
        && digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

async fn request(
    client: &Client,
    flags: &CreateFlags,
    body: &ContainerCreateRequest,
) -> Result<ContainerCreateReply> {
    let request = client
        .post("/containers/create")
        .maybe("name", flags.name.as_deref())
        .maybe("platform", flags.platform.as_deref())
        .json(body)?;
    Ok(request.fetch().await?)
}

/// How `run` and `create` end when their flags make no sense.
pub(crate) fn misused(program: &str, command: &str, error: &anyhow::Error) -> anyhow::Error {
    Exit::with(125, with_help(program, command, error))
}

/// How `run` ends when there was no container to run: with the shell's codes for a command that is not there or
/// cannot be executed, else 125.
pub(crate) fn failure(program: &str, command: &str, error: &anyhow::Error) -> anyhow::Error {
    let text = with_help(program, command, error);
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let code = if has(&["executable file not found", "no such file or directory"]) {
        127
    } else if has(&["permission denied", "is a directory"]) {
        126
    } else {
        125
    };
    Exit::with(code, text)
}

fn with_help(program: &str, command: &str, error: &anyhow::Error) -> String {
    format!("{program}: {error:#}\n\nRun '{program} {command} --help' for more information")
}
