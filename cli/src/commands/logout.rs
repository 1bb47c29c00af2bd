use anyhow::Result;
use clap::Args;

use super::login::server_key;
use crate::app::App;
use crate::auth;
use crate::format::outln;

/// `logout`.
#[derive(Args, Debug)]
pub(crate) struct Logout {
    server: Option<String>,
}

impl Logout {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let key = server_key(self.server.as_deref());
        outln!("Removing login credentials for {key}")?;
        auth::erase(app.config(), &key)?;
        Ok(())
    }
}
