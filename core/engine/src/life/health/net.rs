//! Checks over the network: a connection from inside the container's network namespace, without a process in it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_runtime::Process;
use http::uri::PathAndQuery;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::NO_ANSWER;
use super::output::{Output, too_long};
use crate::engine::blocking;

/// What a check connects to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Tried one after the other.
    addresses: Vec<SocketAddr>,
    /// What to ask for over HTTP; none: to be connected is enough.
    request: Option<(String, PathAndQuery)>,
}

impl Target {
    /// Reads `["HTTP", url]` or `["TCP", "[address:]port"]`. Without an address, the container's own loopback is meant.
    ///
    /// # Errors
    /// Words for the client.
    pub(super) fn parse(kind: &str, arguments: &[String]) -> Result<Self, String> {
        let [text] = arguments else {
            return Err(format!("a healthcheck of type {kind:?} takes one argument"));
        };
        let invalid = |why: &str| format!("invalid {kind} healthcheck {text:?}: {why}");
        match kind {
            "TCP" => Ok(Self {
                addresses: addresses(text, None).map_err(invalid)?,
                request: None,
            }),
            "HTTP" => {
                let rest = text.strip_prefix("http://");
                let rest = rest.ok_or_else(|| invalid("want http://[address][:port][/path]"))?;
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                let (authority, path) = rest.split_at(end);
                let path = path.split('#').next().unwrap_or_default();
                let path = match path.starts_with('/') {
                    true => path.to_owned(),
                    false => format!("/{path}"),
                };
                let path = path.parse().map_err(|_| invalid("the path is none"))?;
                let host = match authority.starts_with(':') || authority.is_empty() {
                    true => format!("localhost{authority}"),
                    false => authority.to_owned(),
                };
                Ok(Self {
                    addresses: addresses(authority, Some(80)).map_err(invalid)?,
                    request: Some((host, path)),
                })
            }
            _ => Err(invalid("it is not made over the network")),
        }
    }
}

/// `port`, `:port`, `address:port`, and where there is a default port also an address alone or nothing.
fn addresses(text: &str, default: Option<u16>) -> Result<Vec<SocketAddr>, &'static str> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ if default.is_none() => ("", Some(text)),
        _ => (text, None),
    };
    let port = match (port, default) {
        (Some(port), _) => port.parse().ok().filter(|port| *port > 0),
        (None, default) => default,
    };
    let port = port.ok_or("the port is none")?;
    let hosts: Vec<IpAddr> = match host {
        "" | "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        host => {
            let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
            let address = match bare {
                Some(bare) => bare.parse::<Ipv6Addr>().ok().map(IpAddr::from),
                None => host.parse::<Ipv4Addr>().ok().map(IpAddr::from),
            };
            vec![address.ok_or("the host must be an address, localhost or nothing")?]
        }
    };
    Ok(hosts
        .into_iter()
        .map(|host| SocketAddr::new(host, port))
        .collect())
}

/// Exit code and output of a check.
pub(super) async fn probe(
    target: &Target,
    process: &Arc<Process>,
    timeout: Duration,
) -> (i32, String) {
    let output = Output::default();
    match tokio::time::timeout(timeout, ask(target, process, &output)).await {
        Ok(Ok(None)) => (0, output.text()),
        Ok(Ok(Some(status))) => (1, format!("{status}: {}", output.text())),
        Ok(Err(error)) => (1, error.to_string()),
        Err(_) => (NO_ANSWER, too_long(timeout, &output.text())),
    }
}

/// The status of an answer that tells of bad health.
async fn ask(
    target: &Target,
    process: &Process,
    output: &Output,
) -> io::Result<Option<http::StatusCode>> {
    let stream = connect(&target.addresses, process).await?;
    let Some((host, path)) = &target.request else {
        output.take(format!("connected to {}", stream.peer_addr()?).as_bytes());
        return Ok(None);
    };
    let request = http::Request::get(path.as_str())
        .header(http::header::HOST, host)
        .header(http::header::USER_AGENT, "gantry-healthcheck")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let answer = sender.send_request(request);
    let mut answer = answer.await.map_err(io::Error::other)?;
    while let Some(frame) = answer.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        // The rest is of no interest.
        if frame.data_ref().is_some_and(|bytes| !output.take(bytes)) {
            break;
        }
    }
    let status = answer.status();
    let good = status.is_success() || status.is_redirection();
    Ok((!good).then_some(status))
}

/// The first connection that can be made, from inside the container's network namespace.
async fn connect(addresses: &[SocketAddr], process: &Process) -> io::Result<TcpStream> {
    let netns = Arc::new(process.netns().await.map_err(io::Error::other)?);
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match connect_one(*address, netns.clone()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A socket stays in the namespace that it was made in, whoever connects it.
async fn connect_one(
    address: SocketAddr,
    netns: Arc<std::os::fd::OwnedFd>,
) -> io::Result<TcpStream> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let make = move || {
        gantry_sys::netns::inside(&*netns, || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            Ok(socket_with(family, SocketType::STREAM, flags, None)?)
        })
    };
    let socket = blocking(make).await.map_err(io::Error::other)??;
    let socket = TcpSocket::from_std_stream(StdStream::from(socket));
    socket.connect(address).await.map_err(|error| {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        io::Error::new(
            error.kind(),
            format!("dial tcp {address}: connect: {}", text.to_lowercase()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: &str, text: &str) -> Result<(Vec<String>, Option<String>), String> {
        let target = Target::parse(kind, &[text.to_owned()])?;
        Ok((
            target.addresses.iter().map(ToString::to_string).collect(),
            target.request.map(|(host, path)| format!("{host}{path}")),
        ))
    }

    #[test]
    fn addresses_of_all_forms() {
        let loopback = |port: u16| vec![format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
        let http = |text| parse("HTTP", text).unwrap();
        assert_eq!(
            http("http://:8080/ready?x=1"),
            (loopback(8080), Some("localhost:8080/ready?x=1".into()))
        );
        assert_eq!(http("http://"), (loopback(80), Some("localhost/".into())));
        assert_eq!(
            http("http://localhost"),
            (loopback(80), Some("localhost/".into()))
        );
        assert_eq!(
            http("http://[fd00::1]:81/#frag"),
            (vec!["[fd00::1]:81".into()], Some("[fd00::1]:81/".into()))
        );
        assert_eq!(
            http("http://10.0.0.1?q"),
            (vec!["10.0.0.1:80".into()], Some("10.0.0.1/?q".into()))
        );
        let tcp = |text| parse("TCP", text).map(|(addresses, _)| addresses);
        assert_eq!(tcp("5432"), Ok(loopback(5432)));
        assert_eq!(tcp(":5432"), Ok(loopback(5432)));
        assert_eq!(tcp("[::1]:1"), Ok(vec!["[::1]:1".into()]));
    }

    #[test]
    fn what_is_refused() {
        for (kind, text) in [
            ("HTTP", "https://:443/"),
            ("HTTP", "http://example.org/"),
            ("HTTP", "http://user@127.0.0.1/"),
            ("HTTP", "http://:0/"),
            ("HTTP", "http://:80/a b"),
            ("HTTP", "http://:80/\r\nX: y"),
            ("TCP", "0"),
            ("TCP", "70000"),
            ("TCP", "web"),
            ("TCP", ""),
            ("TCP", "[::1]"),
        ] {
            assert!(parse(kind, text).is_err(), "{kind} {text}");
        }
        assert!(Target::parse("TCP", &[]).is_err());
    }
}
