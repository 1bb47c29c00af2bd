//! Who holds which ports of the host: as many entries as there are rows of ports.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use gantry_driver_api::network::Protocol;
use gantry_model::ContainerId;

use crate::PortBinding;

/// Rows of ports that containers hold on one address: by the first port, the last one and the holder.
pub(super) type Rows = BTreeMap<u16, (u16, ContainerId)>;

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) leases: HashMap<(Protocol, IpAddr), Rows>,
    /// Where the search for an ephemeral port goes on.
    pub(super) next: u16,
}

fn collide(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

/// The row that a port is in: its first and last port, and the holder.
fn row_of(rows: &Rows, port: u16) -> Option<(u16, u16, &ContainerId)> {
    let (first, (last, holder)) = rows.range(..=port).next_back()?;
    (port <= *last).then_some((*first, *last, holder))
}

impl Table {
    pub(super) fn is_free(&self, protocol: Protocol, host: SocketAddr) -> bool {
        let mut others = self
            .leases
            .iter()
            .filter(|((of, ip), _)| *of == protocol && collide(*ip, host.ip()));
        others.all(|(_, rows)| row_of(rows, host.port()).is_none())
    }

    pub(super) fn insert(&mut self, owner: &ContainerId, protocol: Protocol, host: SocketAddr) {
        let rows = self.leases.entry((protocol, host.ip())).or_default();
        let port = host.port();
        let before = port.checked_sub(1).and_then(|before| row_of(rows, before));
        match before.filter(|(_, _, holder)| *holder == owner) {
            Some((first, ..)) => drop(rows.insert(first, (port, owner.clone()))),
            None => drop(rows.insert(port, (port, owner.clone()))),
        }
    }

    fn remove(&mut self, owner: &ContainerId, protocol: Protocol, host: SocketAddr) {
        let key = (protocol, host.ip());
        let Some(rows) = self.leases.get_mut(&key) else {
            return;
        };
        let port = host.port();
        let Some((first, last, _)) = row_of(rows, port).filter(|(_, _, holder)| *holder == owner)
        else {
            return;
        };
        rows.remove(&first);
        if first < port {
            rows.insert(first, (port - 1, owner.clone()));
        }
        if port < last {
            rows.insert(port + 1, (last, owner.clone()));
        }
        if rows.is_empty() {
            self.leases.remove(&key);
        }
    }

    pub(super) fn keep(
        &mut self,
        owner: &ContainerId,
        bindings: impl IntoIterator<Item = PortBinding>,
    ) {
        // Those without a port of the host hold none.
        for binding in bindings.into_iter().filter(|b| b.host_port != 0) {
            self.insert(owner, binding.protocol, host_of(&binding));
        }
    }

    pub(super) fn release(
        &mut self,
        owner: &ContainerId,
        bindings: impl IntoIterator<Item = PortBinding>,
    ) {
        for binding in bindings {
            self.remove(owner, binding.protocol, host_of(&binding));
        }
    }
}

pub(crate) fn host_of(binding: &PortBinding) -> SocketAddr {
    SocketAddr::new(binding.host_ip, binding.host_port)
}
