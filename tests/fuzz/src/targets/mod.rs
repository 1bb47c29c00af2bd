//! The targets, by where their bytes come from.

mod api;
mod images;
mod logs;
mod names;
mod plugins;
mod registries;

use crate::Target;

/// All of them.
pub const TARGETS: &[Target] = &[
    images::LAYER,
    images::ARCHIVE,
    images::MANIFEST,
    images::CONFIG,
    images::REFERENCE,
    registries::HOSTS_FILE,
    registries::CHALLENGE,
    registries::OCI_INDEX,
    api::CREATE,
    api::FILTERS,
    api::SECCOMP,
    api::DEVICES,
    api::DRIVERS,
    plugins::CALLS,
    plugins::REPLIES,
    plugins::FILE,
    logs::LOGS,
    names::DNS,
];

/// Bytes as text, whatever they are.
fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn bytes(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
