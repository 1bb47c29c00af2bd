//! Who is called what, and who may know.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::{Membership, SandboxNames};

/// Every sandbox's names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    sandboxes: HashMap<String, SandboxNames>,
    /// Turns answers with several addresses round.
    turn: usize,
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
        self.sandboxes.insert(names.id.clone(), names);
    }

    pub(crate) fn remove(&mut self, id: &str) {
        self.sandboxes.remove(id);
    }

    pub(crate) fn upstreams(&self, id: &str) -> Vec<IpAddr> {
        self.sandboxes
            .get(id)
            .map(|s| s.upstreams.clone())
            .unwrap_or_default()
    }

    /// What limits a sandbox, if anything does.
    pub(crate) fn egress(&self, id: &str) -> Option<&crate::Egress> {
        self.sandboxes.get(id)?.egress.as_ref()
    }

    fn members<'a>(&'a self, network: &'a str) -> impl Iterator<Item = &'a Membership> {
        let all = self.sandboxes.values().flat_map(|s| &s.memberships);
        all.filter(move |m| m.network == network)
    }

    /// The addresses of a name (in lower case, without the last dot) that a sandbox asks for.
    pub(crate) fn resolve(&mut self, asker: &str, name: &str, v6: bool) -> Found {
        let mut found = self.look_up(asker, name, None);
        if found.is_empty()
            && let Some((name, network)) = name.split_once('.')
        {
            found = self.look_up(asker, name, Some(network));
        }
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
            let alias = membership
                .aliases
                .iter()
                .find(|a| a.alias.eq_ignore_ascii_case(name));
            let wanted = alias.map_or(name, |alias| &alias.name);
            for member in self.members(&membership.network) {
                if member.names.iter().any(|n| n.eq_ignore_ascii_case(wanted)) {
                    found.extend(&member.addresses);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The name of an address on one of the asker's networks, with the network's.
    pub(crate) fn reverse(&self, asker: &str, address: IpAddr) -> Option<String> {
        let own = self.sandboxes.get(asker)?;
        own.memberships.iter().find_map(|membership| {
            let member = self
                .members(&membership.network)
                .find(|m| m.addresses.contains(&address))?;
            Some(format!(
                "{}.{}",
                member.names.first()?,
                membership.network_name
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Alias;

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
        assert_eq!(names.resolve("a", "DB", false), addresses(&["10.0.0.2"]));
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
}
