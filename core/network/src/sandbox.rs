//! Sandboxes, endpoints and ports as the engine sees them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use gantry_driver_api::network::Protocol;
use gantry_model::{ContainerId, EndpointId, NetworkId};
use serde::{Deserialize, Serialize};

/// Whose network namespace a container lives in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxMode {
    /// Its own. Networks (`bridge`, `none` or user-defined ones) are connected to it.
    Own,
    /// The host's. Needs the network `host`.
    Host,
    /// Another running container's, whose files it shares as well.
    Container(ContainerId),
}

/// A legacy link: another container's name under an alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The other container.
    pub container: ContainerId,
    /// The other container's name (without slash).
    pub name: String,
    /// What the linking container calls it.
    pub alias: String,
}

/// What a sandbox is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The container.
    pub container: ContainerId,
    /// Its name, without slash.
    pub name: String,
    /// An existing directory of the container's own, where the generated files go.
    pub dir: PathBuf,
    /// Whose namespace.
    pub mode: SandboxMode,
    /// Host name; empty in host mode means the host's.
    pub hostname: String,
    /// Domain name.
    pub domainname: String,
    /// Name servers; empty: the daemon's, else the host's.
    pub dns: Vec<IpAddr>,
    /// Search domains; empty: the daemon's, else the host's. `.` alone: none.
    pub dns_search: Vec<String>,
    /// Resolver options; empty: the daemon's, else the host's.
    pub dns_options: Vec<String>,
    /// `name:address`, where the address may be `host-gateway`.
    pub extra_hosts: Vec<String>,
    /// Links on the default network.
    pub links: Vec<Link>,
    /// Where it may go; none: anywhere.
    #[serde(default)]
    pub egress: Option<crate::EgressList>,
}

/// The generated files, to be bind-mounted over `/etc/{hosts,resolv.conf,hostname}`. They are rewritten in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxFiles {
    /// `/etc/hosts`.
    pub hosts: PathBuf,
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// `/etc/hostname`.
    pub hostname: PathBuf,
}

impl SandboxFiles {
    /// The files of the container whose directory is `dir`.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        Self {
            hosts: dir.join("hosts"),
            resolv_conf: dir.join("resolv.conf"),
            hostname: dir.join("hostname"),
        }
    }
}

/// A container's place in the network.
#[derive(Debug)]
pub struct Sandbox {
    /// The container.
    pub container: ContainerId,
    /// The namespace, for the monitor to enter; none for the host's. Its loopback link is up.
    pub netns: Option<OwnedFd>,
    /// The generated files.
    pub files: SandboxFiles,
}

/// What the user wishes for one attachment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EndpointConfig {
    /// Further names on this network.
    pub aliases: Vec<String>,
    /// A fixed IPv4 address.
    pub ipv4: Option<IpAddr>,
    /// A fixed IPv6 address.
    pub ipv6: Option<IpAddr>,
    /// Link-local addresses to add.
    pub link_local: Vec<IpAddr>,
    /// A fixed MAC address.
    pub mac: Option<String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// The attachment with the highest wins the default route; ties go to the first network name.
    pub gw_priority: i64,
    /// Names that only this container sees on this network.
    pub links: Vec<Link>,
}

/// An attachment, as the API's `EndpointSettings` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointInfo {
    /// The network.
    pub network: NetworkId,
    /// Its name.
    pub network_name: String,
    /// The attachment.
    pub endpoint: EndpointId,
    /// The link inside the sandbox (`eth0`); empty when there is none.
    pub link: String,
    /// MAC address; empty when there is none.
    pub mac: String,
    /// IPv4 address.
    pub ipv4: Option<IpAddr>,
    /// Its prefix length, 0 without address.
    pub ipv4_prefix: u8,
    /// IPv4 gateway.
    pub gateway: Option<IpAddr>,
    /// IPv6 address.
    pub ipv6: Option<IpAddr>,
    /// Its prefix length, 0 without address.
    pub ipv6_prefix: u8,
    /// IPv6 gateway.
    pub gateway_v6: Option<IpAddr>,
    /// Every name that it answers to on the network (empty on the default one).
    pub dns_names: Vec<String>,
    /// What was wished.
    pub config: EndpointConfig,
}

/// A container of a network, for `network inspect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The container.
    pub container: ContainerId,
    /// Its name.
    pub name: String,
    /// Its attachment.
    pub endpoint: EndpointInfo,
}

/// A port that is to be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// Transport.
    pub protocol: Protocol,
    /// Port inside the container.
    pub container_port: u16,
    /// Host address; none: the daemon's `--ip`, else every one.
    pub host_ip: Option<IpAddr>,
    /// First wished host port; 0: any of the ephemeral range.
    pub host_port: u16,
    /// Last wished host port: the first free one from `host_port` on is taken. Equal to `host_port` for just one.
    pub host_port_end: u16,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortBinding {
    /// Transport.
    pub protocol: Protocol,
    /// Port inside the container.
    pub container_port: u16,
    /// Host address; unspecified: every one.
    pub host_ip: IpAddr,
    /// Host port.
    pub host_port: u16,
}

/// A container that outlived the daemon.
#[derive(Debug)]
pub struct LiveSandbox {
    /// The container.
    pub container: ContainerId,
    /// Its namespace, from its monitor; none when it has none of its own.
    pub netns: Option<OwnedFd>,
}
