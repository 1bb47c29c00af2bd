//! The links of this host: for each network a bridge, with the gateway's address that every host's bridge has, and on it
//! a vxlan link, which is told where each endpoint of the other hosts is and answers for them. Nothing is learnt, nothing
//! is flooded.
//!
//! The kernel keeps all of it while no driver runs; what was told is read back then.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use gantry_plugin_sdk::bridges::{Bridge, Bridges, Removals, failed};
use gantry_plugin_sdk::links::Names;
use gantry_plugin_sdk::network::NetworkSpec;
use gantry_plugin_sdk::notes::Notes;
use gantry_plugin_sdk::sys::netlink::{Change, LinkFacts, Mac, NewVxlan};
use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode, Log};
use ipnet::IpNet;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::mirror::{Tables, Touched};
use crate::secure::Secure;
use crate::told::Told;

/// The first letters of link names.
const BRIDGE: char = 'o';
const VXLAN: char = 'x';
pub(crate) const VETH: char = 'w';

/// What a frame grows by on its way: Ethernet, VXLAN, UDP, and the outer IP header.
const OVER_IPV4: u32 = 50;
const OVER_IPV6: u32 = 70;
/// ESP's header, counter, padding and checksum.
const ENCRYPTED: u32 = 40;
/// IPv6's least (RFC 8200), which no network can do without.
const LEAST_MTU: u32 = 1280;
/// Changes made in one send.
const BATCH: usize = 64;

const ENOENT: i32 = 2;
const ENODEV: i32 = 19;
const EEXIST: i32 = 17;

/// How a network's links are made. Kept, so that another process can serve the network, which is not told of it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) spec: NetworkSpec,
    pub(crate) vni: u32,
    pub(crate) port: u16,
    /// This host's address.
    pub(crate) local: IpAddr,
    /// What the network's option says, 0 for what the way allows.
    pub(crate) mtu: u32,
    /// Whether what goes by that port is encrypted.
    #[serde(default)]
    pub(crate) encrypted: bool,
}

#[derive(Debug)]
struct Segment {
    bridge: Bridge,
    /// Index of the vxlan link.
    vxlan: u32,
    /// Whether this host's address is of IPv6; frames go to such hosts only then.
    over_v6: bool,
    told: Told,
}

/// The networks that have links here.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) names: Names,
    pub(crate) bridges: Bridges,
    host: String,
    plans: Notes<Plan>,
    segments: Mutex<HashMap<String, Arc<Mutex<Segment>>>>,
    pub(crate) removals: Removals,
    pub(crate) secure: Secure,
    log: Log,
}

impl Plane {
    pub(crate) fn open(
        root: &std::path::Path,
        tag: &str,
        host: &str,
        log: Log,
    ) -> DriverResult<Self> {
        Ok(Self {
            names: Names::new(tag),
            bridges: Bridges::open()?,
            host: host.to_owned(),
            plans: Notes::open(root.join("networks"))?,
            segments: Mutex::default(),
            secure: Secure::new(host, log.clone()),
            removals: Removals::open(root, tag, log.clone())?,
            log,
        })
    }

    /// A network's bridge: as it is known, or made again by what was noted.
    pub(crate) fn bridge(&self, network: &str) -> DriverResult<(Bridge, NetworkSpec)> {
        let unknown = || DriverError::not_found(format!("network {network} is not known"));
        let plan = self.plans.get(network).ok_or_else(unknown)?;
        let known = self.segments.lock().get(network).cloned();
        if let Some(segment) = known {
            return Ok((segment.lock().bridge.clone(), plan.spec));
        }
        Ok((self.ensure(plan.clone())?, plan.spec))
    }

    /// Whether this process knows a network's links.
    pub(crate) fn is_served(&self, network: &str) -> bool {
        self.segments.lock().contains_key(network)
    }

    /// Makes a network's links, or finds them made.
    pub(crate) fn ensure(&self, plan: Plan) -> DriverResult<Bridge> {
        let id = plan.spec.id.clone();
        let (link, vxlan) = (self.names.name(BRIDGE, &id), self.names.name(VXLAN, &id));
        self.removals.wait_for(&vxlan);
        self.removals.wait_for(&link);
        let mtu = self.mtu(&plan)?;
        let before = self.plans.get(&id);
        let same = |old: &Plan| (old.vni, old.port, old.local) == (plan.vni, plan.port, plan.local);
        if !before.as_ref().is_some_and(same) {
            self.bridges.delete(&vxlan)?;
        }
        self.plans.put(&id, plan.clone())?;
        if plan.encrypted {
            self.secure.require(plan.local, plan.port)?;
        }
        let gateways = plan.spec.subnets.iter();
        let mut bridge = Bridge {
            link,
            index: 0,
            addresses: gateways
                .filter_map(|s| IpNet::new(s.gateway?, s.net.prefix_len()).ok())
                .collect(),
            mtu,
            isolated: false,
        };
        bridge.index = self.bridges.ensure(&id, &bridge)?;
        let (index, told) = self.ensure_vxlan(&vxlan, &bridge, &plan)?;
        let segment = Segment {
            bridge: bridge.clone(),
            vxlan: index,
            over_v6: plan.local.is_ipv6(),
            told,
        };
        let segment = Arc::new(Mutex::new(segment));
        self.segments.lock().insert(id, segment);
        Ok(bridge)
    }

    /// What a frame may be long inside, so that it fits the way between the hosts.
    fn mtu(&self, plan: &Plan) -> DriverResult<u32> {
        if plan.mtu != 0 {
            return Ok(plan.mtu);
        }
        let local = plan.local;
        let holder = self.bridges.socket().link_of(local);
        let holder = holder.map_err(failed("looking for this host's address"))?;
        let Some((parent, _)) = holder else {
            return Err(DriverError::new(
                ErrorCode::FailedPrecondition,
                format!(
                    "no link of this host has the address {local} that the overlay driver advertises"
                ),
            ));
        };
        let mut growth = if local.is_ipv6() {
            OVER_IPV6
        } else {
            OVER_IPV4
        };
        if plan.encrypted {
            growth += ENCRYPTED;
        }
        Ok(parent.mtu.saturating_sub(growth).max(LEAST_MTU))
    }

    fn ensure_vxlan(&self, name: &str, bridge: &Bridge, plan: &Plan) -> DriverResult<(u32, Told)> {
        let fits = |found: &LinkFacts| {
            found.kind == "vxlan"
                && found.up
                && (found.master, found.mtu) == (bridge.index, bridge.mtu)
        };
        if let Some(found) = self.bridges.link(name)?.filter(fits) {
            return Ok((found.index, self.read(found.index)?));
        }
        let new = NewVxlan {
            name,
            master: bridge.index,
            vni: plan.vni,
            local: plan.local,
            port: plan.port,
            mtu: bridge.mtu,
        };
        let changes = vec![Change::vxlan(&new), Change::told_port(name)];
        let made = match self.bridges.make(name, changes.clone()) {
            Err(error) if error.raw_os_error() == Some(EEXIST) => {
                // The number may have been a network's that was just removed.
                self.removals.finish();
                self.bridges.make(name, changes)
            }
            made => made,
        };
        made.map_err(|error| match error.raw_os_error() {
            Some(EEXIST) => DriverError::new(
                ErrorCode::Conflict,
                format!(
                    "another link of this host has VXLAN ID {} on UDP port {}: give one of the engines another port",
                    plan.vni, plan.port
                ),
            ),
            _ => failed(format!("making vxlan link {name}"))(error),
        })?;
        let made = self.bridges.link(name)?;
        let made = made.ok_or_else(|| DriverError::not_found(format!("link {name} vanished")))?;
        Ok((made.index, Told::default()))
    }

    /// What the kernel was told, by this process or by one before it.
    fn read(&self, link: u32) -> DriverResult<Told> {
        let read = self.bridges.socket().forwarded(link);
        let read = read.map_err(failed("reading where frames are sent"))?;
        let behind = |mac: &Mac| read.port.contains(mac);
        // What was told by half is told again.
        let remote = read.remote.iter().filter(|(mac, _)| behind(mac));
        Ok(Told {
            remote: remote.copied().collect(),
            neighbours: read.neighbours.iter().copied().collect(),
        })
    }

    /// Tells the links of the networks that changed what is true now.
    /// Those of which something could not be told are answered.
    pub(crate) fn tell(&self, tables: &Tables, touched: &Touched) -> BTreeSet<String> {
        let mut failed = BTreeSet::new();
        self.secure.accept(tables);
        let segments: Vec<_> = {
            let all = self.segments.lock();
            let changed = all.iter().filter(|(id, _)| touched.is(id));
            changed.map(|(id, s)| (id.clone(), Arc::clone(s))).collect()
        };
        for (id, shared) in segments {
            let mut segment = shared.lock();
            let wanted = Told::of(tables, &id, &self.host, segment.over_v6);
            let changes = segment.told.changes(&wanted, segment.vxlan);
            match self.apply(changes) {
                Ok(()) => segment.told = wanted,
                Err(error) if error.raw_os_error() == Some(ENODEV) => {
                    // Somebody removed the link; it is made again when it is needed next.
                    self.log
                        .warn(format!("the vxlan link of network {id} is gone"));
                    let mut all = self.segments.lock();
                    if all.get(&id).is_some_and(|now| Arc::ptr_eq(now, &shared)) {
                        all.remove(&id);
                    } else {
                        // It has another link by now, which is to be told.
                        failed.insert(id);
                    }
                }
                Err(error) => {
                    self.log.error(format!(
                        "telling network {id} where its endpoints are: {error}"
                    ));
                    segment.told = self.read(segment.vxlan).unwrap_or_default();
                    failed.insert(id);
                }
            }
        }
        failed
    }

    /// Makes all changes that can be made; the first failure.
    fn apply(&self, changes: Vec<Change>) -> std::io::Result<()> {
        let mut outcome = Ok(());
        for batch in changes.chunks(BATCH) {
            match self.bridges.socket().apply(batch.to_vec()) {
                // The kernel goes on after a failure; what is to go may be gone.
                Err(e) if e.error.raw_os_error() == Some(ENOENT) => {}
                result => outcome = outcome.and(result.map_err(Into::into)),
            }
        }
        outcome
    }

    /// Forgets that a network's links are there, so that they are looked at anew.
    pub(crate) fn doubt(&self, network: &str) {
        self.segments.lock().remove(network);
    }

    /// Removes a network's links, soon.
    pub(crate) fn remove(&self, network: &str) -> DriverResult<()> {
        self.segments.lock().remove(network);
        if self.plans.remove(network)?.is_some() {
            let (vxlan, bridge) = (
                self.names.name(VXLAN, network),
                self.names.name(BRIDGE, network),
            );
            self.removals.begin(&[&vxlan, &bridge]);
        }
        Ok(())
    }

    /// Removes the links of networks and endpoints that are no more, and serves those that are there.
    /// `present` says how their links are to be made now.
    pub(crate) fn reconcile(
        &self,
        networks: &[String],
        endpoints: &[String],
        present: impl Fn(&mut Plan),
    ) -> DriverResult<()> {
        let mut kept: Vec<String> = endpoints
            .iter()
            .map(|id| self.names.name(VETH, id))
            .collect();
        let links = self.bridges.links()?;
        for (id, mut plan) in self.plans.all() {
            if !networks.contains(&id) {
                self.segments.lock().remove(&id);
                self.plans.remove(&id)?;
                continue;
            }
            let bridge = self.names.name(BRIDGE, &id);
            let is_there = links.iter().any(|link| link.name == bridge);
            kept.extend([bridge, self.names.name(VXLAN, &id)]);
            present(&mut plan);
            // After a reboot links are made as they are needed.
            if is_there && let Err(error) = self.ensure(plan) {
                self.log.error(format!("network {id}: {error}"));
            }
        }
        let is_ours = |link: &LinkFacts| {
            [VXLAN, BRIDGE, VETH]
                .iter()
                .any(|kind| self.names.is(*kind, &link.name))
        };
        let orphans = links
            .iter()
            .filter(|link| is_ours(link) && !kept.contains(&link.name));
        let orphans: Vec<&str> = orphans.map(|link| link.name.as_str()).collect();
        if !orphans.is_empty() {
            self.log
                .info(format!("removing leftover links {orphans:?}"));
            self.removals.begin(&orphans);
        }
        Ok(())
    }

    /// Waits for removals that are under way.
    pub(crate) fn finish(&self) {
        self.removals.finish();
    }
}
