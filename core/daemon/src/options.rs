//! The table of everything that can be configured: one row an option, from which the command line, the check of the
//! configuration file and the notices about options without meaning here are all made.

/// How an option's value is written on the command line; in the file it is the JSON of the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `--x`, `--x=false`.
    Bool,
    /// An integer.
    Int,
    /// Text.
    Text,
    /// A number of bytes with an optional unit, `64M`.
    Bytes,
    /// May be given several times.
    List,
    /// `key=value`, several times.
    Map,
    /// `name=soft[:hard]`, several times.
    Ulimits,
    /// `base=10.0.0.0/8,size=24`, several times.
    Pools,
    /// `name=path`, several times.
    Runtimes,
    /// `driver=key=value`, several times.
    NetworkOptions,
    /// Only in the file; any JSON.
    FileOnly,
}

/// What the engine makes of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Does what it says.
    Used,
    /// As `Used`, and taken over on SIGHUP.
    Reload,
    /// Accepted, checked, without effect; the reason is told at start.
    Ignored(&'static str),
    /// Promises isolation or control that this version does not give: refused unless empty or false.
    Refused,
}

/// One option.
#[derive(Debug)]
pub(crate) struct Opt {
    /// Key in the file.
    pub(crate) key: &'static str,
    /// Long flag, when it differs from the key.
    flag: &'static str,
    /// Short flag.
    pub(crate) short: Option<char>,
    /// Form of the value.
    pub(crate) shape: Shape,
    /// What becomes of it.
    pub(crate) effect: Effect,
    /// One line for `--help`.
    pub(crate) help: &'static str,
}

impl Opt {
    /// The long flag.
    pub(crate) fn flag(&self) -> &'static str {
        if self.flag.is_empty() {
            self.key
        } else {
            self.flag
        }
    }
}

const fn opt(key: &'static str, shape: Shape, effect: Effect, help: &'static str) -> Opt {
    Opt {
        key,
        flag: "",
        short: None,
        shape,
        effect,
        help,
    }
}
const fn flagged(
    key: &'static str,
    flag: &'static str,
    shape: Shape,
    effect: Effect,
    help: &'static str,
) -> Opt {
    Opt {
        flag,
        ..opt(key, shape, effect, help)
    }
}
const fn short(short: char, inner: Opt) -> Opt {
    Opt {
        short: Some(short),
        ..inner
    }
}

use Effect::{Ignored, Refused, Reload, Used};
use Shape::{
    Bool, Bytes, FileOnly, Int, List, Map, NetworkOptions, Pools, Runtimes, Text, Ulimits,
};

const NO_CONTAINERD: &str = "this engine runs containers itself, without containerd";
const NO_SWARM: &str = "this engine is not a swarm node";
const NO_PROXY: &str = "gantry-netd relays what the kernel cannot; there is no other proxy";
const OBSOLETE: &str = "the option has no meaning any more";
const NFTABLES: &str = "the firewall is always driven through nftables";
const NOT_YET: &str = "not supported by this version";

/// Every option, sorted by key.
#[rustfmt::skip] // One option a line.
pub(crate) const OPTIONS: &[Opt] = &[
    opt("allow-direct-routing", Bool, Used, "Allow remote access to published ports on container addresses"),
    opt("allow-nondistributable-artifacts", List, Ignored(OBSOLETE), "Push nondistributable artifacts to these registries"),
    opt("api-cors-header", Text, Ignored(OBSOLETE), "CORS headers of the Engine API"),
    flagged("authorization-plugins", "authorization-plugin", List, Refused, "Authorization plugins to load"),
    opt("bip", Text, Used, "IPv4 address (CIDR) of the default bridge"),
    opt("bip6", Text, Used, "IPv6 address (CIDR) of the default bridge"),
    short('b', opt("bridge", Text, Used, "Attach containers to this bridge, or \"none\"")),
    opt("bridge-accept-fwmark", Text, Ignored(NOT_YET), "Accept packets with this firewall mark"),
    opt("builder", FileOnly, Ignored(NOT_YET), ""),
    flagged("cdi-spec-dirs", "cdi-spec-dir", List, Used, "CDI specification directories"),
    opt("cgroup-parent", Text, Used, "Parent cgroup of all containers"),
    opt("cluster-advertise", Text, Ignored(OBSOLETE), "Address or interface name to advertise"),
    opt("cluster-store", Text, Ignored(OBSOLETE), "URL of the distributed storage backend"),
    flagged("cluster-store-opts", "cluster-store-opt", Map, Ignored(OBSOLETE), "Cluster store options"),
    opt("containerd", Text, Ignored(NO_CONTAINERD), "containerd socket"),
    opt("containerd-namespace", Text, Ignored(NO_CONTAINERD), "containerd namespace"),
    flagged("containerd-plugin-namespace", "containerd-plugins-namespace", Text, Ignored(NO_CONTAINERD), "containerd namespace for plugins"),
    opt("cpu-rt-period", Int, Ignored(NOT_YET), "Limit of the CPU real-time period of the parent cgroup, in microseconds"),
    opt("cpu-rt-runtime", Int, Ignored(NOT_YET), "Limit of the CPU real-time runtime of the parent cgroup, in microseconds"),
    opt("cri-containerd", Bool, Ignored(NO_CONTAINERD), "Start containerd with CRI"),
    opt("data-root", Text, Used, "Directory of persistent state"),
    short('D', opt("debug", Bool, Reload, "Log debugging messages")),
    flagged("default-address-pools", "default-address-pool", Pools, Used, "Pools from which networks get their subnets"),
    opt("default-cgroupns-mode", Text, Reload, "Default cgroup namespace of containers (\"host\" | \"private\")"),
    opt("default-gateway", Text, Used, "IPv4 default gateway of the default bridge"),
    opt("default-gateway-v6", Text, Used, "IPv6 default gateway of the default bridge"),
    opt("default-init", FileOnly, Ignored(NOT_YET), ""),
    opt("default-ipc-mode", Text, Reload, "Default IPC namespace of containers (\"shareable\" | \"private\")"),
    flagged("default-network-opts", "default-network-opt", NetworkOptions, Used, "Default options of networks by driver"),
    opt("default-runtime", Text, Reload, "Default OCI runtime of containers"),
    opt("default-shm-size", Bytes, Reload, "Default size of /dev/shm"),
    opt("default-stop-timeout", Int, Reload, "Seconds a container gets to stop before it is killed"),
    flagged("default-ulimits", "default-ulimit", Ulimits, Reload, "Default ulimits of containers"),
    opt("deprecated-key-path", Text, Ignored(OBSOLETE), "Path of the engine's identity key"),
    opt("dns", List, Used, "DNS servers of containers"),
    flagged("dns-opts", "dns-opt", List, Used, "DNS options of containers"),
    opt("dns-search", List, Used, "DNS search domains of containers"),
    opt("drivers", FileOnly, Used, ""),
    flagged("exec-opts", "exec-opt", List, Used, "Runtime options"),
    opt("exec-root", Text, Used, "Directory of run-time state"),
    opt("experimental", Bool, Used, "Report experimental features as enabled"),
    flagged("features", "feature", Map, Reload, "Features to switch on or off"),
    opt("firewall-backend", Text, Ignored(NFTABLES), "Firewall backend (\"iptables\" | \"nftables\")"),
    opt("fixed-cidr", Text, Used, "IPv4 range for the default bridge's containers"),
    opt("fixed-cidr-v6", Text, Used, "IPv6 range for the default bridge's containers"),
    short('G', opt("group", Text, Used, "Group of the unix socket")),
    flagged("host-gateway-ips", "host-gateway-ip", List, Used, "Addresses that host-gateway stands for in --add-host"),
    short('H', flagged("hosts", "host", List, Used, "Sockets to listen on (unix://, tcp://, fd://)")),
    opt("http-proxy", Text, Used, "HTTP proxy of the engine"),
    opt("https-proxy", Text, Used, "HTTPS proxy of the engine"),
    opt("icc", Bool, Used, "Containers on the default bridge may talk to each other"),
    opt("init", Bool, Used, "Run an init in each container"),
    opt("init-path", Text, Used, "Path of the init binary"),
    flagged("insecure-registries", "insecure-registry", List, Reload, "Registries (host[:port] or CIDR) spoken to without verified TLS"),
    opt("ip", Text, Used, "Host address of published ports"),
    opt("ip-forward", Bool, Used, "Switch on IP forwarding"),
    opt("ip-forward-no-drop", Bool, Ignored(NFTABLES), "Leave the FORWARD policy alone"),
    opt("ip-masq", Bool, Used, "Masquerade what leaves the default bridge"),
    opt("ip6tables", Bool, Used, "Add firewall rules for IPv6"),
    opt("iptables", Bool, Used, "Add firewall rules"),
    opt("ipv6", Bool, Used, "IPv6 on the default bridge"),
    flagged("labels", "label", List, Reload, "Labels of the engine"),
    opt("live-restore", Bool, Reload, "Containers outlive the daemon (the default here)"),
    opt("log-driver", Text, Used, "Default log driver of containers"),
    opt("log-format", Text, Used, "Format of the engine's own log (\"text\" | \"json\")"),
    short('l', opt("log-level", Text, Used, "Level of the engine's own log (\"debug\" | \"info\" | \"warn\" | \"error\" | \"fatal\")")),
    flagged("log-opts", "log-opt", Map, Used, "Default log options of containers"),
    opt("max-concurrent-downloads", Int, Reload, "Layers fetched at once for each pull"),
    opt("max-concurrent-uploads", Int, Reload, "Layers sent at once for each push"),
    opt("max-download-attempts", Int, Reload, "Attempts for each layer"),
    opt("metrics-addr", Text, Ignored(NOT_YET), "Address of the metrics endpoint"),
    opt("min-api-version", FileOnly, Used, ""),
    opt("mtu", Int, Used, "MTU of the default bridge's containers"),
    opt("network-control-plane-mtu", Int, Ignored(NO_SWARM), "MTU of the network control plane"),
    opt("network-diagnostic-port", Int, Ignored(NO_SWARM), "Port of the network diagnostic server"),
    opt("no-new-privileges", Bool, Used, "Containers never gain privileges"),
    opt("no-proxy", Text, Used, "Hosts reached without proxy"),
    flagged("node-generic-resources", "node-generic-resource", List, Ignored(NO_SWARM), "User-defined resources"),
    opt("nri-opts", Map, Ignored(NOT_YET), "Node resource interface options"),
    opt("oom-score-adjust", Int, Used, "OOM score of the daemon"),
    short('p', opt("pidfile", Text, Used, "File for the daemon's process ID")),
    opt("proxies", FileOnly, Used, ""),
    opt("published-ports-obey-input", Bool, Used, "Relay all published ports, so that they pass the host's INPUT rules"),
    opt("published-ports-shortcut", Bool, Used, "Lead the host's connections to published ports at loopback addresses to the container, untranslated"),
    opt("raw-logs", Bool, Used, "The engine's own log without colours"),
    flagged("registry-config-dirs", "registry-config-dir", List, Reload, "Directories with certificates and hosts.toml of registries"),
    flagged("registry-mirrors", "registry-mirror", List, Reload, "Mirrors of Docker Hub, or of another registry (NAME=URL)"),
    opt("resolv-conf", FileOnly, Used, ""),
    opt("rootless", Bool, Refused, "Run in a user namespace"),
    flagged("runtimes", "add-runtime", Runtimes, Reload, "Further OCI runtimes"),
    opt("seccomp-profile", Text, Used, "Default seccomp profile of containers (path, \"builtin\" or \"unconfined\")"),
    opt("selinux-enabled", Bool, Refused, "SELinux labels on containers"),
    opt("shutdown-timeout", Int, Reload, "Seconds containers get when the daemon stops and takes them with it"),
    short('s', opt("storage-driver", Text, Used, "Storage driver")),
    flagged("storage-opts", "storage-opt", List, Used, "Storage driver options"),
    opt("swarm-default-advertise-addr", Text, Ignored(NO_SWARM), "Swarm's advertised address"),
    opt("swarm-raft-election-tick", FileOnly, Ignored(NO_SWARM), ""),
    opt("swarm-raft-heartbeat-tick", FileOnly, Ignored(NO_SWARM), ""),
    opt("tls", Bool, Used, "TLS on tcp sockets"),
    opt("tlscacert", Text, Used, "Certificates of authorities that clients must be signed by"),
    opt("tlscert", Text, Used, "The daemon's certificate"),
    opt("tlskey", Text, Used, "The daemon's key"),
    opt("tlsverify", Bool, Used, "TLS on tcp sockets, and clients must prove themselves"),
    opt("userland-proxy", Bool, Used, "Relay published ports where the kernel cannot translate: [::1], IPv6 to containers without it"),
    opt("userland-proxy-path", Text, Ignored(NO_PROXY), "Path of the userland proxy"),
    opt("userns-remap", Text, Used, "User or group of the user namespaces"),
];

/// The option with this key.
pub(crate) fn by_key(key: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| option.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_and_unique() {
        assert!(OPTIONS.is_sorted_by(|a, b| a.key < b.key));
        let mut flags: Vec<_> = OPTIONS.iter().map(Opt::flag).collect();
        flags.sort_unstable();
        flags.dedup();
        assert_eq!(flags.len(), OPTIONS.len());
    }
}
