//! Which containers a client wants in a list.

use std::collections::HashSet;

use gantry_model::Timestamp;
use gantry_wire::Filters;

use crate::container::record::{Phase, Record};
use crate::create::mounts::clean;
use crate::engine::blocking;
use crate::{Engine, EngineError, Result};

/// The filters that there are.
pub(super) const KEYS: &[&str] = &[
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

/// The filters, prepared.
pub(super) struct Selection<'a> {
    filters: &'a Filters,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    exited: Vec<i32>,
    ancestors: Option<HashSet<String>>,
    names: Vec<String>,
    networks: Vec<String>,
}

impl<'a> Selection<'a> {
    /// Checks the filters and looks up what they name.
    pub(super) async fn new(engine: &Engine, filters: &'a Filters) -> Result<Self> {
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

    /// Whether a container passes.
    pub(super) fn takes(&self, engine: &Engine, record: &Record) -> bool {
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
