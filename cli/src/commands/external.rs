//! Commands that are programs of their own: Docker's CLI plugins, `docker compose` and the like.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::app::App;

/// Where packages put plugins.
const SYSTEM: &[&str] = &[
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];

/// The program that is the command `name`, if one is installed; the user's own come first.
pub(crate) fn find(app: &App, name: &str) -> Option<PathBuf> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.is_empty() || !name.chars().all(plain) {
        return None;
    }
    let config = app.config();
    let own = config.directory().join("cli-plugins");
    let extra = config
        .list("cliPluginsExtraDirs")
        .into_iter()
        .filter_map(Value::as_str)
        .map(PathBuf::from);
    let directories = std::iter::once(own)
        .chain(extra)
        .chain(SYSTEM.iter().map(PathBuf::from));
    let mut programs = directories.map(|directory| directory.join(format!("docker-{name}")));
    programs.find(|program| program.is_file())
}

/// Becomes the plugin: it is called with the whole command line, and told our daemon by its environment.
pub(crate) fn become_plugin(app: &App, program: &PathBuf, words: &[String]) -> Result<()> {
    let ourselves = std::env::current_exe().unwrap_or_default();
    let mut command = Command::new(program);
    command
        .args(words)
        .env("DOCKER_CONFIG", app.config().directory())
        .env("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND", ourselves);
    if app.context_name() == "default" {
        command.env("DOCKER_HOST", app.host()?.to_string());
    }
    let error = command.exec();
    bail!("{}: {}", program.display(), crate::error::os_text(&error))
}
