//! Sockets that clients connect to.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use gantry_api::{Listener, TlsFiles};
use listenfd::ListenFd;
use nix::unistd::Group;

use crate::config::Config;

/// Where a daemon listens that is told nothing.
pub(crate) const DEFAULT_HOST: &str = "unix:///run/gantry.sock";
/// Ports without and with TLS.
const PORTS: (u16, u16) = (2375, 2376);

/// A place to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Unix(PathBuf),
    /// Host and port.
    Tcp(String, u16),
    /// Inherited: all, or the one of this number or name.
    Inherited(String),
}

fn parse(text: &str, tls: bool) -> anyhow::Result<Host> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    match scheme {
        "unix" if rest.is_empty() => Ok(Host::Unix("/run/gantry.sock".into())),
        "unix" if rest.starts_with('/') => Ok(Host::Unix(rest.into())),
        "fd" => Ok(Host::Inherited(rest.trim_matches('*').into())),
        "tcp" => {
            let rest = rest.trim_end_matches('/');
            let port = if tls { PORTS.1 } else { PORTS.0 };
            let (host, port) = match rest.rsplit_once(':') {
                Some((host, "")) => (host, port),
                Some((host, digits)) if !digits.contains(']') => {
                    let port = digits.parse().map_err(|_| {
                        anyhow!("invalid bind address ({text}): bad port {digits:?}")
                    })?;
                    (host, port)
                }
                _ => (rest, port),
            };
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let host = if host.is_empty() { "127.0.0.1" } else { host };
            Ok(Host::Tcp(host.into(), port))
        }
        _ => bail!("invalid bind address ({text})"),
    }
}

/// Opens everything the configuration names. Sockets of a daemon that runs are left alone.
pub(crate) fn open(config: &Config) -> anyhow::Result<Vec<Listener>> {
    let default = [DEFAULT_HOST.to_owned()];
    let hosts = match config.hosts.as_slice() {
        [] => default.as_slice(),
        hosts => hosts,
    };
    let tls = tls(config)?;
    let mut inherited = None;
    let mut listeners = Vec::new();
    for text in hosts {
        match parse(text, tls.is_some())? {
            Host::Unix(path) => listeners.push(unix(&path, &config.group)?),
            Host::Tcp(host, port) => tcp(&host, port, tls.as_ref(), &mut listeners)?,
            Host::Inherited(which) => {
                let fds = inherited.get_or_insert_with(ListenFd::from_env);
                take(fds, &which, &mut listeners).with_context(|| format!("listen on {text}"))?;
            }
        }
    }
    Ok(listeners)
}

type Tls = Arc<rustls::ServerConfig>;

fn tls(config: &Config) -> anyhow::Result<Option<Tls>> {
    if !config.tls && !config.tlsverify {
        return Ok(None);
    }
    let home = std::env::var_os("DOCKER_CERT_PATH").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".docker"),
        PathBuf::from,
    );
    let file = |given: &str, name: &str| match given {
        "" => home.join(name),
        given => given.into(),
    };
    let files = TlsFiles {
        certificate: file(&config.tlscert, "cert.pem"),
        key: file(&config.tlskey, "key.pem"),
        client_ca: config.tlsverify.then(|| file(&config.tlscacert, "ca.pem")),
    };
    Ok(Some(gantry_api::server_config(&files)?))
}

fn unix(path: &Path, group: &str) -> anyhow::Result<Listener> {
    let context = || format!("can't create unix socket {}", path.display());
    if UnixStream::connect(path).is_ok() {
        return Err(anyhow!("another process listens there").context(context()));
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(context)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(context);
        }
        _ => {}
    }
    // Nobody else may connect between the socket's making and its mode.
    let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = tokio::net::UnixListener::bind(path);
    rustix::process::umask(old);
    let listener = bound.with_context(context)?;
    match Group::from_name(group) {
        Ok(Some(found)) => {
            chown(path, None, Some(found.gid.as_raw())).with_context(context)?;
        }
        _ if group.parse::<u32>().is_ok() => {
            chown(path, None, group.parse().ok()).with_context(context)?;
        }
        // The default group need not exist; then the socket is root's alone.
        _ if group == "docker" || group.is_empty() => {}
        _ => bail!(
            "can't create unix socket {}: group {group} not found",
            path.display()
        ),
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).with_context(context)?;
    Ok(Listener::Unix(listener))
}

fn tcp(
    host: &str,
    port: u16,
    tls: Option<&Tls>,
    listeners: &mut Vec<Listener>,
) -> anyhow::Result<()> {
    let context = || format!("failed to listen on tcp://{host}:{port}");
    let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![(address, port).into()],
        Err(_) => (host, port)
            .to_socket_addrs()
            .with_context(context)?
            .collect(),
    };
    for address in addresses {
        if tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!(%address, "listening without TLS: whoever reaches this address is root on this host");
        }
        let socket = std::net::TcpListener::bind(address).with_context(context)?;
        socket.set_nonblocking(true)?;
        let socket = tokio::net::TcpListener::from_std(socket)?;
        listeners.push(match tls {
            Some(tls) => Listener::Tls(socket, tls.clone()),
            None => Listener::Tcp(socket),
        });
    }
    Ok(())
}

/// First descriptor of systemd's socket activation.
const FIRST: usize = 3;

fn take(fds: &mut ListenFd, which: &str, listeners: &mut Vec<Listener>) -> anyhow::Result<()> {
    let wanted: Vec<usize> = match which {
        "" => (0..fds.len()).collect(),
        which => {
            let number: usize = which
                .parse()
                .map_err(|_| anyhow!("no descriptor {which:?}"))?;
            vec![
                number
                    .checked_sub(FIRST)
                    .context("descriptors begin at 3")?,
            ]
        }
    };
    if fds.len() == 0 {
        bail!(
            "no sockets found via socket activation: make sure the service was started by systemd"
        );
    }
    for index in wanted {
        if let Ok(Some(socket)) = fds.take_unix_listener(index) {
            socket.set_nonblocking(true)?;
            listeners.push(Listener::Unix(tokio::net::UnixListener::from_std(socket)?));
        } else if let Ok(Some(socket)) = fds.take_tcp_listener(index) {
            socket.set_nonblocking(true)?;
            listeners.push(Listener::Tcp(tokio::net::TcpListener::from_std(socket)?));
        } else {
            bail!("descriptor {} is no listening socket", index + FIRST);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, tls, want) in [
            ("unix:///a/b", false, Host::Unix("/a/b".into())),
            ("tcp://", false, Host::Tcp("127.0.0.1".into(), 2375)),
            ("tcp://", true, Host::Tcp("127.0.0.1".into(), 2376)),
            ("tcp://0.0.0.0:1", false, Host::Tcp("0.0.0.0".into(), 1)),
            ("tcp://:1", false, Host::Tcp("127.0.0.1".into(), 1)),
            ("tcp://[::1]:1", false, Host::Tcp("::1".into(), 1)),
            ("tcp://[::1]", false, Host::Tcp("::1".into(), 2375)),
            ("localhost:5", false, Host::Tcp("localhost".into(), 5)),
            ("fd://", false, Host::Inherited(String::new())),
            ("fd://3", false, Host::Inherited("3".into())),
        ] {
            assert_eq!(parse(text, tls).unwrap(), want, "{text}");
        }
        for bad in ["unix://a", "npipe:////./x", "tcp://a:b"] {
            assert!(parse(bad, false).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_socket_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let first = unix(&path, "docker").unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        assert!(unix(&path, "docker").is_err());
        drop(first);
        unix(&path, "docker").unwrap();
        assert!(unix(&dir.path().join("t"), "no-such-group").is_err());
    }
}
