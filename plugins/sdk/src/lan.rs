//! Networks of which each endpoint is a link on top of one of the host's links: what macvlan and ipvlan have in common.
//!
//! The parent is the link that the network's option `parent` names. A name like `eth0.10` that is not there is made, as
//! VLAN 10 of `eth0`, and goes with the last network that uses it. Without a parent the network leads nowhere: its
//! parent is a dummy link of its own. The host itself cannot be reached over such a network; ports are not published.

mod parent;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use gantry_driver_api::network::{
    EndpointRef, EndpointSpec, FirewallIntent, JoinPlan, NetworkInfo, NetworkPlan, NetworkRef,
    NetworkSpec, Route, Scope, SetExternal,
};
use gantry_driver_api::{
    Call, Driver, DriverConfig, DriverError, DriverResult, ErrorCode, Network, Reconcile,
};
use gantry_sys::netlink::{Change, NewStacked, Stacked, remove_link};
use gantry_sys::netns;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::notes::Notes;
use crate::{Log, links};
use parent::Parents;

/// The option that names the parent.
pub const PARENT: &str = "parent";

/// `errno` of a name that is taken.
const EEXIST: i32 = 17;

/// A kind of links on top of others.
pub trait Kind: Debug + Send + Sync + 'static {
    /// The driver's name, for messages.
    const NAME: &'static str;

    /// What the options ask for.
    ///
    /// # Errors
    /// `InvalidArgument`.
    fn parse(options: &BTreeMap<String, String>) -> DriverResult<Stacked>;

    /// Whether links of both kinds can be on one parent.
    fn agree(one: Stacked, other: Stacked) -> bool;

    /// Whether each link has an Ethernet address of its own.
    fn has_mac(kind: Stacked) -> bool;

    /// Whether packets for other networks are sent without a gateway.
    fn is_routed(kind: Stacked) -> bool;
}

/// A driver of such networks.
#[derive(Debug)]
pub struct Lan<K> {
    parents: Parents,
    /// The networks, each with its parent.
    networks: Notes<Note>,
    /// The names of the endpoints' links inside their sandboxes.
    endpoints: Notes<String>,
    log: Log,
    kind: std::marker::PhantomData<K>,
}

/// What is kept of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// The parent link.
    parent: String,
    /// Whether it was made here.
    ours: bool,
    spec: NetworkSpec,
}

impl<K: Kind> Lan<K> {
    /// A driver for the network namespace of the calling thread.
    ///
    /// # Errors
    /// When netlink or the driver's directory cannot be used.
    pub fn new(config: DriverConfig, log: Log) -> DriverResult<Self> {
        Ok(Self {
            parents: Parents::open(&config.tag)?,
            networks: Notes::open(config.root.join("networks"))?,
            endpoints: Notes::open(config.root.join("endpoints"))?,
            log,
            kind: std::marker::PhantomData,
        })
    }

    fn note(&self, network: &str) -> DriverResult<Note> {
        let note = self.networks.get(network);
        note.ok_or_else(|| DriverError::not_found(format!("network {network} is not known")))
    }

    /// Refuses a parent that is used in another way already.
    fn check_sharing(&self, spec: &NetworkSpec, parent: &str, kind: Stacked) -> DriverResult<()> {
        for (id, note) in self.networks.all() {
            if id == spec.id || note.parent != parent {
                continue;
            }
            if !K::agree(kind, K::parse(&note.spec.options)?) {
                let text = format!("network {id} is already using parent interface {parent}");
                return Err(DriverError::new(ErrorCode::PermissionDenied, text));
            }
        }
        Ok(())
    }

    /// Removes a parent that was made here and that no network uses any more.
    fn release(&self, note: &Note) -> DriverResult<()> {
        let used = |other: &Note| other.parent == note.parent;
        if !note.ours || self.networks.find(used).is_some() {
            return Ok(());
        }
        self.parents.remove(&note.parent)
    }

    /// The name of an endpoint's link inside.
    fn inner(spec: &EndpointSpec) -> String {
        links::inner_name(spec).unwrap_or_else(|| spec.link.clone())
    }

    fn plan(spec: &EndpointSpec, note: &Note, kind: Stacked) -> DriverResult<JoinPlan> {
        let network = &note.spec;
        let routed = K::is_routed(kind) && !network.internal;
        let families = spec.addresses.iter().map(|net| match net.addr() {
            IpAddr::V4(_) => IpNet::V4(Default::default()),
            IpAddr::V6(_) => IpNet::V6(Default::default()),
        });
        let direct = |to| Route { to, via: None };
        let gateways = network.subnets.iter().filter_map(|s| s.gateway);
        let silent = network.internal || K::is_routed(kind);
        let mac = match K::has_mac(kind) {
            true => links::mac(spec)?.to_string(),
            false => String::new(),
        };
        Ok(JoinPlan {
            link: Self::inner(spec),
            mac,
            addresses: spec.addresses.clone(),
            gateways: gateways.filter(|_| !silent).collect(),
            routes: families.map(direct).filter(|_| routed).collect(),
            mtu: mtu(&network.options)?,
            ..JoinPlan::default()
        })
    }
}

fn mtu(options: &BTreeMap<String, String>) -> DriverResult<u32> {
    options.get(links::MTU).map_or(Ok(0), |v| links::mtu(v))
}

/// Removes a link of another namespace, if it is there.
fn remove_inside(netns: BorrowedFd<'_>, link: &str) -> io::Result<()> {
    netns::inside(netns, || remove_link(link))
}

impl<K: Kind> Driver for Lan<K> {
    fn reconcile(&self, _: &Call<'_>, live: Reconcile) -> DriverResult<()> {
        for (id, _) in self.endpoints.all() {
            if !live.endpoints.contains(&id) {
                self.endpoints.remove(&id)?;
            }
        }
        for (id, note) in self.networks.all() {
            if !live.live.contains(&id) {
                let parent = &note.parent;
                self.log
                    .info(format!("forgetting network {id} on {parent}"));
                self.networks.remove(&id)?;
                self.release(&note)?;
            }
        }
        Ok(())
    }
}

impl<K: Kind> Network for Lan<K> {
    fn info(&self, _: &Call<'_>, (): ()) -> DriverResult<NetworkInfo> {
        Ok(NetworkInfo {
            scope: Scope::Local,
            own_namespace: true,
            addressed: true,
            singleton: false,
        })
    }

    fn validate(&self, _: &Call<'_>, spec: NetworkSpec) -> DriverResult<()> {
        mtu(&spec.options)?;
        K::parse(&spec.options)?;
        match spec.options.get(PARENT).map(String::as_str) {
            Some("lo") => Err(DriverError::invalid(format!(
                "loopback interface is not a valid {} parent link",
                K::NAME
            ))),
            Some(parent) if !parent.is_empty() => links::link_name(PARENT, parent).map(drop),
            _ => Ok(()),
        }
    }

    fn create_network(&self, _: &Call<'_>, spec: NetworkSpec) -> DriverResult<NetworkPlan> {
        let kind = K::parse(&spec.options)?;
        let wanted = spec.options.get(PARENT).filter(|parent| !parent.is_empty());
        let parent = wanted.map_or_else(|| self.parents.dummy(&spec.id), Clone::clone);
        self.check_sharing(&spec, &parent, kind)?;
        // A link that is there at first sight is somebody else's.
        let ours = match self.networks.find(|note| note.parent == parent) {
            Some((_, known)) => known.ours,
            None => self.parents.index(&parent)?.is_none(),
        };
        let id = spec.id.clone();
        let note = Note { parent, ours, spec };
        self.networks.put(&id, note.clone())?;
        if let Err(error) = self.parents.ensure(&note.parent) {
            self.networks.remove(&id)?;
            return Err(error);
        }
        Ok(NetworkPlan::default())
    }

    fn delete_network(&self, _: &Call<'_>, network: NetworkRef) -> DriverResult<()> {
        match self.networks.remove(&network.id)? {
            Some(note) => self.release(&note),
            None => Ok(()),
        }
    }

    fn create_endpoint(&self, _: &Call<'_>, spec: EndpointSpec) -> DriverResult<()> {
        self.note(&spec.network)?;
        links::mac(&spec).map(drop)
    }

    fn delete_endpoint(&self, _: &Call<'_>, endpoint: EndpointRef) -> DriverResult<()> {
        self.endpoints.remove(&endpoint.id).map(drop)
    }

    fn join(&self, call: &Call<'_>, spec: EndpointSpec) -> DriverResult<JoinPlan> {
        let Some(netns) = call.fds.first() else {
            return Err(DriverError::invalid("join needs the sandbox's namespace"));
        };
        let note = self.note(&spec.network)?;
        let kind = K::parse(&note.spec.options)?;
        let plan = Self::plan(&spec, &note, kind)?;
        self.endpoints.put(&spec.id, plan.link.clone())?;
        let new = NewStacked {
            name: &plan.link,
            parent: self.parents.ensure(&note.parent)?,
            kind,
            mac: plan.mac.parse().ok(),
            mtu: plan.mtu,
            netns: *netns,
        };
        let doing = |e: io::Error| {
            let what = format!("failed to create the {} port on {}", K::NAME, note.parent);
            DriverError::io(what, &e)
        };
        match self.parents.apply(Change::stacked(&new)) {
            // What bears the name is from an attempt of this endpoint's that was cut off.
            Err(e) if e.raw_os_error() == Some(EEXIST) => {
                remove_inside(*netns, &plan.link).map_err(doing)?;
                self.parents.apply(Change::stacked(&new)).map_err(doing)?;
            }
            made => made.map_err(doing)?,
        }
        Ok(plan)
    }

    fn leave(&self, call: &Call<'_>, endpoint: EndpointRef) -> DriverResult<()> {
        let (Some(netns), Some(link)) = (call.fds.first(), self.endpoints.get(&endpoint.id)) else {
            // Without a namespace the kernel is taking the link away already.
            return Ok(());
        };
        remove_inside(*netns, &link)
            .map_err(|e| DriverError::io(format!("removing link {link}"), &e))
    }

    fn set_external(&self, _: &Call<'_>, _: SetExternal) -> DriverResult<Vec<FirewallIntent>> {
        Ok(Vec::new())
    }
}
