//! The order of starts with the daemon: whoever joins another's namespace, links to it or requires it comes after it.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use gantry_model::ContainerId;
use tokio::sync::oneshot;

use super::requires;
use crate::Engine;
use crate::container::Container;
use crate::container::record::Record;

impl Engine {
    /// Starts containers that wait for it, each after those it depends on have been tried.
    pub(super) fn start_in_order(&self, waiting: Vec<Arc<Container>>) {
        let wishes = waiting
            .iter()
            .map(|container| (container.id.clone(), self.dependencies(&container.record())))
            .collect();
        // A channel for each pair; that its one end goes is the news for the other.
        let mut tells: HashMap<ContainerId, Vec<oneshot::Sender<()>>> = HashMap::new();
        let mut hears: HashMap<ContainerId, Vec<oneshot::Receiver<()>>> = HashMap::new();
        for (id, others) in acyclic(wishes) {
            for other in others {
                let (sender, receiver) = oneshot::channel();
                tells.entry(other).or_default().push(sender);
                hears.entry(id.clone()).or_default().push(receiver);
            }
        }
        for container in waiting {
            let others = hears.remove(&container.id).unwrap_or_default();
            let tried = tells.remove(&container.id).unwrap_or_default();
            let ready = async move {
                for other in others {
                    let _ = other.await;
                }
            };
            self.restart_after(&container, ready, tried);
        }
    }

    fn dependencies(&self, record: &Record) -> Vec<ContainerId> {
        let host = &record.host_config;
        let joined = [&host.network_mode, &host.ipc_mode, &host.pid_mode]
            .into_iter()
            .filter_map(|mode| mode.strip_prefix("container:"));
        let links = host.links.iter().flatten();
        let linked = links
            .chain(
                record
                    .networks
                    .values()
                    .flat_map(|wish| wish.links.iter().flatten()),
            )
            .map(|link| link.split(':').next().unwrap_or_default());
        joined
            .chain(linked)
            .chain(requires::names(record))
            .filter_map(|name| Some(self.find(name).ok()?.id.clone()))
            .collect()
    }
}

/// For each member what comes before it, among the members alone, and without what would have two wait for each other.
fn acyclic<T: Clone + Eq + Hash>(wishes: HashMap<T, Vec<T>>) -> HashMap<T, HashSet<T>> {
    let mut open: HashMap<T, HashSet<T>> = wishes
        .iter()
        .map(|(id, others)| {
            let others = others.iter().filter(|o| *o != id && wishes.contains_key(o));
            (id.clone(), others.cloned().collect())
        })
        .collect();
    let mut done: HashMap<T, HashSet<T>> = HashMap::with_capacity(open.len());
    while !open.is_empty() {
        let free: Vec<T> = open
            .iter()
            .filter(|(_, others)| others.iter().all(|other| done.contains_key(other)))
            .map(|(id, _)| id.clone())
            .collect();
        if free.is_empty() {
            for others in open.values_mut() {
                others.retain(|other| done.contains_key(other));
            }
        }
        for id in free {
            let others = open.remove(&id).unwrap_or_default();
            done.insert(id, others);
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first_and_circles_are_cut() {
        let wishes = [
            ("web", vec!["db", "cache"]),
            ("db", vec!["elsewhere"]),
            ("cache", vec![]),
            ("a", vec!["b", "db"]),
            ("b", vec!["a"]),
            ("own", vec!["own"]),
        ];
        let order = acyclic(wishes.into_iter().collect());
        assert_eq!(order["web"], HashSet::from(["db", "cache"]));
        for free in ["db", "cache", "b", "own"] {
            assert!(order[free].is_empty(), "{free}");
        }
        assert_eq!(order["a"], HashSet::from(["db"]));
    }
}
