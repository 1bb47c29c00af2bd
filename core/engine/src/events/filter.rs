//! Which events a client wants.

use gantry_wire::{EventMessage, Filters};

/// Filters that the event stream knows.
pub(super) const KEYS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// Whether an event passes the filters.
pub(super) fn matches(filters: &Filters, event: &EventMessage) -> bool {
    let actor = &event.actor;
    let named = |key: &str| {
        let values = filters.get(key);
        values.is_empty()
            || (event.kind == key
                && values.iter().any(|value| {
                    actor.id == *value
                        || actor.attributes.get("name") == Some(value)
                        || (value.len() >= 4 && actor.id.starts_with(value.as_str()))
                }))
    };
    let action = {
        let values = filters.get("event");
        values.is_empty()
            || values.iter().any(|value| {
                event.action == *value
                    // `exec_create: ls` and `health_status: healthy` also by their first word.
                    || event.action.split(':').next() == Some(value.as_str())
            })
    };
    let image = {
        let values = filters.get("image");
        values.is_empty()
            || values.iter().any(|value| {
                let of = match event.kind.as_str() {
                    "image" => Some(&actor.id),
                    _ => actor.attributes.get("image"),
                };
                of.is_some_and(|image| same_image(image, value))
                    || (event.kind == "image"
                        && actor
                            .attributes
                            .get("name")
                            .is_some_and(|n| same_image(n, value)))
            })
    };
    action
        && image
        && filters.allows("type", &event.kind)
        && filters.allows("scope", &event.scope)
        && ["container", "network", "volume", "daemon"]
            .into_iter()
            .all(named)
        && filters.matches_labels("label", &actor.attributes)
}

/// Whether a filter's value names this image, with or without its tag.
fn same_image(image: &str, value: &str) -> bool {
    image == value
        || image
            .rsplit_once(':')
            .is_some_and(|(name, _)| name == value)
}
