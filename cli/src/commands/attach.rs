use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use crate::app::App;
use crate::client::hijack::{Ended, Wanted};
use crate::client::{Client, segment};
use crate::session::{self, Session, Signals, begin_wait, detach_keys, ends_as, forward_signals};
use crate::terminal;

/// Flags of `attach`.
#[derive(Args, Debug)]
pub(crate) struct Attach {
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    pub(crate) detach_keys: Option<String>,
    /// Do not attach STDIN
    #[arg(long)]
    pub(crate) no_stdin: bool,
    /// Proxy all received signals to the process (default true)
    #[arg(long, default_value = "true", action = clap::ArgAction::Set, hide_default_value = true)]
    pub(crate) sig_proxy: bool,
    container: String,
}

impl Attach {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        let path = format!("/containers/{}", segment(&self.container));
        let container = client.get(format!("{path}/json")).value().await?;
        check_attachable(&container)?;
        let tty = container["Config"]["Tty"] == true;
        if self.sig_proxy && !tty {
            tokio::select! {
                biased;
                result = self.stream(app, client, &path, &container) => result,
                never = forward_signals(client, &self.container) => match never? {},
            }
        } else {
            self.stream(app, client, &path, &container).await
        }
    }

    async fn stream(
        &self,
        app: &App,
        client: &Client,
        path: &str,
        container: &Value,
    ) -> Result<()> {
        let tty = container["Config"]["Tty"] == true;
        let stdin = !self.no_stdin && container["Config"]["OpenStdin"] == true;
        terminal::check_tty(stdin, tty)?;
        let keys = detach_keys(app, self.detach_keys.as_deref());
        let waiting = begin_wait(client, &self.container, "").await?;
        let wanted = Wanted {
            stdin,
            stdout: true,
            stderr: true,
            tty,
        };
        let session = Session::attach(client, path, wanted, keys, Signals::Fatal).await?;
        if tty && terminal::stdout_is_terminal() {
            // A change of size makes the program draw its screen for us.
            let _ = session::resize(client, path, 1).await;
        }
        if session.finish(client, tty.then_some(path)).await? == Ended::Detached {
            bail!("read escape sequence");
        }
        ends_as(waiting).await
    }
}

fn check_attachable(container: &Value) -> Result<()> {
    let state = &container["State"];
    if state["Running"] != true {
        bail!("You cannot attach to a stopped container, start it first");
    }
    if state["Paused"] == true {
        bail!("You cannot attach to a paused container, unpause it first");
    }
    if state["Restarting"] == true {
        bail!("You cannot attach to a restarting container, wait until it is running");
    }
    Ok(())
}
