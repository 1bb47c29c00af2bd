//! Who is called what, and who may know.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::resolv::HostResolv;
use crate::upstream::Upstream;
use crate::{ADDRESS, Asks, Foreign, NameServer, SandboxNames};

/// Every sandbox's names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    sandboxes: HashMap<String, SandboxNames>,
    /// By network: who is called what there, for look-ups that cost the same whatever there is.
    networks: HashMap<String, Network>,
    /// Members on other hosts, by network.
    foreign: HashMap<String, Vec<Foreign>>,
    /// The same, of which not all parts have come.
    coming: HashMap<String, Vec<Foreign>>,
    host: HostResolv,
    /// Turns answers with several addresses round.
    turn: usize,
}

/// The names of a network.
#[derive(Debug, Default)]
struct Network {
    /// Addresses by name, in lower case.
    by_name: HashMap<String, Vec<IpAddr>>,
    /// First names by address, with how many members say so.
    by_address: HashMap<IpAddr, Vec<String>>,
}

impl Network {
    fn add(&mut self, names: &[String], addresses: &[IpAddr]) {
        for name in names {
            let known = self.by_name.entry(name.to_ascii_lowercase()).or_default();
            known.extend(addresses);
        }
        for address in addresses {
            let known = self.by_address.entry(*address).or_default();
            known.extend(names.first().cloned());
        }
    }

    fn remove(&mut self, names: &[String], addresses: &[IpAddr]) {
        for name in names {
            let name = name.to_ascii_lowercase();
            let Some(known) = self.by_name.get_mut(&name) else {
                continue;
            };
            for address in addresses {
                take_one(known, address);
            }
            if known.is_empty() {
                self.by_name.remove(&name);
            }
        }
        for address in addresses {
            let Some(known) = self.by_address.get_mut(address) else {
                continue;
            };
            names
                .first()
                .into_iter()
                .for_each(|name| take_one(known, name));
            if known.is_empty() {
                self.by_address.remove(address);
            }
        }
    }
}

/// Takes one of those that are equal; others may have said the same.
fn take_one<T: PartialEq>(list: &mut Vec<T>, gone: &T) {
    if let Some(at) = list.iter().position(|item| item == gone) {
        list.remove(at);
    }
}

/// What is known of a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Addresses of the wanted family; empty when the name has only the other.
    Addresses(Vec<IpAddr>),
    /// It is nobody's here.
    Unknown,
}

impl Names {
    pub(crate) fn put(&mut self, names: SandboxNames) {
        self.remove(&names.id);
        for m in &names.memberships {
            let network = self.networks.entry(m.network.clone()).or_default();
            network.add(&m.names, &m.addresses);
        }
        self.sandboxes.insert(names.id.clone(), names);
    }

    pub(crate) fn remove(&mut self, id: &str) {
        let Some(sandbox) = self.sandboxes.remove(id) else {
            return;
        };
        for m in &sandbox.memberships {
            self.take_out(&m.network, &m.names, &m.addresses);
        }
    }

    fn take_out(&mut self, network: &str, names: &[String], addresses: &[IpAddr]) {
        let Some(known) = self.networks.get_mut(network) else {
            return;
        };
        known.remove(names, addresses);
        if known.by_name.is_empty() && known.by_address.is_empty() {
            self.networks.remove(network);
        }
    }

    /// Takes a part of a network's members on other hosts; the last part puts them in the place of those of before.
    pub(crate) fn set_foreign(
        &mut self,
        network: String,
        members: Vec<Foreign>,
        first: bool,
        last: bool,
    ) {
        let mut all = match first {
            true => Vec::new(),
            false => self.coming.remove(&network).unwrap_or_default(),
        };
        all.extend(members);
        if !last {
            self.coming.insert(network, all);
            return;
        }
        for member in self.foreign.remove(&network).unwrap_or_default() {
            self.take_out(&network, &member.names, &member.addresses);
        }
        if all.is_empty() {
            return;
        }
        let known = self.networks.entry(network.clone()).or_default();
        for member in &all {
            known.add(&member.names, &member.addresses);
        }
        self.foreign.insert(network, all);
    }

    /// Who a sandbox's other questions go to: the host's servers as they are now, unless it has its own.
    pub(crate) fn upstreams(&mut self, id: &str) -> Vec<Upstream> {
        let Some(sandbox) = self.sandboxes.get(id) else {
            return Vec::new();
        };
        let now = sandbox.follows_host.then(|| &self.host.now().servers);
        let servers = now.filter(|servers| !servers.is_empty());
        let from = match sandbox.asks {
            Asks::Host => &[false][..],
            Asks::Inside => &[true],
            Asks::InsideFirst => &[true, false],
        };
        let servers = servers.unwrap_or(&sandbox.upstreams);
        let all = from.iter().flat_map(|inside| {
            servers.iter().map(|server| Upstream {
                server: server.clone(),
                inside: *inside,
            })
        });
        // Inside, that is this server.
        all.filter(|u| !u.inside || u.server != NameServer::V4(ADDRESS))
            .collect()
    }

    /// Whether names without a dot are asked for with search domains only.
    pub(crate) fn searches(&self, id: &str) -> bool {
        self.sandboxes.get(id).is_some_and(|s| s.searches)
    }

    /// What limits a sandbox, if anything does.
    pub(crate) fn egress(&self, id: &str) -> Option<&crate::Egress> {
        self.sandboxes.get(id)?.egress.as_ref()
    }

    /// The addresses of a name (in lower case, without the last dot) that a sandbox asks for.
    pub(crate) fn resolve(&mut self, asker: &str, name: &str, v6: bool) -> Found {
        let mut found = self.find(asker, name);
        if found.is_empty() {
            return Found::Unknown;
        }
        found.retain(|ip| ip.is_ipv6() == v6);
        if !found.is_empty() {
            self.turn = self.turn.wrapping_add(1);
            let by = self.turn % found.len();
            found.rotate_left(by);
        }
        Found::Addresses(found)
    }

    /// Whether a sandbox knows a name, in either family.
    pub(crate) fn knows(&self, asker: &str, name: &str) -> bool {
        !self.find(asker, name).is_empty()
    }

    fn find(&self, asker: &str, name: &str) -> Vec<IpAddr> {
        let found = self.look_up(asker, name, None);
        match name.split_once('.') {
            Some((name, network)) if found.is_empty() => self.look_up(asker, name, Some(network)),
            _ => found,
        }
    }

    fn look_up(&self, asker: &str, name: &str, network: Option<&str>) -> Vec<IpAddr> {
        let own = self
            .sandboxes
            .get(asker)
            .into_iter()
            .flat_map(|s| &s.memberships);
        let mut found = Vec::new();
        for membership in
            own.filter(|m| network.is_none_or(|n| m.network_name.eq_ignore_ascii_case(n)))
        {
            let Some(known) = self.networks.get(&membership.network) else {
                continue;
            };
            let alias = membership
                .aliases
                .iter()
                .find(|a| a.alias.eq_ignore_ascii_case(name));
            let addresses = match alias {
                Some(alias) => known.by_name.get(&alias.name.to_ascii_lowercase()),
                None => known.by_name.get(name),
            };
            found.extend(addresses.into_iter().flatten());
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The name of an address on one of the asker's networks, with the network's.
    pub(crate) fn reverse(&self, asker: &str, address: IpAddr) -> Option<String> {
        let own = self.sandboxes.get(asker)?;
        own.memberships.iter().find_map(|membership| {
            let known = self.networks.get(&membership.network)?;
            let name = known.by_address.get(&address)?.first()?;
            Some(format!("{name}.{}", membership.network_name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Alias, Membership};

    fn sandbox(id: &str, networks: &[(&str, &[&str], &str)]) -> SandboxNames {
        let membership = |(network, names, address): &(&str, &[&str], &str)| Membership {
            network: (*network).into(),
            network_name: format!("{network}-net"),
            names: names.iter().map(|n| (*n).into()).collect(),
            addresses: vec![address.parse().unwrap()],
            aliases: Vec::new(),
        };
        SandboxNames {
            id: id.into(),
            memberships: networks.iter().map(membership).collect(),
            upstreams: Vec::new(),
            follows_host: false,
            searches: false,
            asks: Asks::Host,
            egress: None,
        }
    }

    fn addresses(list: &[&str]) -> Found {
        Found::Addresses(list.iter().map(|a| a.parse().unwrap()).collect())
    }

    #[test]
    fn names_are_known_on_shared_networks_only() {
        let mut names = Names::default();
        names.put(sandbox("a", &[("one", &["web"], "10.0.0.1")]));
        names.put(sandbox(
            "b",
            &[("one", &["db"], "10.0.0.2"), ("two", &["db"], "10.1.0.2")],
        ));
        names.put(sandbox("c", &[("two", &["web"], "10.1.0.3")]));
        assert_eq!(names.resolve("a", "db", false), addresses(&["10.0.0.2"]));
        assert_eq!(names.resolve("c", "web", false), addresses(&["10.1.0.3"]));
        assert_eq!(
            names.resolve("b", "web.two-net", false),
            addresses(&["10.1.0.3"])
        );
        assert_eq!(names.resolve("a", "db", true), addresses(&[]));
        assert_eq!(names.resolve("a", "nobody", false), Found::Unknown);
        assert_eq!(
            names.reverse("a", "10.0.0.2".parse().unwrap()).as_deref(),
            Some("db.one-net")
        );
        assert_eq!(names.reverse("a", "10.1.0.3".parse().unwrap()), None);
        names.remove("b");
        assert_eq!(names.resolve("a", "db", false), Found::Unknown);
    }

    #[test]
    fn shared_names_take_turns_and_aliases_are_private() {
        let mut names = Names::default();
        let mut asker = sandbox("a", &[("one", &["a"], "10.0.0.1")]);
        asker.memberships[0].aliases.push(Alias {
            alias: "store".into(),
            name: "db".into(),
        });
        names.put(asker);
        names.put(sandbox("b", &[("one", &["db"], "10.0.0.2")]));
        names.put(sandbox("c", &[("one", &["db"], "10.0.0.3")]));
        let first = names.resolve("a", "store", false);
        let second = names.resolve("a", "store", false);
        assert_ne!(first, second);
        assert_eq!(names.resolve("a", "store", false), first);
        assert_eq!(names.resolve("b", "store", false), Found::Unknown);
    }

    #[test]
    fn members_on_other_hosts_answer_beside_local_ones_and_change_as_a_whole() {
        let foreign = |names: &[&str], address: &str| Foreign {
            names: names.iter().map(|n| (*n).into()).collect(),
            addresses: vec![address.parse().unwrap()],
        };
        let mut names = Names::default();
        names.put(sandbox("a", &[("one", &["a", "web"], "10.0.0.1")]));
        names.put(sandbox("c", &[("two", &["c"], "10.1.0.3")]));
        let first = vec![foreign(&["x", "web"], "10.0.0.7")];
        names.set_foreign("one".into(), first, true, false);
        assert_eq!(names.resolve("a", "x", false), Found::Unknown);
        let second = vec![foreign(&["y", "web"], "fd00::8")];
        names.set_foreign("one".into(), second, false, true);
        assert_eq!(names.resolve("a", "x", false), addresses(&["10.0.0.7"]));
        assert_eq!(names.resolve("a", "y", true), addresses(&["fd00::8"]));
        let Found::Addresses(mut web) = names.resolve("a", "web", false) else {
            panic!("it is known");
        };
        web.sort();
        assert_eq!(Found::Addresses(web), addresses(&["10.0.0.1", "10.0.0.7"]));
        assert_eq!(
            names.reverse("a", "10.0.0.7".parse().unwrap()).as_deref(),
            Some("x.one-net")
        );
        assert_eq!(names.resolve("c", "x", false), Found::Unknown);
        let next = vec![foreign(&["z"], "10.0.0.9")];
        names.set_foreign("one".into(), next, true, true);
        assert_eq!(names.resolve("a", "x", false), Found::Unknown);
        assert_eq!(names.resolve("a", "z", false), addresses(&["10.0.0.9"]));
        names.set_foreign("one".into(), Vec::new(), true, true);
        assert_eq!(names.resolve("a", "z", false), Found::Unknown);
    }

    #[test]
    fn servers_are_asked_from_where_they_are_reached() {
        let mut names = Names::default();
        let mut asker = sandbox("a", &[("one", &["a"], "10.0.0.1")]);
        asker.upstreams = vec!["127.0.0.11".parse().unwrap(), "10.0.0.9".parse().unwrap()];
        let mut asked = |asks| {
            asker.asks = asks;
            names.put(asker.clone());
            let upstreams = names.upstreams("a").into_iter();
            let texts: Vec<_> = upstreams
                .map(|u| format!("{} {}", u.server, u.inside))
                .collect();
            texts
        };
        assert_eq!(asked(Asks::Host), ["127.0.0.11 false", "10.0.0.9 false"]);
        assert_eq!(asked(Asks::Inside), ["10.0.0.9 true"], "not itself");
        assert_eq!(
            asked(Asks::InsideFirst),
            ["10.0.0.9 true", "127.0.0.11 false", "10.0.0.9 false"]
        );
    }

    #[test]
    fn what_is_removed_leaves_nothing() {
        let mut names = Names::default();
        names.put(sandbox("a", &[("one", &["web", "Site"], "10.0.0.1")]));
        names.put(sandbox("b", &[("one", &["site"], "10.0.0.1")]));
        assert_eq!(names.resolve("a", "site", false), addresses(&["10.0.0.1"]));
        names.put(sandbox("b", &[("one", &["other"], "10.0.0.2")]));
        assert_eq!(names.resolve("a", "site", false), addresses(&["10.0.0.1"]));
        assert_eq!(names.resolve("a", "other", false), addresses(&["10.0.0.2"]));
        names.remove("a");
        assert_eq!(names.resolve("b", "web", false), Found::Unknown);
        names.remove("b");
        assert!(names.networks.is_empty());
    }
}
