//! Legacy links: names of other containers in `hosts`, which follow these when they get another address.

use std::sync::Arc;

use gantry_model::{ContainerId, NetworkId};
use parking_lot::Mutex;

use crate::Result;
use crate::files;
use crate::inner::Inner;
use crate::place::Place;

impl Inner {
    /// Brings the files of those that link to a container on a network without names up to date with its address.
    pub(crate) fn refresh_links(&self, target: &ContainerId, network: &NetworkId) {
        let linking: Vec<ContainerId> = {
            let views = self.views.read();
            let links = |view: &crate::inner::View| {
                let there = view.endpoints.iter().filter(|e| e.network == *network);
                let mut links = there.flat_map(|e| &e.config.links).chain(&view.links);
                links.any(|link| link.container == *target)
            };
            let linking = views.iter().filter(|(_, view)| links(view));
            linking.map(|(container, _)| container.clone()).collect()
        };
        for container in linking.iter().filter(|c| *c != target) {
            let Ok(place) = self.place(container) else {
                continue;
            };
            if let Err(error) = self.refresh(&place, network) {
                tracing::warn!(%container, %error, "its links are not up to date");
            }
        }
    }

    /// Has a container forget what it calls another, if it has a sandbox.
    pub(crate) fn unlink(&self, container: &ContainerId, alias: &str) -> Result<()> {
        let Ok(place) = self.place(container) else {
            return Ok(());
        };
        let networks: Vec<NetworkId> = {
            let mut place = place.lock();
            if place.gone {
                return Ok(());
            }
            place.saved.spec.links.retain(|link| link.alias != alias);
            for endpoint in &mut place.saved.endpoints {
                let links = &mut endpoint.info.config.links;
                links.retain(|link| link.alias != alias);
            }
            self.tell_names(&mut place)?;
            self.publish_view(&place)?;
            let networks = place.endpoints().iter();
            networks.map(|e| e.info.network.clone()).collect()
        };
        let mut networks = networks.iter();
        networks.try_for_each(|network| self.refresh(&place, network))
    }

    fn refresh(&self, place: &Arc<Mutex<Place>>, network: &NetworkId) -> Result<()> {
        let mut place = place.lock();
        let found = place
            .endpoints()
            .iter()
            .position(|e| e.info.network == *network);
        let Some(at) = found.filter(|_| !place.gone) else {
            return Ok(());
        };
        let lines = self.host_lines(&place, &place.endpoints()[at].info);
        let before = std::mem::replace(&mut place.saved.endpoints[at].hosts, lines.clone());
        if before == lines {
            return Ok(());
        }
        files::remove_hosts(&place.files, &before)?;
        files::add_hosts(&place.files, &lines)?;
        self.publish_view(&place)
    }
}
