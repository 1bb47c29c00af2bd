//! What goes on beside requests: signals, the service manager's watchdog, and the end.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::boot::Daemon;
use crate::config::Config;
use crate::flags::Flags;
use crate::{logging, reload};

/// How long a driver may take to end.
const DRIVER_PATIENCE: Duration = Duration::from_secs(5);

/// Runs until a signal ends the daemon; `stop` is told then, before anything is taken down.
pub(crate) async fn run(
    daemon: Daemon,
    flags: Flags,
    mut config: Config,
    log: logging::Handle,
    stop: oneshot::Sender<()>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut watchdog = Watchdog::new();
    tell(&[NotifyState::Ready]);
    tracing::info!("gantryd is ready");
    let name = loop {
        tokio::select! {
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            _ = hangup.recv() => {
                let now = NotifyState::monotonic_usec_now();
                match now {
                    Ok(now) => tell(&[NotifyState::Reloading, now]),
                    Err(_) => tell(&[NotifyState::Reloading]),
                }
                config = reload::reload(&daemon, &flags, config, &log);
                tell(&[NotifyState::Ready]);
            }
            () = watchdog.due() => tell(&[NotifyState::Watchdog]),
        }
    };
    tracing::info!(signal = name, "stopping");
    tell(&[NotifyState::Stopping]);
    // No requests come any more; those under way are answered while containers stop.
    let _ = stop.send(());
    end(daemon, config.live_restore == Some(false)).await;
    Ok(())
}

async fn end(daemon: Daemon, stop_containers: bool) {
    daemon.engine.shutdown(stop_containers).await;
    daemon.runtime.tidy().await;
    let drivers = daemon.drivers.clone();
    let done = tokio::task::spawn_blocking(move || drivers.shutdown(DRIVER_PATIENCE));
    if done.await.is_err() {
        tracing::warn!("a driver did not end in order");
    }
}

/// Tells the service manager; without one there is nobody to tell.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}

/// Half the time that the service manager waits for a sign of life.
struct Watchdog(Option<tokio::time::Interval>);

impl Watchdog {
    fn new() -> Self {
        let every = sd_notify::watchdog_enabled().map(|patience| patience / 2);
        Self(
            every
                .filter(|every| !every.is_zero())
                .map(tokio::time::interval),
        )
    }
    async fn due(&mut self) {
        match &mut self.0 {
            Some(interval) => {
                interval.tick().await;
            }
            None => std::future::pending().await,
        }
    }
}
