//! Logs: drivers and their options, rotation and compression, forwarding to receivers that come and go.

mod files;
mod options;
mod receivers;
mod syslog;

use gantry_e2e::Engine;

/// The numbers in lines of a text, as (first, last) of those that follow each other.
fn spans(text: &str) -> Vec<(u32, u32)> {
    let mut spans: Vec<(u32, u32)> = Vec::new();
    for line in text.lines() {
        let number = line
            .parse()
            .unwrap_or_else(|_| panic!("{line:?} is no number"));
        match spans.last_mut().filter(|(_, last)| last + 1 == number) {
            Some((_, last)) => *last = number,
            None => spans.push((number, number)),
        }
    }
    spans
}

/// Starts a container that runs a script.
fn start(engine: &Engine, name: &str, options: &[&str], script: &str) {
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(options);
    args.extend(["busybox", "sh", "-c", script]);
    engine.docker(&args).ok();
}
