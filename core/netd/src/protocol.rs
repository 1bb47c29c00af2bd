//! What daemon and netd say to each other.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::NameServer;

/// The version spoken here. A daemon that meets an older netd replaces it; one that meets a newer goes on with it:
/// fields are only ever added.
pub const PROTOCOL: u32 = 6;

/// Where netd answers inside a sandbox.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The set of the pairs of IPv4 addresses, a sandbox's and that of a name on its egress list, that may talk.
pub const EGRESS_NAMES_V4: &str = "names4";
/// The same for IPv6.
pub const EGRESS_NAMES_V6: &str = "names6";

/// A name that only one sandbox knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// What the sandbox calls it.
    pub alias: String,
    /// A name on the same network.
    pub name: String,
}

/// A sandbox on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The network's ID.
    pub network: String,
    /// Its name, which may follow another name after a dot.
    pub network_name: String,
    /// What others on the network call the sandbox; the first is told by reverse look-ups.
    pub names: Vec<String>,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
    /// What it calls others there.
    #[serde(default)]
    pub aliases: Vec<Alias>,
}

/// What a sandbox with an egress list may ask for and reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// The nftables table with the sets [`EGRESS_NAMES_V4`] and [`EGRESS_NAMES_V6`].
    pub table: String,
    /// Host names; `*.example.org` for all below one.
    pub names: Vec<String>,
    /// Networks are listed as well. Other names are asked for then, because they may lead there; without, they do not
    /// exist.
    pub networks: bool,
    /// The sandbox's addresses.
    pub sources: Vec<IpAddr>,
}

/// From where a sandbox's name servers are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Asks {
    /// From the host.
    #[default]
    Host,
    /// From the sandbox, and from the host where that has no answer.
    InsideFirst,
    /// From the sandbox alone: its networks lead nowhere.
    Inside,
}

/// All that netd knows of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxNames {
    /// The container's ID.
    pub id: String,
    /// Its networks.
    pub memberships: Vec<Membership>,
    /// Who is asked for other names, in this order; empty: nobody is.
    pub upstreams: Vec<NameServer>,
    /// The host's name servers are asked, as they are at the time; `upstreams` are those of before.
    #[serde(default)]
    pub follows_host: bool,
    /// From where they are asked.
    #[serde(default)]
    pub asks: Asks,
    /// It wishes for `ndots`: names without a dot are tried with search domains, and not asked for elsewhere without.
    #[serde(default)]
    pub searches: bool,
    /// None: it may ask for and reach anything.
    #[serde(default)]
    pub egress: Option<Egress>,
}

/// A member of a network on another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// What others on the network call it; the first is told by reverse look-ups.
    pub names: Vec<String>,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
}

/// Ports of the host in a row, relayed to ports of a container in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// UDP; otherwise TCP.
    pub udp: bool,
    /// Address of the host, unspecified for all of its family, and first port.
    pub host: SocketAddr,
    /// Address of the container, of either family, and first port.
    pub target: SocketAddr,
    /// How many ports follow the first.
    #[serde(default)]
    pub more: u16,
    /// Nothing leads what is sent there to netd: it listens on each port.
    #[serde(default)]
    pub listen: bool,
}

/// Where what is sent to relayed ports has to be led: ports of transparent sockets on the loopback address of each family;
/// 0: there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Listeners {
    /// TCP over IPv4.
    pub tcp4: u16,
    /// UDP over IPv4.
    pub udp4: u16,
    /// TCP over IPv6.
    pub tcp6: u16,
    /// UDP over IPv6.
    pub udp6: u16,
}

/// A request to netd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The first of a connection.
    Hello {
        /// The daemon's [`PROTOCOL`].
        version: u32,
    },
    /// Sets what is known of a sandbox. With two descriptors, a UDP and a listening TCP socket, these replace the ones
    /// that it answered on; without, a sandbox that has none is refused.
    Put(SandboxNames),
    /// Forgets a sandbox's names and closes its sockets. What is relayed to it stays.
    Remove {
        /// The container's ID.
        id: String,
    },
    /// Sets a network's members on other hosts, in one message or in parts. They take the place of those of before with
    /// the last part.
    Foreign {
        /// The network's ID.
        network: String,
        /// The part.
        members: Vec<Foreign>,
        /// It is the first one.
        first: bool,
        /// It is the last one.
        last: bool,
    },
    /// Asks for the IDs of sandboxes that have sockets: in order, as many as one reply takes.
    List {
        /// Those that come after this one.
        after: String,
    },
    /// Asks where what is sent to relayed ports has to be led.
    Listen,
    /// Sets what is relayed to a sandbox, in one message or in parts. It takes the place of what was before with the last
    /// part; connections go on. Refused, with nothing changed, when a port that is new cannot be listened on.
    Relay {
        /// The container's ID.
        id: String,
        /// The part.
        relays: Vec<Relay>,
        /// It is the first one.
        first: bool,
        /// It is the last one.
        last: bool,
        /// With the last: what cannot be listened on is no reason to refuse. It is tried again until it can be, or is not
        /// wanted any more.
        #[serde(default)]
        patient: bool,
    },
    /// Forgets what is relayed to a sandbox, and ends the connections.
    Unrelay {
        /// The container's ID.
        id: String,
    },
    /// Asks for the IDs of sandboxes that something is relayed to, as [`Request::List`] does.
    Relayed {
        /// Those that come after this one.
        after: String,
    },
    /// Holds the descriptors that come along, in the place of those of before: what they stand for is to outlive the daemon.
    Hold,
    /// Ends netd.
    Stop,
}

/// netd's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Hello`].
    Hello {
        /// netd's [`PROTOCOL`].
        version: u32,
        /// Its process.
        pid: u32,
    },
    /// It was done.
    Done,
    /// It was not, and why.
    Refused(String),
    /// To [`Request::List`] and [`Request::Relayed`]; empty: there are no more.
    Sandboxes(Vec<String>),
    /// To [`Request::Listen`].
    Listening(Listeners),
}
