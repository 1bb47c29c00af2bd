//! Where a build puts plugins and the program that hosts them.
//!
//! A test's executable is in `target/<profile>/deps`, and so are the plugin files of the crates that it depends on;
//! everything else is one directory up. What is missing there has not been built: `cargo build --workspace` does.

use std::path::{Path, PathBuf};

/// The directory of the running program, and the one above it.
fn places() -> Vec<PathBuf> {
    let executable = std::env::current_exe().unwrap_or_default();
    executable
        .ancestors()
        .skip(1)
        .take(2)
        .map(Path::to_owned)
        .collect()
}

fn find(relative: &str) -> Option<PathBuf> {
    let mut candidates = places().into_iter().map(|place| place.join(relative));
    candidates.find(|path| path.exists())
}

/// The program that hosts isolated plugins, of the same build as the running one.
#[must_use]
pub fn driver_host() -> Option<PathBuf> {
    find("gantry-driver-host")
}

/// The plugin file of a shipped driver, `storage_overlayfs`.
#[must_use]
pub fn shipped(driver: &str) -> Option<PathBuf> {
    find(&format!("libgantry_{driver}.so"))
}

/// The plugin file that an example of this build makes, `mock_storage`.
#[must_use]
pub fn example(name: &str) -> Option<PathBuf> {
    find(&format!("examples/lib{name}.so"))
}
