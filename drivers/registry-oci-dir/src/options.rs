//! The driver's options.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gantry_plugin_sdk::{DriverError, DriverResult};
use serde::Deserialize;

/// Where repositories are.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Options {
    /// Of all registries that `roots` does not name.
    root: Option<PathBuf>,
    /// By the registry's name.
    roots: BTreeMap<String, PathBuf>,
}

impl Options {
    pub(crate) fn parse(value: serde_json::Value) -> DriverResult<Self> {
        let options: Self = serde_json::from_value(value)
            .map_err(|error| DriverError::invalid(format!("oci-dir: {error}")))?;
        if let Some(path) = options.all().find(|path| !path.is_absolute()) {
            return Err(DriverError::invalid(format!(
                "oci-dir: {} is no absolute path",
                path.display()
            )));
        }
        Ok(options)
    }

    /// The configured directory of a registry.
    pub(crate) fn root(&self, domain: &str) -> Option<&Path> {
        let of_its_own = self.roots.get(domain);
        of_its_own.or(self.root.as_ref()).map(PathBuf::as_path)
    }

    /// A directory that is not there at the moment.
    pub(crate) fn missing_root(&self) -> Option<&Path> {
        self.all().find(|root| !root.is_dir())
    }

    fn all(&self) -> impl Iterator<Item = &Path> {
        self.root
            .iter()
            .chain(self.roots.values())
            .map(PathBuf::as_path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn options() {
        let options = Options::parse(json!({"root": "/a", "roots": {"usb.local": "/b"}})).unwrap();
        assert_eq!(options.root("x.local"), Some(Path::new("/a")));
        assert_eq!(options.root("usb.local"), Some(Path::new("/b")));
        assert_eq!(Options::parse(json!({})).unwrap().root("x.local"), None);
        for (bad, words) in [
            (json!({"root": "a"}), "oci-dir: a is no absolute path"),
            (json!({"rot": "/a"}), "oci-dir: unknown field `rot`"),
            (json!({"roots": "/a"}), "oci-dir: invalid type: string"),
        ] {
            let error = Options::parse(bad).unwrap_err();
            assert!(error.message.starts_with(words), "{error}");
        }
    }
}
