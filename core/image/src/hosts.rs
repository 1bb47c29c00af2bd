//! What the administrator says of a registry: its directory of certificates, and `hosts.toml` in it.
//!
//! Directories of the configuration hold one directory a registry: `HOST:PORT`, or `HOST_PORT_` as containerd also writes
//! it; `_default` is for registries without one. It is read at each operation, so that changes need no restart. Sources:
//! dockerd's *Verify repository client with certificates*; containerd's *Registry Configuration*.

mod file;

use std::path::{Path, PathBuf};

use gantry_driver_api::registry::ClientCertificate;

use crate::{Error, Result};
#[cfg(feature = "fuzz")]
pub(crate) use file::parse;
pub(crate) use file::{Host, HostsFile};

/// A file of more bytes is no configuration.
const MAX_FILE: u64 = 1 << 20;

/// Whom to trust as a registry, and what to show to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Certificates {
    /// PEM files of authorities.
    pub(crate) authorities: Vec<PathBuf>,
    pub(crate) own: Vec<ClientCertificate>,
}

/// The certificates for a registry, or for a mirror by its `host[:port]`.
///
/// # Errors
/// [`Error::Misconfigured`] for a certificate without key or a key without certificate, in dockerd's words.
pub(crate) fn certificates(directories: &[PathBuf], host: &str) -> Result<Certificates> {
    let mut found = Certificates::default();
    for directory in of_host(directories, host) {
        add_certificates(&directory, &mut found)?;
    }
    Ok(found)
}

/// The `hosts.toml` for a registry: the first that there is.
///
/// # Errors
/// [`Error::Misconfigured`] for a file that is wrong.
pub(crate) fn hosts_file(directories: &[PathBuf], domain: &str) -> Result<Option<HostsFile>> {
    for directory in of_host(directories, domain) {
        if let Some(file) = file::read(&directory, domain)? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// The directories of a host that exist; the default ones where it has none of its own.
fn of_host(directories: &[PathBuf], host: &str) -> Vec<PathBuf> {
    let with_names = |names: &[String]| -> Vec<PathBuf> {
        let paths = directories
            .iter()
            .flat_map(|directory| names.iter().map(|name| directory.join(name)));
        paths.filter(|path| path.is_dir()).collect()
    };
    let mut names = vec![host.to_owned()];
    if let Some((name, port)) = host.rsplit_once(':')
        && !port.contains(']')
    {
        names.insert(0, format!("{name}_{port}_"));
    }
    match with_names(&names) {
        none if none.is_empty() => with_names(&["_default".into()]),
        own => own,
    }
}

/// `*.crt` are authorities, `X.cert` with `X.key` a certificate to show.
fn add_certificates(directory: &Path, found: &mut Certificates) -> Result<()> {
    let bad = |error: std::io::Error| {
        Error::Misconfigured(format!("reading {}: {error}", directory.display()))
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .map_err(bad)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    for path in &files {
        let name = |path: &Path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        match path.extension().and_then(|end| end.to_str()) {
            Some("crt") => found.authorities.push(path.clone()),
            Some("cert") => {
                let key = path.with_extension("key");
                if !files.contains(&key) {
                    return Err(Error::Misconfigured(format!(
                        "missing key {} for client certificate {}. CA certificates must use the extension .crt",
                        name(&key),
                        name(path)
                    )));
                }
                found.own.push(ClientCertificate {
                    certificate: path.clone(),
                    key,
                });
            }
            Some("key") if !files.contains(&path.with_extension("cert")) => {
                return Err(Error::Misconfigured(format!(
                    "missing client certificate {} for key {}",
                    name(&path.with_extension("cert")),
                    name(path)
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
