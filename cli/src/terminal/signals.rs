//! Passing on to a container what the user signals to the client.

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Signals that are passed on, by number and name. Job control of our own terminal and window changes are not.
const FORWARDED: &[(i32, &str)] = &[
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (10, "USR1"),
    (12, "USR2"),
    (14, "ALRM"),
    (15, "TERM"),
    (18, "CONT"),
    (20, "TSTP"),
];

/// Starts to catch signals instead of obeying them; their names come out of the channel.
pub(crate) fn catch() -> Result<mpsc::UnboundedReceiver<&'static str>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    for (number, name) in FORWARDED {
        let mut arrivals = signal(SignalKind::from_raw(*number))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while arrivals.recv().await.is_some() && sender.send(*name).is_ok() {}
        });
    }
    Ok(receiver)
}

/// Window changes.
pub(crate) fn window_changes() -> Result<tokio::signal::unix::Signal> {
    Ok(signal(SignalKind::window_change())?)
}
