//! Attaching containers to networks and detaching them.

use gantry_network::NetworkRecord;
use gantry_wire as wire;

use crate::container::record::Record;
use crate::{Engine, EngineError, ErrorKind, Result};

impl Engine {
    /// Attaches a container to a network, now and at every start.
    ///
    /// # Errors
    /// Unknown ones, attachments that are there, modes that allow none.
    pub async fn network_connect(
        &self,
        id: &str,
        request: wire::NetworkConnectRequest,
    ) -> Result<()> {
        let container = self.find(&request.container)?;
        let network = self.services.networks.get(id)?;
        let mut wish = request.endpoint_config.unwrap_or_default();
        // Another network may have the same name: one that hosts share beside one of this host's.
        wish.network_id = network.id.to_string();
        self.to_the_end(|engine| async move {
            let _turn = container.queue.lock().await;
            let record = container.record();
            connectable(&record, &network)?;
            if record.networks.contains_key(&network.name) {
                return Err(EngineError::forbidden(format!(
                    "endpoint with name {} already exists in network {}",
                    record.name, network.name
                )));
            }
            if record.state.phase.has_process() {
                engine.join_network(&record, &network.name, &wish).await?;
            } else {
                let config = engine.endpoint_config(&wish)?;
                let networks = &engine.services.networks;
                networks.check(network.id.as_str(), &config)?;
            }
            let record = container.update(|record| {
                record.networks.insert(network.name.clone(), wish);
            });
            engine.records.save(&record).await
        })
        .await
    }

    /// Detaches a container from a network, now and at every start.
    ///
    /// # Errors
    /// Unknown ones, no such attachment.
    pub async fn network_disconnect(
        &self,
        id: &str,
        request: wire::NetworkDisconnectRequest,
    ) -> Result<()> {
        let network = self.services.networks.get(id)?;
        let container = match self.find(&request.container) {
            // Docker looks for an endpoint left by a container that is gone; here none is ever left.
            Err(error) if error.kind == ErrorKind::NotFound && request.force => {
                let text = format!("endpoint {} not found", request.container);
                return Err(EngineError::not_found(text));
            }
            found => found?,
        };
        self.to_the_end(|engine| async move {
            let _turn = container.queue.lock().await;
            let record = container.record();
            let networks = &engine.services.networks;
            let joined = networks
                .endpoints(&container.id)
                .into_iter()
                .find(|endpoint| endpoint.network == network.id);
            let wished = record.networks.get(&network.name).is_some_and(|wish| {
                let meant = networks.get(engine.meant(&network.name, wish));
                meant.is_ok_and(|meant| meant.id == network.id)
            });
            if joined.is_none() && !wished {
                return Err(EngineError::forbidden(format!(
                    "container {} is not connected to network {}",
                    container.id, network.name
                )));
            }
            if let Some(endpoint) = joined {
                networks
                    .disconnect(&container.id, network.id.as_str())
                    .await?;
                engine.tell_network("disconnect", &endpoint, &network.driver, &record);
            }
            let record = container.update(|record| {
                record.networks.remove(&network.name);
            });
            engine.records.save(&record).await
        })
        .await
    }
}

/// Modes in which a container has no place for another network.
fn connectable(record: &Record, network: &NetworkRecord) -> Result<()> {
    let mode = record.host_config.network_mode.as_str();
    let refuse = |why: &str| Err(EngineError::forbidden(why));
    if mode == "host" || network.name == "host" {
        return refuse("container cannot be connected to host network or disconnected from it");
    }
    if mode.starts_with("container:") {
        return refuse(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        );
    }
    let has_none = record.networks.contains_key("none");
    if has_none || (network.name == "none" && !record.networks.is_empty()) {
        return refuse(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        );
    }
    Ok(())
}
