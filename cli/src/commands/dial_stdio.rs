use anyhow::Result;
use clap::Args;

use crate::app::App;
use crate::client::hijack::{Hijacked, Wanted};

/// `system dial-stdio`: the far end of an `ssh://` host.
#[derive(Args, Debug)]
pub(crate) struct DialStdio {}

impl DialStdio {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let socket = Hijacked::from_stream(app.client()?.connect().await?)?;
        let raw = Wanted {
            stdin: true,
            stdout: true,
            stderr: false,
            tty: true,
        };
        socket.start(raw, None)?.finished().await?;
        Ok(())
    }
}
