//! Progress of pulls, pushes and loads: bars on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};

use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::client::Reply;
use crate::client::messages::Messages;
use crate::error::Exit;

/// Where progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Stdout,
    Stderr,
    /// Nowhere; errors still count.
    Nowhere,
}

/// Shows the messages of `reply` to its end. `aux` is called with each message's extra object.
///
/// # Errors
///
/// The error that the daemon reports in the stream.
pub(crate) async fn show(reply: Reply, target: Target, mut aux: impl FnMut(&Value)) -> Result<()> {
    let mut messages = Messages::new(reply);
    let mut display = Display::new(target);
    while let Some(message) = messages.next().await? {
        if let Some(error) = message.get("errorDetail").or_else(|| message.get("error")) {
            display.finish();
            let text = error
                .get("message")
                .unwrap_or(error)
                .as_str()
                .unwrap_or("unknown error");
            let code = error
                .get("code")
                .and_then(Value::as_i64)
                .filter(|code| *code != 0)
                .unwrap_or(1);
            return Err(Exit::with(code as i32, text));
        }
        match message.get("aux") {
            Some(extra) => aux(extra),
            None => display.message(&message)?,
        }
    }
    display.finish();
    Ok(())
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

    fn message(&mut self, message: &Value) -> Result<()> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Lines(out) => match plain(message) {
                Some(text) => write_out(out, &text),
                None => Ok(()),
            },
            Self::Bars { all, by_id, out } => {
                let Some(id) = message["id"].as_str().filter(|id| !id.is_empty()) else {
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
fn amount(message: &Value) -> Option<(u64, u64)> {
    let detail = message.get("progressDetail")?;
    let current = detail["current"].as_u64().unwrap_or(0);
    let total = detail["total"].as_u64().unwrap_or(0);
    (current > 0 || total > 0).then_some((current, total))
}

/// A message as a line of its own; none for what only moves a bar.
fn plain(message: &Value) -> Option<String> {
    if amount(message).is_some() {
        return None;
    }
    if let Some(stream) = message["stream"]
        .as_str()
        .filter(|stream| !stream.is_empty())
    {
        return Some(stream.to_owned());
    }
    let status = message["status"].as_str()?;
    Some(match message["id"].as_str().filter(|id| !id.is_empty()) {
        Some(id) => format!("{id}: {status}\n"),
        None => format!("{status}\n"),
    })
}

fn draw(bar: &ProgressBar, message: &Value) {
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
    let status = message["status"].as_str().unwrap_or_default().to_owned();
    let last = matches!(
        status.as_str(),
        "Pull complete" | "Already exists" | "Pushed" | "Layer already exists"
    );
    if last {
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
            assert_eq!(plain(&message).as_deref(), line);
        }
    }
}
