//! `cargo xtask`: checks of the repository itself.

mod compatibility;
mod directions;
mod docs;
mod licences;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cargo_metadata::{Metadata, MetadataCommand};
use clap::Parser;

/// Checks of the repository itself.
#[derive(Parser)]
enum Task {
    /// Format, lints, dependency direction, licences, freshness of the documentation.
    Check,
    /// Writes docs/compatibility.md from tests/compatibility.tsv.
    Compatibility,
    /// The long suites: what takes too long for every change.
    Soak,
}

fn main() -> Result<()> {
    let metadata = MetadataCommand::new()
        .exec()
        .context("reading the workspace")?;
    let root: PathBuf = metadata.workspace_root.clone().into();
    match Task::parse() {
        Task::Check => check(&metadata, &root),
        Task::Compatibility => compatibility::write(&root),
        Task::Soak => soak(&root),
    }
}

fn check(metadata: &Metadata, root: &Path) -> Result<()> {
    directions::check(metadata)?;
    licences::check(metadata)?;
    docs::check(metadata, root)?;
    compatibility::check(root)?;
    cargo(root, &["fmt", "--all", "--check"])?;
    cargo(
        root,
        &[
            "clippy",
            "--quiet",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    )?;
    println!("xtask check: everything is in order");
    Ok(())
}

/// What takes too long for every change: the tests that are ignored otherwise, and the end-to-end tests on the storage driver
/// that is not the default.
fn soak(root: &Path) -> Result<()> {
    let args = |more: &[&'static str]| [&["nextest", "run", "--no-fail-fast"], more].concat();
    cargo(root, &args(&["--workspace", "--run-ignored", "only"]))?;
    let native = [("GANTRY_TEST_STORAGE", "native")];
    cargo_with(root, &args(&["-p", "gantry-e2e"]), &native)
}

fn cargo(root: &Path, args: &[&str]) -> Result<()> {
    cargo_with(root, args, &[])
}

fn cargo_with(root: &Path, args: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .args(args)
        .envs(environment.iter().copied())
        .current_dir(root)
        .status()
        .context("running cargo")?;
    ensure!(status.success(), "cargo {} failed", args.join(" "));
    Ok(())
}
