//! What keeps a container running, changes it while it runs and decides when it starts.

mod ends;
mod limits;
mod order;
mod restart;

use gantry_e2e::{Engine, eventually};

fn inspect(engine: &Engine, format: &str, name: &str) -> String {
    engine.docker(&["inspect", "-f", format, name]).ok()
}

fn state(engine: &Engine, name: &str) -> String {
    inspect(engine, "{{.State.Status}}", name)
}

#[track_caller]
fn becomes(engine: &Engine, name: &str, wanted: &str) {
    eventually(&format!("{name} is {wanted}"), 20, || {
        (state(engine, name) == wanted).then_some(())
    });
}

/// Runs a detached container of busybox.
fn run(engine: &Engine, flags: &[&str], command: &str) -> String {
    let mut args = vec!["run", "-d", "--network", "none", "--stop-timeout", "0"];
    args.extend(flags);
    args.extend(["busybox", "sh", "-c", command]);
    engine.docker(&args).ok()
}
