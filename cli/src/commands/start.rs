use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use crate::app::App;
use crate::client::hijack::{Ended, Wanted};
use crate::client::{Client, segment};
use crate::format::outln;
use crate::session::{Session, Signals, begin_wait, detach_keys, ends_as, forward_signals};
use crate::terminal;

/// Flags of `start`.
#[derive(Args, Debug)]
pub(crate) struct Start {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(long, short)]
    pub(crate) attach: bool,
    /// Restore from this checkpoint
    #[arg(long, value_name = "string")]
    pub(crate) checkpoint: Option<String>,
    /// Use a custom checkpoint storage directory
    #[arg(long, value_name = "string")]
    pub(crate) checkpoint_dir: Option<String>,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    pub(crate) detach_keys: Option<String>,
    /// Attach container's STDIN
    #[arg(long, short)]
    pub(crate) interactive: bool,
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Start {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        if !self.attach && !self.interactive {
            return self.start_all(client).await;
        }
        let [name] = &self.containers[..] else {
            bail!("you cannot start and attach multiple containers at once")
        };
        let container = client
            .get(format!("/containers/{}/json", segment(name)))
            .value()
            .await?;
        let id = container["Id"].as_str().unwrap_or(name).to_owned();
        if container["Config"]["Tty"] == true {
            return self.attached(app, client, &id, &container).await;
        }
        tokio::select! {
            biased;
            result = self.attached(app, client, &id, &container) => result,
            never = forward_signals(client, &id) => match never? {},
        }
    }

    fn request<'c>(&self, client: &'c Client, id: &str) -> crate::client::Request<'c> {
        client
            .post(format!("/containers/{}/start", segment(id)))
            .maybe("checkpoint", self.checkpoint.as_ref())
            .maybe("checkpoint-dir", self.checkpoint_dir.as_ref())
    }

    async fn start_all(&self, client: &Client) -> Result<()> {
        let mut failed = Vec::new();
        for name in &self.containers {
            match self.request(client, name).done().await {
                Ok(()) => outln!("{name}")?,
                Err(error) => {
                    eprintln!("{error}");
                    failed.push(name.as_str());
                }
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        bail!("Error: failed to start containers: {}", failed.join(", "));
    }

    async fn attached(
        &self,
        app: &App,
        client: &Client,
        id: &str,
        container: &Value,
    ) -> Result<()> {
        let tty = container["Config"]["Tty"] == true;
        let stdin = self.interactive && container["Config"]["OpenStdin"] == true;
        terminal::check_tty(stdin, tty)?;
        let keys = detach_keys(app, self.detach_keys.as_deref());
        let path = format!("/containers/{}", segment(id));
        let condition = if container["HostConfig"]["AutoRemove"] == true {
            "removed"
        } else {
            "next-exit"
        };
        let wanted = Wanted {
            stdin,
            stdout: true,
            stderr: true,
            tty,
        };
        let attach = Session::attach(client, &path, wanted, keys, Signals::Fatal);
        let (session, waiting) = tokio::join!(attach, begin_wait(client, id, condition));
        let session = session?;
        if let Err(error) = self.request(client, id).done().await {
            session.abandon();
            return Err(error.into());
        }
        if session.finish(client, tty.then_some(&path)).await? == Ended::Detached {
            return Ok(());
        }
        ends_as(waiting?).await
    }
}
