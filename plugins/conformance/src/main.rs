//! `driver-verify PLUGIN.so`: says what a plugin keeps of its contract's promises. Run it as root.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use gantry_driver_registry::Isolation;
use gantry_plugin_conformance::{RegistryFixture, Run, bench, driver_host, run, run_inside};

/// Verifies a driver plugin.
#[derive(Debug, Parser)]
#[command(name = "driver-verify", version)]
struct Arguments {
    /// The plugin file.
    #[arg(required_unless_present = "echo")]
    plugin: Option<PathBuf>,
    /// Where the plugin's code runs: none or process.
    #[arg(long, default_value = "none", value_parser = ["none", "process"])]
    isolation: String,
    /// The driver's options, a JSON object.
    #[arg(long, default_value = "{}")]
    options: String,
    /// The program that hosts isolated plugins; beside this one if not given.
    #[arg(long)]
    driver_host: Option<PathBuf>,
    /// For registry drivers: URL, repository, tag and blob digest to fetch.
    #[arg(long, num_args = 4, value_names = ["URL", "REPOSITORY", "TAG", "DIGEST"])]
    fetch: Option<Vec<String>>,
    /// For network drivers: the network namespace to check in, a file; a new one if not given.
    #[arg(long)]
    netns: Option<PathBuf>,
    /// Measure a null call instead, in process and isolated.
    #[arg(long)]
    bench: bool,
    /// The other end of the benchmark's bare round trip.
    #[arg(long = "echo-for-bench", hide = true)]
    echo: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.echo {
        bench::echo()?;
        return Ok(ExitCode::SUCCESS);
    }
    let fixture = match arguments.fetch.as_deref() {
        Some([url, repository, tag, blob]) => {
            Some(RegistryFixture::new(url, repository, tag, blob))
        }
        _ => None,
    };
    let plan = Run {
        plugin: arguments.plugin.context("no plugin file")?,
        isolation: match arguments.isolation.as_str() {
            "process" => Isolation::Process,
            _ => Isolation::None,
        },
        options: serde_json::from_str(&arguments.options).context("--options")?,
        driver_host: arguments
            .driver_host
            .or_else(driver_host)
            .unwrap_or_else(|| "gantry-driver-host".into()),
        fixture,
    };
    if arguments.bench {
        let prices = bench::measure(&plan).map_err(anyhow::Error::from_boxed)?;
        println!("{prices}");
        return Ok(ExitCode::SUCCESS);
    }
    let report = match arguments.netns {
        Some(path) => run_inside(&plan, File::open(path).context("--netns")?)?,
        None => run(&plan)?,
    };
    print!("{report}");
    let failed = report.failed().count();
    println!("{} checks, {failed} failed", report.checks.len());
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
