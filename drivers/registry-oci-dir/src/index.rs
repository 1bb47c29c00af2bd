//! `index.json`: which manifests a layout holds, and what they are called.

use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode};
use serde_json::{Map, Value, json};

use crate::digest::Digest;
use crate::layout::Layout;

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// What a manifest is called in its layout.
const NAME: &str = "org.opencontainers.image.ref.name";
/// What containerd and buildkit call it beside that; a name that has gone takes it along.
const FULL_NAME: &str = "io.containerd.image.name";
/// An index of more bytes is refused: some fifty thousand manifests.
const MAX_INDEX: u64 = 16 << 20;

/// A layout's index. Members that are not ours stay as they are.
#[derive(Debug, Clone)]
pub(crate) struct Index {
    document: Map<String, Value>,
    pub(crate) entries: Vec<Entry>,
}

/// A manifest of the index.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry(Map<String, Value>);

impl Default for Index {
    fn default() -> Self {
        let mut document = Map::new();
        document.insert("schemaVersion".into(), 2.into());
        document.insert("mediaType".into(), INDEX.into());
        Self {
            document,
            entries: Vec::new(),
        }
    }
}

impl Entry {
    pub(crate) fn new(media_type: &str, digest: &Digest, size: usize) -> Self {
        let value = json!({"mediaType": media_type, "digest": digest.to_string(), "size": size});
        match value {
            Value::Object(members) => Self(members),
            _ => Self(Map::new()),
        }
    }

    /// Those of a document's member `manifests`.
    pub(crate) fn listed(manifests: Value) -> Vec<Self> {
        let Value::Array(entries) = manifests else {
            return Vec::new();
        };
        let entries = entries.into_iter().filter_map(|entry| match entry {
            Value::Object(members) => Some(Self(members)),
            _ => None,
        });
        entries.collect()
    }

    pub(crate) fn text(&self, member: &str) -> &str {
        self.0
            .get(member)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    pub(crate) fn digest(&self) -> Option<Digest> {
        self.text("digest").parse().ok()
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.0.get("annotations")?.get(NAME)?.as_str()
    }

    pub(crate) fn is(&self, digest: &Digest) -> bool {
        self.digest().as_ref() == Some(digest)
    }

    /// Whether its document names manifests rather than layers.
    pub(crate) fn is_index(&self) -> bool {
        matches!(self.text("mediaType"), INDEX | LIST)
    }

    fn rename(&mut self, name: Option<&str>) {
        let annotations = self.0.entry("annotations").or_insert_with(|| json!({}));
        if let Value::Object(annotations) = annotations {
            annotations.remove(FULL_NAME);
            match name {
                Some(name) => annotations.insert(NAME.into(), name.into()),
                None => annotations.remove(NAME),
            };
            if annotations.is_empty() {
                self.0.remove("annotations");
            }
        }
    }
}

impl Index {
    /// Reads the text of an index or of a manifest list.
    pub(crate) fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        let mut document: Map<String, Value> = serde_json::from_slice(bytes)?;
        let entries = Entry::listed(document.remove("manifests").unwrap_or_default());
        Ok(Self { document, entries })
    }

    fn text(&self) -> DriverResult<Vec<u8>> {
        let mut document = self.document.clone();
        let entries = self.entries.iter().map(|e| Value::Object(e.0.clone()));
        document.insert("manifests".into(), entries.collect());
        serde_json::to_vec(&document).map_err(|e| DriverError::internal(format!("index.json: {e}")))
    }

    /// What a tag names. A manifest without a name, alone in its layout, is its `latest`: what skopeo makes of
    /// `oci:<directory>`.
    pub(crate) fn tagged(&self, tag: &str) -> Option<&Entry> {
        let named = self.entries.iter().find(|e| e.name() == Some(tag));
        named.or(match &self.entries[..] {
            [only] if only.name().is_none() && tag == "latest" => Some(only),
            _ => None,
        })
    }

    /// Gives a manifest a name, taking it from another, which stays without one.
    pub(crate) fn tag(&mut self, mut entry: Entry, tag: &str) {
        self.untag(tag);
        let digest = entry.text("digest").to_owned();
        self.entries
            .retain(|e| e.text("digest") != digest || e.name().is_some());
        entry.rename(Some(tag));
        self.entries.push(entry);
    }

    /// Takes a name away; says whether it was there. The manifest stays, under its other names or none.
    pub(crate) fn untag(&mut self, tag: &str) -> bool {
        let Some(at) = self.entries.iter().position(|e| e.name() == Some(tag)) else {
            return false;
        };
        let mut entry = self.entries.remove(at);
        // Duplicates that other tools have left.
        self.entries.retain(|e| e.name() != Some(tag));
        let digest = entry.text("digest");
        if !self.entries.iter().any(|e| e.text("digest") == digest) {
            entry.rename(None);
            self.entries.push(entry);
        }
        true
    }

    /// Adds a manifest without a name unless it is there.
    pub(crate) fn add(&mut self, entry: Entry) {
        let digest = entry.text("digest");
        if !self.entries.iter().any(|e| e.text("digest") == digest) {
            self.entries.push(entry);
        }
    }
}

impl Layout {
    /// Reads `index.json`; it is replaced as a whole, so what is read is some state of it.
    pub(crate) fn index(&self) -> DriverResult<Index> {
        let Some(bytes) = self.read("index.json", MAX_INDEX)? else {
            return Ok(Index::default());
        };
        if bytes.len() as u64 > MAX_INDEX {
            return Err(DriverError::new(
                ErrorCode::DataLoss,
                format!("{}/index.json is too large", self.name),
            ));
        }
        // Tools that write the file in place are seen half-way; that passes.
        Index::parse(&bytes).map_err(|error| {
            DriverError::new(
                ErrorCode::Unavailable,
                format!("reading {}/index.json: {error}", self.name),
            )
        })
    }

    /// Replaces `index.json`. The lock is held.
    pub(crate) fn write_index(&self, index: &Index) -> DriverResult<()> {
        self.replace("index.json", &index.text()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(letter: &str) -> Entry {
        let digest = format!("sha256:{}", letter.repeat(64)).parse().unwrap();
        Entry::new("m", &digest, 1)
    }

    #[test]
    fn a_name_moves_and_the_manifest_stays() {
        let mut index = Index::default();
        index.tag(entry("a"), "1");
        index.tag(entry("a"), "2");
        index.tag(entry("b"), "1");
        assert!(index.tagged("1").unwrap().is(&entry("b").digest().unwrap()));
        assert!(index.tagged("2").unwrap().is(&entry("a").digest().unwrap()));
        assert_eq!(index.entries.len(), 2);
        assert!(index.untag("2") && !index.untag("2"));
        assert_eq!(index.entries.len(), 2);
        assert!(index.tagged("latest").is_none());
        index.tag(entry("a"), "3");
        assert_eq!(index.entries.len(), 2);
        index.add(entry("a"));
        assert_eq!(index.entries.len(), 2);
    }

    #[test]
    fn what_others_wrote_is_kept() {
        let text = json!({"schemaVersion": 2, "annotations": {"x": "y"}, "manifests": [
            {"mediaType": "m", "digest": entry("a").text("digest"), "size": 1, "platform": {"os": "linux"},
             "annotations": {NAME: "1", FULL_NAME: "docker.io/library/a:1", "k": "v"}}, 7
        ]});
        let mut index = Index::parse(text.to_string().as_bytes()).unwrap();
        index.untag("1");
        let text: Value = serde_json::from_slice(&index.text().unwrap()).unwrap();
        assert_eq!(text["annotations"]["x"], "y");
        let only = &text["manifests"][0];
        assert_eq!(only["annotations"], json!({"k": "v"}));
        assert_eq!(only["platform"]["os"], "linux");
        assert!(index.tagged("latest").is_some(), "alone and without a name");
    }
}
