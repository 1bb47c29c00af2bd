//! `hosts.toml`: which servers hold a registry's images, in which order, and how each is spoken to.
//!
//! ```toml
//! server = "https://registry.example"          # the registry itself; its settings may follow here
//! ca = "ca.pem"
//!
//! [host."https://mirror.example"]              # asked before it, in the file's order
//! capabilities = ["pull", "resolve"]
//! client = [["client.cert", "client.key"]]
//! [host."https://mirror.example".header]
//! x-team = "build"
//! ```
//! Keys that are not known here are passed over, as in containerd.

use std::io::Read;
use std::path::Path;

use gantry_driver_api::registry::{ClientCertificate, Headers};
use serde::Deserialize;

use super::{Certificates, MAX_FILE};
use crate::{Error, Result};

const NAME: &str = "hosts.toml";

/// The servers of one registry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HostsFile {
    /// The registry itself; without a URL where the file does not say where it is.
    pub(crate) server: Host,
    /// Asked first, in order.
    pub(crate) hosts: Vec<Host>,
}

/// One server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Scheme, host, port and path, without a slash at its end.
    pub(crate) url: String,
    /// The path is the API's root: no `/v2` follows.
    pub(crate) override_path: bool,
    /// May say which digest a tag stands for.
    pub(crate) resolves: bool,
    /// May be asked for what a digest names.
    pub(crate) pulls: bool,
    /// May be pushed to; for a mirror only when the file says so.
    pub(crate) pushes: bool,
    pub(crate) skip_verify: bool,
    pub(crate) certificates: Certificates,
    pub(crate) headers: Headers,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    server: String,
    #[serde(flatten)]
    own: Settings,
    #[serde(default)]
    host: toml::Table,
}

#[derive(Deserialize)]
struct Settings {
    #[serde(default)]
    capabilities: Vec<String>,
    #[serde(default)]
    ca: Option<OneOrMany>,
    #[serde(default)]
    client: Option<Clients>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    header: toml::Table,
    #[serde(default)]
    override_path: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// Files that hold certificate and key, or pairs of files.
#[derive(Deserialize)]
#[serde(untagged)]
enum Clients {
    Files(OneOrMany),
    Pairs(Vec<Vec<String>>),
}

/// The file in `directory`, if there is one.
pub(super) fn read(directory: &Path, domain: &str) -> Result<Option<HostsFile>> {
    let path = directory.join(NAME);
    let wrong = |error: String| Error::Misconfigured(format!("{}: {error}", path.display()));
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let mut text = String::new();
    file.take(MAX_FILE)
        .read_to_string(&mut text)
        .map_err(|error| wrong(error.to_string()))?;
    parse(&text, directory, domain).map(Some).map_err(wrong)
}

pub(crate) fn parse(
    text: &str,
    directory: &Path,
    domain: &str,
) -> std::result::Result<HostsFile, String> {
    let document: Document =
        toml::from_str(text).map_err(|error| error.message().trim().to_owned())?;
    let server = match document.server.as_str() {
        "" => String::new(),
        server => url(server)?,
    };
    let everything = ["pull", "resolve", "push"];
    let server = host(server, document.own, &everything, directory)?;
    let mut hosts = Vec::new();
    for (name, settings) in document.host {
        let settings: Settings = settings
            .try_into()
            .map_err(|error| format!("host {name:?}: {}", error.message().trim()))?;
        hosts.push(host(
            url(&name)?,
            settings,
            &["pull", "resolve"],
            directory,
        )?);
    }
    // Who lists the registry itself among its hosts means it to be asked once.
    let own = match server.url.as_str() {
        "" => format!("https://{domain}"),
        url => url.to_owned(),
    };
    hosts.retain(|host| host.url != own || !host.resolves);
    Ok(HostsFile { server, hosts })
}

/// A URL as the driver takes it. A host without scheme is asked with TLS.
fn url(text: &str) -> std::result::Result<String, String> {
    let whole = match text.split_once("://") {
        Some(("http" | "https", rest)) if !rest.is_empty() => text.to_owned(),
        None if !text.is_empty() => format!("https://{text}"),
        _ => return Err(format!("invalid host {text:?}")),
    };
    if whole.contains(['?', '#', '@', ' ']) {
        return Err(format!(
            "invalid host {text:?}: only scheme, host, port and path belong here"
        ));
    }
    Ok(whole.trim_end_matches('/').to_owned())
}

fn host(
    mut url: String,
    settings: Settings,
    default: &[&str],
    directory: &Path,
) -> std::result::Result<Host, String> {
    let named = settings.capabilities.iter().map(String::as_str);
    let capabilities: Vec<&str> = match settings.capabilities.is_empty() {
        true => default.to_vec(),
        false => named.collect(),
    };
    if let Some(unknown) = capabilities
        .iter()
        .find(|name| !["pull", "resolve", "push"].contains(name))
    {
        return Err(format!("unknown capability {unknown}"));
    }
    // Written out, as containerd's users may: it follows anyway.
    if !settings.override_path
        && let Some(root) = url.strip_suffix("/v2")
    {
        url.truncate(root.len());
    }
    let authorities = settings.ca.map(OneOrMany::into_vec).unwrap_or_default();
    Ok(Host {
        url,
        override_path: settings.override_path,
        resolves: capabilities.contains(&"resolve"),
        pulls: capabilities.contains(&"pull"),
        pushes: capabilities.contains(&"push"),
        skip_verify: settings.skip_verify,
        certificates: Certificates {
            authorities: authorities.iter().map(|ca| directory.join(ca)).collect(),
            own: pairs(settings.client, directory)?,
        },
        headers: headers(settings.header)?,
    })
}

fn pairs(
    clients: Option<Clients>,
    directory: &Path,
) -> std::result::Result<Vec<ClientCertificate>, String> {
    let pair = |certificate: &str, key: &str| ClientCertificate {
        certificate: directory.join(certificate),
        key: directory.join(key),
    };
    match clients {
        None => Ok(Vec::new()),
        Some(Clients::Files(files)) => {
            let files = files.into_vec();
            Ok(files.iter().map(|file| pair(file, file)).collect())
        }
        Some(Clients::Pairs(pairs)) => pairs
            .iter()
            .map(|names| match names.as_slice() {
                [both] => Ok(pair(both, both)),
                [both, key] if key.is_empty() => Ok(pair(both, both)),
                [certificate, key] => Ok(pair(certificate, key)),
                _ => Err("client: a certificate and its key, or one file with both".into()),
            })
            .collect(),
    }
}

/// A header has one value or a list of them.
fn headers(table: toml::Table) -> std::result::Result<Headers, String> {
    let mut headers = Vec::new();
    for (name, value) in table {
        let wrong = || format!("header {name:?} is neither text nor a list of texts");
        let values: OneOrMany = value.try_into().map_err(|_| wrong())?;
        headers.extend(
            values
                .into_vec()
                .into_iter()
                .map(|value| (name.clone(), value)),
        );
    }
    Ok(Headers(headers))
}
