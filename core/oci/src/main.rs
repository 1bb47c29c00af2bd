//! Gantry's containers behind the command line of an OCI runtime: `gantry-oci`, in the manner of runc.
//!
//! For podman, containerd and validation suites. It starts containers by the same mechanism as the engine: a bundle's
//! specification is lowered by `gantry-runtime` and set up by the monitor's init; but no monitor stays: after `create` the
//! container's first process belongs to the caller's subreaper, and waits at a socket for `start`.
//!
//! Invariants
//! - One directory per container under `--root` holds its state; it is replaced whole, and locked by whoever changes the
//!   container.
//! - A process is signalled or joined only when its start time shows that it is the container's still.
//! - What the runtime cannot do is refused before anything is made; a failed `create` leaves nothing.
//! - The program is not writable through `/proc/PID/exe` of what it becomes.
//!
//! Not here: images, networks, logs, checkpoints, systemd's cgroups, rootless operation, Intel RDT.

mod attend;
mod bundle;
mod capabilities;
mod cli;
mod console;
mod create;
mod delete;
mod error;
mod events;
mod exec;
mod features;
mod list;
mod log;
mod lower;
mod process;
mod resources;
mod run;
mod signal;
mod spec;
mod start;
mod state;
mod update;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use error::Result;
use log::Log;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = match Log::open(&cli) {
        Ok(log) => log,
        Err(e) => {
            eprintln!("gantry-oci: {e}");
            return ExitCode::FAILURE;
        }
    };
    match dispatch(&cli, &log) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            log.error(&e);
            ExitCode::from(e.exit_code())
        }
    }
}

fn dispatch(cli: &Cli, log: &Log) -> Result<u8> {
    cli.refuse()?;
    let root = &cli.root;
    let done = match &cli.command {
        Command::Create(args) => create::create(root, args, log),
        Command::Start(args) => start::start(root, &args.id, log),
        Command::Run(args) => return run::run(root, args, log),
        Command::Exec(args) => return exec::exec(root, args, log),
        Command::State(args) => list::state(root, &args.id),
        Command::Kill(args) => signal::command(root, args),
        Command::Delete(args) => delete::delete(root, args, log),
        Command::Pause(args) => signal::pause(root, &args.id, true),
        Command::Resume(args) => signal::pause(root, &args.id, false),
        Command::Update(args) => update::update(root, args),
        Command::Events(args) => events::events(root, args),
        Command::List(args) => list::list(root, args),
        Command::Ps(args) => list::ps(root, args),
        Command::Spec(args) => spec::write(args),
        Command::Features => features::print(),
    };
    done.map(|()| 0)
}
