//! Benchmarks against peers, side by side in one run: what counts are the ratios, not the walls.
//!
//! Everything runs in a network and mount namespace of its own, engines on private roots. dockerd, runc and crun are left
//! out where they are missing; `docs/benchmarks.md` names what else is needed. Not a test: nothing here fails on time.

mod account;
mod canned;
mod churn;
mod cost;
mod direct;
mod http;
mod images;
mod logs;
mod look;
mod memory;
mod net;
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
    /// Create, start and delete by OCI runtimes.
    Oci,
    /// Memory of the idle daemon and of one more container.
    Memory,
    /// Exec create, start and wait, over the API.
    ApiExec,
    /// Create and start of containers in turn, over the API.
    ApiStart,
    /// Running and removing by several clients at once, over the API.
    ApiChurn,
    /// Output of a container to a client.
    ApiOutput,
    /// The log of a container to a client.
    Logs,
    /// Copying a tree into a container and out of it.
    Cp,
    /// What statistics cost the daemon.
    Stats,
    /// Pull, push, save and load of an image of 466 MB.
    Images,
    /// Throughput between containers and to published ports.
    NetTraffic,
    /// Round trips between containers.
    NetRoundTrip,
    /// Throughput between containers on two hosts. Needs etcd.
    NetOverlay,
    /// Names of containers, asked for by containers.
    NetNames,
    /// Making and removing networks, attaching and detaching containers, over the API.
    NetControl,
    /// Starts with many published ports.
    NetPorts,
    /// All of networks.
    Net,
    /// Everything that is driven over the API.
    Api,
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
        What::Oci => table::runtimes(&bench, args.rounds),
        What::Memory => memory::print(&bench, args.containers),
        What::ApiExec => direct::exec(&bench, args.rounds),
        What::ApiStart => direct::in_turn(&bench),
        What::ApiChurn => churn::print(&bench),
        What::ApiOutput => direct::attached(&bench),
        What::Logs => logs::print(&bench),
        What::Cp => look::copy(&bench),
        What::Stats => look::stats(&bench),
        What::Images => images::print(&bench),
        What::NetTraffic => net::traffic(&bench, args.rounds),
        What::NetRoundTrip => net::round_trip(&bench, args.rounds),
        What::NetOverlay => net::overlay(&bench, args.rounds),
        What::NetNames => net::names(&bench),
        What::NetControl => {
            net::networks(&bench, args.rounds)?;
            net::attach(&bench, args.rounds)?;
            net::among_many(&bench, args.rounds)
        }
        What::NetPorts => net::ports(&bench, args.rounds),
        What::Net => net::print(&bench, args.rounds),
        What::Api => api(&bench, args.rounds),
        What::All => {
            table::run(&bench, args.rounds)?;
            table::exec(&bench, args.rounds)?;
            table::runtimes(&bench, args.rounds)?;
            api(&bench, args.rounds)?;
            images::print(&bench)?;
            net::print(&bench, args.rounds)?;
            memory::print(&bench, args.containers)
        }
    }
}

fn api(bench: &peers::Bench, rounds: usize) -> Result<()> {
    direct::exec(bench, rounds)?;
    direct::in_turn(bench)?;
    churn::print(bench)?;
    direct::attached(bench)?;
    logs::print(bench)?;
    look::stats(bench)?;
    look::copy(bench)
}
