//! Network configuration lists, and where they are found.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gantry_plugin_sdk::network::NetworkSpec;
use gantry_plugin_sdk::serde_json::{self, Map, Value, json};
use gantry_plugin_sdk::{DriverError, DriverResult};
use serde::{Deserialize, Serialize};

/// Names the list that a network is made from.
const CONF: &str = "conf";
/// Is such a list.
const CONFLIST: &str = "conflist";
/// Options that all kinds of networks share begin with this.
const COMMON: &str = "com.docker.network.";

/// Versions of the specification whose ADD and DEL are spoken here.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Those without CHECK, and whose plugins are not told at DEL what they made.
const EARLY: [&str; 2] = ["0.3.0", "0.3.1"];

/// The driver's options.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Where plugins are, first to last.
    pub(crate) bin: Vec<PathBuf>,
    /// The directory of configuration files.
    conf: PathBuf,
    /// Lists by name, which come before those in files.
    networks: BTreeMap<String, Value>,
    /// How long one operation of a list's plugins may take together, in seconds.
    pub(crate) timeout: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let bin = ["/opt/cni/bin", "/usr/libexec/cni", "/usr/lib/cni"];
        Self {
            bin: bin.map(PathBuf::from).to_vec(),
            conf: "/etc/cni/net.d".into(),
            networks: BTreeMap::new(),
            timeout: 60,
        }
    }
}

/// A network configuration list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct List {
    /// The network's name among CNI's.
    pub(crate) name: String,
    version: String,
    pub(crate) plugins: Vec<Map<String, Value>>,
    can_check: bool,
}

/// What is asked of plugins that say they can do it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Wishes {
    /// An Ethernet address.
    pub(crate) mac: Option<String>,
    /// IP addresses.
    pub(crate) ips: Vec<String>,
}

impl Settings {
    /// The list that a network's options ask for: the one given, the one named, else the one of the network's own name.
    pub(crate) fn list(&self, network: &NetworkSpec) -> DriverResult<List> {
        let option = |key: &str| network.options.get(key).filter(|value| !value.is_empty());
        match (option(CONF), option(CONFLIST)) {
            (Some(_), Some(_)) => Err(DriverError::invalid(format!(
                "the options {CONF} and {CONFLIST} exclude each other"
            ))),
            (_, Some(text)) => {
                let value = serde_json::from_str(text).map_err(|e| {
                    DriverError::invalid(format!("invalid value for {CONFLIST}: {e}"))
                })?;
                List::parse(value, Some(&network.name)).map_err(|why| {
                    DriverError::invalid(format!("invalid value for {CONFLIST}: {why}"))
                })
            }
            (name, None) => self.find(name.unwrap_or(&network.name)),
        }
    }

    fn find(&self, name: &str) -> DriverResult<List> {
        let wrong = |place: &str, why: String| {
            DriverError::invalid(format!("invalid CNI network {name:?} in {place}: {why}"))
        };
        if let Some(value) = self.networks.get(name) {
            return List::parse(value.clone(), Some(name))
                .map_err(|why| wrong("the driver's options", why));
        }
        let mut unread = String::new();
        for path in files(&self.conf) {
            match read(&path) {
                Ok(value) if value["name"] == name => {
                    return List::parse(value, None)
                        .map_err(|why| wrong(&path.display().to_string(), why));
                }
                Ok(_) => {}
                Err(why) => unread.push_str(&format!("; {}: {why}", path.display())),
            }
        }
        let conf = self.conf.display();
        Err(DriverError::invalid(format!(
            "there is no CNI network {name:?} in {conf} or the driver's options{unread}"
        )))
    }
}

/// The configuration files of a directory, in order of their names.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| {
        let extension = path.extension().and_then(|e| e.to_str());
        matches!(extension, Some("conf" | "conflist" | "json"))
    });
    files.sort();
    files
}

fn read(path: &Path) -> Result<Value, String> {
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    serde_json::from_slice(&bytes).map_err(|e| e.to_string())
}

/// Refuses options that mean nothing, which are most likely misspelt ones.
pub(crate) fn check_options(network: &NetworkSpec) -> DriverResult<()> {
    let known = |key: &&String| *key == CONF || *key == CONFLIST || key.starts_with(COMMON);
    match network.options.keys().find(|key| !known(key)) {
        Some(key) => Err(DriverError::invalid(format!(
            "unknown option {key:?}: a CNI network takes {CONF}=NAME or {CONFLIST}=JSON"
        ))),
        None => Ok(()),
    }
}

impl List {
    /// Reads a list, or the configuration of a single plugin. `name` is for one that has none.
    fn parse(value: Value, name: Option<&str>) -> Result<Self, String> {
        let Value::Object(mut fields) = value else {
            return Err("it is no JSON object".into());
        };
        if !fields.contains_key("plugins") && fields.contains_key("type") {
            let plugin = Value::Object(fields.clone());
            fields.insert("plugins".into(), json!([plugin]));
        }
        let text = |key: &str| fields.get(key).and_then(Value::as_str).map(str::to_owned);
        let name = text("name").or_else(|| name.map(str::to_owned));
        let name = name
            .filter(|name| is_name(name))
            .ok_or("it has no valid name")?;
        let version = text("cniVersion").unwrap_or_default();
        if !VERSIONS.contains(&version.as_str()) {
            let known = VERSIONS.join(", ");
            return Err(format!(
                "cniVersion {version:?} is not supported (those are: {known})"
            ));
        }
        let unchecked = fields.get("disableCheck");
        let unchecked = unchecked.is_some_and(|v| *v == json!(true) || *v == json!("true"));
        let plugins = fields.remove("plugins").unwrap_or_else(|| json!([]));
        let plugins: Vec<Map<String, Value>> =
            serde_json::from_value(plugins).map_err(|_| "plugins is no list of JSON objects")?;
        if plugins.is_empty() {
            return Err("it has no plugins".into());
        }
        for plugin in &plugins {
            let kind = plugin
                .get("type")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if kind.is_empty() || kind.starts_with('.') || kind.contains('/') {
                return Err(format!("{kind:?} is no plugin's type"));
            }
        }
        let can_check = !unchecked && !EARLY.contains(&version.as_str());
        Ok(Self {
            name,
            version,
            plugins,
            can_check,
        })
    }

    /// Whether what was made can be checked.
    pub(crate) fn can_check(&self) -> bool {
        self.can_check
    }

    /// Whether plugins are told at DEL what they made.
    pub(crate) fn tells_result(&self) -> bool {
        !EARLY.contains(&self.version.as_str())
    }

    /// The program of a plugin.
    pub(crate) fn kind(plugin: &Map<String, Value>) -> &str {
        plugin
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Whether a plugin makes firewall rules that it finds again only by the addresses of the link inside.
    pub(crate) fn masquerades(&self) -> bool {
        self.plugins
            .iter()
            .any(|plugin| plugin.get("ipMasq") == Some(&Value::Bool(true)))
    }

    fn is_able(plugin: &Map<String, Value>, capability: &str) -> bool {
        plugin
            .get("capabilities")
            .is_some_and(|able| able[capability] == true)
    }

    /// Refuses wishes that no plugin of the list fulfils.
    pub(crate) fn check(&self, wishes: &Wishes) -> DriverResult<()> {
        let wished = [
            ("mac", "a MAC address", wishes.mac.is_some()),
            ("ips", "an IP address", !wishes.ips.is_empty()),
        ];
        for (capability, what, wished) in wished {
            if wished && !self.plugins.iter().any(|p| Self::is_able(p, capability)) {
                return Err(DriverError::invalid(format!(
                    "{what} cannot be chosen: no plugin of CNI network {:?} has the capability {capability:?}",
                    self.name
                )));
            }
        }
        Ok(())
    }

    /// What a plugin is given to read.
    pub(crate) fn input(
        &self,
        plugin: &Map<String, Value>,
        wishes: &Wishes,
        previous: Option<Value>,
    ) -> Value {
        let mut input = plugin.clone();
        input.insert("name".into(), json!(self.name));
        input.insert("cniVersion".into(), json!(self.version));
        let mut runtime = Map::new();
        if let Some(mac) = &wishes.mac
            && Self::is_able(plugin, "mac")
        {
            runtime.insert("mac".into(), json!(mac));
        }
        if !wishes.ips.is_empty() && Self::is_able(plugin, "ips") {
            runtime.insert("ips".into(), json!(wishes.ips));
        }
        if !runtime.is_empty() {
            input.insert("runtimeConfig".into(), Value::Object(runtime));
        }
        if let Some(previous) = previous {
            input.insert("prevResult".into(), previous);
        }
        Value::Object(input)
    }
}

/// The specification's names of networks.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}
