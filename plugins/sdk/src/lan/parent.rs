//! The links below.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gantry_driver_api::{DriverError, DriverResult};
use gantry_sys::netlink::{Change, RouteSocket, remove_link};

use crate::links::Names;

/// The letter of dummy links.
const DUMMY: char = 'd';

/// The host's links.
#[derive(Debug)]
pub(super) struct Parents {
    names: Names,
    socket: Mutex<RouteSocket>,
}

impl Parents {
    pub(super) fn open(tag: &str) -> DriverResult<Self> {
        let socket = RouteSocket::open().map_err(|e| DriverError::io("opening netlink", &e))?;
        Ok(Self {
            names: Names::new(tag),
            socket: Mutex::new(socket),
        })
    }

    /// The name of the parent of a network that has none.
    pub(super) fn dummy(&self, network: &str) -> String {
        self.names.name(DUMMY, network)
    }

    fn lock(&self) -> MutexGuard<'_, RouteSocket> {
        // A panic makes the driver faulted; nobody comes here after it.
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn apply(&self, change: Change) -> io::Result<()> {
        Ok(self.lock().apply(vec![change])?)
    }

    /// The index of a link that is there.
    pub(super) fn index(&self, link: &str) -> DriverResult<Option<u32>> {
        let found = self.lock().link(link);
        let found =
            found.map_err(|e| DriverError::io(format_args!("looking for link {link}"), &e))?;
        Ok(found.map(|facts| facts.index))
    }

    /// The index of a link that is there or can be made.
    pub(super) fn ensure(&self, link: &str) -> DriverResult<u32> {
        if let Some(index) = self.index(link)? {
            return Ok(index);
        }
        let change = if self.names.is(DUMMY, link) {
            Change::dummy(link)
        } else {
            self.vlan(link)?
        };
        self.apply(change)
            .map_err(|e| DriverError::io(format_args!("failed to create the link {link}"), &e))?;
        let made = self.index(link)?;
        made.ok_or_else(|| DriverError::not_found(format!("link {link} vanished")))
    }

    /// How to make `eth0.10`.
    fn vlan(&self, link: &str) -> DriverResult<Change> {
        let parts = link.rsplit_once('.');
        let Some((base, id)) = parts.filter(|(base, _)| !base.is_empty()) else {
            return Err(DriverError::invalid(format!(
                "invalid subinterface vlan name {link}, example formatting is eth0.10"
            )));
        };
        // IEEE 802.1Q: 0 is no VLAN, 4095 is reserved.
        let id = id.parse().ok().filter(|id| (1..=4094).contains(id));
        let id = id.ok_or_else(|| {
            DriverError::invalid(format!(
                "vlan id must be between 1-4094, received: {}",
                link.rsplit('.').next().unwrap_or_default()
            ))
        })?;
        let Some(base_index) = self.index(base)? else {
            return Err(DriverError::invalid(format!(
                "failed to find master interface {base} on the Docker host"
            )));
        };
        Ok(Change::vlan(link, base_index, id))
    }

    /// Removes a link, if it is there.
    pub(super) fn remove(&self, link: &str) -> DriverResult<()> {
        remove_link(link).map_err(|e| DriverError::io(format_args!("removing link {link}"), &e))
    }
}
