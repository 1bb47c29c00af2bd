//! Connecting sandboxes to networks, and back.

use std::os::fd::{AsFd, OwnedFd};

use gantry_driver_api::network::EndpointRef;
use gantry_driver_api::{Call, Network as Driver};
use gantry_model::{ContainerId, EndpointId};

use crate::endpoint::{check_mode, empty_info};
use crate::files;
use crate::inner::{Inner, Network};
use crate::place::{Endpoint, Place, Routes};
use crate::{EndpointConfig, EndpointInfo, NetworkError, Result, SandboxMode, wish};

impl Inner {
    /// What can be said of a wish without making it true.
    pub(crate) fn check(&self, network: &Network, config: &EndpointConfig) -> Result<()> {
        let record = &network.record;
        // Where a driver gives the addresses, it says which there are.
        let given = self.info(network).is_ok_and(|info| !info.addressed);
        let is_inside = |address| self.ipam.check(&record.id, address);
        wish::check(record, config, (!given).then_some(is_inside))
    }

    pub(crate) fn connect(
        &self,
        container: &ContainerId,
        name: &str,
        config: EndpointConfig,
    ) -> Result<EndpointInfo> {
        let network = self.find(name)?;
        if network.record.config_only {
            return Err(NetworkError::forbidden(
                "cannot create endpoint on configuration-only network",
            ));
        }
        let place = self.place(container)?;
        let mut place = place.lock();
        if place.gone {
            return Err(NetworkError::conflict(format!(
                "container {container} is not running"
            )));
        }
        self.check(&network, &config)?;
        self.ensure(&network)?;
        let info = self.info(&network)?;
        check_mode(&place, &network, &info)?;
        let endpoint = EndpointId::generate();
        match network.holders.lock().as_mut() {
            Some(holders) => holders.insert(endpoint.clone()),
            None => return Err(NetworkError::no_network(name)),
        };
        let mut made = empty_info(&network, endpoint, config);
        let result = self.attach(&mut place, &network, &info, &mut made);
        if let Err(error) = result {
            self.let_go(&made);
            return Err(error);
        }
        if let Err(error) = self.settle(&mut place) {
            if let Some(endpoint) = place.saved.endpoints.pop() {
                for error in self.take_off(&mut place, &endpoint) {
                    warn(&endpoint, "undoing an attachment", &error);
                }
            }
            self.let_go(&made);
            return Err(error);
        }
        // What was set last is what is shown.
        let made = place.endpoints().last().map_or(made, |e| e.info.clone());
        drop(place);
        if made.dns_names.is_empty() {
            self.refresh_links(container, &made.network);
        }
        Ok(made)
    }

    pub(crate) fn disconnect(&self, container: &ContainerId, name: &str) -> Result<()> {
        let network = self.find(name)?;
        let record = &network.record;
        let missing = || {
            NetworkError::forbidden(format!(
                "container {container} is not connected to network {}",
                record.name
            ))
        };
        let place = self.place(container).map_err(|_| missing())?;
        let mut place = place.lock();
        let found = place
            .endpoints()
            .iter()
            .position(|e| e.info.network == record.id);
        let at = found.ok_or_else(missing)?;
        if place.spec().mode == SandboxMode::Host {
            return Err(NetworkError::conflict(
                "container cannot be disconnected from host network or connected to host network",
            ));
        }
        let endpoint = place.saved.endpoints.remove(at);
        if let Err(error) = self.begin(&mut place, endpoint.clone()) {
            place.saved.endpoints.insert(at, endpoint);
            return Err(error);
        }
        let failed = self.take_off(&mut place, &endpoint);
        self.let_go(&endpoint.info);
        match failed.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Writes down that an attachment is being made or taken away, where the next daemon would look for the sandbox.
    pub(crate) fn begin(&self, place: &mut Place, endpoint: Endpoint) -> Result<()> {
        place.saved.under_way = Some(endpoint);
        let container = place.spec().container.as_str();
        let noted = match self.saved.has(container) {
            true => self.saved.put(container, &place.saved),
            // Its container is being started, and would end with this daemon.
            false => Ok(()),
        };
        if noted.is_err() {
            place.saved.under_way = None;
        }
        noted
    }

    /// Takes an attachment away that is in the list no more. Whatever fails, the rest is done.
    fn take_off(&self, place: &mut Place, endpoint: &Endpoint) -> Vec<NetworkError> {
        self.detach(place, endpoint);
        let mut done = vec![
            files::remove_hosts(&place.files, &endpoint.hosts),
            place.reroute(),
            self.confine(place),
        ];
        place.saved.under_way = None;
        done.extend(SETTLING.map(|step| step(self, place)));
        done.into_iter().filter_map(Result::err).collect()
    }

    /// Takes away what an earlier daemon was making, or taking away, when it ended.
    pub(crate) fn finish_changes(&self) {
        let slots: Vec<_> = self.sandboxes.lock().values().cloned().collect();
        for slot in slots {
            let mut place = slot.place.lock();
            let Some(endpoint) = place.saved.under_way.take() else {
                continue;
            };
            // The default route led over its link by then, or does not yet lead over another.
            place.saved.routes = Routes::default();
            for error in self.take_off(&mut place, &endpoint) {
                warn(&endpoint, "taking away what was under way", &error);
            }
        }
    }

    /// Has the driver take an attachment away from a namespace that stays.
    pub(crate) fn detach(&self, place: &Place, endpoint: &Endpoint) {
        match self.driver(&endpoint.driver) {
            Ok(driver) => undo(&*driver, endpoint, place.netns.as_deref()),
            Err(error) => warn(endpoint, "detaching", &error),
        }
    }

    /// The same of a namespace that ends. The kernel removes the links in it, unless somebody stays there: no link is left
    /// to those, but nobody waits for that.
    pub(crate) fn detach_ended(&self, place: &Place, endpoint: &Endpoint) {
        let driver = match self.driver(&endpoint.driver) {
            Ok(driver) => driver,
            Err(error) => return warn(endpoint, "detaching", &error),
        };
        let plan = &endpoint.plan;
        match place.netns.clone() {
            Some(netns) if plan.configured => undo(&*driver, endpoint, Some(&netns)),
            // There is no end of it where the driver could find it later.
            Some(netns) if plan.outer.is_empty() && !plan.link.is_empty() => {
                let thread = std::thread::Builder::new().name("link-ending".into());
                let ended = endpoint.clone();
                let work = move || undo(&*driver, &ended, Some(&netns));
                if let Err(error) = thread.stack_size(256 * 1024).spawn(work) {
                    tracing::warn!(%error, "removing a link");
                }
            }
            _ => undo(&*driver, endpoint, None),
        }
    }

    /// Brings ports, names and files in line with the attachments, writes the sandbox down and shows it.
    pub(crate) fn settle(&self, place: &mut Place) -> Result<()> {
        SETTLING.iter().try_for_each(|step| step(self, place))
    }
}

/// What brings a sandbox in line with its attachments, in this order.
const SETTLING: [fn(&Inner, &mut Place) -> Result<()>; 3] =
    [Inner::move_ports, Inner::tell_names, |inner, place| {
        inner.publish_view(place)
    }];

/// Has a driver undo an attachment. The next reconciliation finds what is left.
fn undo(driver: &dyn Driver, endpoint: &Endpoint, netns: Option<&OwnedFd>) {
    let call = Call::new("disconnect");
    let reference = EndpointRef {
        network: endpoint.spec.network.clone(),
        id: endpoint.spec.id.clone(),
    };
    let fds: Vec<_> = netns.iter().map(|fd| fd.as_fd()).collect();
    let left = driver.leave(&call.with_fds(&fds), reference.clone());
    if let Err(error) = left.and_then(|()| driver.delete_endpoint(&call, reference)) {
        warn(endpoint, "detaching", &error);
    }
}

fn warn(endpoint: &Endpoint, doing: &str, error: &dyn std::fmt::Display) {
    let network = endpoint.info.network_name.as_str();
    tracing::warn!(network, %error, "{doing}");
}
