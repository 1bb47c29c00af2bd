//! Named daemons, kept as Docker's client keeps them: `contexts/meta/SHA256/meta.json`, and TLS files beside it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::client::tls::TlsFiles;

/// The context that stands for flags and environment; it is not kept anywhere.
pub(crate) const DEFAULT: &str = "default";
/// Names of TLS files below a context.
pub(crate) const TLS_NAMES: [&str; 3] = ["ca.pem", "cert.pem", "key.pem"];

/// One context.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Context {
    pub(crate) name: String,
    pub(crate) metadata: Metadata,
    pub(crate) endpoints: Endpoints,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Metadata {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) description: String,
    /// What other programs keep there.
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Endpoints {
    pub(crate) docker: Endpoint,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    #[serde(rename = "SkipTLSVerify")]
    pub(crate) skip_tls_verify: bool,
}

/// The directory of contexts.
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    /// The contexts in a configuration directory.
    pub(crate) fn new(config: &Path) -> Self {
        Self {
            root: config.join("contexts"),
        }
    }

    pub(crate) fn metadata_path(&self, name: &str) -> PathBuf {
        self.root.join("meta").join(digest(name))
    }

    pub(crate) fn tls_path(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(digest(name))
    }

    /// # Errors
    ///
    /// The context does not exist or cannot be read.
    pub(crate) fn get(&self, name: &str) -> Result<Context> {
        let path = self.metadata_path(name).join("meta.json");
        let bytes = std::fs::read(&path).map_err(|error| {
            let text = crate::error::os_text(&error);
            anyhow!(
                "context {name:?}: context not found: open {}: {text}",
                path.display()
            )
        })?;
        serde_json::from_slice(&bytes).with_context(|| format!("context {name:?}"))
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.metadata_path(name).join("meta.json").exists()
    }

    /// All contexts by name; what cannot be read is left out.
    pub(crate) fn list(&self) -> Vec<Context> {
        let entries = std::fs::read_dir(self.root.join("meta"))
            .into_iter()
            .flatten()
            .flatten();
        let read = |path: PathBuf| {
            serde_json::from_slice(&std::fs::read(path.join("meta.json")).ok()?).ok()
        };
        let mut contexts: Vec<Context> = entries.filter_map(|entry| read(entry.path())).collect();
        contexts.sort_by(|a, b| a.name.cmp(&b.name));
        contexts
    }

    /// Creates or replaces a context; its TLS files stay.
    pub(crate) fn put(&self, context: &Context) -> Result<()> {
        check_name(&context.name)?;
        let directory = self.metadata_path(&context.name);
        std::fs::create_dir_all(&directory)?;
        let temporary = directory.join("meta.json.tmp");
        std::fs::write(&temporary, serde_json::to_vec(context)?)?;
        Ok(std::fs::rename(temporary, directory.join("meta.json"))?)
    }

    /// Keeps a TLS file of a context, readable for its owner only.
    pub(crate) fn put_tls(&self, name: &str, file: &str, bytes: &[u8]) -> Result<()> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        let directory = self.tls_path(name).join("docker");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)?;
        let mut options = std::fs::OpenOptions::new();
        let mut target = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(directory.join(file))?;
        Ok(std::io::Write::write_all(&mut target, bytes)?)
    }

    /// The TLS files that a context has.
    pub(crate) fn tls_names(&self, name: &str) -> Vec<&'static str> {
        let directory = self.tls_path(name).join("docker");
        TLS_NAMES
            .into_iter()
            .filter(|file| directory.join(file).exists())
            .collect()
    }

    /// Removes a context and its TLS files.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        for path in [self.metadata_path(name), self.tls_path(name)] {
            match std::fs::remove_dir_all(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Where a context's daemon is, and its TLS if it has any.
    pub(crate) fn endpoint(&self, name: &str) -> Result<(String, Option<TlsFiles>)> {
        let endpoint = self.get(name)?.endpoints.docker;
        let files = self.tls_path(name).join("docker");
        let tls = (files.exists() || endpoint.skip_tls_verify).then(|| TlsFiles {
            ca: files.join("ca.pem"),
            cert: files.join("cert.pem"),
            key: files.join("key.pem"),
            verify: !endpoint.skip_tls_verify,
        });
        Ok((endpoint.host, tls))
    }
}

fn digest(name: &str) -> String {
    Sha256::digest(name.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Refuses names that cannot be a context's.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name == DEFAULT {
        bail!("\"default\" is a reserved context name");
    }
    let inner = |c: char| c.is_ascii_alphanumeric() || "_.+-".contains(c);
    if name.len() < 2
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !name.chars().all(inner)
    {
        bail!(
            "context name {name:?} is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Context {
        let docker = Endpoint {
            host: "tcp://far:1".into(),
            skip_tls_verify: false,
        };
        Context {
            name: name.into(),
            endpoints: Endpoints {
                docker,
                ..Endpoints::default()
            },
            ..Context::default()
        }
    }

    #[test]
    fn a_context_is_kept_under_its_digest() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path());
        store.put(&named("far")).unwrap();
        let file = home
            .path()
            .join("contexts/meta")
            .join(digest("far"))
            .join("meta.json");
        let text = r#"{"Name":"far","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://far:1","SkipTLSVerify":false}}}"#;
        assert_eq!(std::fs::read_to_string(file).unwrap(), text);
        assert_eq!(
            digest("a"),
            "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
        );
        let (host, tls) = store.endpoint("far").unwrap();
        assert_eq!((host.as_str(), tls.is_none()), ("tcp://far:1", true));
        store.put_tls("far", "ca.pem", b"x").unwrap();
        assert!(store.endpoint("far").unwrap().1.unwrap().verify);
        assert_eq!(
            (store.list().len(), store.tls_names("far")),
            (1, vec!["ca.pem"])
        );
        store.remove("far").unwrap();
        assert!(
            store
                .get("far")
                .unwrap_err()
                .to_string()
                .starts_with("context \"far\": context not found: open ")
        );
        assert!(!store.tls_path("far").exists());
    }

    #[test]
    fn what_other_programs_keep_is_kept() {
        let text = r#"{"Name":"ab","Metadata":{"Description":"d","x":1},"Endpoints":{"docker":{"Host":"h","SkipTLSVerify":true},"kubernetes":{"y":2}}}"#;
        let context: Context = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&context).unwrap(), text);
    }

    #[test]
    fn names_are_checked() {
        for bad in ["", "a", "a b", ".ab", "default", "a/b"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        check_name("a-b_c.d+1").unwrap();
    }
}
