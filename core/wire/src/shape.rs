//! How replies and requests of older API versions differ from the newest.
//!
//! Replies: the engine answers in the newest types; each row of `table::REPLIES` undoes one change for the versions before it.
//! [`reply`] applies the rows for a version, newest first, so that each sees what the version after it looked like.
//! Requests: [`create_request`] takes out what a version did not have and puts in what it implied.
//! Source: moby `api/docs/CHANGELOG.md` and the version checks of its routers.

mod progress;
mod requests;
mod table;

use serde::Serialize;
use serde_json::Value;

use crate::ApiVersion;

pub use progress::json_message;
pub use requests::{create_request, exec_create_request, prune_filters, update_request};

/// A reply whose form depends on the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// `GET /containers/{id}/json`
    ContainerInspect,
    /// `GET /containers/json`
    ContainerList,
    /// `GET /images/{name}/json`
    ImageInspect,
    /// `GET /images/json`
    ImageList,
    /// `GET /info`
    Info,
    /// `GET /events`, one line
    Event,
}

/// The reply as `version` knows it.
///
/// # Errors
/// Only what serialising `newest` gives.
pub fn reply(
    version: ApiVersion,
    reply: Reply,
    newest: &impl Serialize,
) -> serde_json::Result<Vec<u8>> {
    let rows = table::REPLIES
        .iter()
        .filter(|row| row.reply == reply && version < row.since);
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return serde_json::to_vec(newest);
    }
    let mut value = serde_json::to_value(newest)?;
    for row in rows {
        match &mut value {
            Value::Array(items) => items.iter_mut().for_each(row.undo),
            one => (row.undo)(one),
        }
    }
    serde_json::to_vec(&value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shaped(minor: u16, kind: Reply, newest: &Value) -> Value {
        serde_json::from_slice(&reply(ApiVersion::new(1, minor), kind, newest).unwrap()).unwrap()
    }

    #[test]
    fn rows_are_newest_first() {
        for kind in [
            Reply::ContainerInspect,
            Reply::ContainerList,
            Reply::ImageInspect,
            Reply::ImageList,
            Reply::Info,
        ] {
            let since: Vec<_> = table::REPLIES
                .iter()
                .filter(|row| row.reply == kind)
                .map(|row| row.since)
                .collect();
            assert!(since.is_sorted_by(|a, b| a >= b), "{kind:?}");
        }
    }

    #[test]
    fn events_have_their_old_members_up_to_1_51() {
        let event = json!({"Type": "container", "Action": "die", "Actor": {"ID": "c1", "Attributes": {"image": "busybox"}},
            "scope": "local", "time": 1, "timeNano": 2});
        let old = shaped(51, Reply::Event, &event);
        assert_eq!(
            (&old["status"], &old["id"], &old["from"]),
            (&json!("die"), &json!("c1"), &json!("busybox"))
        );
        assert_eq!(shaped(52, Reply::Event, &event), event);
        let network =
            json!({"Type": "network", "Action": "create", "Actor": {"ID": "n", "Attributes": {}}});
        assert_eq!(shaped(51, Reply::Event, &network), network);
    }

    #[test]
    fn aliases_had_the_short_identifier_before_1_45() {
        let inspect = json!({"Id": "0123456789abcdef", "Config": {"Hostname": "web"},
            "NetworkSettings": {"Networks": {"n": {"Aliases": ["db", "web"]}, "m": {"Aliases": null},
                "bridge": {"Aliases": null}}}});
        let old = shaped(44, Reply::ContainerInspect, &inspect);
        let networks = &old["NetworkSettings"]["Networks"];
        assert_eq!(
            networks["n"]["Aliases"],
            json!(["db", "web", "0123456789ab"])
        );
        assert_eq!(networks["m"]["Aliases"], json!(["0123456789ab", "web"]));
        assert_eq!(networks["bridge"]["Aliases"], Value::Null);
        assert_eq!(
            shaped(45, Reply::ContainerInspect, &inspect)["NetworkSettings"],
            inspect["NetworkSettings"]
        );
    }

    #[test]
    fn image_configs_were_complete_once() {
        let image =
            json!({"Id": "sha256:1", "Size": 5, "Config": {"Cmd": ["sh"]}, "Descriptor": {}});
        let at51 = shaped(51, Reply::ImageInspect, &image);
        assert_eq!(at51["Config"]["Cmd"], json!(["sh"]));
        assert_eq!(at51["Config"]["Volumes"], Value::Null);
        assert!(at51["Config"].get("Hostname").is_none());
        let at43 = shaped(43, Reply::ImageInspect, &image);
        assert_eq!(at43["Config"]["Hostname"], "");
        assert_eq!(
            (&at43["VirtualSize"], &at43["Container"]),
            (&json!(5), &json!(""))
        );
        assert_eq!(at43["ContainerConfig"]["Hostname"], "");
        assert!(at43.get("Descriptor").is_none());
        assert_eq!(at43["Created"], "0001-01-01T00:00:00Z");
    }

    #[test]
    fn lists_are_shaped_item_by_item() {
        let list = json!([{"Id": "a", "Size": 1}, {"Id": "b", "Size": 2}]);
        let old = shaped(43, Reply::ImageList, &list);
        assert_eq!(
            (&old[0]["VirtualSize"], &old[1]["VirtualSize"]),
            (&json!(1), &json!(2))
        );
        assert!(
            shaped(44, Reply::ImageList, &list)[0]
                .get("VirtualSize")
                .is_none()
        );
    }
}
