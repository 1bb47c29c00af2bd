//! Capabilities that are not known here. The specification (since 1.1) wants them told of, not refused.

use std::collections::BTreeSet;

use gantry_sys::caps::bit;
use serde_json::Value;

/// Takes unknown capabilities out of a process of a specification, and names them.
pub(crate) fn drop_unknown(process: &mut Value) -> BTreeSet<String> {
    let mut unknown = BTreeSet::new();
    let sets = process
        .get_mut("capabilities")
        .and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()) {
        if let Some(names) = set.as_array_mut() {
            names.retain(|name| match name.as_str() {
                Some(name) if bit(name).is_none() => {
                    unknown.insert(name.to_owned());
                    false
                }
                // What is no name at all is refused by whoever reads it.
                _ => true,
            });
        }
    }
    unknown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_ones_are_named_once() {
        let mut process = json!({"capabilities": {
            "bounding": ["CAP_KILL", "CAP_NEW", "chown"], "effective": ["CAP_NEW"], "ambient": [1]
        }});
        let unknown = drop_unknown(&mut process);
        assert_eq!(unknown.into_iter().collect::<Vec<_>>(), ["CAP_NEW"]);
        let left = json!({"bounding": ["CAP_KILL", "chown"], "effective": [], "ambient": [1]});
        assert_eq!(process["capabilities"], left);
        assert!(drop_unknown(&mut json!({})).is_empty());
    }
}
