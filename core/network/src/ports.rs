//! Leases of host ports.
//!
//! The kernel translates, or netd relays, after a port was leased. A lease is therefore checked against the other leases,
//! and by binding the port for a moment against whatever else listens on the host.

mod probe;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use gantry_driver_api::network::Protocol;
use gantry_model::ContainerId;
use parking_lot::Mutex;

use crate::rows::InRow;
use crate::{PortBinding, PortRequest, Result};

use probe::{DEFAULT_RANGE, Refusal, ephemeral, probe};
use table::Table;
pub(crate) use table::host_of;

impl InRow for PortRequest {
    fn after(&self, by: u16) -> Option<Self> {
        let exact = self.host_port != 0 && self.host_port == self.host_port_end;
        let host_port = match exact {
            true => self.host_port.checked_add(by)?,
            false => self.host_port,
        };
        Some(Self {
            container_port: self.container_port.checked_add(by)?,
            host_port,
            host_port_end: if exact { host_port } else { self.host_port_end },
            ..self.clone()
        })
    }
}

impl InRow for PortBinding {
    fn after(&self, by: u16) -> Option<Self> {
        // Without a port of the host, none follows.
        let host_port = match self.host_port {
            0 => 0,
            port => port.checked_add(by)?,
        };
        Some(Self {
            container_port: self.container_port.checked_add(by)?,
            host_port,
            ..self.clone()
        })
    }
}

/// Every leased port of the engine.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    table: Mutex<Table>,
}

impl Ports {
    /// No leases. Engines on one host do not know of each other's ports, which nothing listens on: they begin to search for
    /// ephemeral ones at different places.
    pub(crate) fn of_engine(tag: &str) -> Self {
        let hash = tag.bytes().fold(0_u32, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(u32::from(byte))
        });
        let (low, high) = DEFAULT_RANGE;
        let next = u32::from(low) + hash % (u32::from(high - low) + 1);
        Self {
            table: Mutex::new(Table {
                next: u16::try_from(next).unwrap_or(low),
                ..Table::default()
            }),
        }
    }

    /// Leases all of the wished ports, or none, in exchange for others: on failure all is as it was, and nobody else can
    /// get what was given back before it is known whether the new ones are to be had. `hosts` gives the host addresses
    /// of a request; `addresses` are the container's.
    pub(crate) fn exchange(
        &self,
        owner: &ContainerId,
        gone: &[PortBinding],
        requests: impl IntoIterator<Item = PortRequest>,
        hosts: impl Fn(&PortRequest) -> Vec<IpAddr>,
        addresses: &[IpAddr],
    ) -> Result<Vec<PortBinding>> {
        let mut table = self.table.lock();
        table.release(owner, gone.iter().cloned());
        let had: HashSet<_> = gone.iter().map(|b| (b.protocol, host_of(b))).collect();
        let mut bindings = Vec::new();
        for request in requests {
            match lease_one(&mut table, owner, &request, &hosts(&request), &had) {
                Ok(made) => bindings.extend(made),
                Err(refusal) => {
                    table.release(owner, bindings);
                    table.keep(owner, gone.iter().cloned());
                    return Err(refusal.into_error(&request, addresses));
                }
            }
        }
        Ok(bindings)
    }

    /// Notes the leases of a container that outlived the daemon.
    pub(crate) fn keep(&self, owner: &ContainerId, bindings: impl Iterator<Item = PortBinding>) {
        self.table.lock().keep(owner, bindings);
    }

    /// Gives leases back.
    pub(crate) fn release(&self, owner: &ContainerId, bindings: impl Iterator<Item = PortBinding>) {
        self.table.lock().release(owner, bindings);
    }
}

/// Leases one request's port on every address, the same number on each.
fn lease_one(
    table: &mut Table,
    owner: &ContainerId,
    request: &PortRequest,
    ips: &[IpAddr],
    had: &HashSet<(Protocol, SocketAddr)>,
) -> std::result::Result<Vec<PortBinding>, Refusal> {
    if ips.is_empty() {
        return Ok(Vec::new());
    }
    let candidates: Vec<u16> = match request.host_port {
        0 => ephemeral(table.next),
        first => (first..=request.host_port_end.max(first)).collect(),
    };
    let had = |protocol, host| had.contains(&(protocol, host));
    let mut refusal = None;
    for port in candidates {
        match probe(table, request.protocol, ips, port, had) {
            Ok(()) => {
                if request.host_port == 0 {
                    table.next = port.wrapping_add(1);
                }
                let bindings = ips.iter().map(|ip| PortBinding {
                    protocol: request.protocol,
                    container_port: request.container_port,
                    host_ip: *ip,
                    host_port: port,
                });
                let bindings: Vec<_> = bindings.collect();
                table.keep(owner, bindings.iter().cloned());
                return Ok(bindings);
            }
            Err(e) => {
                refusal.get_or_insert(e);
            }
        }
    }
    Err(refusal.unwrap_or(Refusal::Leased(SocketAddr::new(
        ips.first().copied().unwrap_or(IpAddr::V4(0.into())),
        request.host_port,
    ))))
}
