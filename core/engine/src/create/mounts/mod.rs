//! What a container mounts, from all the ways in which it can be asked for.

mod long;

use std::collections::BTreeMap;

use gantry_model::container::{ContainerConfig, HostConfig};

use crate::container::record::{MountKind, MountPoint, Record};
use crate::{EngineError, Result};

/// A mount that is wanted; volumes have no name yet where they are anonymous.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    /// The mount, as far as it is known.
    pub(crate) point: MountPoint,
    /// Options of a volume's driver.
    pub(crate) options: BTreeMap<String, String>,
    /// Labels of a volume that is made on the way.
    pub(crate) labels: BTreeMap<String, String>,
}

impl From<MountPoint> for Wanted {
    fn from(point: MountPoint) -> Self {
        Self {
            point,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }
}

/// A mount of `kind` at `destination` with everything else at rest.
pub(crate) fn point(kind: MountKind, destination: String) -> MountPoint {
    MountPoint {
        kind,
        name: String::new(),
        source: String::new(),
        destination,
        driver: String::new(),
        mode: String::new(),
        rw: true,
        propagation: String::new(),
        tmpfs: Vec::new(),
        non_recursive: false,
        read_only_non_recursive: false,
        read_only_force_recursive: false,
        create_source: false,
        no_copy: false,
        subpath: String::new(),
        anonymous: false,
        made: false,
    }
}

/// Everything a container mounts, in Docker's order of precedence; `find` resolves `--volumes-from`.
///
/// # Errors
/// Docker's refusals.
pub(crate) fn collect(
    config: &ContainerConfig,
    host: &HostConfig,
    find: impl Fn(&str) -> Result<std::sync::Arc<Record>>,
) -> Result<Vec<Wanted>> {
    let mut mounts: BTreeMap<String, Wanted> = BTreeMap::new();
    for from in host.volumes_from.iter().flatten() {
        let (name, writable) = volumes_from(from)?;
        for mut point in find(name)?.mounts.iter().cloned() {
            point.rw &= writable;
            point.anonymous = false;
            point.no_copy = true;
            mounts.insert(point.destination.clone(), point.into());
        }
    }
    let mut given: BTreeMap<String, Wanted> = BTreeMap::new();
    let mut add = |wanted: Wanted| {
        let destination = wanted.point.destination.clone();
        match given.insert(destination.clone(), wanted) {
            None => Ok(()),
            Some(_) => Err(EngineError::bad_request(format!(
                "Duplicate mount point: {destination}"
            ))),
        }
    };
    for text in host.binds.iter().flatten() {
        add(bind(text, &host.volume_driver)?)?;
    }
    for mount in host.mounts.iter().flatten() {
        add(long::wanted(mount)?)?;
    }
    for (target, options) in &host.tmpfs {
        let mut point = point(MountKind::Tmpfs, absolute(target, "tmpfs")?);
        point.tmpfs = split_options(options);
        point.mode.clone_from(options);
        point.rw = !point.tmpfs.iter().any(|o| o == "ro");
        add(point.into())?;
    }
    mounts.extend(given);
    for target in config.volumes.iter().flatten().map(|(path, _)| path) {
        let target = absolute(target, "volume")?;
        if mounts.contains_key(&target) {
            continue;
        }
        let mut point = point(MountKind::Volume, target.clone());
        point.anonymous = true;
        point.driver.clone_from(&host.volume_driver);
        mounts.insert(target, point.into());
    }
    Ok(mounts.into_values().collect())
}

fn split_options(text: &str) -> Vec<String> {
    text.split(',')
        .filter(|o| !o.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A clean absolute path that is not the root.
fn absolute(path: &str, what: &str) -> Result<String> {
    let clean = clean(path);
    if !path.starts_with('/') {
        return Err(EngineError::bad_request(format!(
            "invalid mount config for type {what:?}: invalid mount path: '{path}' mount path must be absolute"
        )));
    }
    if clean == "/" {
        return Err(EngineError::bad_request(format!(
            "invalid mount config for type {what:?}: invalid specification: destination can't be '/'"
        )));
    }
    Ok(clean)
}

/// Go's `path.Clean` of an absolute path.
pub(crate) fn clean(path: &str) -> String {
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

fn volumes_from(text: &str) -> Result<(&str, bool)> {
    let (name, mode) = text.split_once(':').unwrap_or((text, "rw"));
    if name.is_empty() {
        return Err(EngineError::bad_request(
            "malformed volumes-from specification: empty",
        ));
    }
    let mut writable = true;
    for word in mode.split(',') {
        match word {
            "ro" => writable = false,
            "rw" | "z" | "Z" => {}
            other => {
                return Err(EngineError::bad_request(format!(
                    "invalid mode for volumes-from: {other:?}"
                )));
            }
        }
    }
    Ok((name, writable))
}

/// `source:target[:options]`, or `target` alone for an anonymous volume.
fn bind(text: &str, volume_driver: &str) -> Result<Wanted> {
    let malformed = || EngineError::bad_request(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match *parts.as_slice() {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, mode] => (source, target, mode),
        _ => return Err(malformed()),
    };
    if target.is_empty() || (parts.len() > 1 && source.is_empty()) {
        return Err(malformed());
    }
    if !target.starts_with('/') {
        return Err(EngineError::bad_request(format!(
            "invalid volume specification: '{text}': invalid mount config for type \"bind\": invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    let target = clean(target);
    if target == "/" {
        return Err(EngineError::bad_request(format!(
            "invalid volume specification: '{text}': invalid specification: destination can't be '/'"
        )));
    }
    let is_path = source.starts_with('/');
    let kind = if is_path {
        MountKind::Bind
    } else {
        MountKind::Volume
    };
    let mut point = point(kind, target);
    point.mode = mode.to_owned();
    for word in mode.split(',').filter(|w| !w.is_empty()) {
        apply(&mut point, word)
            .ok_or_else(|| EngineError::bad_request(format!("invalid mode: {mode}")))?;
    }
    if is_path {
        point.source = clean(source);
        point.create_source = true;
        if point.propagation.is_empty() {
            point.propagation = "rprivate".into();
        }
    } else {
        point.name = source.to_owned();
        point.anonymous = source.is_empty();
        point.driver = volume_driver.to_owned();
    }
    Ok(point.into())
}

/// One word of a bind's options; `None` when it is none.
fn apply(point: &mut MountPoint, word: &str) -> Option<()> {
    match word {
        "rw" => point.rw = true,
        "ro" => point.rw = false,
        // SELinux labels and hints for other platforms; nothing to do where neither is there.
        "z" | "Z" | "consistent" | "cached" | "delegated" | "default" => {}
        "nocopy" if point.kind == MountKind::Volume => point.no_copy = true,
        "copy" if point.kind == MountKind::Volume => point.no_copy = false,
        "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave"
            if point.kind == MountKind::Bind =>
        {
            point.propagation = word.to_owned();
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::container::Mount;

    fn none(_: &str) -> Result<std::sync::Arc<Record>> {
        Err(EngineError::not_found("none"))
    }

    fn binds(texts: &[&str]) -> Result<Vec<Wanted>> {
        let host = HostConfig {
            binds: Some(texts.iter().map(|t| (*t).to_owned()).collect()),
            ..HostConfig::default()
        };
        collect(&ContainerConfig::default(), &host, none)
    }

    #[test]
    fn short_forms() {
        let all = binds(&["/a//b/:/x/", "data:/y:ro,nocopy", "/c:/z:rslave", "/anon"]).unwrap();
        let find = |target: &str| {
            &all.iter()
                .find(|w| w.point.destination == target)
                .unwrap()
                .point
        };
        assert_eq!(
            (find("/x").kind, find("/x").source.as_str()),
            (MountKind::Bind, "/a/b")
        );
        assert!(find("/x").create_source && find("/x").rw);
        assert_eq!(
            (find("/y").kind, find("/y").name.as_str()),
            (MountKind::Volume, "data")
        );
        assert!(find("/y").no_copy && !find("/y").rw && !find("/y").anonymous);
        assert_eq!(find("/z").propagation, "rslave");
        assert!(find("/anon").anonymous);
    }

    #[test]
    fn refusals() {
        for (text, want) in [
            ("a:b:c:d", "invalid volume specification: 'a:b:c:d'"),
            (":/x", "invalid volume specification: ':/x'"),
            ("/a:/b:wat", "invalid mode: wat"),
            ("/a:/b:nocopy", "invalid mode: nocopy"),
        ] {
            assert_eq!(binds(&[text]).unwrap_err().message, want);
        }
        assert!(
            binds(&["/a:/"])
                .unwrap_err()
                .message
                .contains("destination can't be '/'")
        );
        assert_eq!(
            binds(&["/a:/b", "x:/b"]).unwrap_err().message,
            "Duplicate mount point: /b"
        );
    }

    #[test]
    fn long_forms() {
        let ask = |mount: Mount| {
            let host = HostConfig {
                mounts: Some(vec![mount]),
                ..HostConfig::default()
            };
            collect(&ContainerConfig::default(), &host, none)
        };
        let missing = ask(Mount {
            kind: "bind".into(),
            source: "/nonexistent".into(),
            target: "/x".into(),
            ..Mount::default()
        });
        assert_eq!(
            missing.unwrap_err().message,
            "invalid mount config for type \"bind\": bind source path does not exist: /nonexistent"
        );
        let tmpfs = ask(Mount {
            kind: "tmpfs".into(),
            target: "/x".into(),
            tmpfs_options: Some(gantry_model::container::TmpfsOptions {
                size_bytes: 4096,
                mode: 0o700,
                options: None,
            }),
            ..Mount::default()
        });
        assert_eq!(tmpfs.unwrap()[0].point.tmpfs, ["size=4096", "mode=700"]);
    }

    #[test]
    fn image_volumes_yield_to_what_was_asked() {
        let config = ContainerConfig {
            volumes: Some(
                ["/data", "/other"]
                    .map(|p| (p.to_owned(), gantry_model::container::EmptyObject {}))
                    .into(),
            ),
            ..ContainerConfig::default()
        };
        let host = HostConfig {
            binds: Some(vec!["named:/data".into()]),
            ..HostConfig::default()
        };
        let all = collect(&config, &host, none).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].point.name, "named");
        assert!(all[1].point.anonymous);
    }
}
