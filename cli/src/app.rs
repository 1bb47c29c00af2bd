//! What every command works with: global flags, configuration, and the client.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::client::Client;
use crate::client::host::Host;
use crate::client::tls::TlsFiles;
use crate::client::version;
use crate::config::Config;
use crate::contexts::{self, Store};

/// Flags before the command.
#[derive(Args, Debug, Default)]
pub(crate) struct Globals {
    /// Location of client config files
    #[arg(long, value_name = "string")]
    pub(crate) config: Option<PathBuf>,
    /// Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context set
    /// with "docker context use")
    #[arg(long, short, value_name = "string")]
    pub(crate) context: Option<String>,
    /// Enable debug mode
    #[arg(long = "debug", short = 'D')]
    pub(crate) _debug: bool,
    /// Daemon socket to connect to
    #[arg(long, short = 'H', value_name = "list")]
    pub(crate) host: Vec<String>,
    /// Set the logging level ("debug", "info", "warn", "error", "fatal")
    #[arg(long = "log-level", short = 'l', value_name = "string")]
    pub(crate) _log_level: Option<String>,
    /// Use TLS; implied by --tlsverify
    #[arg(long)]
    pub(crate) tls: bool,
    /// Trust certs signed only by this CA
    #[arg(long, value_name = "string")]
    pub(crate) tlscacert: Option<PathBuf>,
    /// Path to TLS certificate file
    #[arg(long, value_name = "string")]
    pub(crate) tlscert: Option<PathBuf>,
    /// Path to TLS key file
    #[arg(long, value_name = "string")]
    pub(crate) tlskey: Option<PathBuf>,
    /// Use TLS and verify the remote
    #[arg(long)]
    pub(crate) tlsverify: bool,
    /// Print version information and quit
    #[arg(long, short = 'v')]
    pub(crate) version: bool,
    #[arg(trailing_var_arg = true, hide = true)]
    pub(crate) command: Vec<String>,
}

/// The program as it was called.
pub(crate) struct App {
    /// `gantry`, or `docker` when called so.
    pub(crate) program: &'static str,
    globals: Globals,
    config: OnceCell<Config>,
    client: OnceCell<Client>,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl App {
    pub(crate) fn new(program: &'static str, globals: Globals) -> Self {
        Self {
            program,
            globals,
            config: OnceCell::new(),
            client: OnceCell::new(),
        }
    }

    pub(crate) fn config(&self) -> &Config {
        self.config
            .get_or_init(|| Config::load(self.globals.config.as_deref()))
    }

    /// The daemon's client; connects on first use.
    pub(crate) fn client(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let pinned = match variable("DOCKER_API_VERSION") {
            Some(text) => match version::parse(&text) {
                Some(version) => Some(version),
                None => bail!("DOCKER_API_VERSION is not a version: {text}"),
            },
            None => None,
        };
        let (host, tls) = self.endpoint()?;
        let tls = match tls {
            Some(files) => Some(Arc::new(files.config()?)),
            None => None,
        };
        let client = Client::new(host, tls, self.config().headers(), pinned);
        Ok(self.client.get_or_init(|| client))
    }

    /// The name of the context in use, as `version` and `info` print it.
    pub(crate) fn context_name(&self) -> String {
        self.context().unwrap_or_else(|| "default".into())
    }

    /// Where the daemon is.
    pub(crate) fn host(&self) -> Result<Host> {
        Ok(self.endpoint()?.0)
    }

    fn context(&self) -> Option<String> {
        if let Some(name) = &self.globals.context {
            return Some(name.clone());
        }
        if self.named_host().is_some() {
            return None;
        }
        variable("DOCKER_CONTEXT")
            .or_else(|| self.config().text("currentContext").map(str::to_owned))
    }

    /// Where the daemon is, and the TLS to speak to it.
    fn endpoint(&self) -> Result<(Host, Option<TlsFiles>)> {
        match &self.globals.host[..] {
            [_] if self.globals.context.is_some() => {
                bail!("conflicting options: cannot specify both --host and --context")
            }
            [] | [_] => {}
            _ => bail!("specify only one -H"),
        }
        if let Some(name) = self.context().filter(|name| name != contexts::DEFAULT) {
            let (host, tls) = Store::new(self.config().directory())
                .endpoint(&name)
                .context("Failed to initialize: unable to resolve docker endpoint")?;
            return Ok((Host::parse(&host, tls.is_some())?, tls));
        }
        match self.named_host() {
            Some(host) => self.with_flags(&host),
            None => Ok((Host::default_socket(), None)),
        }
    }

    /// Where the daemon of the default context is.
    pub(crate) fn default_host(&self) -> Result<Host> {
        match self.named_host() {
            Some(host) => Ok(self.with_flags(&host)?.0),
            None => Ok(Host::default_socket()),
        }
    }

    /// The host that a flag or the environment names.
    fn named_host(&self) -> Option<String> {
        let flag = self.globals.host.first().cloned();
        flag.or_else(|| variable("GANTRY_HOST"))
            .or_else(|| variable("DOCKER_HOST"))
    }

    /// A host with the TLS that flags and environment ask for.
    fn with_flags(&self, host: &str) -> Result<(Host, Option<TlsFiles>)> {
        let globals = &self.globals;
        let verify = globals.tlsverify || variable("DOCKER_TLS_VERIFY").is_some();
        if !(globals.tls || verify) {
            return Ok((Host::parse(host, false)?, None));
        }
        let directory = variable("DOCKER_CERT_PATH")
            .map_or_else(|| self.config().directory().to_owned(), PathBuf::from);
        let file =
            |flag: &Option<PathBuf>, name| flag.clone().unwrap_or_else(|| directory.join(name));
        let files = TlsFiles {
            ca: file(&globals.tlscacert, "ca.pem"),
            cert: file(&globals.tlscert, "cert.pem"),
            key: file(&globals.tlskey, "key.pem"),
            verify,
        };
        Ok((Host::parse(host, true)?, Some(files)))
    }
}
