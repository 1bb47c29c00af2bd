//! What daemon and netd say to each other.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The version spoken here. A daemon that meets an older netd replaces it; one that meets a newer goes on with it:
/// fields are only ever added.
pub const PROTOCOL: u32 = 2;

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

/// All that netd knows of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxNames {
    /// The container's ID.
    pub id: String,
    /// Its networks.
    pub memberships: Vec<Membership>,
    /// Who is asked for other names, in this order; empty: nobody is.
    pub upstreams: Vec<IpAddr>,
    /// None: it may ask for and reach anything.
    #[serde(default)]
    pub egress: Option<Egress>,
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
    /// Forgets a sandbox and closes its sockets.
    Remove {
        /// The container's ID.
        id: String,
    },
    /// Asks for the IDs of all sandboxes.
    List,
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
    /// To [`Request::List`].
    Sandboxes(Vec<String>),
}
