//! The list of containers.

use std::collections::HashSet;
use std::sync::Arc;

use gantry_model::Timestamp;
use gantry_wire as wire;
use gantry_wire::Filters;

use super::inspect::mount_point;
use super::words;
use crate::container::record::{Phase, Record};
use crate::create::mounts::clean;
use crate::create::ports;
use crate::engine::blocking;
use crate::query::ListQuery;
use crate::{Engine, EngineError, Result};

const KEYS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

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
            mounts: record.mounts.iter().map(mount_point).collect(),
            image_manifest_descriptor: None,
        }
    }

    fn port_list(&self, record: &Record) -> Vec<wire::Port> {
        if !record.state.phase.has_process() {
            return Vec::new();
        }
        let mut list: Vec<wire::Port> = self
            .services
            .networks
            .ports(&record.id)
            .into_iter()
            .map(|binding| wire::Port {
                ip: binding.host_ip.to_string(),
                private_port: binding.container_port,
                public_port: binding.host_port,
                kind: binding.protocol.as_str().into(),
            })
            .collect();
        for exposed in record.config.exposed_ports.keys() {
            let Ok((port, protocol)) = ports::container_port(exposed) else {
                continue;
            };
            let kind = protocol.as_str();
            if !list
                .iter()
                .any(|p| p.private_port == port && p.kind == kind)
            {
                list.push(wire::Port {
                    ip: String::new(),
                    private_port: port,
                    public_port: 0,
                    kind: kind.into(),
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

/// The filters, prepared.
struct Selection<'a> {
    filters: &'a Filters,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    exited: Vec<i32>,
    ancestors: Option<HashSet<String>>,
    names: Vec<String>,
    networks: Vec<String>,
}

impl<'a> Selection<'a> {
    async fn new(engine: &Engine, filters: &'a Filters) -> Result<Self> {
        let bad = |key: &str, value: &str| {
            EngineError::bad_request(format!("invalid filter '{key}={value}'"))
        };
        for status in filters.get("status") {
            let known = [
                "created",
                "dead",
                "exited",
                "paused",
                "removing",
                "restarting",
                "running",
            ];
            if !known.contains(&status.as_str()) {
                return Err(EngineError::bad_request(format!(
                    "invalid value for filter: status={status}; must be one of: {}",
                    known.join(", ")
                )));
            }
        }
        for health in filters.get("health") {
            if !["none", "starting", "healthy", "unhealthy"].contains(&health.as_str()) {
                return Err(bad("health", health));
            }
        }
        let created = |key: &str| match filters.get(key) {
            [] => Ok(None),
            [one] => Ok(Some(engine.find(one)?.record().created)),
            _ => Err(bad(key, &filters.get(key).join(" "))),
        };
        let exited = filters
            .get("exited")
            .iter()
            .map(|code| code.parse().map_err(|_| bad("exited", code)))
            .collect::<Result<Vec<i32>>>()?;
        Ok(Self {
            before: created("before")?,
            since: created("since")?,
            exited,
            ancestors: ancestors(engine, filters).await?,
            names: filters.get("name").to_vec(),
            networks: filters.get("network").to_vec(),
            filters,
        })
    }

    fn takes(&self, engine: &Engine, record: &Record) -> bool {
        let filters = self.filters;
        let state = &record.state;
        let health = state.health.as_ref().map_or("none", |h| h.status.as_str());
        let ids = filters.get("id");
        self.before.is_none_or(|before| record.created < before)
            && self.since.is_none_or(|since| record.created > since)
            && (self.exited.is_empty()
                || (state.phase == Phase::Exited && self.exited.contains(&state.exit_code)))
            && filters.allows("status", state.phase.as_str())
            && filters.allows("health", health)
            && filters.matches_labels("label", &record.config.labels)
            && (ids.is_empty()
                || ids
                    .iter()
                    .any(|id| record.id.as_str().starts_with(id.as_str())))
            && self.takes_name(&record.name)
            && self
                .ancestors
                .as_ref()
                .is_none_or(|images| images.contains(record.image.as_str()))
            && self.takes_network(engine, record)
            && self.takes_volume(record)
            && self.takes_port(engine, record)
    }

    /// Docker's names are regular expressions; what clients send is a part of a name, or one with anchors.
    fn takes_name(&self, name: &str) -> bool {
        self.names.is_empty()
            || self.names.iter().any(|pattern| {
                let slashed = format!("/{name}");
                matches(pattern, name) || matches(pattern, &slashed)
            })
    }

    fn takes_network(&self, engine: &Engine, record: &Record) -> bool {
        self.networks.is_empty()
            || engine.attachments(record).iter().any(|(name, attached)| {
                self.networks.iter().any(|wanted| {
                    wanted == name || attached.network_id.starts_with(wanted.as_str())
                })
            })
    }

    fn takes_volume(&self, record: &Record) -> bool {
        let wanted = self.filters.get("volume");
        wanted.is_empty()
            || record.mounts.iter().any(|mount| {
                wanted.iter().any(|w| {
                    *w == mount.name || clean(w) == mount.destination || *w == mount.source
                })
            })
    }

    fn takes_port(&self, engine: &Engine, record: &Record) -> bool {
        let wanted = |key: &str, port: u16, kind: &str| {
            let values = self.filters.get(key);
            values.is_empty()
                || values.iter().any(|value| {
                    let (range, protocol) = value.split_once('/').unwrap_or((value, "tcp"));
                    let (from, to) = range.split_once('-').unwrap_or((range, range));
                    protocol == kind
                        && from.parse::<u16>().is_ok_and(|from| from <= port)
                        && to.parse::<u16>().is_ok_and(|to| port <= to)
                })
        };
        if !self.filters.contains("publish") && !self.filters.contains("expose") {
            return true;
        }
        engine.port_list(record).iter().any(|port| {
            let public = !self.filters.contains("publish") || port.public_port > 0;
            public
                && wanted("publish", port.public_port, &port.kind)
                && wanted("expose", port.private_port, &port.kind)
        })
    }
}

/// A part of a text, with `^` and `$` at its ends.
fn matches(pattern: &str, text: &str) -> bool {
    let (start, pattern) = match pattern.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let (end, pattern) = match pattern.strip_suffix('$') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    match (start, end) {
        (true, true) => text == pattern,
        (true, false) => text.starts_with(pattern),
        (false, true) => text.ends_with(pattern),
        (false, false) => text.contains(pattern),
    }
}

/// The images that `ancestor` names.
async fn ancestors(engine: &Engine, filters: &Filters) -> Result<Option<HashSet<String>>> {
    if !filters.contains("ancestor") {
        return Ok(None);
    }
    let names = filters.get("ancestor").to_vec();
    let images = engine.services.images.clone();
    let found = blocking(move || {
        names
            .iter()
            .filter_map(|name| images.find(name).ok())
            .map(|id| id.to_string())
            .collect()
    })
    .await?;
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn name_patterns() {
        assert!(matches("web", "my-web-1"));
        assert!(matches("^/web$", "/web"));
        assert!(!matches("^web$", "web1"));
        assert!(matches("^web", "web1"));
        assert!(matches("1$", "web1"));
    }
}
