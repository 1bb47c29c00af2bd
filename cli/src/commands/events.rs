use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::app::App;
use crate::client::messages::Messages;
use crate::format::outln;
use crate::format::template::{Row, from_json};
use crate::format::time::{api_timestamp, nanos_local};
use crate::opts::values::{Filter, filters_json, parse_filter};

/// Flags of `events`.
#[derive(Args, Debug)]
pub(crate) struct Events {
    /// Filter output based on conditions provided
    #[arg(long, short, value_name = "filter", value_parser = parse_filter)]
    pub(crate) filter: Vec<Filter>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Show all events created since timestamp
    #[arg(long, value_name = "string")]
    pub(crate) since: Option<String>,
    /// Show numbered events after this one, none missing ('now': those to come)
    #[arg(long, value_name = "string")]
    pub(crate) since_seq: Option<String>,
    /// Stream events until this timestamp
    #[arg(long, value_name = "string")]
    pub(crate) until: Option<String>,
}

impl Events {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let row = match self.format.as_deref() {
            None | Some("" | "json") => None,
            Some(template) => Some(Row::parse(template)?),
        };
        let reply = app
            .client()?
            .get("/events")
            .maybe("since", self.since.as_deref().map(api_timestamp))
            .maybe("since_seq", self.since_seq)
            .maybe("until", self.until.as_deref().map(api_timestamp))
            .maybe("filters", Some(filters_json(&self.filter)))
            .send()
            .await?;
        let mut messages = Messages::new(reply);
        while let Some(event) = messages.next().await? {
            match (&row, self.format.as_deref()) {
                (Some(row), _) => outln!("{}", row.render(&from_json(&with_members(event)))?)?,
                (None, Some("json")) => outln!("{event}")?,
                (None, _) => outln!("{}", line(&event))?,
            }
        }
        Ok(())
    }
}

/// Templates may use the API's names and the short ones of old.
fn with_members(mut event: Value) -> Value {
    let copies = [
        ("ID", "id"),
        ("Status", "status"),
        ("From", "from"),
        ("TimeNano", "timeNano"),
        ("Time", "time"),
        ("Scope", "scope"),
    ];
    if let Some(members) = event.as_object_mut() {
        for (go, json) in copies {
            let value = members.get(json).cloned().unwrap_or_else(|| "".into());
            members.insert(go.into(), value);
        }
    }
    event
}

fn line(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let nanos = event["timeNano"].as_i64().map_or_else(
        || i128::from(event["time"].as_i64().unwrap_or(0)) * 1_000_000_000,
        i128::from,
    );
    let actor = &event["Actor"];
    let mut out = format!(
        "{} {} {} {}",
        nanos_local(nanos),
        text(&event["Type"]),
        text(&event["Action"]),
        text(&actor["ID"])
    );
    let mut attributes: Vec<String> = actor["Attributes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", text(value)))
        .collect();
    attributes.sort();
    if let Some(seq) = event["seq"].as_u64() {
        out.insert_str(0, &format!("{seq} "));
    }
    if !attributes.is_empty() {
        out.push_str(&format!(" ({})", attributes.join(", ")));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = json!({"Type": "container", "Action": "start", "Actor": {"ID": "abc", "Attributes": {"name": "x", "image": "y"}}, "timeNano": 1});
        assert!(
            line(&event).ends_with(" container start abc (image=y, name=x)"),
            "{}",
            line(&event)
        );
        assert!(line(&json!({"seq": 7, "timeNano": 1})).starts_with("7 "));
        assert_eq!(with_members(json!({"id": "q"}))["ID"], "q");
    }
}
