//! Devices by name, after the Container Device Interface: a vendor's file says what a device is in a container.
//!
//! Source: <https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>, versions to 1.1. Files are looked
//! at anew whenever a device is asked for. `intelRdt` is left out, as it is about the host's caches and not access; network
//! devices are refused.

mod edits;
mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::ContainerSpec;
use file::{Edits, Spec};

/// Where specifications are looked for when the daemon does not say: later directories go before earlier ones.
pub const DEFAULT_DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// The most files of a directory that are read.
const MAX_FILES: usize = 1024;

/// The longest file that is read.
const MAX_FILE: u64 = 4 << 20;

/// Why devices cannot be given to a container. Messages are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("CDI device injection failed: {0}")]
pub struct CdiError(String);

/// All devices that can be named.
#[derive(Debug, Default)]
pub struct Devices {
    files: Vec<Spec>,
    /// Full name to file and device in it.
    names: BTreeMap<String, (usize, usize)>,
    /// What could not be read: path and reason.
    pub errors: Vec<(PathBuf, String)>,
}

impl Devices {
    /// Reads the specifications in these directories. What is wrong with one is in [`Self::errors`].
    #[must_use]
    pub fn discover(dirs: &[PathBuf]) -> Self {
        let mut found = Self::default();
        for dir in dirs {
            let mut here: BTreeMap<String, (usize, usize)> = BTreeMap::new();
            let mut twice = BTreeSet::new();
            for path in specifications(dir) {
                match read(&path) {
                    Err(reason) => found.errors.push((path, reason)),
                    Ok(spec) => {
                        let at = found.files.len();
                        for (n, device) in spec.devices.iter().enumerate() {
                            let name = format!("{}={}", spec.kind, device.name);
                            if here.insert(name.clone(), (at, n)).is_some() {
                                found
                                    .errors
                                    .push((path.clone(), format!("conflicting device {name:?}")));
                                twice.insert(name);
                            }
                        }
                        found.files.push(spec);
                    }
                }
            }
            for name in twice {
                // Two files of the same rank contradict each other: neither is believed.
                here.remove(&name);
                found.names.remove(&name);
            }
            found.names.extend(here);
        }
        found
    }

    /// The full names, `vendor.com/class=name`, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Adds devices to a container.
    ///
    /// # Errors
    /// Names that nothing stands for; device nodes that the host does not have; edits that cannot be made.
    pub fn inject(&self, spec: &mut ContainerSpec, wanted: &[String]) -> Result<(), CdiError> {
        let unknown: Vec<&str> = wanted
            .iter()
            .filter(|name| !self.names.contains_key(*name))
            .map(String::as_str)
            .collect();
        if !unknown.is_empty() {
            return Err(CdiError(format!(
                "unresolvable CDI devices {}",
                unknown.join(", ")
            )));
        }
        let mut done = BTreeSet::new();
        let mut all: Vec<&Edits> = Vec::new();
        for name in wanted {
            let Some(&(file, device)) = self.names.get(name) else {
                continue;
            };
            // What a file says for all of its devices is done once.
            if done.insert((file, None)) {
                all.push(&self.files[file].container_edits);
            }
            if done.insert((file, Some(device))) {
                all.push(&self.files[file].devices[device].container_edits);
            }
        }
        edits::apply(&mut spec.oci, &mut spec.user, &all).map_err(CdiError)
    }
}

/// The files of a directory that may be specifications, in order of their names.
fn specifications(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .map(|e| e.path())
        .filter(|p| {
            p.extension()
                .is_some_and(|e| e == "json" || e == "yaml" || e == "yml")
        })
        .take(MAX_FILES)
        .collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> Result<Spec, String> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    file.take(MAX_FILE)
        .read_to_string(&mut text)
        .map_err(|e| e.to_string())?;
    let spec: Spec = match path.extension().is_some_and(|e| e == "json") {
        true => serde_json::from_str(&text).map_err(|e| e.to_string())?,
        false => serde_saphyr::from_str(&text).map_err(|e| e.to_string())?,
    };
    spec.check()?;
    Ok(spec)
}

#[cfg(test)]
mod tests;
