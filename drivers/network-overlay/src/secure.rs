//! Encryption between the hosts, for networks that ask for it: ESP with AES-GCM.
//!
//! Encrypted networks have a UDP port of their own. What a host sends to that port goes by an association with the
//! receiver or not at all, and what comes in at it any other way is dropped; the kernel sees to both from before the
//! first link is made. Each host draws a key for every other host, tells it by the store and sends by it; one that is
//! used begins anew with its association only, so that no key is ever used twice from the start. Associations outlive the
//! driver, and go on while the store is away.

use std::fmt;
use std::net::IpAddr;

use gantry_plugin_sdk::sys::netlink::{Association, EspKey, IpsecSocket};
use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode, Log};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::mirror::Tables;

/// Tells the associations of this driver from others': "gntr".
const REQID: u32 = 0x676e_7472;
/// Names below are reserved (RFC 4303).
const FIRST_SPI: u32 = 256;
const ESRCH: i32 = 3;
const EEXIST: i32 = 17;

/// What a host sends to another one by.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyRecord {
    pub(crate) spi: u32,
    /// In hexadecimal digits.
    key: String,
}

/// Without the key.
impl fmt::Debug for KeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRecord")
            .field("spi", &self.spi)
            .finish_non_exhaustive()
    }
}

impl KeyRecord {
    fn draw() -> DriverResult<Self> {
        let (mut key, mut spi) = ([0; size_of::<EspKey>()], [0; 4]);
        getrandom::fill(&mut key)
            .and_then(|()| getrandom::fill(&mut spi))
            .map_err(|e| DriverError::internal(format!("drawing a key: {e}")))?;
        Ok(Self {
            spi: u32::from_ne_bytes(spi).max(FIRST_SPI),
            key: key.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    fn key(&self) -> Option<EspKey> {
        let mut key = [0; size_of::<EspKey>()];
        let digits = self.key.as_bytes();
        if digits.len() != 2 * key.len() || !self.key.is_ascii() {
            return None;
        }
        for (at, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(self.key.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(key)
    }
}

#[derive(Debug)]
struct Active {
    socket: IpsecSocket,
    local: IpAddr,
}

/// The associations of this host; none before the first encrypted network.
#[derive(Debug)]
pub(crate) struct Secure {
    host: String,
    active: Mutex<Option<Active>>,
    log: Log,
}

fn lacking(error: &std::io::Error) -> DriverError {
    DriverError::new(
        ErrorCode::NotImplemented,
        format!("encrypted overlay networks need ESP with AES-GCM in this host's kernel: {error}"),
    )
}

fn failed(error: std::io::Error) -> DriverError {
    DriverError::io("setting up encryption", &error)
}

/// Refuses encryption where the kernel cannot do it.
pub(crate) fn check() -> DriverResult<()> {
    let probed = IpsecSocket::open(REQID).and_then(|mut socket| socket.probe());
    probed.map_err(|e| lacking(&e))
}

impl Secure {
    pub(crate) fn new(host: &str, log: Log) -> Self {
        Self {
            host: host.to_owned(),
            active: Mutex::new(None),
            log,
        }
    }

    /// From now on nothing goes to or comes from a port in clear.
    pub(crate) fn require(&self, local: IpAddr, port: u16) -> DriverResult<()> {
        check()?;
        let mut active = self.active.lock();
        let mut socket = IpsecSocket::open(REQID).map_err(failed)?;
        socket.require(local, port).map_err(failed)?;
        *active = Some(Active { socket, local });
        Ok(())
    }

    /// Brings the associations by which this host receives in step with what the store says, and takes back those by
    /// which it sends to hosts that are no more.
    pub(crate) fn accept(&self, tables: &Tables) {
        if let Some(active) = &mut *self.active.lock()
            && let Err(error) = accept(active, &self.host, tables)
        {
            self.log.error(format!("receiving encrypted: {error}"));
        }
    }

    /// The hosts that this one cannot send to, with new keys for them, and the hosts whose keys in the store are of no use.
    pub(crate) fn missing(&self, tables: &Tables) -> DriverResult<(Vec<Wanted>, Vec<String>)> {
        let Some(active) = &mut *self.active.lock() else {
            return Ok(Default::default());
        };
        let there = active.socket.associations().map_err(failed)?;
        let mut wanted = Vec::new();
        let v6 = active.local.is_ipv6();
        let others = tables.hosts.iter();
        let others = others.filter(|(id, at)| **id != self.host && at.address.is_ipv6() == v6);
        for (id, record) in others {
            let told = tables.keys.get(&(self.host.clone(), id.clone()));
            let is_there = told.is_some_and(|told| {
                there.contains(&Association {
                    from: active.local,
                    to: record.address,
                    spi: told.spi,
                })
            });
            if !is_there {
                wanted.push(Wanted {
                    host: id.clone(),
                    address: record.address,
                    record: KeyRecord::draw()?,
                });
            }
        }
        let ours = tables.keys.keys().filter(|(from, _)| *from == self.host);
        let gone = ours.filter(|(_, to)| !tables.hosts.contains_key(to));
        Ok((wanted, gone.map(|(_, to)| to.clone()).collect()))
    }

    /// Sends to a host by what it was told.
    pub(crate) fn send(&self, wanted: &Wanted) -> DriverResult<()> {
        let mut active = self.active.lock();
        let (Some(active), Some(key)) = (&mut *active, wanted.record.key()) else {
            return Ok(());
        };
        let new = Association {
            from: active.local,
            to: wanted.address,
            spi: wanted.record.spi,
        };
        let before = active.socket.associations().map_err(failed)?;
        active.socket.add(&new, &key).map_err(failed)?;
        for old in before {
            if (old.from, old.to) == (new.from, new.to) {
                active.socket.remove(&old).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// A host that is to be told a key.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) host: String,
    address: IpAddr,
    pub(crate) record: KeyRecord,
}

fn accept(active: &mut Active, host: &str, tables: &Tables) -> std::io::Result<()> {
    let there = active.socket.associations()?;
    let local = active.local;
    let to_us = tables.keys.iter().filter(|((_, to), _)| to == host);
    let wanted: Vec<(Association, EspKey)> = to_us
        .filter_map(|((from, _), record)| {
            let sender = tables.hosts.get(from)?.address;
            let association = Association {
                from: sender,
                to: local,
                spi: record.spi,
            };
            (sender.is_ipv6() == local.is_ipv6()).then_some((association, record.key()?))
        })
        .collect();
    for (association, key) in &wanted {
        if !there.contains(association) {
            match active.socket.add(association, key) {
                Err(e) if e.raw_os_error() == Some(EEXIST) => {}
                result => result?,
            }
        }
    }
    let receivers: Vec<IpAddr> = tables.hosts.values().map(|record| record.address).collect();
    for old in there {
        let used = match old.to == local {
            true => wanted.iter().any(|(association, _)| *association == old),
            false => receivers.contains(&old.to),
        };
        if !used {
            match active.socket.remove(&old) {
                Err(e) if e.raw_os_error() == Some(ESRCH) => {}
                result => result?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_were_drawn() {
        let (one, two) = (KeyRecord::draw().unwrap(), KeyRecord::draw().unwrap());
        assert_ne!(one, two);
        assert!(one.spi >= FIRST_SPI);
        let key = one.key().unwrap();
        assert_eq!(key.map(|byte| format!("{byte:02x}")).concat(), one.key);
        assert!(!format!("{one:?}").contains(&one.key));
        for bad in ["", "zz", &"é".repeat(36), &"0".repeat(71)] {
            let bad = KeyRecord {
                spi: 256,
                key: bad.into(),
            };
            assert_eq!(bad.key(), None);
        }
    }
}
