//! What the service is opened with.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A range that pools for networks without a wish are cut from (`--default-address-pool`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPool {
    /// The whole range.
    pub base: IpNet,
    /// Prefix length of one network's pool.
    pub size: u8,
}

/// The daemon's flags about the network named `bridge`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeDefaults {
    /// `-b`: use this existing link, or `none` for no default network; none: make an own one.
    pub link: Option<String>,
    /// `--bip`: the bridge's address and with it the subnet.
    pub bip: Option<Ipv4Net>,
    /// `--bip6`.
    pub bip6: Option<Ipv6Net>,
    /// `--fixed-cidr`: the part of the subnet that containers get addresses from.
    pub fixed_cidr: Option<Ipv4Net>,
    /// `--fixed-cidr-v6`.
    pub fixed_cidr_v6: Option<Ipv6Net>,
    /// `--default-gateway`.
    pub default_gateway: Option<std::net::Ipv4Addr>,
    /// `--default-gateway-v6`.
    pub default_gateway_v6: Option<std::net::Ipv6Addr>,
    /// `--icc`: containers may talk to each other.
    pub icc: bool,
    /// `--ip-masq`.
    pub ip_masq: bool,
    /// `--ipv6`.
    pub ipv6: bool,
    /// `--ip`: where ports are published when the request names no address.
    pub host_ip: Option<IpAddr>,
}

impl Default for BridgeDefaults {
    fn default() -> Self {
        Self {
            link: None,
            bip: None,
            bip6: None,
            fixed_cidr: None,
            fixed_cidr_v6: None,
            default_gateway: None,
            default_gateway_v6: None,
            icc: true,
            ip_masq: true,
            ipv6: false,
            host_ip: None,
        }
    }
}

/// Roots, flags and host facts of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The engine's data-root; networks are kept in `network/` below it.
    pub data_root: PathBuf,
    /// The engine's exec-root; sandboxes and netd's socket are kept in `network/` below it.
    pub exec_root: PathBuf,
    /// Eight hex digits derived from the data-root.
    pub tag: String,
    /// Whether the data-root is the default one: the default bridge is then called `gantry0`, else `gantry-<tag>`.
    pub primary: bool,
    /// The `gantry-netd` program; none: no names on user-defined networks (queries go to the host's resolvers).
    pub netd: Option<PathBuf>,
    /// Changes whenever the machine boots (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// Flags of the network `bridge`.
    pub bridge: BridgeDefaults,
    /// `--default-address-pool`; empty: Docker's.
    pub pools: Vec<AddressPool>,
    /// `--mtu`; 0: the links' own.
    pub mtu: u32,
    /// `--iptables`: whether rules are written at all.
    pub firewall: bool,
    /// `--userland-proxy`: whether netd relays what the kernel cannot translate.
    pub userland_proxy: bool,
    /// `--published-ports-obey-input`: netd relays everything, so that it passes the host's INPUT rules.
    pub obey_input: bool,
    /// `--allow-direct-routing`: other hosts reach published ports at the containers' own addresses as well.
    pub allow_direct_routing: bool,
    /// The root of the unified control group hierarchy: what its processes connect to published ports at loopback addresses
    /// over TCP is led there, not translated (`--published-ports-shortcut`); none: it is translated like the rest.
    pub shortcut: Option<PathBuf>,
    /// `--ip-forward`: switch forwarding on.
    pub ip_forward: bool,
    /// `--default-network-opt`, driver name to options.
    pub default_options:
        std::collections::BTreeMap<String, std::collections::BTreeMap<String, String>>,
    /// `--dns`.
    pub dns: Vec<IpAddr>,
    /// `--dns-search`.
    pub dns_search: Vec<String>,
    /// `--dns-option`.
    pub dns_options: Vec<String>,
    /// `--host-gateway-ip`: what `host-gateway` in extra hosts means; empty: the default bridge's address.
    pub host_gateway: Vec<IpAddr>,
    /// Namespaces to keep prepared ahead of need.
    pub prepared: usize,
}

impl NetworkConfig {
    /// Docker's defaults for an engine on these roots.
    #[must_use]
    pub fn new(data_root: PathBuf, exec_root: PathBuf, tag: String, boot_id: String) -> Self {
        Self {
            data_root,
            exec_root,
            tag,
            primary: false,
            netd: None,
            boot_id,
            bridge: BridgeDefaults::default(),
            pools: Vec::new(),
            mtu: 0,
            firewall: true,
            userland_proxy: true,
            obey_input: false,
            allow_direct_routing: false,
            shortcut: None,
            ip_forward: true,
            default_options: std::collections::BTreeMap::new(),
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            host_gateway: Vec::new(),
            prepared: 3,
        }
    }
}
