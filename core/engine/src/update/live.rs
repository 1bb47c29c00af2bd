//! Ports, mounts and the egress list of an update: done, noted in the record, or taken back.

use std::sync::Arc;

use gantry_model::container::Egress;
use gantry_wire::UpdateRequest;

use super::{mounts, ports};
use crate::container::Container;
use crate::container::record::Record;
use crate::create::egress;
use crate::{Engine, EngineError, Result};

/// What was done. It is to be finished or undone.
#[derive(Default)]
pub(super) struct Live {
    ports: Option<(ports::Plan, Vec<gantry_network::PortBinding>)>,
    mounts: Option<mounts::Change>,
    egress: Option<Egress>,
}

impl Engine {
    /// Changes ports, mounts and the egress list, all or nothing; the record is the caller's to change. The container's turn is held.
    pub(super) async fn change_live(
        &self,
        container: &Arc<Container>,
        request: &UpdateRequest,
    ) -> Result<Live> {
        let record = container.record();
        let mut live = Live::default();
        let published = self.services.networks.ports(&record.id);
        let plan = match request.ports.is_empty() {
            true => None,
            false => Some(ports::plan(&record, &request.ports, &published)?),
        };
        let egress = match request.host_config.egress.clone() {
            None => None,
            wanted => {
                let mut host = record.host_config.clone();
                host.egress = wanted;
                Some((egress::list(&record.config, &host)?, host.egress))
            }
        };
        if !request.mounts.is_empty() {
            live.mounts = Some(self.change_mounts(container, &request.mounts).await?);
        }
        let networks = &self.services.networks;
        let runs = record.state.phase.has_process();
        if let Some((list, wanted)) = egress {
            let changed = match runs {
                true => networks.change_egress(&record.id, list).await,
                false => Ok(()),
            };
            if let Err(error) = changed {
                live.undo(self, &record).await;
                return Err(error.into());
            }
            live.egress = wanted;
        }
        let Some(plan) = plan else {
            return Ok(live);
        };
        if runs {
            let (add, remove) = (plan.add.clone(), plan.remove.clone());
            if let Err(error) = networks.change_ports(&record.id, add, remove).await {
                live.undo(self, &record).await;
                return Err(error.into());
            }
        }
        live.ports = Some((plan, published));
        Ok(live)
    }
}

impl Live {
    /// Says in the record what is so by now.
    pub(super) fn apply(&self, record: &mut Record) {
        if let Some((ports, _)) = &self.ports {
            ports.apply(&mut record.config, &mut record.host_config);
        }
        if let Some(mounts) = &self.mounts {
            mounts.apply(record);
        }
        if let Some(egress) = &self.egress {
            record.host_config.egress = Some(egress.clone());
        }
    }

    /// Takes everything back. `before` is the record as it was.
    pub(super) async fn undo(self, engine: &Engine, before: &Record) {
        if let Some((ports, published)) = &self.ports
            && before.state.phase.has_process()
        {
            let (add, remove) = ports.inverse(published);
            let networks = &engine.services.networks;
            if let Err(error) = networks.change_ports(&before.id, add, remove).await {
                tracing::error!(container = %before.id, %error, "cannot publish the ports of before");
            }
        }
        if self.egress.is_some() && before.state.phase.has_process() {
            let list = egress::list(&before.config, &before.host_config);
            let back = match list {
                Ok(list) => engine
                    .services
                    .networks
                    .change_egress(&before.id, list)
                    .await
                    .map_err(EngineError::from),
                Err(error) => Err(error),
            };
            if let Err(error) = back {
                tracing::error!(container = %before.id, %error, "cannot go back to the egress list of before");
            }
        }
        if let Some(mounts) = self.mounts {
            mounts.undo(engine, before).await;
        }
    }

    /// The record is kept: gives back what is no longer used.
    pub(super) async fn finish(self, engine: &Engine, record: &Record) {
        if let Some(mounts) = self.mounts {
            mounts.finish(engine, record).await;
        }
    }
}
