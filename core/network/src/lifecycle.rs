//! A sandbox from its making to its release.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use gantry_model::ContainerId;
use gantry_netd::{Alias, Asks, Membership, SandboxNames};
use parking_lot::Mutex;

use crate::files::{self, HostLine};
use crate::inner::{Inner, Slot};
use crate::place::{Endpoint, Place};
use crate::pool::Prepared;
use crate::resolv::Resolv;
use crate::{NetworkError, Result, Sandbox, SandboxFiles, SandboxMode, SandboxSpec};

impl Inner {
    pub(crate) fn sandbox(&self, spec: SandboxSpec, given: Option<OwnedFd>) -> Result<Sandbox> {
        self.release(&spec.container);
        self.check_egress(&spec)?;
        let container = spec.container.clone();
        let own_files = SandboxFiles::of(&spec.dir);
        let (netns, socket, files) = match &spec.mode {
            SandboxMode::Own => {
                let prepared = match given {
                    Some(netns) => Prepared::of(netns),
                    None => self.pool.take(),
                }
                .map_err(|e| NetworkError::io("creating a network namespace", &e))?;
                (
                    Some(Arc::new(prepared.netns)),
                    Some(prepared.socket),
                    own_files,
                )
            }
            SandboxMode::Host => (None, None, own_files),
            SandboxMode::Container(other) => {
                let place = self.place(other)?;
                let place = place.lock();
                (place.netns.clone(), None, place.files.clone())
            }
        };
        let resolv = Resolv::of_host().for_container(&self.config, &spec);
        let mode = spec.mode.clone();
        let mut place = Place {
            saved: self.empty_saved(spec),
            files: files.clone(),
            netns,
            socket,
            resolv,
            gone: false,
        };
        self.write_files(&mut place)?;
        let netns = place.netns.as_ref().map(|fd| fd.try_clone()).transpose();
        let netns = netns.map_err(|e| NetworkError::io("duplicating a descriptor", &e))?;
        match mode {
            // It is about to be connected, and written down then.
            SandboxMode::Own => self.show(&place),
            _ => self.publish_view(&place)?,
        }
        let slot = Slot {
            mode,
            place: Arc::new(Mutex::new(place)),
        };
        self.sandboxes.lock().insert(container.clone(), slot);
        Ok(Sandbox {
            container,
            netns,
            files,
        })
    }

    fn write_files(&self, place: &mut Place) -> Result<()> {
        let spec = place.spec();
        let extra = self.extra_hosts(spec)?;
        let text = match spec.mode {
            SandboxMode::Container(_) => return Ok(()),
            SandboxMode::Host => {
                files::write_hosts(&place.files, Some(Path::new("/etc/hosts")), &extra)?;
                place.resolv.text()
            }
            SandboxMode::Own => {
                files::write_hosts(&place.files, None, &extra)?;
                place.own_resolv()
            }
        };
        files::write_hostname(&place.files, &spec.hostname)?;
        files::write_resolv(&place.files, &text)?;
        place.saved.resolv = text;
        Ok(())
    }

    fn extra_hosts(&self, spec: &SandboxSpec) -> Result<Vec<HostLine>> {
        let mut lines = Vec::new();
        for entry in &spec.extra_hosts {
            let bad = || NetworkError::invalid(format!("bad format for add-host: {entry:?}"));
            let (name, address) = entry.split_once(':').ok_or_else(bad)?;
            if address == "host-gateway" {
                lines.extend(self.host_gateway().into_iter().map(|address| HostLine {
                    address,
                    names: name.to_owned(),
                }));
                continue;
            }
            let address = address.trim_start_matches('[').trim_end_matches(']');
            let address = address.parse().map_err(|_| bad())?;
            lines.push(HostLine {
                address,
                names: name.to_owned(),
            });
        }
        Ok(lines)
    }

    /// Tells netd of the sandbox, and the sandbox of netd. The caller writes the sandbox down after it.
    pub(crate) fn tell_names(&self, place: &mut Place) -> Result<()> {
        if place.spec().mode != SandboxMode::Own {
            return Ok(());
        }
        let Some(netns) = place.netns.clone() else {
            return Ok(());
        };
        // One that has left its last network with names keeps what leads to netd, where nobody has a name for it any more:
        // it may join another, and making that anew takes longer than all the rest.
        if place.asks_netd() || self.names.knows(place.spec().container.as_str()) {
            self.names.put(self.sandbox_names(place), &netns)?;
        }
        let text = place.own_resolv();
        self.rewrite_resolv(place, text).map(drop)
    }

    /// What netd is told of a sandbox.
    pub(crate) fn sandbox_names(&self, place: &Place) -> SandboxNames {
        names_of(place, self.egress_names(place))
    }

    /// The pair that [`crate::names::NameService::restore`] takes.
    pub(crate) fn known_to_netd(&self, place: &Place) -> Option<(SandboxNames, Arc<OwnedFd>)> {
        place.asks_netd().then_some(())?;
        Some((self.sandbox_names(place), place.netns.clone()?))
    }

    pub(crate) fn rename(&self, container: &ContainerId, name: &str) -> Result<()> {
        let Ok(place) = self.place(container) else {
            return Ok(());
        };
        let mut place = place.lock();
        if place.gone {
            return Ok(());
        }
        place.saved.spec.name = name.to_owned();
        let mut endpoints = std::mem::take(&mut place.saved.endpoints);
        for endpoint in endpoints
            .iter_mut()
            .filter(|e| !e.info.dns_names.is_empty())
        {
            endpoint.info.dns_names = crate::endpoint::dns_names(&place, &endpoint.info.config);
        }
        place.saved.endpoints = endpoints;
        self.tell_names(&mut place)?;
        self.publish_view(&place)?;
        place
            .endpoints()
            .iter()
            .try_for_each(|endpoint| self.tell_hosts(&endpoint.info, &endpoint.spec))
    }

    /// Gives everything back. What fails is logged and left to the next reconciliation.
    pub(crate) fn release(&self, container: &ContainerId) {
        let Some(slot) = self.sandboxes.lock().remove(container) else {
            return;
        };
        let mut place = slot.place.lock();
        place.gone = true;
        self.views.write().remove(container);
        let complain = |what: &str, error: &dyn std::fmt::Display| {
            tracing::warn!(%container, %error, "{what}");
        };
        self.withdraw_ports(&place);
        if let Err(error) = self.names.remove(container.as_str()) {
            complain("forgetting names", &error);
        }
        if place.spec().egress.is_some()
            && let Err(error) = self.firewall.release(container.as_str())
        {
            complain("withdrawing egress rules", &error);
        }
        // A namespace that nobody else lives in takes its links with it.
        let live = slot.mode == SandboxMode::Own && self.is_shared(container);
        for endpoint in std::mem::take(&mut place.saved.endpoints) {
            match live {
                true => self.detach(&place, &endpoint),
                false => self.detach_ended(&place, &endpoint),
            }
            self.let_go(&endpoint.info);
        }
        place.socket = None;
        place.netns = None;
        if let Err(error) = self.saved.remove(container.as_str()) {
            complain("forgetting a sandbox", &error);
        }
    }
}

fn names_of(place: &Place, egress: Option<gantry_netd::Egress>) -> SandboxNames {
    let membership = |endpoint: &Endpoint| Membership {
        network: endpoint.info.network.to_string(),
        network_name: endpoint.info.network_name.clone(),
        names: endpoint.info.dns_names.clone(),
        addresses: [endpoint.info.ipv4, endpoint.info.ipv6]
            .into_iter()
            .flatten()
            .collect(),
        aliases: endpoint
            .info
            .config
            .links
            .iter()
            .map(|link| Alias {
                alias: link.alias.clone(),
                name: link.name.clone(),
            })
            .collect(),
    };
    let leads_out = place.endpoints().iter().any(|e| !e.internal);
    // What a sandbox with an egress list hears inside must not open ways.
    let own = place.resolv.own && egress.is_none();
    SandboxNames {
        id: place.spec().container.to_string(),
        memberships: place
            .endpoints()
            .iter()
            .filter(|e| e.named)
            .map(membership)
            .collect(),
        upstreams: if leads_out || own {
            place.resolv.servers.clone()
        } else {
            Vec::new()
        },
        follows_host: leads_out && place.resolv.follows_host,
        asks: match (own, leads_out) {
            (false, _) => Asks::Host,
            (true, true) => Asks::InsideFirst,
            (true, false) => Asks::Inside,
        },
        searches: place.resolv.searches,
        egress,
    }
}
