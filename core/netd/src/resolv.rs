//! The host's name servers, followed as they change.

use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;

use crate::NameServer;

/// What a resolv.conf(5) says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvConf {
    /// Name servers, in order.
    pub servers: Vec<NameServer>,
    /// Search domains.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
    /// Of a host whose only server is systemd-resolved's own, which nobody else reaches: the servers that this one asks.
    pub behind: Vec<NameServer>,
}

/// The host's file, and the one that tells the real servers where the first names systemd-resolved's own.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

impl ResolvConf {
    /// Reads the text of such a file; what cannot be understood is left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut resolv = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|w| w.parse().ok());
                    resolv.servers.extend(server);
                }
                Some("search" | "domain") => resolv.search = words.map(str::to_owned).collect(),
                Some("options") => resolv.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        resolv
    }

    /// The host's.
    #[must_use]
    pub fn of_host() -> Self {
        let [own, real] = FILES.map(|path| std::fs::read_to_string(path).ok());
        Self::of(&own.unwrap_or_default(), &real.unwrap_or_default())
    }

    /// From the host's file and the one that tells the real servers.
    fn of(own: &str, real: &str) -> Self {
        const STUB: NameServer = NameServer::V4(Ipv4Addr::new(127, 0, 0, 53));
        let mut own = Self::parse(own);
        if own.servers == [STUB] {
            own.behind = Self::parse(real).servers;
        }
        own
    }
}

/// By what a file is recognised: device, inode, size, and time of change in seconds and nanoseconds.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

fn stamp(path: &str) -> Stamp {
    let file = std::fs::metadata(path).ok()?;
    Some((
        file.dev(),
        file.ino(),
        file.size(),
        file.mtime(),
        file.mtime_nsec(),
    ))
}

/// The host's file, followed as it changes.
#[derive(Debug, Default)]
pub struct HostResolv {
    read: Option<[Stamp; 2]>,
    conf: ResolvConf,
}

impl HostResolv {
    /// Where changes are to be looked for.
    pub const FILES: [&str; 2] = FILES;

    /// What it says now; while it is being written anew, or names no server, what it said before.
    pub fn now(&mut self) -> &ResolvConf {
        let stamps = FILES.map(stamp);
        if self.read != Some(stamps) {
            let conf = ResolvConf::of_host();
            if !conf.servers.is_empty() {
                self.conf = conf;
            }
            self.read = Some(stamps);
        }
        &self.conf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_files_are_read() {
        let text = "# x\nnameserver 10.0.0.1\nnameserver fe80::1%eth0 ; y\nnameserver bad\nsearch a.b c\noptions ndots:2 rotate\n";
        let resolv = ResolvConf::parse(text);
        let servers = ["10.0.0.1", "fe80::1%eth0"].map(|s| s.parse().unwrap());
        assert_eq!(resolv.servers, servers);
        assert_eq!(resolv.search, ["a.b", "c"]);
        assert_eq!(resolv.options, ["ndots:2", "rotate"]);
    }

    #[test]
    fn what_is_behind_systemd_resolved() {
        let real = "nameserver 192.0.2.1\nsearch x\n";
        let stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\n";
        let resolv = ResolvConf::of(stub, real);
        let one = |text: &str| vec![text.parse::<NameServer>().unwrap()];
        assert_eq!(resolv.servers, one("127.0.0.53"));
        assert_eq!(resolv.behind, one("192.0.2.1"));
        let other = ResolvConf::of("nameserver 192.0.2.2\n", real);
        assert_eq!((other.servers, other.behind), (one("192.0.2.2"), vec![]));
    }
}
