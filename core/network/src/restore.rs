//! Containers that outlived the last daemon.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::inner::{Inner, Slot};
use crate::place::{Place, Saved};
use crate::publish::Published;
use crate::relay;
use crate::resolv::Resolv;
use crate::{LiveSandbox, Result, SandboxFiles, SandboxMode};

impl Inner {
    /// Takes over sandboxes from an earlier daemon and removes what is left of others.
    pub(crate) fn restore(self: &Arc<Self>, mut live: Vec<LiveSandbox>) -> Result<()> {
        let mut saved: HashMap<String, Saved> = self.saved.all().into_iter().collect();
        let mut published = Published::default();
        let mut relays = HashMap::new();
        let mut known = Vec::new();
        let mut confined = BTreeMap::new();
        let mut endpoints = HashSet::new();
        // Those who share a namespace come after its owner.
        live.sort_by_key(|sandbox| {
            let saved = saved.get(sandbox.container.as_str());
            saved.is_some_and(|s| matches!(s.spec.mode, SandboxMode::Container(_)))
        });
        for sandbox in live {
            let Some(saved) = saved
                .remove(sandbox.container.as_str())
                .filter(|s| s.boot_id == self.config.boot_id)
            else {
                tracing::warn!(container = %sandbox.container, "nothing is known of a live container's network");
                continue;
            };
            published.extend(&saved.published);
            let relayed = relay::for_netd(&saved.published.relays);
            if !relayed.is_empty() {
                relays.insert(sandbox.container.to_string(), relayed);
            }
            endpoints.extend(saved.endpoints.iter().map(|e| e.spec.id.clone()));
            let place = self.take_over(saved, sandbox);
            let place = place.lock();
            known.extend(self.known_to_netd(&place));
            match self.confined(&place) {
                Ok(limits) => confined
                    .extend(limits.map(|limits| (place.spec().container.to_string(), limits))),
                Err(error) => self.warn(error.message),
            }
        }
        for id in saved.keys() {
            self.saved.remove(id)?;
        }
        if let Err(error) = self.firewall.set_published(&published) {
            self.warn(format!("cannot publish ports: {error}"));
        }
        if let Err(error) = self.firewall.set_confined(confined) {
            self.warn(format!("cannot write egress rules: {error}"));
        }
        if self.names.is_there()
            && let Err(error) = self.names.restore(known, relays)
        {
            self.warn(error.message);
        }
        self.finish_changes();
        self.publish_as_configured();
        self.reconcile_drivers(&endpoints.into_iter().collect::<Vec<_>>());
        self.follow_host();
        self.follow_all();
        Ok(())
    }

    /// Publishes the ports of live containers anew where the daemon's options say by now that they get there otherwise.
    fn publish_as_configured(&self) {
        let slots: Vec<_> = self.sandboxes.lock().values().cloned().collect();
        for slot in slots {
            let mut place = slot.place.lock();
            let published = &place.saved.published;
            let as_configured = (published.relaying, published.direct) == self.ways();
            if as_configured || place.saved.bindings.is_empty() {
                continue;
            }
            let moved = self
                .lead_ports(&mut place, true)
                .and_then(|()| self.publish_view(&place));
            if let Err(error) = moved {
                self.warn(format!("cannot publish ports: {error}"));
            }
        }
    }

    fn take_over(&self, saved: Saved, sandbox: LiveSandbox) -> Arc<Mutex<Place>> {
        let container = sandbox.container;
        for endpoint in &saved.endpoints {
            let info = &endpoint.info;
            for address in [info.ipv4, info.ipv6].into_iter().flatten() {
                self.ipam.keep(&info.network, address);
            }
            if let Some(network) = self.networks.read().get(&info.network)
                && let Some(holders) = network.holders.lock().as_mut()
            {
                holders.insert(info.endpoint.clone());
            }
        }
        self.ports.keep(&container, saved.bindings.iter());
        let mode = saved.spec.mode.clone();
        let files = match &mode {
            SandboxMode::Container(other) => self
                .place(other)
                .map(|place| place.lock().files.clone())
                .ok(),
            _ => None,
        };
        let place = Arc::new(Mutex::new(Place {
            files: files.unwrap_or_else(|| SandboxFiles::of(&saved.spec.dir)),
            netns: sandbox
                .netns
                .filter(|_| mode != SandboxMode::Host)
                .map(Arc::new),
            socket: None,
            resolv: Resolv::of_host().for_container(&self.config, &saved.spec),
            gone: false,
            saved,
        }));
        self.show(&place.lock());
        let slot = Slot {
            mode,
            place: Arc::clone(&place),
        };
        self.sandboxes.lock().insert(container, slot);
        place
    }
}
