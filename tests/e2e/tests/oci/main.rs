//! `gantry-oci` as an OCI runtime: what the runtime specification demands of one, and engines on top of it.

mod bundle;
mod clients;
mod config;
mod demands;
mod hooks;
mod life;
mod terminal;

use std::fs;

/// Whether a process is dead.
pub(crate) fn zombie(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.contains(") Z ") || stat.contains(") X ") || stat.is_empty()
}
