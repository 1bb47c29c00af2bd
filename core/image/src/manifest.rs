//! Manifests and indexes of registries and archives.

use gantry_model::{Digest, Platform};
use serde::Deserialize;

use crate::config::{MAX_CONFIG, MAX_LAYERS};
use crate::record::Descriptor;
use crate::{Error, Result};

/// A manifest of more bytes is refused.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;

pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(crate) const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// A document that a reference names.
#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<IndexEntry>),
}

/// The manifest of one image.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// One choice of an index.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IndexEntry {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<EntryPlatform>,
    #[serde(default)]
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct EntryPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    schema_version: Option<u32>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<IndexEntry>,
}

/// Reads a document. Its own `mediaType` counts, then what the server said, then its shape; a document that is an image
/// and an index at once is refused, for two readers could take it for different things.
pub(crate) fn parse(bytes: &[u8], content_type: &str) -> Result<Document> {
    let bad =
        |error: serde_json::Error| Error::Malformed(format!("invalid image manifest: {error}"));
    if bytes.len() as u64 > MAX_MANIFEST {
        return Err(Error::Malformed("the image manifest is too large".into()));
    }
    let shape: Shape = serde_json::from_slice(bytes).map_err(bad)?;
    if shape.schema_version == Some(1) {
        return Err(Error::Malformed(
            "Docker Image manifest version 2, schema 1 is not supported: suggest the author to upgrade the image to \
             the OCI Format or Docker Image manifest v2, schema 2"
                .into(),
        ));
    }
    if shape.manifests.is_some() && shape.config.is_some() {
        return Err(Error::Malformed(
            "invalid image manifest: it is an index and an image at once".into(),
        ));
    }
    let content_type = content_type.split(';').next().unwrap_or("").trim();
    let media_type = shape.media_type.as_deref().unwrap_or(content_type);
    let index = match media_type {
        DOCKER_LIST | OCI_INDEX => true,
        DOCKER_MANIFEST | OCI_MANIFEST => false,
        _ if shape.manifests.is_some() => true,
        _ if shape.config.is_some() => false,
        other => {
            return Err(Error::Malformed(format!(
                "unsupported media type {other:?} of an image manifest"
            )));
        }
    };
    if index {
        let index: Index = serde_json::from_slice(bytes).map_err(bad)?;
        return Ok(Document::Index(index.manifests));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(bad)?;
    manifest.check()?;
    Ok(Document::Manifest(manifest))
}

/// What a document says of its own type.
pub(crate) fn media_type(bytes: &[u8]) -> Option<String> {
    serde_json::from_slice::<Shape>(bytes).ok()?.media_type
}

impl Manifest {
    fn check(&self) -> Result<()> {
        match self.config.media_type.as_str() {
            OCI_CONFIG | DOCKER_CONFIG | "" | "application/octet-stream" => {}
            other => {
                return Err(Error::Malformed(format!(
                    "unsupported media type {other:?}: the reference names something that is not an image"
                )));
            }
        }
        if self.config.size > MAX_CONFIG {
            return Err(Error::Malformed(
                "the image configuration is too large".into(),
            ));
        }
        if self.layers.len() > MAX_LAYERS {
            return Err(Error::Malformed("max depth exceeded".into()));
        }
        Ok(())
    }
}

impl IndexEntry {
    /// The image that this entry attests of, if it does.
    pub(crate) fn attests(&self) -> Option<Digest> {
        let kind = self.annotations.get("vnd.docker.reference.type")?;
        if kind != "attestation-manifest" {
            return None;
        }
        self.annotations
            .get("vnd.docker.reference.digest")?
            .parse()
            .ok()
    }

    pub(crate) fn platform(&self) -> Option<Platform> {
        self.platform.as_ref().map(|platform| {
            Platform {
                os: platform.os.clone(),
                architecture: platform.architecture.clone(),
                variant: platform.variant.clone().unwrap_or_default(),
            }
            .normalized()
        })
    }

    /// Whether it names an image, as far as the index tells.
    pub(crate) fn is_image(&self) -> bool {
        let manifest = matches!(
            self.media_type.as_str(),
            DOCKER_MANIFEST | OCI_MANIFEST | ""
        );
        manifest && self.attests().is_none()
    }
}

/// The entry of an index that suits `wanted` best. An entry that names no platform suits when it is the only one.
pub(crate) fn choose<'a>(entries: &'a [IndexEntry], wanted: &Platform) -> Result<&'a IndexEntry> {
    let images = entries.iter().filter(|entry| entry.is_image());
    choose_of(images.collect(), wanted)
}

/// As [`choose`], of those that are left of an index.
pub(crate) fn choose_of<'a>(
    images: Vec<&'a IndexEntry>,
    wanted: &Platform,
) -> Result<&'a IndexEntry> {
    for acceptable in acceptable(wanted) {
        let found = images
            .iter()
            .find(|entry| entry.platform().as_ref() == Some(&acceptable));
        if let Some(entry) = found {
            return Ok(entry);
        }
    }
    match images[..] {
        [only] if only.platform.is_none() => Ok(only),
        _ => Err(Error::NoPlatform(wanted.to_string())),
    }
}

/// Whether an image whose configuration says `have` is one for `wanted`. One that names no variant serves all of its
/// architecture: not every builder writes it.
pub(crate) fn provides(have: &Platform, wanted: &Platform) -> bool {
    let wanted = wanted.clone().normalized();
    acceptable(&wanted).contains(&have.clone().normalized())
        || have.variant.is_empty()
            && have.os == wanted.os
            && have.architecture == wanted.architecture
}

/// What runs on a machine of platform `wanted`, best first.
pub(crate) fn acceptable(wanted: &Platform) -> Vec<Platform> {
    let wanted = wanted.clone().normalized();
    let with = |architecture: &str, variant: &str| Platform {
        os: wanted.os.clone(),
        architecture: architecture.into(),
        variant: variant.into(),
    };
    let number = |text: &str| text.strip_prefix('v').and_then(|n| n.parse::<u8>().ok());
    let mut list = vec![wanted.clone()];
    match wanted.architecture.as_str() {
        "amd64" => {
            let newest = number(&wanted.variant).unwrap_or(1).min(9);
            list.extend((2..newest).rev().map(|n| with("amd64", &format!("v{n}"))));
            if !wanted.variant.is_empty() {
                list.push(with("amd64", ""));
            }
            list.push(with("386", ""));
        }
        "arm" => {
            let newest = number(&wanted.variant).unwrap_or(7).min(9);
            list.extend((5..newest).rev().map(|n| with("arm", &format!("v{n}"))));
        }
        "arm64" => list.extend(["v8", "v7", "v6", "v5"].map(|variant| with("arm", variant))),
        _ => {}
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(letter: &str) -> String {
        format!("sha256:{}", letter.repeat(64))
    }

    fn entry(letter: &str, platform: &str) -> String {
        let platform = match platform.split('/').collect::<Vec<_>>()[..] {
            [os, architecture] => {
                format!(r#","platform":{{"os":"{os}","architecture":"{architecture}"}}"#)
            }
            [os, architecture, variant] => format!(
                r#","platform":{{"os":"{os}","architecture":"{architecture}","variant":"{variant}"}}"#
            ),
            _ => String::new(),
        };
        format!(
            r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":2{platform}}}"#,
            digest(letter)
        )
    }

    fn index(entries: &[String]) -> Vec<IndexEntry> {
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            entries.join(",")
        );
        match parse(text.as_bytes(), OCI_INDEX).unwrap() {
            Document::Index(entries) => entries,
            Document::Manifest(_) => panic!("an index was read as a manifest"),
        }
    }

    #[test]
    fn platforms() {
        let entries = index(&[
            entry("a", "linux/arm/v6"),
            entry("b", "linux/amd64"),
            entry("c", "unknown/unknown"),
            entry("d", "linux/arm64/v8"),
        ]);
        let pick = |text: &str| {
            choose(&entries, &Platform::parse(text).unwrap()).map(|e| e.digest.to_string())
        };
        assert_eq!(pick("linux/amd64").unwrap(), digest("b"));
        assert_eq!(pick("linux/arm64").unwrap(), digest("d"));
        assert_eq!(pick("linux/arm/v7").unwrap(), digest("a"));
        assert_eq!(
            pick("linux/s390x").unwrap_err().to_string(),
            "no matching manifest for linux/s390x in the manifest list entries"
        );
        let single = index(&[entry("e", "")]);
        assert!(choose(&single, &Platform::host()).is_ok());
    }

    #[test]
    fn hostile_documents() {
        let config = |media: &str, size: u64| {
            format!(
                r#"{{"schemaVersion":2,"config":{{"mediaType":"{media}","digest":"{}","size":{size}}},"layers":[]}}"#,
                digest("a")
            )
        };
        assert!(parse(config(OCI_CONFIG, 2).as_bytes(), "").is_ok());
        for (what, text) in [
            ("not JSON", "<html>".to_owned()),
            ("neither", r#"{"schemaVersion":2}"#.to_owned()),
            (
                "schema 1",
                r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(),
            ),
            (
                "both",
                config(OCI_CONFIG, 2).replacen('{', r#"{"manifests":[],"#, 1),
            ),
            (
                "an artifact",
                config("application/vnd.cncf.helm.config.v1+json", 2),
            ),
            ("a huge configuration", config(OCI_CONFIG, 1 << 40)),
            (
                "a bad digest",
                config(OCI_CONFIG, 2).replace("sha256:aa", "sha256:../"),
            ),
            (
                "a negative size",
                config(OCI_CONFIG, 2).replace(r#""size":2"#, r#""size":-2"#),
            ),
            ("deep nesting", "[".repeat(100_000)),
        ] {
            assert!(parse(text.as_bytes(), OCI_MANIFEST).is_err(), "{what}");
        }
    }
}
