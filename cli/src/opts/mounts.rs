//! `--mount`, `--volume`, `--tmpfs`.

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::{Map, Value};

use super::values::csv;
use crate::format::units::{parse_bool, parse_size};

/// One `--mount`, as the API takes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Mount {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    source: String,
    target: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read_only: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    consistency: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bind_options: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume_options: Option<VolumeOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_options: Option<ImageOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tmpfs_options: Option<TmpfsOptions>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct VolumeOptions {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_copy: bool,
    #[serde(skip_serializing_if = "Map::is_empty")]
    labels: Map<String, Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    subpath: String,
    driver_config: DriverConfig,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DriverConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    options: Map<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ImageOptions {
    subpath: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TmpfsOptions {
    #[serde(skip_serializing_if = "is_zero")]
    size_bytes: i64,
    #[serde(skip_serializing_if = "is_zero")]
    mode: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

pub(crate) fn parse_mount(text: &str) -> Result<Mount, String> {
    let mut mount = Mount {
        kind: "volume".into(),
        ..Mount::default()
    };
    for field in csv(text)? {
        let (key, value) = match field.split_once('=') {
            Some(pair) => pair,
            None if matches!(
                field.as_str(),
                "readonly" | "ro" | "volume-nocopy" | "bind-nonrecursive" | "bind-create-src"
            ) =>
            {
                (field.as_str(), "true")
            }
            None => return Err(format!("invalid field '{field}' must be a key=value pair")),
        };
        mount.set(&key.to_lowercase(), value, &field)?;
    }
    mount.check()?;
    Ok(mount)
}

impl Mount {
    fn set(&mut self, key: &str, value: &str, field: &str) -> Result<(), String> {
        let flag = || parse_bool(value).map_err(|_| format!("invalid value for {key}: {value}"));
        match key {
            "type" => self.kind = value.to_lowercase(),
            "source" | "src" => self.source = absolute(value),
            "target" | "dst" | "destination" => self.target = value.into(),
            "readonly" | "ro" => self.read_only = flag()?,
            "consistency" => self.consistency = value.to_lowercase(),
            "bind-propagation" => self.bind("Propagation", value.to_lowercase().into()),
            "bind-nonrecursive" => self.bind("NonRecursive", flag()?.into()),
            "bind-create-src" => self.bind("CreateMountpoint", flag()?.into()),
            "bind-recursive" => match value {
                "enabled" => {}
                "disabled" => self.bind("NonRecursive", true.into()),
                "writable" => self.bind("ReadOnlyNonRecursive", true.into()),
                "readonly" => self.bind("ReadOnlyForceRecursive", true.into()),
                _ => {
                    return Err(format!(
                        "invalid value for {key}: {value} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                    ));
                }
            },
            "volume-subpath" => self.volume().subpath = value.into(),
            "volume-nocopy" => self.volume().no_copy = flag()?,
            "volume-label" => add(&mut self.volume().labels, value),
            "volume-driver" => self.volume().driver_config.name = value.into(),
            "volume-opt" => add(&mut self.volume().driver_config.options, value),
            "image-subpath" => self.image_options.get_or_insert_default().subpath = value.into(),
            "tmpfs-size" => {
                let size =
                    parse_size(value).map_err(|_| format!("invalid value for {key}: {value}"))?;
                self.tmpfs_options.get_or_insert_default().size_bytes = size;
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8)
                    .map_err(|_| format!("invalid value for {key}: {value}"))?;
                self.tmpfs_options.get_or_insert_default().mode = mode.into();
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
        Ok(())
    }

    fn bind(&mut self, name: &str, value: Value) {
        self.bind_options
            .get_or_insert_default()
            .insert(name.into(), value);
    }

    fn volume(&mut self) -> &mut VolumeOptions {
        self.volume_options.get_or_insert_default()
    }

    fn check(&mut self) -> Result<(), String> {
        let kind = &self.kind;
        if kind.is_empty() {
            return Err("type is required".into());
        }
        if self.target.is_empty() {
            return Err("target is required".into());
        }
        let mixed = [
            ("volume", "volume", self.volume_options.is_some()),
            ("bind", "bind", self.bind_options.is_some()),
            ("image", "image", self.image_options.is_some()),
            ("tmpfs", "tmpfs", self.tmpfs_options.is_some()),
        ];
        for (options, needs, present) in mixed {
            if present && kind != needs {
                return Err(format!(
                    "cannot mix '{options}-*' options with mount type '{kind}'"
                ));
            }
        }
        if let Some(bind) = &self.bind_options {
            let set = |name: &str| bind.get(name) == Some(&Value::Bool(true));
            if !self.read_only && set("ReadOnlyNonRecursive") {
                return Err("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction".into());
            }
            if !self.read_only && set("ReadOnlyForceRecursive") {
                return Err("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction".into());
            }
            if set("ReadOnlyForceRecursive")
                && bind.get("Propagation").and_then(Value::as_str) != Some("rprivate")
            {
                return Err(
                    "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction".into()
                );
            }
        }
        Ok(())
    }
}

fn add(map: &mut Map<String, Value>, text: &str) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if !key.is_empty() {
        map.insert(key.into(), value.into());
    }
}

/// Paths beginning with a dot are meant from where we stand.
fn absolute(path: &str) -> String {
    if path != "." && !path.starts_with("./") && path != ".." && !path.starts_with("../") {
        return path.into();
    }
    let Ok(here) = std::env::current_dir() else {
        return path.into();
    };
    clean(&here.join(path).to_string_lossy())
}

/// Removes `.` and resolves `..` by text alone, as Go's `filepath.Clean` does.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `--volume` values: binds, and the targets of anonymous volumes.
pub(crate) fn volumes(values: &[String]) -> Result<(Vec<String>, Vec<String>)> {
    let (mut binds, mut anonymous) = (Vec::new(), Vec::new());
    for value in values {
        let parts: Vec<&str> = value.split(':').collect();
        if value.is_empty() {
            bail!("invalid empty volume spec");
        }
        if parts.iter().any(|part| part.is_empty()) {
            bail!("invalid spec: {value}: empty section between colons");
        }
        match parts[..] {
            [_] => anonymous.push(value.clone()),
            [source, ref rest @ ..] if rest.len() <= 2 => {
                let source = if source.starts_with('.') {
                    absolute_dotted(source)
                } else {
                    source.into()
                };
                binds.push(format!("{source}:{}", rest.join(":")));
            }
            _ => bail!("invalid spec: {value}: too many colons"),
        }
    }
    Ok((binds, anonymous))
}

fn absolute_dotted(path: &str) -> String {
    std::env::current_dir().map_or_else(
        |_| path.into(),
        |here| clean(&here.join(path).to_string_lossy()),
    )
}

/// `--tmpfs PATH[:OPTIONS]`.
pub(crate) fn tmpfs(values: &[String]) -> Map<String, Value> {
    let split = |value: &String| {
        let (path, options) = value.split_once(':').unwrap_or((value, ""));
        (path.to_owned(), options.into())
    };
    values.iter().map(split).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mount(text: &str) -> Value {
        serde_json::to_value(parse_mount(text).unwrap()).unwrap()
    }

    #[test]
    fn mounts_of_each_kind() {
        assert_eq!(
            mount("target=/x"),
            json!({"Type": "volume", "Target": "/x"})
        );
        assert_eq!(
            mount("type=bind,src=/a,dst=/b,ro,bind-propagation=rslave"),
            json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true, "BindOptions": {"Propagation": "rslave"}})
        );
        assert_eq!(
            mount(
                r#"type=volume,source=v,target=/v,volume-driver=local,"volume-opt=o=a,b",volume-label=x=y"#
            ),
            json!({"Type": "volume", "Source": "v", "Target": "/v",
                   "VolumeOptions": {"Labels": {"x": "y"}, "DriverConfig": {"Name": "local", "Options": {"o": "a,b"}}}})
        );
        assert_eq!(
            mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777"),
            json!({"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1777}})
        );
    }

    #[test]
    fn contradictions_are_refused() {
        for (text, error) in [
            ("type=bind,src=/a", "target is required"),
            (
                "type=bind,target=/a,volume-nocopy",
                "cannot mix 'volume-*' options with mount type 'bind'",
            ),
            (
                "type=bind,target=/a,x",
                "invalid field 'x' must be a key=value pair",
            ),
            ("target=/a,ro=maybe", "invalid value for ro: maybe"),
        ] {
            assert_eq!(parse_mount(text).unwrap_err(), error, "{text}");
        }
        assert!(parse_mount("type=bind,src=/a,target=/a,bind-recursive=readonly").is_err());
    }

    #[test]
    fn volumes_are_binds_or_anonymous() {
        let (binds, anonymous) =
            volumes(&["/data".into(), "v:/v:ro".into(), "./x:/y".into()]).unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            binds,
            ["v:/v:ro".to_owned(), format!("{}/x:/y", here.display())]
        );
        assert_eq!(anonymous, ["/data"]);
        assert_eq!(
            volumes(&[":/x".into()]).unwrap_err().to_string(),
            "invalid spec: :/x: empty section between colons"
        );
        assert_eq!(
            volumes(&["a:b:c:d".into()]).unwrap_err().to_string(),
            "invalid spec: a:b:c:d: too many colons"
        );
        assert_eq!(clean("/a/./b/../c"), "/a/c");
    }
}
