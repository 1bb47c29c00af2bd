//! `gantry`: Docker's command line for an engine that speaks the Docker Engine API.
//!
//! `argv` reads the command line in Docker's way, `commands` holds one file for each command, `client` talks HTTP to the
//! daemon, `opts` turns flags into the API's objects, and `format` prints what comes back. Called under the name
//! `docker` the program behaves the same and calls itself so.
//!
//! The program knows nothing of the engine but the API: it depends on none of the engine's crates.

mod app;
mod archive;
mod argv;
mod auth;
mod client;
mod commands;
mod config;
mod contexts;
mod error;
mod format;
mod help;
mod opts;
mod progress;
mod session;
mod terminal;

use clap::{Args, Command, FromArgMatches};

use crate::app::{App, Globals};
use crate::error::Exit;

fn main() -> std::process::ExitCode {
    let mut args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
    let called = args.next().unwrap_or_default();
    let program = if called.rsplit('/').next() == Some("docker") {
        "docker"
    } else {
        "gantry"
    };
    let result = run(program, &args.collect::<Vec<_>>());
    std::process::ExitCode::from(result.map_or_else(|error| report(&error), |()| 0))
}

/// Prints an error and returns the code that stands for it.
fn report(error: &anyhow::Error) -> u8 {
    let (code, message) = match error.downcast_ref::<Exit>() {
        Some(exit) => (exit.code, exit.message.clone()),
        None => (1, format!("{error:#}")),
    };
    if !message.is_empty() {
        eprintln!("{message}");
    }
    code as u8
}

fn run(program: &'static str, args: &[String]) -> anyhow::Result<()> {
    let globals = globals(program, args)?;
    if globals.version {
        return commands::version::print_short(program);
    }
    let words = globals.command.clone();
    let app = App::new(program, globals);
    let Some((entry, consumed)) = commands::find(&words) else {
        return commands::not_found(&app, &words);
    };
    let rest = &words[consumed..];
    let matches = argv::parse(
        entry.command(),
        &entry.usage(program, &words[..consumed]),
        rest,
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(entry.run(matches, &app));
    // A thread may still be reading the terminal; nothing that matters is left to wait for.
    runtime.shutdown_background();
    result
}

/// The flags before the command, and the command with all that follows it.
fn globals(program: &str, args: &[String]) -> anyhow::Result<Globals> {
    if args.first().is_some_and(|word| !word.starts_with('-')) {
        return Ok(Globals {
            command: args.to_vec(),
            ..Globals::default()
        });
    }
    let mut matches = argv::parse(global_flags(), &commands::overview(program), args)?;
    Ok(Globals::from_arg_matches_mut(&mut matches)?)
}

/// The flags before the command.
pub(crate) fn global_flags() -> Command {
    Globals::augment_args(Command::new("globals"))
}
