//! Progress of pulls, pushes and loads: bars on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};

use anyhow::Result;
use gantry_wire::JsonMessage;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::client::Reply;
use crate::client::messages::Messages;
use crate::error::{ApiError, Exit};

/// Where progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Stdout,
    Stderr,
    /// Nowhere; errors still count.
    Nowhere,
}

/// Shows the messages of `reply` to its end.
///
/// # Errors
///
/// The error that the daemon reports in the stream.
pub(crate) async fn show(reply: Reply, target: Target) -> Result<()> {
    let mut messages = Messages::new(reply);
    let mut display = Display::new(target);
    while let Some(message) = messages.next().await? {
        let message: JsonMessage =
            serde_json::from_value(message).map_err(|error| ApiError::Reply(error.to_string()))?;
        if let Some((code, text)) = failure(&message) {
            display.finish();
            return Err(Exit::with(code, text));
        }
        display.message(&message)?;
    }
    display.finish();
    Ok(())
}

/// The code and the words of a message that ends the stream.
fn failure(message: &JsonMessage) -> Option<(i32, &str)> {
    match (&message.error_detail, &message.error) {
        (Some(detail), _) if detail.code != 0 => Some((detail.code as i32, &detail.message)),
        (Some(detail), _) => Some((1, &detail.message)),
        (None, Some(error)) => Some((1, error)),
        (None, None) => None,
    }
}

enum Display {
    Nowhere,
    Lines(Box<dyn Write>),
    Bars {
        all: MultiProgress,
        by_id: HashMap<String, ProgressBar>,
        out: Box<dyn Write>,
    },
}

impl Display {
    fn new(target: Target) -> Self {
        let (terminal, out, draw): (bool, Box<dyn Write>, _) = match target {
            Target::Nowhere => return Self::Nowhere,
            Target::Stdout => (
                std::io::stdout().is_terminal(),
                Box::new(std::io::stdout()),
                ProgressDrawTarget::stdout(),
            ),
            Target::Stderr => (
                std::io::stderr().is_terminal(),
                Box::new(std::io::stderr()),
                ProgressDrawTarget::stderr(),
            ),
        };
        // Without a usable TERM there is nothing to draw on.
        if terminal && !draw.is_hidden() {
            Self::Bars {
                all: MultiProgress::with_draw_target(draw),
                by_id: HashMap::new(),
                out,
            }
        } else {
            Self::Lines(out)
        }
    }

    fn message(&mut self, message: &JsonMessage) -> Result<()> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Lines(out) => match plain(message) {
                Some(text) => write_out(out, &text),
                None => Ok(()),
            },
            Self::Bars { all, by_id, out } => {
                let Some(id) = message.id.as_deref().filter(|id| !id.is_empty()) else {
                    let Some(text) = plain(message) else {
                        return Ok(());
                    };
                    return all.suspend(|| write_out(out, &text));
                };
                let bar = by_id.entry(id.to_owned()).or_insert_with(|| {
                    let bar = all.add(ProgressBar::no_length());
                    bar.set_prefix(id.to_owned());
                    bar
                });
                draw(bar, message);
                Ok(())
            }
        }
    }

    fn finish(&mut self) {
        if let Self::Bars { by_id, .. } = self {
            for bar in by_id.values() {
                if !bar.is_finished() {
                    bar.abandon();
                }
            }
        }
    }
}

fn write_out(out: &mut Box<dyn Write>, text: &str) -> Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Exit::silent(141)),
        other => Ok(other?),
    }
}

/// Bytes done and bytes in all, where the message tells them.
fn amount(message: &JsonMessage) -> Option<(u64, u64)> {
    let detail = message.progress_detail.as_ref()?;
    let (current, total) = (detail.current.max(0) as u64, detail.total.max(0) as u64);
    (current > 0 || total > 0).then_some((current, total))
}

/// A message as a line of its own; none for what only moves a bar.
fn plain(message: &JsonMessage) -> Option<String> {
    if amount(message).is_some() {
        return None;
    }
    if let Some(stream) = message.stream.as_ref().filter(|stream| !stream.is_empty()) {
        return Some(stream.clone());
    }
    let status = message.status.as_ref()?;
    Some(match message.id.as_deref().filter(|id| !id.is_empty()) {
        Some(id) => format!("{id}: {status}\n"),
        None => format!("{status}\n"),
    })
}

/// Whether nothing follows about the same layer.
fn is_last(status: &str) -> bool {
    const LAST: [&str; 4] = [
        "Pull complete",
        "Already exists",
        "Pushed",
        "Layer already exists",
    ];
    LAST.contains(&status) || status.starts_with("Mounted from ")
}

fn draw(bar: &ProgressBar, message: &JsonMessage) {
    // The rate of a step is not that of the one before it.
    if message
        .status
        .as_deref()
        .is_some_and(|status| status != bar.message())
    {
        bar.reset();
    }
    let template = match amount(message) {
        Some((current, total)) if total > 0 => {
            bar.set_length(total);
            bar.set_position(current);
            "{prefix}: {msg} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec}"
        }
        Some((current, _)) => {
            bar.set_position(current);
            "{prefix}: {msg} {bytes} {bytes_per_sec}"
        }
        None => "{prefix}: {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    let status = message.status.clone().unwrap_or_default();
    if is_last(&status) {
        bar.finish_with_message(status);
    } else {
        bar.set_message(status);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_leave_out_what_only_moves_a_bar() {
        for (message, line) in [
            (
                json!({"status": "Pulling from library/x", "id": "latest"}),
                Some("latest: Pulling from library/x\n"),
            ),
            (
                json!({"status": "Downloading", "id": "a", "progressDetail": {"current": 1, "total": 2}}),
                None,
            ),
            (
                json!({"status": "Pull complete", "id": "a", "progressDetail": {}}),
                Some("a: Pull complete\n"),
            ),
            (
                json!({"status": "Digest: sha256:x"}),
                Some("Digest: sha256:x\n"),
            ),
            (
                json!({"stream": "Loaded image: x\n"}),
                Some("Loaded image: x\n"),
            ),
        ] {
            let message = serde_json::from_value(message).unwrap();
            assert_eq!(plain(&message).as_deref(), line);
        }
    }

    #[test]
    fn bars_tell_step_bytes_and_rate() {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let say = |message| draw(&bar, &serde_json::from_value(message).unwrap());
        say(
            json!({"status": "Downloading", "id": "a", "progressDetail": {"current": 5, "total": 9}}),
        );
        assert_eq!(
            (bar.message().as_str(), bar.position(), bar.length()),
            ("Downloading", 5, Some(9))
        );
        say(
            json!({"status": "Extracting", "id": "a", "progressDetail": {"current": 1, "total": 9}}),
        );
        assert_eq!((bar.message().as_str(), bar.position()), ("Extracting", 1));
        assert!(!bar.is_finished());
        say(json!({"status": "Pull complete", "id": "a", "progressDetail": {}}));
        assert!(bar.is_finished() && is_last("Mounted from a/b") && !is_last("Waiting"));
    }
}
