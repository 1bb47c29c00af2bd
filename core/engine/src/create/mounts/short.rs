//! Mounts in the short form: `source:target[:options]`, and `--volumes-from`.

use gantry_model::container::{BindOptions, DriverConfig, Mount, VolumeOptions, mount_type};

use super::{Wanted, long};
use crate::{EngineError, Result};

/// The options of a short form: at most one word of each sort.
#[derive(Debug, Default, PartialEq)]
struct Mode<'a> {
    /// `ro`, `rw`.
    access: Option<&'a str>,
    /// SELinux: `z`, `Z`.
    label: Option<&'a str>,
    /// `[r]private`, `[r]shared`, `[r]slave`.
    propagation: Option<&'a str>,
    /// `copy`, `nocopy`.
    copy: Option<&'a str>,
    /// `idmap`: owners as the container's user namespace maps them.
    mapping: Option<&'a str>,
    /// Hints for other platforms.
    consistency: Option<&'a str>,
}

impl<'a> Mode<'a> {
    /// `None` for words that are none, and for two of a sort.
    fn parse(text: &'a str) -> Option<Self> {
        let mut mode = Self::default();
        if text.is_empty() {
            return Some(mode);
        }
        for word in text.split(',') {
            let sort = match word {
                "ro" | "rw" => &mut mode.access,
                "z" | "Z" => &mut mode.label,
                word if long::is_propagation(word) => &mut mode.propagation,
                "copy" | "nocopy" => &mut mode.copy,
                "idmap" => &mut mode.mapping,
                "consistent" | "cached" | "delegated" => &mut mode.consistency,
                _ => return None,
            };
            if sort.replace(word).is_some() {
                return None;
            }
        }
        Some(mode)
    }
}

fn invalid_mode(mode: &str) -> EngineError {
    EngineError::bad_request(format!("invalid mode: {mode}"))
}

/// `source:target[:options]`, or `target` alone for an anonymous volume. A source without a slash in front is a volume.
pub(super) fn bind(text: &str, volume_driver: &str) -> Result<Wanted> {
    let malformed = || EngineError::bad_request(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, words) = match *parts.as_slice() {
        [target] if !target.is_empty() => ("", target, ""),
        // `/data:rw`: a volume without a name has no options.
        [source, target] if !source.is_empty() && Mode::parse(target).is_none() => {
            (source, target, "")
        }
        [source, target, words] if !source.is_empty() => (source, target, words),
        _ => return Err(malformed()),
    };
    let mode = Mode::parse(words).ok_or_else(|| invalid_mode(words))?;
    let is_path = source.starts_with('/');
    if mode.mapping.is_some() && !is_path {
        // Volumes are mapped anyway.
        return Err(invalid_mode(words));
    }
    let volume = (!volume_driver.is_empty() && !is_path) || mode.copy.is_some();
    let mount = Mount {
        kind: match is_path {
            true => mount_type::BIND.into(),
            false => mount_type::VOLUME.into(),
        },
        source: source.into(),
        target: target.into(),
        read_only: mode.access == Some("ro"),
        bind_options: mode.propagation.map(|word| BindOptions {
            propagation: word.into(),
            ..BindOptions::default()
        }),
        volume_options: volume.then(|| VolumeOptions {
            no_copy: mode.copy == Some("nocopy"),
            driver_config: (!volume_driver.is_empty()).then(|| DriverConfig {
                name: volume_driver.into(),
                ..DriverConfig::default()
            }),
            ..VolumeOptions::default()
        }),
        ..Mount::default()
    };
    let mut wanted = long::parse(&mount, false).map_err(|e| e.context(malformed().message))?;
    // A named volume has a mode of its own where nothing is said, as with dockerd.
    if is_path || source.is_empty() || !words.is_empty() {
        wanted.point.mode = words.to_owned();
    }
    wanted.point.create_source = is_path;
    Ok(wanted)
}

/// `container[:options]`: whose mounts, and whether they may be written to.
pub(super) fn volumes_from(text: &str) -> Result<(&str, bool)> {
    if text.is_empty() {
        return Err(EngineError::bad_request(
            "volumes-from specification cannot be an empty string",
        ));
    }
    let (name, words) = text.split_once(':').unwrap_or((text, ""));
    match Mode::parse(words) {
        // Propagation and copying are those of the mounts themselves.
        Some(mode)
            if mode.propagation.is_none() && mode.copy.is_none() && mode.mapping.is_none() =>
        {
            Ok((name, mode.access != Some("ro")))
        }
        _ => Err(invalid_mode(words)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::MountKind;

    fn point(text: &str) -> crate::container::record::MountPoint {
        bind(text, "").unwrap().point
    }

    #[test]
    fn paths_may_be_mapped() {
        assert!(point("/a:/b:ro,idmap").is_idmapped());
        assert!(!point("/a:/b:ro").is_idmapped());
        for bad in ["data:/b:idmap", "/a:/b:idmap,idmap"] {
            assert!(bind(bad, "").is_err(), "{bad}");
        }
        assert!(volumes_from("other:idmap").is_err());
    }

    #[test]
    fn forms() {
        let path = point("/a//b/:/x/");
        assert_eq!((path.kind, path.source.as_str()), (MountKind::Bind, "/a/b"));
        assert!(path.create_source && path.rw);
        assert_eq!(
            (path.destination.as_str(), path.propagation.as_str()),
            ("/x", "rprivate")
        );
        let volume = point("data:/y:ro,nocopy,Z");
        assert_eq!(
            (volume.kind, volume.name.as_str()),
            (MountKind::Volume, "data")
        );
        assert!(volume.no_copy && !volume.rw && !volume.anonymous && !volume.create_source);
        assert_eq!(volume.mode, "ro,nocopy,Z");
        assert_eq!(point("/c:/z:rslave").propagation, "rslave");
        assert!(point("/anon").anonymous);
        assert_eq!(bind("data:/y", "nfs").unwrap().point.driver, "nfs");
        assert_eq!(bind("/data:/y", "nfs").unwrap().point.driver, "");
    }

    #[test]
    fn refusals() {
        let invalid = "invalid volume specification";
        for (text, want) in [
            ("", format!("{invalid}: ''")),
            ("a:b:c:d", format!("{invalid}: 'a:b:c:d'")),
            (":/x", format!("{invalid}: ':/x'")),
            ("/x:rw", format!("{invalid}: '/x:rw'")),
            ("/a:/b:wat", "invalid mode: wat".into()),
            ("/a:/b:ro,rw", "invalid mode: ro,rw".into()),
            (
                "/a:/b:shared,private",
                "invalid mode: shared,private".into(),
            ),
            (
                "/a:/",
                format!(
                    "{invalid}: '/a:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'"
                ),
            ),
            (
                "/a:/b:nocopy",
                format!(
                    "{invalid}: '/a:/b:nocopy': invalid mount config for type \"bind\": field VolumeOptions must not be specified"
                ),
            ),
            (
                "a:/b:shared",
                format!(
                    "{invalid}: 'a:/b:shared': invalid mount config for type \"volume\": field BindOptions must not be specified"
                ),
            ),
        ] {
            assert_eq!(bind(text, "").unwrap_err().message, want);
        }
    }

    #[test]
    fn others() {
        assert_eq!(volumes_from("c").unwrap(), ("c", true));
        assert_eq!(volumes_from("c:ro,z").unwrap(), ("c", false));
        for (text, want) in [
            ("", "volumes-from specification cannot be an empty string"),
            ("c:wat", "invalid mode: wat"),
            ("c:slave", "invalid mode: slave"),
            ("c:copy", "invalid mode: copy"),
        ] {
            assert_eq!(volumes_from(text).unwrap_err().message, want);
        }
    }
}
