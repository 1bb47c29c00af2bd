use std::io::{BufRead, IsTerminal, Read, Write};

use anyhow::{Result, bail};
use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::json;

use crate::app::App;
use crate::auth;
use crate::format::outln;

/// Flags of `login`.
#[derive(Args, Debug)]
pub(crate) struct Login {
    /// Password or Personal Access Token (PAT)
    #[arg(long, short, value_name = "string")]
    pub(crate) password: Option<String>,
    /// Take the Password or Personal Access Token (PAT) from stdin
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Username
    #[arg(long, short, value_name = "string")]
    pub(crate) username: Option<String>,
    server: Option<String>,
}

/// The key under which credentials for a server, as the user names it, are kept.
pub(crate) fn server_key(server: Option<&str>) -> String {
    match server.filter(|server| !server.is_empty()) {
        None | Some("docker.io" | "index.docker.io" | "registry-1.docker.io" | auth::HUB_KEY) => {
            auth::HUB_KEY.into()
        }
        Some(server) => {
            let bare = server
                .strip_prefix("https://")
                .or_else(|| server.strip_prefix("http://"))
                .unwrap_or(server);
            bare.split('/').next().unwrap_or(bare).to_owned()
        }
    }
}

impl Login {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        if self.password.is_some() {
            eprintln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
            if self.password_stdin {
                bail!("conflicting options: cannot specify both --password and --password-stdin");
            }
        }
        if self.password_stdin && self.username.as_deref().unwrap_or_default().is_empty() {
            bail!("the --password-stdin option requires --username to be set");
        }
        let key = server_key(self.server.as_deref());
        let (username, secret) = self.credentials(app, &key)?;
        let body = json!({"username": username, "password": secret, "serveraddress": key});
        let answer = app.client()?.post("/auth").json(&body)?.value().await?;
        let token = answer["IdentityToken"]
            .as_str()
            .filter(|token| !token.is_empty());
        if auth::stored_in_plain(app.config(), &key) {
            eprintln!(
                "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n",
                app.config().path().display()
            );
        }
        auth::store(
            app.config(),
            &key,
            &username,
            token.unwrap_or(&secret),
            token.is_some(),
        )?;
        outln!(
            "{}",
            answer["Status"]
                .as_str()
                .filter(|status| !status.is_empty())
                .unwrap_or("Login Succeeded")
        )
    }

    /// From flags and standard input, from what was stored before, or else from the keyboard.
    fn credentials(&self, app: &App, key: &str) -> Result<(String, String)> {
        let username = self.username.clone().unwrap_or_default();
        if self.password_stdin {
            let mut secret = String::new();
            std::io::stdin().read_to_string(&mut secret)?;
            return Ok((username, secret.trim_end_matches(['\n', '\r']).to_owned()));
        }
        let password = self.password.clone().unwrap_or_default();
        if !username.is_empty() && !password.is_empty() {
            return Ok((username, password));
        }
        let stored = auth::lookup(app.config(), key);
        if let (true, Some(name), Some(secret)) = (
            username.is_empty() && password.is_empty(),
            stored["username"].as_str(),
            stored["password"].as_str(),
        ) {
            eprintln!("Authenticating with existing credentials... [Username: {name}]");
            return Ok((name.to_owned(), secret.to_owned()));
        }
        if !std::io::stdin().is_terminal() {
            bail!("cannot perform an interactive login from a non-TTY device");
        }
        let username = if username.is_empty() {
            prompt("Username: ")?
        } else {
            username
        };
        if username.is_empty() {
            bail!("username is required");
        }
        let password = if password.is_empty() {
            hidden_prompt("Password: ")?
        } else {
            password
        };
        if password.is_empty() {
            bail!("password is required");
        }
        Ok((username, password))
    }
}

fn prompt(text: &str) -> Result<String> {
    eprint!("{text}");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// [`prompt`] without an echo of what is typed.
fn hidden_prompt(text: &str) -> Result<String> {
    let stdin = rustix::stdio::stdin();
    let saved = tcgetattr(stdin)?;
    let mut silent = saved.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(stdin, OptionalActions::Now, &silent)?;
    let answer = prompt(text);
    tcsetattr(stdin, OptionalActions::Now, &saved)?;
    eprintln!();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_kept_under_their_host() {
        assert_eq!(server_key(None), auth::HUB_KEY);
        assert_eq!(server_key(Some("docker.io")), auth::HUB_KEY);
        assert_eq!(
            server_key(Some("https://reg.example:5000/v2/")),
            "reg.example:5000"
        );
    }
}
