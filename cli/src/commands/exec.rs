use anyhow::{Result, anyhow, bail};
use clap::Args;
use gantry_wire::spec::StrSlice;
use gantry_wire::{ExecCreateRequest, ExecInspect, ExecStartRequest, IdReply};

use crate::app::App;
use crate::client::hijack::{Ended, Wanted};
use crate::client::segment;
use crate::error::Exit;
use crate::opts::values::{environment, list, parse_env};
use crate::session::{Session, Signals, detach_keys};
use crate::terminal;

/// Flags of `exec`.
#[derive(Args, Debug)]
pub(crate) struct Exec {
    /// Detached mode: run command in the background
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    pub(crate) detach_keys: Option<String>,
    /// Set environment variables
    #[arg(long, short, value_name = "list", value_parser = parse_env)]
    pub(crate) env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "list")]
    pub(crate) env_file: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(long, short)]
    pub(crate) interactive: bool,
    /// Give extended privileges to the command
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(long, short, value_name = "string")]
    pub(crate) user: Option<String>,
    /// Working directory inside the container
    #[arg(long, short, value_name = "string")]
    pub(crate) workdir: Option<String>,
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_name = "CONTAINER")]
    command: Vec<String>,
}

impl Exec {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        terminal::check_tty(self.interactive && !self.detach, self.tty)?;
        let client = app.client()?;
        let (container, command) = self
            .command
            .split_first()
            .ok_or_else(|| anyhow!("no container specified"))?;
        let keys = detach_keys(app, self.detach_keys.as_deref());
        let attached = !self.detach;
        let console_size = terminal::size()
            .filter(|_| attached && self.tty)
            .map(|(rows, columns)| [rows.into(), columns.into()]);
        let body = ExecCreateRequest {
            user: self.user.unwrap_or_default(),
            privileged: self.privileged,
            tty: self.tty,
            console_size,
            attach_stdin: attached && self.interactive,
            attach_stderr: attached,
            attach_stdout: attached,
            detach_keys: keys.unwrap_or_default().to_owned(),
            env: list(&environment(&self.env_file, &self.env)?),
            working_dir: self.workdir.unwrap_or_default(),
            cmd: StrSlice(command.to_vec()),
        };
        let start = ExecStartRequest {
            detach: self.detach,
            tty: self.tty,
            console_size,
        };
        let path = format!("/containers/{}/exec", segment(container));
        let created: IdReply = client.post(path).json(&body)?.fetch().await?;
        if created.id.is_empty() {
            bail!("exec ID empty");
        }
        let path = format!("/exec/{}", segment(&created.id));
        let start = client.post(format!("{path}/start")).json(&start)?;
        if self.detach {
            return Ok(start.done().await?);
        }
        let wanted = Wanted {
            stdin: self.interactive,
            stdout: true,
            stderr: true,
            tty: self.tty,
        };
        let session = Session::begin(start.hijack().await?, wanted, keys, Signals::Fatal)?;
        if session.finish(client, self.tty.then_some(&path)).await? == Ended::Detached {
            return Ok(());
        }
        let ended: ExecInspect = client.get(format!("{path}/json")).fetch().await?;
        match ended.exit_code.unwrap_or(0) {
            0 => Ok(()),
            code => Err(Exit::silent(code as i32)),
        }
    }
}
