//! A specification file.

use std::path::PathBuf;

use serde::Deserialize;

/// One file: devices of one kind.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    cdi_version: String,
    /// `vendor.com/class`.
    pub(super) kind: String,
    pub(super) devices: Vec<Device>,
    /// For any of the devices.
    pub(super) container_edits: Edits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) container_edits: Edits,
}

/// What changes in a container. `intelRdt` is not read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Edits {
    /// `NAME=value`.
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<Node>,
    pub(super) mounts: Vec<Mount>,
    pub(super) hooks: Vec<Hook>,
    pub(super) additional_gids: Vec<u32>,
    pub(super) net_devices: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Node {
    /// In the container.
    pub(super) path: PathBuf,
    /// On the host; empty: the same.
    pub(super) host_path: PathBuf,
    /// `c`, `b`, `u` or `p`; empty: what the host's is.
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) major: Option<i64>,
    pub(super) minor: Option<i64>,
    pub(super) file_mode: Option<u32>,
    /// Letters of `rwm`.
    pub(super) permissions: String,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Mount {
    pub(super) host_path: PathBuf,
    pub(super) container_path: PathBuf,
    pub(super) options: Vec<String>,
    #[serde(rename = "type")]
    pub(super) kind: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Hook {
    /// `createContainer` and so on.
    pub(super) hook_name: String,
    pub(super) path: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) timeout: Option<i64>,
}

impl Spec {
    /// What the format demands beyond its shape.
    pub(super) fn check(&self) -> Result<(), String> {
        let known = matches!(
            self.cdi_version.trim_start_matches('v').split_once('.'),
            Some(("0", _)) | Some(("1", "0.0" | "1.0"))
        );
        if !known {
            return Err(format!("invalid CDI version {:?}", self.cdi_version));
        }
        let word = |text: &str, more: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.ends_with(|c: char| c.is_ascii_alphanumeric())
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        let kind = self.kind.split_once('/');
        if !kind.is_some_and(|(vendor, class)| word(vendor, "_-.") && word(class, "_-.")) {
            return Err(format!("invalid kind {:?}", self.kind));
        }
        if self.devices.is_empty() {
            return Err("invalid spec, no devices".into());
        }
        let bad = self.devices.iter().find(|d| !word(&d.name, "_-.:"));
        match bad {
            Some(device) => Err(format!("invalid device name {:?}", device.name)),
            None => Ok(()),
        }
    }
}
