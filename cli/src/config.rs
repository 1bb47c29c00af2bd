//! The user's `config.json`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// Contents of the configuration directory. A missing file is an empty configuration.
pub(crate) struct Config {
    directory: PathBuf,
    values: Map<String, Value>,
}

impl Config {
    /// Reads the directory that `--config`, `DOCKER_CONFIG` or the home directory names.
    pub(crate) fn load(flag: Option<&Path>) -> Self {
        let directory = flag
            .map(Path::to_owned)
            .or_else(|| std::env::var_os("DOCKER_CONFIG").map(Into::into))
            .unwrap_or_else(|| {
                PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into()))
                    .join(".docker")
            });
        let path = directory.join("config.json");
        let values = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                eprintln!(
                    "WARNING: Error loading config file: {}: {error}",
                    path.display()
                );
                Map::new()
            }),
            Err(_) => Map::new(),
        };
        Self { directory, values }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join("config.json")
    }

    /// A member that is text and not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values
            .get(name)?
            .as_str()
            .filter(|text| !text.is_empty())
    }

    /// `--format`'s value, or what the user configured for this list under `name`.
    pub(crate) fn format<'a>(&'a self, flag: Option<&'a str>, name: &str, quiet: bool) -> &'a str {
        match flag {
            Some(format) if !format.is_empty() => format,
            _ if quiet => "",
            _ => self.text(name).unwrap_or_default(),
        }
    }

    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        let headers = self.values.get("HttpHeaders").and_then(Value::as_object);
        headers
            .into_iter()
            .flatten()
            .filter(|(name, _)| !name.eq_ignore_ascii_case("user-agent"))
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect()
    }

    pub(crate) fn member(&self, name: &str) -> Option<&Map<String, Value>> {
        self.values.get(name)?.as_object()
    }

    /// The items of a list; none if there is no such list.
    pub(crate) fn list(&self, name: &str) -> Vec<&Value> {
        self.values
            .get(name)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .collect()
    }

    /// Proxy variables for containers on the daemon at `host`, in both spellings.
    pub(crate) fn proxy_environment(&self, host: &str) -> Vec<(String, String)> {
        let Some(proxies) = self.member("proxies") else {
            return Vec::new();
        };
        let Some(settings) = proxies
            .get(host)
            .or_else(|| proxies.get("default"))
            .and_then(Value::as_object)
        else {
            return Vec::new();
        };
        [
            ("httpProxy", "HTTP_PROXY"),
            ("httpsProxy", "HTTPS_PROXY"),
            ("ftpProxy", "FTP_PROXY"),
            ("noProxy", "NO_PROXY"),
            ("allProxy", "ALL_PROXY"),
        ]
        .into_iter()
        .filter_map(|(setting, variable)| Some((variable, settings.get(setting)?.as_str()?)))
        .filter(|(_, value)| !value.is_empty())
        .flat_map(|(variable, value)| {
            [
                (variable.to_owned(), value.to_owned()),
                (variable.to_ascii_lowercase(), value.to_owned()),
            ]
        })
        .collect()
    }

    /// Changes the file: `change` edits its members, which replace it in one step.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Map<String, Value>)) -> Result<()> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        let mut values = self.values.clone();
        change(&mut values);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        let target = std::fs::canonicalize(self.path()).unwrap_or_else(|_| self.path());
        let temporary = target.with_file_name(format!("config.json{}", std::process::id()));
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        serde::Serialize::serialize(
            &values,
            &mut serde_json::Serializer::with_formatter(&mut text, formatter),
        )?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .with_context(|| temporary.display().to_string())?;
        std::io::Write::write_all(&mut file, &text)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &target).with_context(|| target.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(json: &str) -> (tempfile::TempDir, Config) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), json).unwrap();
        let config = Config::load(Some(directory.path()));
        (directory, config)
    }

    #[test]
    fn proxies_of_the_host_win_over_the_default() {
        let (_keep, config) =
            with(r#"{"proxies": {"default": {"httpProxy": "a"}, "tcp://x:1": {"noProxy": "b"}}}"#);
        assert_eq!(
            config.proxy_environment("tcp://x:1"),
            [
                ("NO_PROXY".into(), "b".into()),
                ("no_proxy".into(), "b".into())
            ]
        );
        assert_eq!(
            config.proxy_environment("unix:///y")[0],
            ("HTTP_PROXY".into(), "a".into())
        );
    }

    #[test]
    fn an_update_keeps_what_it_does_not_know() {
        use std::os::unix::fs::PermissionsExt;
        let (keep, config) = with(r#"{"psFormat": "x", "other": [1]}"#);
        config
            .update(|values| drop(values.insert("auths".into(), serde_json::json!({}))))
            .unwrap();
        let text = std::fs::read_to_string(keep.path().join("config.json")).unwrap();
        assert_eq!(
            text,
            "{\n\t\"psFormat\": \"x\",\n\t\"other\": [\n\t\t1\n\t],\n\t\"auths\": {}\n}"
        );
        let mode = std::fs::metadata(keep.path().join("config.json"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(keep.path()).unwrap().count(), 1);
    }
}
