//! Where to ask for a repository: mirrors, the registry itself, and which scheme it may be asked with.

use std::net::{IpAddr, ToSocketAddrs};

use gantry_driver_api::registry::{Credentials, Endpoint};
use gantry_driver_api::{DriverError, DriverResult};
use gantry_model::reference::DEFAULT_DOMAIN;
use ipnet::IpNet;

use super::retry;
use crate::hosts::{self, Certificates, Host};
use crate::service::Shared;
use crate::{Result, Settings};

/// What Docker Hub is called as a server.
pub(crate) const HUB_URL: &str = "https://registry-1.docker.io";

/// A server that holds a registry's images, and what it may be asked.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    /// The registry itself: it decides, and gets the user's credentials.
    pub(crate) own: bool,
    /// Which digest a tag stands for.
    pub(crate) resolves: bool,
    /// What a digest names.
    pub(crate) pulls: bool,
    /// To take what is pushed.
    pub(crate) pushes: bool,
}

impl Shared {
    /// The servers of `domain`, in the order in which to try them: mirrors, then the registry itself, on both schemes
    /// where it may be asked on both.
    ///
    /// # Errors
    /// [`crate::Error::Misconfigured`].
    pub(crate) fn servers(&self, domain: &str, credentials: &Credentials) -> Result<Vec<Server>> {
        let settings = &*self.settings();
        let list = List { settings, domain };
        let mut servers = Vec::new();
        for url in settings.mirrors.get(domain).into_iter().flatten() {
            servers.push(list.mirror(url)?);
        }
        let file = hosts::hosts_file(&settings.certs_dirs, domain)?;
        let mut named = None;
        if let Some(file) = file {
            for host in &file.hosts {
                servers.push(list.of_file(host, false)?);
            }
            named = Some(file.server);
        }
        let from = servers.len();
        match named {
            Some(host) if !host.url.is_empty() => servers.push(list.of_file(&host, true)?),
            Some(host) => {
                for mut server in self.by_name(&list)? {
                    list.apply(&host, &mut server);
                    servers.push(server);
                }
            }
            None => servers.extend(self.by_name(&list)?),
        }
        for server in &mut servers[from..] {
            server.endpoint.credentials = credentials.clone();
        }
        Ok(servers)
    }

    /// The registry itself, where its name says that it is.
    fn by_name(&self, list: &List<'_>) -> Result<Vec<Server>> {
        let domain = list.domain;
        if domain == DEFAULT_DOMAIN {
            return Ok(vec![list.own(HUB_URL.into(), false)?]);
        }
        let tls = format!("https://{domain}");
        if !is_insecure(list.settings, domain) {
            return Ok(vec![list.own(tls, false)?]);
        }
        let plain = format!("http://{domain}");
        let mut servers = vec![list.own(tls, true)?, list.own(plain, true)?];
        if self.plain_http.lock().contains(domain) {
            servers.reverse();
        }
        Ok(servers)
    }

    /// The registry itself, without its mirrors, which only hold copies.
    ///
    /// # Errors
    /// [`crate::Error::Misconfigured`].
    pub(crate) fn own_servers(
        &self,
        domain: &str,
        credentials: &Credentials,
    ) -> Result<Vec<Server>> {
        let mut servers = self.servers(domain, credentials)?;
        servers.retain(|server| server.own);
        Ok(servers)
    }

    /// Where to push to.
    ///
    /// # Errors
    /// [`crate::Error::Misconfigured`].
    pub(crate) fn push_servers(
        &self,
        domain: &str,
        credentials: &Credentials,
    ) -> Result<Vec<Server>> {
        let mut servers = self.servers(domain, credentials)?;
        servers.retain(|server| server.pushes);
        Ok(servers)
    }

    /// Asks one server after the other until the registry itself has decided, or a mirror knows.
    pub(crate) fn ask<T>(
        &self,
        servers: impl IntoIterator<Item = Server>,
        mut question: impl FnMut(&Endpoint) -> DriverResult<T>,
    ) -> DriverResult<T> {
        let mut last = DriverError::internal("no registry to ask");
        for Server { endpoint, own, .. } in servers {
            match question(&endpoint) {
                Ok(answer) => {
                    self.answered(&endpoint);
                    return Ok(answer);
                }
                Err(error) if !own || retry::is_transient(&error) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Remembers that `domain` answers on plain HTTP, so that the next request does not try TLS first.
    pub(crate) fn answered(&self, endpoint: &Endpoint) {
        if endpoint.url == format!("http://{}", endpoint.domain) {
            self.plain_http.lock().insert(endpoint.domain.clone());
        }
    }
}

/// Makes the servers of one registry.
struct List<'a> {
    settings: &'a Settings,
    domain: &'a str,
}

impl List<'_> {
    fn endpoint(&self, url: String, skip_verify: bool) -> Result<Endpoint> {
        let found = hosts::certificates(&self.settings.certs_dirs, self.name_of(&url))?;
        Ok(Endpoint {
            domain: self.domain.into(),
            url,
            skip_verify,
            ca_files: found.authorities,
            client_certificates: found.own,
            proxies: self.settings.proxies.clone(),
            ..Endpoint::default()
        })
    }

    /// What a server is called in the configuration.
    fn name_of<'u>(&'u self, url: &'u str) -> &'u str {
        match url {
            HUB_URL => DEFAULT_DOMAIN,
            url => host_of(url),
        }
    }

    fn own(&self, url: String, skip_verify: bool) -> Result<Server> {
        Ok(Server {
            endpoint: self.endpoint(url, skip_verify)?,
            own: true,
            resolves: true,
            pulls: true,
            pushes: true,
        })
    }

    /// A mirror is somebody else: it does not get the user's password.
    fn mirror(&self, url: &str) -> Result<Server> {
        let url = url.trim_end_matches('/');
        let insecure = is_insecure(self.settings, host_of(url));
        Ok(Server {
            endpoint: self.endpoint(url.into(), insecure)?,
            own: false,
            resolves: true,
            pulls: true,
            pushes: false,
        })
    }

    fn of_file(&self, host: &Host, own: bool) -> Result<Server> {
        let mut server = self.own(host.url.clone(), false)?;
        server.own = own;
        server.endpoint.namespaced = !own && host_of(&host.url) != self.domain;
        self.apply(host, &mut server);
        Ok(server)
    }

    /// What a file says of a server, beyond where it is.
    fn apply(&self, host: &Host, server: &mut Server) {
        let Certificates { authorities, own } = host.certificates.clone();
        let endpoint = &mut server.endpoint;
        endpoint.override_path = host.override_path;
        endpoint.headers = host.headers.clone();
        endpoint.skip_verify |= host.skip_verify;
        endpoint.ca_files.extend(authorities);
        endpoint.client_certificates.extend(own);
        (server.resolves, server.pulls, server.pushes) = (host.resolves, host.pulls, host.pushes);
    }
}

pub(super) fn host_of(url: &str) -> &str {
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
