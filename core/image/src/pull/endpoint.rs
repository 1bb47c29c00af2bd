//! Where to ask for a repository: mirrors, the registry itself, and which scheme it may be asked with.

use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use gantry_driver_api::registry::{Credentials, Endpoint};
use gantry_driver_api::{DriverError, DriverResult};
use gantry_model::reference::DEFAULT_DOMAIN;
use ipnet::IpNet;

use super::retry;
use crate::Settings;
use crate::service::Shared;

/// What Docker Hub is called as a server.
const HUB_URL: &str = "https://registry-1.docker.io";

impl Shared {
    /// The servers of `domain`, in the order in which to try them.
    pub(crate) fn endpoints(&self, domain: &str, credentials: &Credentials) -> Vec<Endpoint> {
        let settings = &*self.settings();
        let endpoint = |url: String, skip_verify: bool, credentials: Credentials| Endpoint {
            domain: domain.into(),
            url,
            skip_verify,
            ca_files: authorities(&settings.certs_dirs, domain),
            credentials,
            proxies: settings.proxies.clone(),
        };
        if domain == DEFAULT_DOMAIN {
            let mut endpoints: Vec<Endpoint> = settings
                .mirrors
                .iter()
                .map(|url| {
                    let host = host_of(url);
                    Endpoint {
                        ca_files: authorities(&settings.certs_dirs, host),
                        skip_verify: is_insecure(settings, host),
                        // A mirror is somebody else: it does not get the user's password.
                        ..endpoint(
                            url.trim_end_matches('/').into(),
                            false,
                            Credentials::default(),
                        )
                    }
                })
                .collect();
            endpoints.push(endpoint(HUB_URL.into(), false, credentials.clone()));
            return endpoints;
        }
        if !is_insecure(settings, domain) {
            return vec![endpoint(
                format!("https://{domain}"),
                false,
                credentials.clone(),
            )];
        }
        let mut endpoints = vec![
            endpoint(format!("https://{domain}"), true, credentials.clone()),
            endpoint(format!("http://{domain}"), true, credentials.clone()),
        ];
        if self.plain_http.lock().contains(domain) {
            endpoints.reverse();
        }
        endpoints
    }

    /// The servers of `domain` without its mirrors, which only hold copies.
    pub(crate) fn own_endpoints(&self, domain: &str, credentials: &Credentials) -> Vec<Endpoint> {
        let mut endpoints = self.endpoints(domain, credentials);
        if domain == DEFAULT_DOMAIN {
            endpoints.drain(..endpoints.len() - 1);
        }
        endpoints
    }

    /// Asks one server after the other until one that can be reached has decided.
    pub(crate) fn ask<T>(
        &self,
        endpoints: impl IntoIterator<Item = Endpoint>,
        mut question: impl FnMut(&Endpoint) -> DriverResult<T>,
    ) -> DriverResult<T> {
        let mut last = DriverError::internal("no registry to ask");
        for endpoint in endpoints {
            match question(&endpoint) {
                Ok(answer) => {
                    self.answered(&endpoint);
                    return Ok(answer);
                }
                Err(error) if retry::is_transient(&error) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Remembers that `domain` answers on plain HTTP, so that the next request does not try TLS first.
    pub(crate) fn answered(&self, endpoint: &Endpoint) {
        if endpoint.url.starts_with("http://") {
            self.plain_http.lock().insert(endpoint.domain.clone());
        }
    }
}

fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// Whether a registry may be asked without verified TLS: loopback addresses, names that are listed, and names or
/// addresses within a listed network.
fn is_insecure(settings: &Settings, domain: &str) -> bool {
    if settings
        .insecure_registries
        .iter()
        .any(|name| name == domain)
    {
        return true;
    }
    let host = match domain.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => domain,
    };
    if settings.insecure_registries.iter().any(|name| name == host) {
        return true;
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let networks: Vec<IpNet> = settings
        .insecure_registries
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    let permitted = |address: &IpAddr| {
        address.is_loopback() || networks.iter().any(|network| network.contains(address))
    };
    if let Ok(address) = host.parse::<IpAddr>() {
        return permitted(&address);
    }
    if host == "localhost" {
        return true;
    }
    // A name is looked up only where the answer can matter.
    !networks.is_empty()
        && (host, 0)
            .to_socket_addrs()
            .is_ok_and(|mut found| found.any(|address| permitted(&address.ip())))
}

/// The `*.crt` files for a domain, sorted.
fn authorities(directories: &[PathBuf], domain: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = directories
        .iter()
        .filter_map(|directory| std::fs::read_dir(directory.join(domain)).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path: &PathBuf| Path::new(path).extension().is_some_and(|e| e == "crt"))
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insecure_registries() {
        let settings = Settings {
            insecure_registries: vec![
                "reg.example:5000".into(),
                "10.0.0.0/8".into(),
                "bare.example".into(),
            ],
            ..Settings::default()
        };
        for (domain, insecure) in [
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("localhost:5000", true),
            ("reg.example:5000", true),
            ("bare.example:443", true),
            ("10.1.2.3:80", true),
            ("11.1.2.3:80", false),
            ("192.0.2.1", false),
        ] {
            assert_eq!(is_insecure(&settings, domain), insecure, "{domain}");
        }
    }
}
