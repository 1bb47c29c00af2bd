//! What the configuration says of registries, checked in dockerd's words.
//!
//! An extension of `registry-mirrors`: `NAME=URL` is a mirror of the registry NAME; a bare URL is one of Docker Hub.

use std::collections::BTreeMap;
use std::path::PathBuf;

use gantry_wire::system;
use ipnet::IpNet;
use url::Url;

use crate::config::{Config, ConfigError};

const HUB: &str = "docker.io";
/// Where registries' certificates and `hosts.toml` are, unless the configuration says otherwise.
const CONFIG_DIRS: [&str; 2] = ["/etc/gantry/certs.d", "/etc/docker/certs.d"];

/// Mirrors by registry, in the order in which to ask them.
///
/// # Errors
/// URLs that are none, and what a mirror's URL must not hold.
pub(crate) fn mirrors(config: &Config) -> Result<BTreeMap<String, Vec<String>>, ConfigError> {
    let mut mirrors: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in &config.registry_mirrors {
        let (registry, url) = match entry.split_once('=') {
            Some((name, url)) if !name.contains("://") => (name, url),
            _ => (HUB, entry.as_str()),
        };
        if registry.is_empty() || registry.contains(['/', ' ']) {
            return fail(format!("invalid mirror: invalid registry in {entry:?}"));
        }
        let url = mirror(url)?;
        mirrors.entry(registry.to_owned()).or_default().push(url);
    }
    Ok(mirrors)
}

fn fail<T>(message: String) -> Result<T, ConfigError> {
    Err(ConfigError::Value(message))
}

fn mirror(text: &str) -> Result<String, ConfigError> {
    const SCHEMES: &str = "must use either 'https://' or 'http://'";
    match text.split_once("://") {
        None | Some(("", _)) => {
            return fail(format!(
                "invalid mirror: no scheme specified for {text:?}: {SCHEMES}"
            ));
        }
        Some(("http" | "https", _)) => {}
        Some((scheme, _)) => {
            return fail(format!(
                "invalid mirror: unsupported scheme {scheme:?} in {text:?}: {SCHEMES}"
            ));
        }
    }
    let Ok(url) = Url::parse(text) else {
        return fail(format!("invalid mirror: {text:?} is not a valid URI"));
    };
    if url.query().is_some() || url.fragment().is_some() {
        return fail(format!(
            "invalid mirror: query or fragment at end of the URI {text:?}"
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return fail(format!(
            "invalid mirror: username/password not allowed in URI {:?}",
            masked(text)
        ));
    }
    Ok(format!("{}/", text.trim_end_matches('/')))
}

/// Registries that may be spoken to without verified TLS: names and networks, each once.
///
/// # Errors
/// What is neither.
pub(crate) fn insecure(config: &Config) -> Result<Vec<String>, ConfigError> {
    let mut found: Vec<String> = Vec::new();
    for entry in &config.insecure_registries {
        let lower = entry.to_ascii_lowercase();
        let name = ["http://", "https://"]
            .iter()
            .find(|scheme| lower.starts_with(**scheme))
            .map_or(entry.as_str(), |scheme| &entry[scheme.len()..]);
        if name.contains("://") {
            return fail(format!("insecure registry {name} should not contain '://'"));
        }
        if name.starts_with('-') || name.ends_with('-') {
            return fail(format!(
                "invalid index name ({name}): cannot begin or end with a hyphen"
            ));
        }
        let name = match name {
            "index.docker.io" => HUB,
            name => name,
        };
        let known = match name.parse::<IpNet>() {
            Ok(network) => network.trunc().to_string(),
            Err(_) => host_and_port(name)?,
        };
        if !found.contains(&known) {
            found.push(known);
        }
    }
    Ok(found)
}

/// `host` or `host:port`, as it is.
fn host_and_port(name: &str) -> Result<String, ConfigError> {
    let invalid = |why: &str| fail(format!("insecure registry {name} is not valid: {why}"));
    let (host, port) = match name.rsplit_once(':') {
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => (host, Some(port)),
        _ => (name, None),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if bare.is_empty() || !bare.chars().all(letters) {
        return invalid(&format!("invalid host {host:?}"));
    }
    match port.map(str::parse::<u16>) {
        Some(Err(_)) => invalid(&format!("invalid port {:?}", port.unwrap_or_default())),
        _ => Ok(name.to_owned()),
    }
}

/// Where certificates and `hosts.toml` are looked for.
pub(crate) fn config_dirs(config: &Config) -> Vec<PathBuf> {
    match config.registry_config_dirs.as_slice() {
        [] => CONFIG_DIRS.map(PathBuf::from).to_vec(),
        dirs => dirs.to_vec(),
    }
}

/// What `info` shows.
///
/// # Errors
/// As [`mirrors`] and [`insecure`].
pub(crate) fn shown(config: &Config) -> Result<system::RegistryServiceConfig, ConfigError> {
    let (networks, hosts): (Vec<String>, Vec<String>) = insecure(config)?
        .into_iter()
        .partition(|registry| registry.parse::<IpNet>().is_ok());
    let mut index_configs = BTreeMap::new();
    let index = |name: &str, secure| system::IndexInfo {
        name: name.into(),
        secure,
        official: name == HUB,
        ..system::IndexInfo::default()
    };
    index_configs.insert(HUB.to_owned(), index(HUB, true));
    for host in hosts {
        index_configs.insert(host.clone(), index(&host, false));
    }
    let mut mirrors = mirrors(config)?;
    for (name, urls) in &mirrors {
        let entry = index_configs
            .entry(name.clone())
            .or_insert_with(|| index(name, true));
        entry.mirrors.clone_from(urls);
    }
    Ok(system::RegistryServiceConfig {
        insecure_registry_cidrs: networks
            .into_iter()
            .chain(["::1/128".into(), "127.0.0.0/8".into()])
            .collect(),
        index_configs,
        mirrors: mirrors.remove(HUB).unwrap_or_default(),
        ..system::RegistryServiceConfig::default()
    })
}

/// A URL whose user and password may be seen by anybody.
pub(crate) fn masked(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
            let hidden =
                parsed.set_username("xxxxx").is_ok() && parsed.set_password(Some("xxxxx")).is_ok();
            if hidden { parsed.into() } else { String::new() }
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(mirrors: &[&str], insecure: &[&str]) -> Config {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Config {
            registry_mirrors: texts(mirrors),
            insecure_registries: texts(insecure),
            ..Config::default()
        }
    }

    #[test]
    fn mirrors_of_any_registry() {
        let config = config(
            &[
                "https://a.example",
                "ghcr.io=http://b.example:5000/x/",
                "https://c.example/?",
            ],
            &[],
        );
        assert!(mirrors(&config).is_err(), "a query");
        let config = Config {
            registry_mirrors: config.registry_mirrors[..2].to_vec(),
            ..config
        };
        let found = mirrors(&config).unwrap();
        assert_eq!(found["docker.io"], ["https://a.example/"]);
        assert_eq!(found["ghcr.io"], ["http://b.example:5000/x/"]);
        let shown = shown(&config).unwrap();
        assert_eq!(shown.mirrors, ["https://a.example/"]);
        assert!(shown.index_configs["ghcr.io"].secure);
        assert_eq!(
            shown.index_configs["ghcr.io"].mirrors,
            ["http://b.example:5000/x/"]
        );
    }

    #[test]
    fn mirrors_that_are_none() {
        for (mirror, said) in [
            ("a.example", "no scheme specified for \"a.example\""),
            ("ftp://a", "unsupported scheme \"ftp\""),
            ("http://", "is not a valid URI"),
            ("http://a/#x", "query or fragment"),
            (
                "http://me:pw@a",
                "username/password not allowed in URI \"http://xxxxx:xxxxx@a/\"",
            ),
            ("=http://a", "invalid registry"),
        ] {
            let ConfigError::Value(error) = mirrors(&config(&[mirror], &[])).unwrap_err() else {
                panic!("{mirror}");
            };
            assert!(
                error.starts_with("invalid mirror: ") && error.contains(said),
                "{error}"
            );
        }
    }

    #[test]
    fn insecure_registries() {
        let given = [
            "http://a:5000",
            "10.1.2.3/8",
            "a:5000",
            "index.docker.io",
            "[::1]:5000",
            "b",
        ];
        let found = insecure(&config(&[], &given)).unwrap();
        assert_eq!(
            found,
            ["a:5000", "10.0.0.0/8", "docker.io", "[::1]:5000", "b"]
        );
        let shown = shown(&config(&[], &given)).unwrap();
        assert!(!shown.index_configs["a:5000"].secure && !shown.index_configs["docker.io"].secure);
        assert_eq!(shown.insecure_registry_cidrs[0], "10.0.0.0/8");
        for bad in ["ftp://a", "a:b", "-a", "a b", "a:99999", ""] {
            assert!(insecure(&config(&[], &[bad])).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_of_proxies_are_masked() {
        assert_eq!(
            masked("http://me:pw@proxy:3128"),
            "http://xxxxx:xxxxx@proxy:3128/"
        );
        assert_eq!(masked("http://proxy:3128"), "http://proxy:3128");
        assert_eq!(masked("proxy"), "proxy");
    }
}
