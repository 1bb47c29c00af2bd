//! What a container mounts, from all the ways in which it can be asked for.

mod long;
mod short;

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
        let (name, writable) = short::volumes_from(from)?;
        let donor = find(name)?;
        for mut point in visible(&donor).cloned() {
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
        add(short::bind(text, &host.volume_driver)?)?;
    }
    for mount in host.mounts.iter().flatten() {
        add(long::wanted(mount)?)?;
    }
    for (target, options) in &host.tmpfs {
        let mut point = point(
            MountKind::Tmpfs,
            absolute(target).map_err(EngineError::bad_request)?,
        );
        point.tmpfs = tmpfs_options(options)?;
        point.mode.clone_from(options);
        point.rw = !point.tmpfs.iter().any(|o| o == "ro");
        add(point.into())?;
    }
    mounts.extend(given);
    for target in config.volumes.iter().flatten().map(|(path, _)| path) {
        // Images say `VOLUME data` and mean `/data`.
        let target = absolute(&format!("/{target}")).map_err(|why| {
            EngineError::bad_request(format!("invalid mount config for type \"volume\": {why}"))
        })?;
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

/// The mounts that inspect shows and others can take over: all but those of `--tmpfs`, which `HostConfig` shows.
pub(crate) fn visible(record: &Record) -> impl Iterator<Item = &MountPoint> {
    let tmpfs: Vec<String> = record.host_config.tmpfs.keys().map(|p| clean(p)).collect();
    let is_short =
        move |m: &MountPoint| m.kind == MountKind::Tmpfs && tmpfs.contains(&m.destination);
    record.mounts.iter().filter(move |m| !is_short(m))
}

/// What `--tmpfs` takes: the kernel's options of a tmpfs, and the flags of any mount.
const TMPFS_OPTIONS: [&str; 38] = [
    "async",
    "atime",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "gid",
    "mand",
    "mode",
    "mpol",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nr_blocks",
    "nr_inodes",
    "private",
    "relatime",
    "ro",
    "rprivate",
    "rshared",
    "rslave",
    "runbindable",
    "rw",
    "shared",
    "size",
    "slave",
    "strictatime",
    "suid",
    "sync",
    "tmpcopyup",
    "uid",
    "unbindable",
];

fn tmpfs_options(text: &str) -> Result<Vec<String>> {
    let words = text.split(',').filter(|word| !word.is_empty());
    let checked = words.map(|word| {
        let parts: Vec<&str> = word.splitn(2, '=').collect();
        if TMPFS_OPTIONS.contains(&parts[0]) {
            return Ok(word.to_owned());
        }
        let shown: Vec<String> = parts.iter().map(|part| format!("{part:?}")).collect();
        Err(EngineError::bad_request(format!(
            "invalid tmpfs option [{}]",
            shown.join(" ")
        )))
    });
    checked.collect()
}

/// A clean absolute path that is not the root, or what is wrong with it.
fn absolute(path: &str) -> std::result::Result<String, String> {
    let clean = clean(path);
    if !path.starts_with('/') {
        return Err(format!(
            "invalid mount path: '{path}' mount path must be absolute"
        ));
    }
    if clean == "/" {
        return Err("invalid specification: destination can't be '/'".into());
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn options_of_tmpfs_are_checked() {
        let good = ["size=1m", "mode=700", "noexec"];
        assert_eq!(tmpfs_options("size=1m,,mode=700,noexec").unwrap(), good);
        for (bad, shown) in [("bla", r#"["bla"]"#), ("ro,a=b=c", r#"["a" "b=c"]"#)] {
            let error = tmpfs_options(bad).unwrap_err();
            assert_eq!(error.message, format!("invalid tmpfs option {shown}"));
        }
    }

    #[test]
    fn a_place_is_mounted_once() {
        assert_eq!(
            binds(&["/a:/b", "x:/b"]).unwrap_err().message,
            "Duplicate mount point: /b"
        );
        assert_eq!(binds(&["/a:/b", "x:/c"]).unwrap().len(), 2);
    }

    #[test]
    fn image_volumes_yield_to_what_was_asked() {
        let config = ContainerConfig {
            volumes: Some(
                ["/data", "other/"]
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
