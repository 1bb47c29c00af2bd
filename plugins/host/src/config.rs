//! The `drivers` part of the configuration.
//!
//! ```json
//! {"drivers": {
//!     "storage": "overlayfs",
//!     "network": {"default": "bridge", "bridge": {"isolation": "process", "options": {}}},
//!     "registry": {"oci-dir": {"hosts": ["airgap.local"], "options": {"root": "/srv/images"}}}
//! }}
//! ```
//! A kind is either the name of its default driver, or an object of drivers with their settings, in which `default`
//! names the default. A registry driver serves the registries of its `hosts`, each a name as in references, with the
//! beginning of repositories' names if need be (`registry.example/team`); the default serves all others.

use std::collections::BTreeMap;

use gantry_driver_api::Kind;
use gantry_driver_registry::{DriverRegistry, Isolation};
use serde::Deserialize;
use serde_json::Value;

/// A wrong `drivers` part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {why}")]
pub struct ConfigError {
    /// Where, `drivers.network.bridge`.
    pub at: String,
    /// What is wrong there.
    pub why: String,
}

/// Settings of all drivers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DriversConfig {
    kinds: BTreeMap<Kind, KindConfig>,
}

/// Settings of one kind.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KindConfig {
    /// The driver of new objects, or none for the built-in default.
    pub default: Option<String>,
    /// Settings by driver name.
    pub drivers: BTreeMap<String, DriverSettings>,
}

/// Settings of one driver.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriverSettings {
    /// Where it runs; none: in process when it was shipped with the engine, else in a child process.
    #[serde(default)]
    pub isolation: Option<Isolation>,
    /// Its options, an object; `null` for none.
    #[serde(default)]
    pub options: Value,
    /// For registry drivers: the registries that it serves, beside those that it serves as the default.
    #[serde(default)]
    pub hosts: Vec<String>,
}

impl DriversConfig {
    /// Reads the value of the key `drivers`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(value: &Value) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for (word, value) in object(value, "drivers")? {
            let at = format!("drivers.{word}");
            let kind = Kind::ALL
                .into_iter()
                .find(|kind| kind.as_str() == word)
                .ok_or_else(|| wrong(&at, "there is no such kind of driver"))?;
            config
                .kinds
                .insert(kind, KindConfig::parse(kind, value, &at)?);
        }
        config.routes()?;
        Ok(config)
    }

    /// Which registry driver serves which registry, by registry.
    ///
    /// # Errors
    /// A registry that is none, or that two drivers are to serve; hosts of another kind of driver.
    pub fn routes(&self) -> Result<BTreeMap<String, String>, ConfigError> {
        let mut routes = BTreeMap::new();
        for (kind, config) in &self.kinds {
            for (name, settings) in &config.drivers {
                let at = format!("drivers.{kind}.{name}.hosts");
                for host in &settings.hosts {
                    let host = host.trim_end_matches('/');
                    if *kind != Kind::Registry {
                        return Err(wrong(&at, "only registry drivers have hosts"));
                    }
                    if !is_registry(host) {
                        return Err(wrong(&at, &format!("{host:?} is no registry's name")));
                    }
                    if let Some(other) = routes.insert(host.to_owned(), name.clone()) {
                        return Err(wrong(&at, &format!("{host} is served by {other}")));
                    }
                }
            }
        }
        Ok(routes)
    }

    /// The settings of a kind.
    #[must_use]
    pub fn kind(&self, kind: Kind) -> KindConfig {
        self.kinds.get(&kind).cloned().unwrap_or_default()
    }

    /// The settings of a driver.
    #[must_use]
    pub fn driver(&self, kind: Kind, name: &str) -> DriverSettings {
        self.kinds
            .get(&kind)
            .and_then(|kind| kind.drivers.get(name))
            .cloned()
            .unwrap_or_default()
    }

    /// Changes a kind's default driver, as a command-line flag does.
    pub fn set_default(&mut self, kind: Kind, name: &str) {
        let name = DriverRegistry::canonical(kind, name).to_owned();
        self.kinds.entry(kind).or_default().default = Some(name);
    }
}

impl KindConfig {
    fn parse(kind: Kind, value: &Value, at: &str) -> Result<Self, ConfigError> {
        if let Value::String(name) = value {
            return Ok(Self {
                default: Some(driver_name(kind, name, at)?),
                ..Self::default()
            });
        }
        let mut config = Self::default();
        for (name, value) in object(value, at)? {
            let at = format!("{at}.{name}");
            match value {
                Value::String(default) if name == "default" => {
                    config.default = Some(driver_name(kind, default, &at)?);
                }
                _ => {
                    let settings: DriverSettings = serde_json::from_value(value.clone())
                        .map_err(|error| wrong(&at, &error.to_string()))?;
                    if !settings.options.is_null() {
                        object(&settings.options, &format!("{at}.options"))?;
                    }
                    config
                        .drivers
                        .insert(driver_name(kind, name, &at)?, settings);
                }
            }
        }
        Ok(config)
    }
}

/// Whether references can begin with `host`: its first component is what tells a registry from a repository.
fn is_registry(host: &str) -> bool {
    let domain = host.split('/').next().unwrap_or_default();
    let known = domain == "localhost" || domain.contains(['.', ':']);
    let ok = |c: char| c.is_ascii_alphanumeric() || "._-:/[]".contains(c);
    known && !host.contains("//") && host.chars().all(ok)
}

fn wrong(at: &str, why: &str) -> ConfigError {
    ConfigError {
        at: at.to_owned(),
        why: why.to_owned(),
    }
}

fn object<'a>(
    value: &'a Value,
    at: &str,
) -> Result<&'a serde_json::Map<String, Value>, ConfigError> {
    value
        .as_object()
        .ok_or_else(|| wrong(at, "an object is expected"))
}

/// A driver's canonical name; it becomes part of paths.
fn driver_name(kind: Kind, name: &str, at: &str) -> Result<String, ConfigError> {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(ok) {
        return Err(wrong(at, &format!("{name:?} is not a driver's name")));
    }
    Ok(DriverRegistry::canonical(kind, name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_the_documented_form() {
        let config = DriversConfig::parse(&json!({
            "storage": "overlay2",
            "network": {"default": "host", "bridge": {"isolation": "process", "options": {"a": 1}}},
        }))
        .unwrap();
        assert_eq!(
            config.kind(Kind::Storage).default.as_deref(),
            Some("overlayfs")
        );
        assert_eq!(config.kind(Kind::Network).default.as_deref(), Some("host"));
        let bridge = config.driver(Kind::Network, "bridge");
        assert_eq!(bridge.isolation, Some(Isolation::Process));
        assert_eq!(bridge.options, json!({"a": 1}));
        assert_eq!(
            config.driver(Kind::Volume, "local"),
            DriverSettings::default()
        );
    }

    #[test]
    fn registries_have_drivers() {
        let config = DriversConfig::parse(&json!({"registry": {
            "oci-dir": {"hosts": ["airgap.local", "registry.example/team/"], "options": {"root": "/srv"}},
            "hub": {"hosts": ["localhost:5000", "[::1]:5000"]},
        }}))
        .unwrap();
        let routes = config.routes().unwrap();
        assert_eq!(routes["airgap.local"], "oci-dir");
        assert_eq!(routes["registry.example/team"], "oci-dir");
        assert_eq!(routes["[::1]:5000"], "hub");
    }

    #[test]
    fn says_where_it_is_wrong() {
        for (value, message) in [
            (json!([]), "drivers: an object is expected"),
            (
                json!({"disk": {}}),
                "drivers.disk: there is no such kind of driver",
            ),
            (
                json!({"storage": 3}),
                "drivers.storage: an object is expected",
            ),
            (
                json!({"storage": "../x"}),
                "drivers.storage: \"../x\" is not a driver's name",
            ),
            (
                json!({"network": {"bridge": {"options": []}}}),
                "drivers.network.bridge.options: an object is expected",
            ),
            (
                json!({"network": {"bridge": {"isolaton": "process"}}}),
                "drivers.network.bridge: unknown field `isolaton`, expected one of `isolation`, `options`, `hosts`",
            ),
            (
                json!({"registry": {"hub": {"hosts": ["https://a.b"]}}}),
                "drivers.registry.hub.hosts: \"https://a.b\" is no registry's name",
            ),
            (
                json!({"registry": {"hub": {"hosts": ["team"]}}}),
                "drivers.registry.hub.hosts: \"team\" is no registry's name",
            ),
            (
                json!({"registry": {"hub": {"hosts": ["a.b"]}, "oci-dir": {"hosts": ["a.b/"]}}}),
                "drivers.registry.oci-dir.hosts: a.b is served by hub",
            ),
            (
                json!({"volume": {"local": {"hosts": ["a.b"]}}}),
                "drivers.volume.local.hosts: only registry drivers have hosts",
            ),
        ] {
            assert_eq!(
                DriversConfig::parse(&value).unwrap_err().to_string(),
                message
            );
        }
    }
}
