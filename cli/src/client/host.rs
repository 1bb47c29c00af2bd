//! Where the daemon is.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Gantry's own socket; Docker's is tried where there is none.
const SOCKETS: [&str; 2] = ["/run/gantry.sock", "/var/run/docker.sock"];

/// A daemon's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
    /// `ssh` arguments that lead to a machine with a `docker` or `gantry` client.
    Ssh(Vec<String>),
}

impl Host {
    /// Parses what `--host` and the environment take; `tls` decides about the port where none is given.
    pub(crate) fn parse(text: &str, tls: bool) -> Result<Self> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        match scheme {
            "unix" if rest.is_empty() => Ok(Self::Unix(SOCKETS[1].into())),
            "unix" => Ok(Self::Unix(rest.into())),
            "tcp" | "http" => Self::tcp(text, rest, tls),
            "ssh" => Self::ssh(text),
            _ => bail!("unable to resolve docker endpoint: invalid bind address format: {text}"),
        }
    }

    fn tcp(text: &str, rest: &str, tls: bool) -> Result<Self> {
        let port = if tls { 2376 } else { 2375 };
        let authority = rest.split('/').next().unwrap_or_default();
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = match authority {
            "" => format!("127.0.0.1:{port}"),
            _ if has_port => match authority.strip_prefix(':') {
                Some(port) => format!("127.0.0.1:{port}"),
                None => authority.to_owned(),
            },
            _ if authority.contains(':') && !authority.ends_with(']') => {
                bail!("unable to resolve docker endpoint: invalid bind address format: {text}")
            }
            _ => format!("{authority}:{port}"),
        };
        Ok(Self::Tcp(address))
    }

    fn ssh(text: &str) -> Result<Self> {
        let url = url::Url::parse(text)?;
        let Some(host) = url.host_str() else {
            bail!("no host specified in {text}")
        };
        let mut arguments = Vec::new();
        if !url.username().is_empty() {
            arguments.extend(["-l".to_owned(), url.username().to_owned()]);
        }
        if let Some(port) = url.port() {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        arguments
            .extend(["-o", "ConnectTimeout=30", "-T", "--", host, "docker"].map(str::to_owned));
        if !matches!(url.path(), "" | "/") {
            arguments.push(format!("--host=unix://{}", url.path()));
        }
        arguments.extend(["system", "dial-stdio"].map(str::to_owned));
        Ok(Self::Ssh(arguments))
    }

    /// The first of the well-known sockets that exists.
    pub(crate) fn default_socket() -> Self {
        let found = SOCKETS.iter().find(|path| Path::new(path).exists());
        Self::Unix(found.unwrap_or(&SOCKETS[0]).into())
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Ssh(_) => f.write_str("http://docker.example.com"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood() {
        let tcp = |address: &str| Host::Tcp(address.into());
        for (text, tls, host) in [
            (
                "unix:///run/x.sock",
                false,
                Host::Unix("/run/x.sock".into()),
            ),
            ("tcp://10.0.0.1:99", false, tcp("10.0.0.1:99")),
            ("tcp://box", true, tcp("box:2376")),
            ("tcp://[::1]:2375/base", false, tcp("[::1]:2375")),
            ("tcp://[::1]", false, tcp("[::1]:2375")),
            ("localhost:80", false, tcp("localhost:80")),
            (":80", false, tcp("127.0.0.1:80")),
        ] {
            assert_eq!(Host::parse(text, tls).unwrap(), host, "{text}");
        }
        assert!(Host::parse("foo://x", false).is_err());
        let Host::Ssh(arguments) = Host::parse("ssh://me@box:22/run/d.sock", false).unwrap() else {
            panic!()
        };
        assert_eq!(arguments[..4], ["-l", "me", "-p", "22"]);
        assert!(arguments.contains(&"--host=unix:///run/d.sock".to_owned()));
    }
}
