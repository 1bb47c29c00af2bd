//! What happens, as it happens.

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use futures_util::StreamExt;
use gantry_engine::{Engine, EventsQuery, ResumeAfter};
use gantry_model::Timestamp;
use gantry_wire::shape::{self, Reply};
use http::HeaderMap;
use http::header::{ACCEPT, VARY};

use crate::error::{ApiError, Result};
use crate::extract::{Client, Query, Version};
use crate::reply;

pub(super) fn routes() -> Router<Engine> {
    Router::new().route("/events", get(events))
}

async fn events(
    State(engine): State<Engine>,
    Version(version): Version,
    client: Client,
    headers: HeaderMap,
    query: Query,
) -> Result {
    let (since, until) = (time(&query, "since")?, time(&query, "until")?);
    if since > until && until.is_some() {
        return Err(ApiError::bad_request(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            query.text("since"),
            query.text("until")
        )));
    }
    let asked = EventsQuery {
        since,
        until,
        filters: query.filters()?,
    };
    let events = match resume(&query, &headers)? {
        Some(after) => engine.events_after(asked, after).await?,
        None => engine.events(asked),
    };
    let form = Form::wanted(&headers);
    let lines = events.map(move |event| {
        // An event is strings and numbers, which always serialise.
        form.line(&shape::reply(version, Reply::Event, &event).unwrap_or_default())
    });
    let body = reply::endless(client, form.content_type(), lines);
    Ok(([(VARY, "Accept")], body).into_response())
}

/// A time, or how long ago; nothing is none.
fn time(query: &Query, name: &str) -> Result<Option<Timestamp>> {
    let text = query.some(name);
    let time = text.map(|text| gantry_engine::time::parse(text, Timestamp::now()));
    Ok(time.transpose()?)
}

/// The last event that the client has seen: a parameter of its own, or the header of event streams.
fn resume(query: &Query, headers: &HeaderMap) -> Result<Option<ResumeAfter>> {
    let header = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    match query.some("since_seq").or(header) {
        None => Ok(None),
        Some("now") => Ok(Some(ResumeAfter::Now)),
        Some(text) => match text.parse() {
            Ok(number) => Ok(Some(ResumeAfter::Number(number))),
            Err(_) => Err(ApiError::bad_request(format!(
                "invalid sequence number {text:?}: want a number or `now`"
            ))),
        },
    }
}

/// How a stream of JSON is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    NewlineDelimited,
    Lines,
    /// RFC 7464: each value behind a record separator.
    Sequence,
}

impl Form {
    /// The first of those that the client accepts; what Docker has always sent when it names none of the others.
    fn wanted(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(ACCEPT).iter();
        let accepted = accepted.filter_map(|value| value.to_str().ok());
        accepted
            .flat_map(|value| value.split(','))
            .map(|range| range.split(';').next().unwrap_or_default().trim())
            .find_map(|kind| match kind.to_ascii_lowercase().as_str() {
                "application/json" => Some(Self::Json),
                "application/x-ndjson" => Some(Self::NewlineDelimited),
                "application/jsonl" => Some(Self::Lines),
                "application/json-seq" => Some(Self::Sequence),
                _ => None,
            })
            .unwrap_or(Self::Json)
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Json => reply::JSON,
            Self::NewlineDelimited => "application/x-ndjson",
            Self::Lines => "application/jsonl",
            Self::Sequence => "application/json-seq",
        }
    }

    fn line(self, json: &[u8]) -> Bytes {
        let separator: &[u8] = match self {
            Self::Sequence => b"\x1e",
            _ => b"",
        };
        Bytes::from([separator, json, b"\n"].concat())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn forms() {
        for (accept, want) in [
            ("", Form::Json),
            ("*/*", Form::Json),
            (
                "text/plain, application/x-ndjson;q=0.9",
                Form::NewlineDelimited,
            ),
            ("application/JSONL", Form::Lines),
            ("application/json-seq", Form::Sequence),
            ("application/json, application/json-seq", Form::Json),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(Form::wanted(&headers), want, "{accept}");
        }
        assert_eq!(Form::Sequence.line(b"{}"), &b"\x1e{}\n"[..]);
        assert_eq!(Form::Json.line(b"{}"), &b"{}\n"[..]);
    }
}
