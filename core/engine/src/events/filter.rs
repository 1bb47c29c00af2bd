//! Which events a client wants, told as dockerd tells it. Keys that are not known are not looked at.

use gantry_wire::{EventMessage, Filters};

/// Actions with words of their own behind a colon, which may be left out of a filter.
const WITH_WORDS: [&str; 3] = ["exec_create", "exec_start", "health_status"];

/// Whether an event passes the filters.
pub(super) fn matches(filters: &Filters, event: &EventMessage) -> bool {
    let any = |key: &str, is: &dyn Fn(&str) -> bool| {
        let values = filters.get(key);
        values.is_empty() || values.iter().any(|value| is(value))
    };
    let named = |key: &str| {
        any(key, &|value| {
            let name = event.actor.attributes.get("name");
            event.actor.id.starts_with(value) || name.is_some_and(|name| name.starts_with(value))
        })
    };
    let by_first_word = filters
        .get("event")
        .iter()
        .any(|value| WITH_WORDS.contains(&value.as_str()));
    any("event", &|value| match by_first_word {
        true => event.action.starts_with(value),
        false => event.action == value,
    }) && any("image", &|value| is_image(event, value))
        && any("type", &|value| event.kind == value)
        && any("scope", &|value| event.scope == value)
        && [
            "config",
            "container",
            "daemon",
            "network",
            "node",
            "plugin",
            "secret",
            "service",
            "volume",
        ]
        .into_iter()
        .all(named)
        && filters.matches_labels("label", &event.actor.attributes)
}

/// Whether an event is of this image, named with or without its tag.
fn is_image(event: &EventMessage, value: &str) -> bool {
    let key = if event.kind == "image" {
        "name"
    } else {
        "image"
    };
    let name = event.actor.attributes.get(key).map_or("", String::as_str);
    [event.actor.id.as_str(), name]
        .into_iter()
        .any(|image| image == value || without_tag(image) == value)
}

fn without_tag(image: &str) -> &str {
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) -> EventMessage {
        let mut event = EventMessage {
            kind: kind.into(),
            action: action.into(),
            scope: "local".into(),
            ..EventMessage::default()
        };
        event.actor.id = id.into();
        let owned = |(key, value): &(&str, &str)| ((*key).into(), (*value).into());
        event.actor.attributes = attributes.iter().map(owned).collect();
        event
    }

    /// What dockerd 20.10 shows of these events for each filter.
    #[test]
    fn as_dockerd() {
        let events = [
            event(
                "container",
                "exec_create: echo hi",
                "c1d2",
                &[("name", "web"), ("image", "busybox:1"), ("a", "b")],
            ),
            event(
                "container",
                "start",
                "c1d2",
                &[("name", "web"), ("image", "busybox:1"), ("a", "b")],
            ),
            event("network", "connect", "n1", &[("name", "bridge")]),
            event("image", "tag", "sha256:1f", &[("name", "evimg:t1")]),
            event("volume", "mount", "evv", &[]),
        ];
        for (filters, want) in [
            (r#"{"container":["we"]}"#, &[0, 1][..]),
            (r#"{"container":["c1"]}"#, &[0, 1]),
            (r#"{"container":["bridge"]}"#, &[2]),
            (r#"{"network":["br"]}"#, &[2]),
            (r#"{"volume":["ev"]}"#, &[3, 4]),
            (r#"{"event":["exec_create"]}"#, &[0]),
            (r#"{"event":["exec_create: echo hi"]}"#, &[0]),
            (r#"{"event":["exec"]}"#, &[]),
            (r#"{"event":["exec_create","star"]}"#, &[0, 1]),
            (r#"{"event":["star"]}"#, &[]),
            (r#"{"image":["busybox"]}"#, &[0, 1]),
            (r#"{"image":["busybox:1"]}"#, &[0, 1]),
            (r#"{"image":["evimg"]}"#, &[3]),
            (r#"{"node":["x"]}"#, &[]),
            (r#"{"type":["volume","network"]}"#, &[2, 4]),
            (r#"{"scope":["swarm"]}"#, &[]),
            (r#"{"label":["a"]}"#, &[0, 1]),
            (r#"{"label":["a=b","x=y"]}"#, &[]),
            (r#"{"foo":["x"]}"#, &[0, 1, 2, 3, 4]),
            (r#"{"container":["web"],"event":["start"]}"#, &[1]),
        ] {
            let parsed = Filters::parse(filters).unwrap();
            let shown: Vec<usize> = (0..events.len())
                .filter(|at| matches(&parsed, &events[*at]))
                .collect();
            assert_eq!(shown, want, "{filters}");
        }
    }
}
