//! The daemon's own log, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::Config;

/// Changes the level while the daemon runs.
pub(crate) struct Handle(reload::Handle<LevelFilter, Registry>);

impl Handle {
    /// Takes over the level of a configuration.
    pub(crate) fn set(&self, config: &Config) {
        if let Err(error) = self.0.reload(level(config)) {
            tracing::warn!(%error, "the log level cannot be changed");
        }
    }
}

/// Begins to log as the configuration says.
pub(crate) fn start(config: &Config) -> Handle {
    let (filter, handle) = reload::Layer::new(level(config));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let started = match config.log_format.as_str() {
        "json" => registry.with(lines.json().flatten_event(true)).try_init(),
        _ => {
            let colours = !config.raw_logs && std::io::stderr().is_terminal();
            registry.with(lines.with_ansi(colours)).try_init()
        }
    };
    if let Err(error) = started {
        eprintln!("no log: {error}");
    }
    Handle(handle)
}

fn level(config: &Config) -> LevelFilter {
    match config.log_level.as_str() {
        _ if config.debug => LevelFilter::DEBUG,
        "debug" => LevelFilter::DEBUG,
        "warn" => LevelFilter::WARN,
        "error" | "fatal" => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    }
}
