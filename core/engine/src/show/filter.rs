//! Which containers a client wants in a list.

use std::collections::HashSet;

use gantry_model::{ImageId, Timestamp};
use gantry_wire::Filters;

use crate::container::record::{Phase, Record};
use crate::create::mounts::clean;
use crate::engine::blocking;
use crate::patterns::Patterns;
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
    ancestors: Option<HashSet<ImageId>>,
    names: Patterns,
    ids: Patterns,
    networks: Vec<String>,
    published: Vec<Ports>,
    exposed: Vec<Ports>,
    /// Tasks of a swarm are wanted, of which there are none.
    tasks: bool,
}

/// The ports of a value of `publish` or `expose`.
#[derive(Debug, PartialEq)]
struct Ports {
    from: u16,
    to: u16,
    protocol: String,
}

impl Ports {
    /// Reads `PORT[-PORT][/PROTOCOL]`.
    fn parse(key: &str, value: &str) -> Result<Self> {
        if value.contains(':') {
            return Err(EngineError::bad_request(format!(
                "filter for '{key}' should not contain ':': {value}"
            )));
        }
        let wrong = |why: String| {
            EngineError::bad_request(format!("error while looking up for {key} {value}: {why}"))
        };
        let port = |text: &str| {
            text.parse::<u16>().map_err(|e| {
                let why = match e.kind() {
                    std::num::IntErrorKind::PosOverflow => "value out of range",
                    _ => "invalid syntax",
                };
                wrong(format!("strconv.ParseUint: parsing {text:?}: {why}"))
            })
        };
        let (range, protocol) = value.split_once('/').unwrap_or((value, "tcp"));
        if range.is_empty() {
            return Err(wrong("empty string specified for ports".into()));
        }
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to) = (port(from)?, port(to)?);
        if to < from {
            return Err(wrong(format!("invalid range specified for port: {range}")));
        }
        Ok(Self {
            from,
            to,
            protocol: protocol.into(),
        })
    }

    fn all(filters: &Filters, key: &str) -> Result<Vec<Self>> {
        let values = filters.get(key).iter();
        values.map(|value| Self::parse(key, value)).collect()
    }

    fn have(&self, port: u16, protocol: &str) -> bool {
        (self.from..=self.to).contains(&port) && self.protocol == protocol
    }
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
            names: Patterns::new(filters, "name"),
            ids: Patterns::new(filters, "id"),
            networks: filters.get("network").to_vec(),
            published: Ports::all(filters, "publish")?,
            exposed: Ports::all(filters, "expose")?,
            tasks: filters.flag("is-task")?.unwrap_or(false),
            filters,
        })
    }

    /// Whether a container passes.
    pub(super) fn takes(&self, engine: &Engine, record: &Record) -> bool {
        let filters = self.filters;
        let state = &record.state;
        let health = state.health.as_ref().map_or("none", |h| h.status.as_str());
        !self.tasks
            && self.before.is_none_or(|before| record.created < before)
            && self.since.is_none_or(|since| record.created > since)
            && (self.exited.is_empty()
                || (state.phase == Phase::Exited && self.exited.contains(&state.exit_code)))
            && filters.allows("status", state.phase.as_str())
            && filters.allows("health", health)
            && filters.matches_labels("label", &record.config.labels)
            && self.ids.take(record.id.as_str())
            && self.takes_name(&record.name)
            && self
                .ancestors
                .as_ref()
                .is_none_or(|images| images.contains(&record.image))
            && self.takes_network(engine, record)
            && self.takes_volume(record)
            && self.takes_port(engine, record)
    }

    /// With the slash that dockerd keeps before it, and without.
    fn takes_name(&self, name: &str) -> bool {
        self.names.take(&format!("/{name}")) || self.names.take(name)
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
        if self.published.is_empty() && self.exposed.is_empty() {
            return true;
        }
        let have = |wanted: &[Ports], port: u16, protocol: &str| {
            wanted.is_empty() || wanted.iter().any(|ports| ports.have(port, protocol))
        };
        engine.port_list(record).iter().any(|port| {
            let public = self.published.is_empty() || port.public_port > 0;
            public
                && have(&self.published, port.public_port, &port.kind)
                && have(&self.exposed, port.private_port, &port.kind)
        })
    }
}

/// The images that `ancestor` names, and those that were made of them here.
async fn ancestors(engine: &Engine, filters: &Filters) -> Result<Option<HashSet<ImageId>>> {
    if !filters.contains("ancestor") {
        return Ok(None);
    }
    let names = filters.get("ancestor").to_vec();
    let images = engine.services.images.clone();
    let found = blocking(move || {
        let named = names.iter().filter_map(|name| images.find(name).ok());
        images.descendants(named.collect())
    })
    .await??;
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(filters: &str) -> Patterns {
        Patterns::new(&Filters::parse(filters).unwrap(), "name")
    }

    #[test]
    fn names_are_regular_expressions() {
        for (pattern, name, want) in [
            ("web", "my-web-1", true),
            ("^/web$", "/web", true),
            ("^web$", "web1", false),
            ("^web", "web1", true),
            ("w[ab]b", "wab", true),
            ("^(a|b)$", "b", true),
            ("[", "x", false),
            ("[", "[", true),
        ] {
            let filters = format!(r#"{{"name":["{pattern}"]}}"#);
            assert_eq!(names(&filters).take(name), want, "{pattern} {name}");
        }
        assert!(names("").take("x"));
    }

    #[test]
    fn ports_and_ranges() {
        let parsed = |value| Ports::parse("publish", value).map_err(|e| e.message);
        assert!(parsed("80").unwrap().have(80, "tcp"));
        assert!(!parsed("80").unwrap().have(80, "udp"));
        assert!(parsed("80-90/udp").unwrap().have(85, "udp"));
        for (value, why) in [
            ("x", r#"strconv.ParseUint: parsing "x": invalid syntax"#),
            (
                "99999",
                r#"strconv.ParseUint: parsing "99999": value out of range"#,
            ),
            ("9-2", "invalid range specified for port: 9-2"),
            ("/tcp", "empty string specified for ports"),
        ] {
            let want = format!("error while looking up for publish {value}: {why}");
            assert_eq!(parsed(value).unwrap_err(), want);
        }
        let want = "filter for 'publish' should not contain ':': 1:2";
        assert_eq!(parsed("1:2").unwrap_err(), want);
    }
}
