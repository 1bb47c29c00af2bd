//! `--mount`, `--volume`, `--tmpfs`.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use gantry_wire::spec::{BindOptions, Mount, VolumeOptions, mount_type};

use super::values::csv;
use crate::format::units::{parse_bool, parse_size};

/// One `--mount`.
pub(crate) fn parse_mount(text: &str) -> Result<Mount, String> {
    let mut mount = Mount {
        kind: mount_type::VOLUME.into(),
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
        set(&mut mount, &key.to_lowercase(), value, &field)?;
    }
    check(&mount)?;
    Ok(mount)
}

fn set(mount: &mut Mount, key: &str, value: &str, field: &str) -> Result<(), String> {
    let invalid = || format!("invalid value for {key}: {value}");
    let flag = || parse_bool(value).map_err(|_| invalid());
    match key {
        "type" => mount.kind = value.to_lowercase(),
        "source" | "src" => mount.source = absolute(value),
        "target" | "dst" | "destination" => mount.target = value.into(),
        "readonly" | "ro" => mount.read_only = flag()?,
        "consistency" => mount.consistency = value.to_lowercase(),
        "bind-propagation" => bind(mount).propagation = value.to_lowercase(),
        "bind-nonrecursive" => bind(mount).non_recursive = flag()?,
        "bind-create-src" => bind(mount).create_mountpoint = flag()?,
        "bind-recursive" => match value {
            "enabled" => {}
            "disabled" => bind(mount).non_recursive = true,
            "writable" => bind(mount).read_only_non_recursive = true,
            "readonly" => bind(mount).read_only_force_recursive = true,
            _ => {
                let words = "must be \"enabled\", \"disabled\", \"writable\", or \"readonly\"";
                return Err(format!("{} ({words})", invalid()));
            }
        },
        "volume-subpath" => volume(mount).subpath = value.into(),
        "volume-nocopy" => volume(mount).no_copy = flag()?,
        "volume-label" => add(&mut volume(mount).labels, value),
        "volume-driver" => volume(mount).driver_config.get_or_insert_default().name = value.into(),
        "volume-opt" => add(
            &mut volume(mount).driver_config.get_or_insert_default().options,
            value,
        ),
        "image-subpath" => mount.image_options.get_or_insert_default().subpath = value.into(),
        "tmpfs-size" => {
            let size = parse_size(value).map_err(|_| invalid())?;
            mount.tmpfs_options.get_or_insert_default().size_bytes = size;
        }
        "tmpfs-mode" => {
            let mode = u32::from_str_radix(value, 8).map_err(|_| invalid())?;
            mount.tmpfs_options.get_or_insert_default().mode = mode.into();
        }
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_default()
}

fn volume(mount: &mut Mount) -> &mut VolumeOptions {
    mount.volume_options.get_or_insert_default()
}

fn check(mount: &Mount) -> Result<(), String> {
    let kind = &mount.kind;
    if kind.is_empty() {
        return Err("type is required".into());
    }
    if mount.target.is_empty() {
        return Err("target is required".into());
    }
    let options = [
        (mount_type::VOLUME, mount.volume_options.is_some()),
        (mount_type::BIND, mount.bind_options.is_some()),
        (mount_type::IMAGE, mount.image_options.is_some()),
        (mount_type::TMPFS, mount.tmpfs_options.is_some()),
    ];
    for (owner, present) in options {
        if present && kind != owner {
            return Err(format!(
                "cannot mix '{owner}-*' options with mount type '{kind}'"
            ));
        }
    }
    let Some(bind) = &mount.bind_options else {
        return Ok(());
    };
    let needs = |option: &str, other: &str| {
        Err(format!(
            "option 'bind-recursive={option}' requires '{other}' to be specified in conjunction"
        ))
    };
    if !mount.read_only && bind.read_only_non_recursive {
        return needs("writable", "readonly");
    }
    if !mount.read_only && bind.read_only_force_recursive {
        return needs("readonly", "readonly");
    }
    if bind.read_only_force_recursive && bind.propagation != "rprivate" {
        return needs("readonly", "bind-propagation=rprivate");
    }
    Ok(())
}

fn add(map: &mut BTreeMap<String, String>, text: &str) {
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
pub(crate) fn tmpfs(values: &[String]) -> BTreeMap<String, String> {
    let split = |value: &String| {
        let (path, options) = value.split_once(':').unwrap_or((value, ""));
        (path.to_owned(), options.to_owned())
    };
    values.iter().map(split).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

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
