//! Parsers of what comes from outside, for `tests/fuzz`: each takes any bytes.

use std::io;
use std::path::Path;

use gantry_driver_api::storage::WhiteoutStyle;
use gantry_model::Platform;

use crate::archive::TarReader;
use crate::extract::extract;
use crate::load::ArchiveImage;
use crate::manifest::{Document, choose, parse};

/// Unpacks a layer in both styles, one over the other, into the directory `root`.
pub fn layer(root: &Path, bytes: &[u8]) {
    for style in [WhiteoutStyle::Overlay, WhiteoutStyle::Apply] {
        let _ = extract(root, style, &mut &bytes[..]);
    }
}

/// Reads an archive's entries and their data to the end.
pub fn archive(bytes: &[u8]) {
    let mut archive = TarReader::new(bytes);
    while let Ok(Some(_)) = archive.next() {
        if io::copy(&mut archive, &mut io::sink()).is_err() {
            break;
        }
    }
}

/// Reads a manifest or index, however it is called, or an archive's `manifest.json`.
pub fn manifest(bytes: &[u8]) {
    for media_type in ["", "application/vnd.oci.image.index.v1+json; charset=utf-8"] {
        if let Ok(Document::Index(entries)) = parse(bytes, media_type) {
            let _ = choose(&entries, &Platform::host());
        }
    }
    let _ = serde_json::from_slice::<Option<Vec<ArchiveImage>>>(bytes);
}

/// Reads a `hosts.toml`.
pub fn hosts_file(text: &str) {
    let _ = crate::hosts::parse(text, Path::new("/etc/certs.d/a"), "a.example");
}
