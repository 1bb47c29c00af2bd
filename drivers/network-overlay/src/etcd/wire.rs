//! The messages of etcd's JSON gateway: protocol buffers in their JSON form, keys and values in base64, 64-bit numbers as
//! text. Source: etcd's `rpc.proto`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes in base64.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Base64(pub(crate) Vec<u8>);

impl Base64 {
    pub(crate) fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl From<&str> for Base64 {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}

/// A number that is written as text; what is not there is 0.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

fn unsigned<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Header {
    #[serde(default, deserialize_with = "unsigned")]
    pub(crate) cluster_id: u64,
    #[serde(default, deserialize_with = "number")]
    pub(crate) revision: i64,
    #[serde(default, deserialize_with = "unsigned")]
    pub(crate) raft_term: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct KeyValue {
    pub(crate) key: Base64,
    #[serde(default)]
    pub(crate) value: Base64,
    #[serde(default, deserialize_with = "number")]
    pub(crate) mod_revision: i64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct RangeRequest {
    pub(crate) key: Base64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) range_end: Option<Base64>,
    /// As it was then; none: as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct RangeReply {
    #[serde(default)]
    pub(crate) header: Header,
    #[serde(default)]
    pub(crate) kvs: Vec<KeyValue>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct PutRequest {
    key: Base64,
    value: Base64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
}

#[derive(Debug, Serialize)]
enum Op {
    #[serde(rename = "request_put")]
    Put(PutRequest),
    #[serde(rename = "request_delete_range")]
    DeleteRange(RangeRequest),
    #[serde(rename = "request_range")]
    Range(RangeRequest),
}

#[derive(Debug, Serialize)]
struct Compare {
    key: Base64,
    #[serde(skip_serializing_if = "Option::is_none")]
    range_end: Option<Base64>,
    target: &'static str,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mod_revision: Option<String>,
}

/// A transaction: when every comparison holds, the changes; else the questions.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Txn {
    compare: Vec<Compare>,
    success: Vec<Op>,
    failure: Vec<Op>,
}

fn end_of(prefix: &str) -> Base64 {
    let mut end = prefix.as_bytes().to_vec();
    // Prefixes end in a slash: there is always a next byte.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    Base64(end)
}

/// All keys that begin with a prefix, which ends in a slash.
pub(crate) fn below(prefix: &str) -> RangeRequest {
    RangeRequest {
        key: prefix.into(),
        range_end: Some(end_of(prefix)),
        revision: None,
    }
}

/// One key.
pub(crate) fn one(key: &str) -> RangeRequest {
    RangeRequest {
        key: key.into(),
        range_end: None,
        revision: None,
    }
}

/// One key as it was at a revision; 0: as it is.
pub(crate) fn one_at(key: &str, revision: i64) -> RangeRequest {
    RangeRequest {
        revision: Some(revision.to_string()),
        ..one(key)
    }
}

impl Txn {
    fn created(mut self, range: RangeRequest, result: &'static str) -> Self {
        self.compare.push(Compare {
            key: range.key,
            range_end: range.range_end,
            target: "CREATE",
            result,
            create_revision: Some("0".into()),
            mod_revision: None,
        });
        self
    }

    /// Only if the key is not there.
    pub(crate) fn if_absent(self, key: &str) -> Self {
        self.created(one(key), "EQUAL")
    }

    /// Only if the key is there.
    pub(crate) fn if_present(self, key: &str) -> Self {
        self.created(one(key), "GREATER")
    }

    /// Only if no key begins with the prefix.
    pub(crate) fn if_none_below(self, prefix: &str) -> Self {
        self.created(below(prefix), "EQUAL")
    }

    /// Only if the key was changed last at this revision; 0: if it is not there.
    pub(crate) fn if_unchanged(mut self, key: &str, revision: i64) -> Self {
        self.compare.push(Compare {
            key: key.into(),
            range_end: None,
            target: "MOD",
            result: "EQUAL",
            create_revision: None,
            mod_revision: Some(revision.to_string()),
        });
        self
    }

    /// Writes a value.
    pub(crate) fn put(mut self, key: &str, value: impl Into<Vec<u8>>) -> Self {
        self.success.push(Op::Put(PutRequest {
            key: key.into(),
            value: Base64(value.into()),
            lease: None,
        }));
        self
    }

    /// Writes a value that goes with a lease.
    pub(crate) fn put_leased(mut self, key: &str, value: &str, lease: i64) -> Self {
        self.success.push(Op::Put(PutRequest {
            key: key.into(),
            value: value.into(),
            lease: Some(lease.to_string()),
        }));
        self
    }

    /// Removes a key, if it is there.
    pub(crate) fn delete(mut self, key: &str) -> Self {
        self.success.push(Op::DeleteRange(one(key)));
        self
    }

    /// Removes all keys that begin with a prefix.
    pub(crate) fn delete_below(mut self, prefix: &str) -> Self {
        self.success.push(Op::DeleteRange(below(prefix)));
        self
    }

    /// Asks what is there, if a comparison fails.
    pub(crate) fn or_get(mut self, key: &str) -> Self {
        self.failure.push(Op::Range(one(key)));
        self
    }
}

#[derive(Debug, Default, Deserialize)]
struct OpReply {
    response_range: Option<RangeReply>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct TxnReply {
    #[serde(default)]
    pub(crate) succeeded: bool,
    #[serde(default)]
    responses: Vec<OpReply>,
}

impl TxnReply {
    /// What was asked for by [`Txn::or_get`] and is there.
    pub(crate) fn found(self) -> Vec<KeyValue> {
        let replies = self.responses.into_iter();
        let ranges = replies.filter_map(|reply| reply.response_range);
        ranges.flat_map(|range| range.kvs).collect()
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct GrantRequest {
    #[serde(rename = "TTL")]
    pub(crate) ttl: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct KeepAliveRequest {
    #[serde(rename = "ID")]
    pub(crate) id: String,
}

/// Of both requests; of a lease that is no more, the time is 0.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Lease {
    #[serde(rename = "ID", default, deserialize_with = "number")]
    pub(crate) id: i64,
    #[serde(rename = "TTL", default, deserialize_with = "number")]
    pub(crate) ttl: i64,
}

#[derive(Debug, Serialize)]
pub(crate) struct WatchRequest {
    pub(crate) create_request: WatchCreate,
}

#[derive(Debug, Serialize)]
pub(crate) struct WatchCreate {
    #[serde(flatten)]
    pub(crate) range: RangeRequest,
    pub(crate) start_revision: String,
}

/// One message of a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct Streamed<T> {
    pub(crate) result: Option<T>,
    pub(crate) error: Option<StreamError>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct StreamError {
    #[serde(default)]
    pub(crate) message: String,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct WatchReply {
    #[serde(default)]
    pub(crate) header: Header,
    #[serde(default)]
    pub(crate) created: bool,
    #[serde(default)]
    pub(crate) canceled: bool,
    #[serde(default)]
    pub(crate) cancel_reason: String,
    #[serde(default, deserialize_with = "number")]
    compact_revision: i64,
    #[serde(default)]
    pub(crate) events: Vec<Event>,
}

impl WatchReply {
    pub(crate) fn compacted(&self) -> bool {
        self.compact_revision > 0
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Event {
    #[serde(rename = "type", default)]
    kind: String,
    pub(crate) kv: KeyValue,
}

impl Event {
    pub(crate) fn is_deletion(&self) -> bool {
        self.kind == "DELETE"
    }
}

/// What comes instead of an answer.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Failure {
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) code: i32,
}
