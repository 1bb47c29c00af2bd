//! Words for people: how long ago, and in which state.

use std::time::Duration;

use gantry_model::Timestamp;

use crate::container::record::{HealthStatus, Phase, Record};

/// Docker's rough durations: `About an hour`, `3 weeks`.
pub(super) fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    // Docker rounds hours to the nearest.
    let hours = (seconds + 1800) / 3600;
    match seconds {
        0 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".into(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// The `STATUS` column.
pub(super) fn status(record: &Record, now: Timestamp) -> String {
    let state = &record.state;
    let up = rough(now.since(state.started_at));
    let ago = rough(now.since(state.finished_at));
    match state.phase {
        Phase::Created | Phase::Starting => "Created".into(),
        Phase::Paused => format!("Up {up} (Paused)"),
        Phase::Restarting => format!("Restarting ({}) {ago} ago", state.exit_code),
        Phase::Removing => "Removal In Progress".into(),
        Phase::Exited => format!("Exited ({}) {ago} ago", state.exit_code),
        Phase::Running => match &state.health {
            Some(health) if health.status == HealthStatus::Starting => {
                format!("Up {up} (health: starting)")
            }
            Some(health) => format!("Up {up} ({})", health.status.as_str()),
            None => format!("Up {up}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (seconds, want) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3600, "About an hour"),
            (86_400, "24 hours"),
            (86_400 * 3, "3 days"),
            (86_400 * 21, "3 weeks"),
            (86_400 * 90, "3 months"),
            (86_400 * 800, "2 years"),
        ] {
            assert_eq!(rough(Duration::from_secs(seconds)), want, "{seconds}");
        }
    }
}
