//! gantryd, the Gantry daemon: reads flags and configuration, puts the engine together, listens.
//!
//! Everything it makes outside its two roots carries a tag derived from the data-root, so that daemons on different roots
//! live side by side; one lock keeps two off the same root. It holds no container: when it dies, they go on.
//!
//! The data-root, which survives reboots:
//! ```text
//! lock               flock of the running daemon, and its process ID
//! engine-id          identifies the engine to clients
//! state.redb         all durable records, versioned (core/store)
//! content/           blobs, as an OCI image layout (core/content)
//! containers/<id>/   generated files and the log of each container (core/engine)
//! network/networks/  networks (core/network)
//! <kind>/<driver>/   each driver's own
//! ```
//! The exec-root, which may vanish with a reboot:
//! ```text
//! state/             newest state of each container (core/engine)
//! containers/<id>/   monitor socket and exit record (core/runtime)
//! volumes/<id>/      mounts of volumes that are file systems (core/engine)
//! network/           sandboxes, netd's socket (core/network)
//! plugins/           copies that plugins are loaded from (plugins/host)
//! <kind>/<driver>/   each driver's own
//! ```

mod boot;
mod config;
mod file;
mod flags;
mod fsck;
mod listen;
mod lock;
mod logging;
mod options;
mod paths;
mod pidfile;
mod registries;
mod reload;
mod subid;
mod supervise;
mod translate;
mod values;

use std::process::ExitCode;

use anyhow::Context;

use crate::config::Config;
use crate::flags::Flags;

/// Threads that run the event loop. Work that blocks has its own, as needed.
const WORKERS: usize = 2;
/// At most so many threads for work that blocks.
const BLOCKING: usize = 64;

fn main() -> ExitCode {
    gantry_sys::heap::return_freed_memory();
    let flags = flags::read(&flags::command().get_matches());
    let config = match Config::load(&flags) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    if flags.validate {
        return validate(&config);
    }
    if let Some(mode) = flags.fsck {
        return fsck::run(mode, &flags, &config).unwrap_or_else(|error| {
            eprintln!("cannot check {}: {error:#}", config.data_root.display());
            ExitCode::FAILURE
        });
    }
    match run(flags, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed to start daemon: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `--validate`: what [`Config::load`] does not check is checked as a start would.
fn validate(config: &Config) -> ExitCode {
    match translate::drivers(config) {
        Ok(_) => {
            eprintln!("configuration OK");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags, config: Config) -> anyhow::Result<()> {
    let log = logging::start(&config);
    let told = config::file_keys(&flags);
    for notice in config::notices(flags.given.keys().chain(&told)) {
        tracing::info!("{notice}");
    }
    // New files are for the daemon's user unless they say otherwise.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if let Err(error) = paths::raise_file_limit() {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    if config.oom_score_adjust != 0 {
        std::fs::write(
            "/proc/self/oom_score_adj",
            config.oom_score_adjust.to_string(),
        )
        .context("oom-score-adjust")?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .thread_keep_alive(std::time::Duration::from_secs(5))
        .thread_name("gantryd")
        .enable_all()
        .build()
        .context("start the event loop")?;
    let outcome = runtime.block_on(serve(flags, config, log));
    // Work that still blocks (a pull, say) is not waited for: it can be gone on with.
    runtime.shutdown_background();
    outcome
}

async fn serve(flags: Flags, config: Config, log: logging::Handle) -> anyhow::Result<()> {
    let boot::Booted {
        daemon,
        listeners,
        guards,
    } = boot::boot(&flags, &config).await?;
    let engine = daemon.engine.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let supervisor = tokio::spawn(supervise::run(daemon, flags, config, log, stop));
    gantry_api::serve(listeners, engine, async {
        // An error means that the supervisor is gone: then there is no reason to go on either.
        let _ = stopped.await;
    })
    .await;
    let outcome = supervisor.await.context("the supervisor died")?;
    drop(guards);
    outcome
}
