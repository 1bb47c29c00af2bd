//! The list of containers.

use std::collections::HashSet;
use std::sync::Arc;

use gantry_model::Timestamp;
use gantry_wire as wire;

use super::filter::{KEYS, Selection};
use super::inspect::mount_point;
use super::words;
use crate::container::record::Record;
use crate::create::mounts::visible;
use crate::create::ports;
use crate::query::ListQuery;
use crate::{Engine, Result};

impl Engine {
    /// Lists containers, newest first.
    ///
    /// # Errors
    /// Unknown filters, or values that they do not take.
    pub async fn container_list(&self, query: ListQuery) -> Result<Vec<wire::ContainerSummary>> {
        let filters = &query.filters;
        filters.check(KEYS)?;
        let selection = Selection::new(self, filters).await?;
        let mut records: Vec<Arc<Record>> =
            self.containers.all().iter().map(|c| c.record()).collect();
        records.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        // A limit, a state or an exit code asks for stopped ones too.
        let all = query.all
            || query.limit.is_some()
            || ["status", "exited", "before", "since"]
                .iter()
                .any(|key| filters.contains(key));
        let chosen: Vec<Arc<Record>> = records
            .into_iter()
            .filter(|record| all || record.state.phase.is_running())
            .filter(|record| selection.takes(self, record))
            .take(query.limit.unwrap_or(usize::MAX))
            .collect();
        let mut summaries = Vec::with_capacity(chosen.len());
        for record in chosen {
            summaries.push(self.summary(&record, query.size).await);
        }
        Ok(summaries)
    }

    async fn summary(&self, record: &Record, size: bool) -> wire::ContainerSummary {
        let (size_rw, size_root_fs) = match size {
            true => self.sizes(record).await,
            false => (None, None),
        };
        wire::ContainerSummary {
            id: record.id.to_string(),
            names: vec![format!("/{}", record.name)],
            image: record.config.image.clone(),
            image_id: record.image.to_string(),
            command: command(record),
            created: record.created.seconds(),
            ports: self.port_list(record),
            size_rw,
            size_root_fs,
            labels: record.config.labels.clone(),
            state: record.state.phase.as_str().into(),
            status: words::status(record, Timestamp::now()),
            host_config: wire::SummaryHostConfig {
                network_mode: record.host_config.network_mode.clone(),
                annotations: record.host_config.annotations.clone(),
            },
            network_settings: wire::SummaryNetworkSettings {
                networks: self.attachments(record),
            },
            mounts: visible(record).map(mount_point).collect(),
            image_manifest_descriptor: None,
        }
    }

    pub(super) fn port_list(&self, record: &Record) -> Vec<wire::Port> {
        if !record.state.phase.has_process() {
            return Vec::new();
        }
        let bindings = self.services.networks.ports(&record.id);
        // There may be ten thousand.
        let published: HashSet<_> = bindings
            .iter()
            .map(|binding| (binding.container_port, binding.protocol))
            .collect();
        let mut list: Vec<wire::Port> = bindings
            .into_iter()
            .map(|binding| wire::Port {
                ip: binding.host_ip.to_string(),
                private_port: binding.container_port,
                public_port: binding.host_port,
                kind: binding.protocol.as_str().into(),
            })
            .collect();
        for exposed in record.config.exposed_ports.keys() {
            let Ok((port, protocol)) = ports::container_port(&exposed) else {
                continue;
            };
            if !published.contains(&(port, protocol)) {
                list.push(wire::Port {
                    ip: String::new(),
                    private_port: port,
                    public_port: 0,
                    kind: protocol.as_str().into(),
                });
            }
        }
        list
    }
}

/// Path and arguments in one line; arguments with spaces are quoted.
fn command(record: &Record) -> String {
    let argv = record.argv();
    let words: Vec<String> = argv
        .iter()
        .enumerate()
        .map(|(at, word)| match at > 0 && word.contains(' ') {
            true => format!("'{word}'"),
            false => word.clone(),
        })
        .collect();
    words.join(" ")
}
