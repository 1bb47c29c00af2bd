//! The address of this host that the others send to.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gantry_plugin_sdk::{DriverError, DriverResult};
use http::Uri;
use parking_lot::Mutex;

use crate::options::Options;

/// How long the names of etcd's hosts are looked up: an engine does not wait for name servers before it is ready.
const LOOKUP: Duration = Duration::from_secs(1);
/// How long to wait before an address that was not found is looked for again.
const PAUSE: Duration = Duration::from_secs(5);

/// The address, once it is found. One that was found is kept in a file, for when it cannot be found.
#[derive(Debug)]
pub(crate) struct Address {
    file: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    found: Option<IpAddr>,
    looked: Option<Instant>,
}

impl Address {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            file: root.join("address"),
            state: Mutex::default(),
        }
    }

    /// The address, looked for if it is not known.
    pub(crate) fn get(&self, options: &Options) -> DriverResult<Option<IpAddr>> {
        let mut state = self.state.lock();
        let lately = state.looked.is_some_and(|when| when.elapsed() < PAUSE);
        if state.found.is_some() || lately {
            return Ok(state.found);
        }
        let kept = || fs::read_to_string(&self.file).ok()?.trim().parse().ok();
        let found = match options.advertise {
            Some(address) => Some(address),
            None => match towards(&options.etcd) {
                Towards::Store(address) => Some(address),
                // Where the store is cannot be known without its name.
                Towards::Unknown => kept().or_else(outside),
                Towards::Here => outside().or_else(kept),
            },
        };
        if let Some(address) = found {
            fs::write(&self.file, address.to_string())
                .map_err(|e| DriverError::io(format!("writing {}", self.file.display()), &e))?;
        }
        state.found = found;
        state.looked = Some(Instant::now());
        Ok(found)
    }
}

/// Where the store is.
enum Towards {
    /// Behind the link with this address.
    Store(IpAddr),
    /// On this host.
    Here,
    /// Nobody can tell at present.
    Unknown,
}

/// The address that the store sees.
fn towards(endpoints: &[String]) -> Towards {
    let mut way = Towards::Here;
    for endpoint in endpoints {
        match resolve(endpoint) {
            Some(addresses) => match addresses.into_iter().find_map(source) {
                Some(address) => return Towards::Store(address),
                None => continue,
            },
            None => way = Towards::Unknown,
        }
    }
    way
}

/// The addresses of an endpoint's host, if they are to be had soon.
fn resolve(endpoint: &str) -> Option<Vec<SocketAddr>> {
    let uri: Uri = endpoint.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(2379);
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Some(vec![(ip, port).into()]);
    }
    let (done, answer) = mpsc::sync_channel(1);
    let host = host.to_owned();
    let looking = std::thread::Builder::new()
        .name("overlay-lookup".into())
        .stack_size(256 << 10)
        .spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs();
            // Nobody may be waiting any more.
            let _ = done.send(found.map(Iterator::collect));
        });
    looking.ok()?;
    answer.recv_timeout(LOOKUP).ok()?.ok()
}

/// The address of this host that packets to a remote one carry.
fn source(to: SocketAddr) -> Option<IpAddr> {
    let any = match to {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// The address that goes with the default route.
fn outside() -> Option<IpAddr> {
    // An address that documents use (RFC 5737): nothing is sent to it.
    source(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9)))
}
