//! SIGHUP: the configuration file is read again, and what can change without a restart is taken over.

use std::collections::BTreeMap;

use crate::boot::Daemon;
use crate::config::Config;
use crate::flags::Flags;
use crate::options::{Effect, OPTIONS};
use crate::{logging, translate};

/// Returns the configuration that is in force from now on: the old one when the new one is wrong.
pub(crate) fn reload(daemon: &Daemon, flags: &Flags, old: Config, log: &logging::Handle) -> Config {
    let new = match Config::load(flags) {
        Ok(new) => new,
        Err(error) => {
            tracing::error!("{error}");
            return old;
        }
    };
    let merged = merge(old, new);
    match take_over(daemon, &merged) {
        Ok(()) => tracing::info!("configuration reloaded"),
        Err(error) => tracing::error!("configuration not taken over: {error:#}"),
    }
    log.set(&merged);
    merged
}

/// Everything is checked before anything is changed.
fn take_over(daemon: &Daemon, config: &Config) -> anyhow::Result<()> {
    let engine = translate::engine(config, &daemon.place)?;
    let runtimes = translate::runtimes(config)?;
    let drivers = translate::drivers(config)?;
    let images = translate::images(config)?;
    daemon.runtime.set_runtimes(runtimes);
    daemon.images.reconfigure(images);
    daemon.engine.reload(engine, attributes(config));
    daemon.load_plugins(&drivers);
    Ok(())
}

/// Takes over what may change while the daemon runs; the rest keeps its old value until the next start.
fn merge(old: Config, new: Config) -> Config {
    Config {
        debug: new.debug,
        labels: new.labels,
        features: new.features,
        default_runtime: new.default_runtime,
        runtimes: new.runtimes,
        default_cgroupns_mode: new.default_cgroupns_mode,
        default_ipc_mode: new.default_ipc_mode,
        default_shm_size: new.default_shm_size,
        default_ulimits: new.default_ulimits,
        default_stop_timeout: new.default_stop_timeout,
        shutdown_timeout: new.shutdown_timeout,
        live_restore: new.live_restore,
        insecure_registries: new.insecure_registries,
        registry_mirrors: new.registry_mirrors,
        registry_config_dirs: new.registry_config_dirs,
        max_concurrent_downloads: new.max_concurrent_downloads,
        max_concurrent_uploads: new.max_concurrent_uploads,
        max_download_attempts: new.max_download_attempts,
        drivers: new.drivers,
        ..old
    }
}

/// What the event says: the reloadable keys and their values.
fn attributes(config: &Config) -> BTreeMap<String, String> {
    let shown = |key: &str| match key {
        "debug" => config.debug.to_string(),
        "labels" => format!("{:?}", config.labels),
        "default-runtime" => config.default_runtime.clone(),
        "default-ipc-mode" => config.default_ipc_mode.clone(),
        "live-restore" => (config.live_restore != Some(false)).to_string(),
        "shutdown-timeout" => config.shutdown_timeout.to_string(),
        "max-concurrent-downloads" => config.max_concurrent_downloads.to_string(),
        "max-concurrent-uploads" => config.max_concurrent_uploads.to_string(),
        "max-download-attempts" => config.max_download_attempts.to_string(),
        "insecure-registries" => format!("{:?}", config.insecure_registries),
        "registry-mirrors" => format!("{:?}", config.registry_mirrors),
        _ => String::new(),
    };
    OPTIONS
        .iter()
        .filter(|option| option.effect == Effect::Reload)
        .map(|option| (option.key.to_owned(), shown(option.key)))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}
