//! Benchmarks against peers, side by side in one run: what counts are the ratios, not the walls.
//!
//! Everything runs in a network and mount namespace of its own, engines on private roots. Peers that are not
//! installed are left out and named. Not a test: nothing here fails on time.

mod memory;
mod peers;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

/// Prints how Gantry compares to its peers. Needs root.
#[derive(Parser)]
struct Args {
    /// Where the binaries are.
    #[arg(long, default_value = "target/release")]
    bin: PathBuf,
    /// Rounds for each row, interleaved between the peers.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Containers for the memory slope.
    #[arg(long, default_value_t = 50)]
    containers: usize,
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Start, run to the end and remove one container.
    Run,
    /// Run a command in a running container.
    Exec,
    /// Memory of the idle daemon and of one more container.
    Memory,
    /// All of them.
    All,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if std::env::var_os("GANTRY_PERF_INSIDE").is_none() {
        return peers::in_own_namespaces();
    }
    let bench = peers::Bench::new(&args.bin.canonicalize().context("--bin")?)?;
    match args.what {
        What::Run => table::run(&bench, args.rounds),
        What::Exec => table::exec(&bench, args.rounds),
        What::Memory => memory::print(&bench, args.containers),
        What::All => {
            table::run(&bench, args.rounds)?;
            table::exec(&bench, args.rounds)?;
            memory::print(&bench, args.containers)
        }
    }
}
