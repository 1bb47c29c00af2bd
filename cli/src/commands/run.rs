use anyhow::{Result, bail};
use clap::Args;
use gantry_wire::ContainerCreateRequest;

use super::create::{CreateFlags, create, failure, misused};
use crate::app::App;
use crate::client::hijack::{Ended, Wanted};
use crate::client::{Client, segment};
use crate::format::outln;
use crate::opts::build::create_request;
use crate::opts::flags::ContainerFlags;
use crate::session::{
    Session, Signals, begin_wait, detach_keys, ends_as, exit_code, forward_signals,
};
use crate::terminal;

/// Flags of `run`.
#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    container: ContainerFlags,
    #[command(flatten)]
    create: CreateFlags,
    /// Run container in background and print container ID
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    pub(crate) detach_keys: Option<String>,
    /// Proxy received signals to the process (default true)
    #[arg(long, default_value = "true", action = clap::ArgAction::Set, hide_default_value = true)]
    pub(crate) sig_proxy: bool,
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE")]
    command: Vec<String>,
}

impl Run {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        if self.detach && !self.container.attach.is_empty() {
            bail!("conflicting options: cannot specify both --attach and --detach");
        }
        let fail = |error: anyhow::Error| failure(app.program, "run", &error);
        let body = self
            .body(app)
            .map_err(|error| misused(app.program, "run", &error))?;
        terminal::check_tty(body.config.attach_stdin, body.config.tty)?;
        let client = app.client()?;
        let id = create(app, &self.create, self.container.cidfile.as_deref(), &body)
            .await
            .map_err(fail)?;
        if !self.sig_proxy || self.detach {
            return self.start(app, client, &id, &body).await;
        }
        tokio::select! {
            biased;
            result = self.start(app, client, &id, &body) => result,
            never = forward_signals(client, &id) => match never? {},
        }
    }

    fn body(&self, app: &App) -> Result<ContainerCreateRequest> {
        let (image, command) = self
            .command
            .split_first()
            .map_or(("", &[][..]), |(image, rest)| (image.as_str(), rest));
        let mut body = create_request(&self.container, image, command)?;
        self.create.complete(app, &mut body)?;
        let config = &mut body.config;
        if self.detach {
            (
                config.attach_stdin,
                config.attach_stdout,
                config.attach_stderr,
            ) = (false, false, false);
            config.stdin_once = false;
        } else {
            if let (true, Some((rows, columns))) = (config.tty, terminal::size()) {
                body.host_config.console_size = [rows.into(), columns.into()];
            }
        }
        Ok(body)
    }

    /// Attaches and begins to wait before the start, so that nothing of a short life is missed.
    async fn start(
        &self,
        app: &App,
        client: &Client,
        id: &str,
        body: &ContainerCreateRequest,
    ) -> Result<()> {
        let config = &body.config;
        if self.detach {
            outln!("{id}")?;
        }
        let path = format!("/containers/{}", segment(id));
        let wait = async {
            if self.detach {
                return Ok(None);
            }
            let condition = if body.host_config.auto_remove {
                "removed"
            } else {
                "next-exit"
            };
            begin_wait(client, id, condition)
                .await
                .map(Some)
                .map_err(anyhow::Error::from)
        };
        let (session, waiting) = tokio::join!(self.attach(app, client, &path, body), wait);
        let (session, waiting) = (session?, waiting?);
        if let Err(error) = client.post(format!("{path}/start")).done().await {
            if let Some(session) = session {
                session.abandon();
            }
            if let (true, Some(waiting)) = (body.host_config.auto_remove, waiting) {
                // The daemon removes what did not start; it has no exit code of interest.
                exit_code(waiting).await;
            }
            return Err(failure(app.program, "run", &error.into()));
        }
        if let Some(session) = session {
            let resize = config.tty.then_some(path.as_str());
            if session.finish(client, resize).await? == Ended::Detached {
                return Ok(());
            }
        }
        match waiting {
            Some(waiting) => ends_as(waiting).await,
            None => Ok(()),
        }
    }

    async fn attach(
        &self,
        app: &App,
        client: &Client,
        path: &str,
        body: &ContainerCreateRequest,
    ) -> Result<Option<Session>> {
        let config = &body.config;
        let wanted = Wanted {
            stdin: config.attach_stdin,
            stdout: config.attach_stdout,
            stderr: config.attach_stderr,
            tty: config.tty,
        };
        if !(wanted.stdin || wanted.stdout || wanted.stderr) {
            return Ok(None);
        }
        let keys = detach_keys(app, self.detach_keys.as_deref());
        let signals = if self.sig_proxy {
            Signals::Forwarded
        } else {
            Signals::Fatal
        };
        let session = Session::attach(client, path, wanted, keys, signals).await?;
        Ok(Some(session))
    }
}
