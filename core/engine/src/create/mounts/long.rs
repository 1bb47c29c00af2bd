//! Mounts in the long form.

use std::path::{Component, Path};

use gantry_model::container::{Mount, TmpfsOptions, mount_type};

use super::{Wanted, absolute, clean, point};
use crate::container::record::MountKind;
use crate::{EngineError, Result};

/// What is wrong with a mount, without Docker's words before it.
type Checked<T> = std::result::Result<T, String>;

const BELOW_VOLUME: &str = "subpath must be a relative path within the volume";

/// `--mount`.
pub(super) fn wanted(mount: &Mount) -> Result<Wanted> {
    parse(mount, true)
}

/// A mount; with `existing`, a source on the host must be there by now.
pub(super) fn parse(mount: &Mount, existing: bool) -> Result<Wanted> {
    let kind = mount.kind.as_str();
    checked(mount, existing).map_err(|why| {
        EngineError::bad_request(format!("invalid mount config for type {kind:?}: {why}"))
    })
}

/// Whether a word is one of propagation.
pub(super) fn is_propagation(word: &str) -> bool {
    matches!(
        word,
        "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave"
    )
}

fn checked(mount: &Mount, existing: bool) -> Checked<Wanted> {
    if mount.target.is_empty() {
        return Err("field Target must not be empty".into());
    }
    let target = absolute(&mount.target)?;
    for (given, kind, field) in [
        (
            mount.bind_options.is_some(),
            mount_type::BIND,
            "BindOptions",
        ),
        (
            mount.volume_options.is_some(),
            mount_type::VOLUME,
            "VolumeOptions",
        ),
        (
            mount.image_options.is_some(),
            mount_type::IMAGE,
            "ImageOptions",
        ),
        (
            mount.tmpfs_options.is_some(),
            mount_type::TMPFS,
            "TmpfsOptions",
        ),
    ] {
        if given && kind != mount.kind {
            return Err(format!("field {field} must not be specified"));
        }
    }
    match mount.kind.as_str() {
        mount_type::BIND => bind(mount, target, existing),
        mount_type::VOLUME => volume(mount, target),
        mount_type::TMPFS => tmpfs(mount, target),
        mount_type::IMAGE => image(mount, target),
        _ => Err("mount type unknown".into()),
    }
}

fn bind(mount: &Mount, target: String, existing: bool) -> Checked<Wanted> {
    if mount.source.is_empty() {
        return Err("field Source must not be empty".into());
    }
    if !mount.source.starts_with('/') {
        return Err(format!(
            "invalid mount path: '{}' mount path must be absolute",
            mount.source
        ));
    }
    let mut point = point(MountKind::Bind, target);
    point.source = clean(&mount.source);
    point.rw = !mount.read_only;
    point.propagation = "rprivate".into();
    if let Some(options) = &mount.bind_options {
        match options.propagation.as_str() {
            "" => {}
            word if is_propagation(word) => word.clone_into(&mut point.propagation),
            other => return Err(format!("invalid propagation mode: {other}")),
        }
        if options.read_only_non_recursive && options.read_only_force_recursive {
            return Err(
                "mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive".into(),
            );
        }
        point.non_recursive = options.non_recursive;
        point.create_source = options.create_mountpoint;
        point.read_only_non_recursive = options.read_only_non_recursive;
        point.read_only_force_recursive = options.read_only_force_recursive;
    }
    if existing && !point.create_source && !Path::new(&point.source).exists() {
        return Err(format!("bind source path does not exist: {}", point.source));
    }
    Ok(point.into())
}

fn volume(mount: &Mount, target: String) -> Checked<Wanted> {
    let anonymous = mount.source.is_empty();
    if mount.read_only && anonymous {
        return Err("must not set ReadOnly mode when using anonymous volumes".into());
    }
    let mut point = point(MountKind::Volume, target);
    point.name.clone_from(&mount.source);
    point.anonymous = anonymous;
    point.rw = !mount.read_only;
    point.mode = "z".into();
    let mut wanted = Wanted::from(point);
    let Some(options) = &mount.volume_options else {
        return Ok(wanted);
    };
    if !options.subpath.is_empty() {
        if anonymous {
            return Err("must not set Subpath when using anonymous volumes".into());
        }
        if !is_local(&options.subpath) {
            return Err(BELOW_VOLUME.into());
        }
    }
    wanted.point.no_copy = options.no_copy;
    wanted.point.subpath.clone_from(&options.subpath);
    wanted.labels.clone_from(&options.labels);
    if let Some(driver) = &options.driver_config {
        wanted.point.driver.clone_from(&driver.name);
        wanted.options.clone_from(&driver.options);
    }
    Ok(wanted)
}

fn image(mount: &Mount, target: String) -> Checked<Wanted> {
    if mount.source.is_empty() {
        return Err("field Source must not be empty".into());
    }
    let mut point = point(MountKind::Image, target);
    point.source.clone_from(&mount.source);
    point.rw = false;
    if let Some(options) = mount
        .image_options
        .as_ref()
        .filter(|o| !o.subpath.is_empty())
    {
        if !is_local(&options.subpath) {
            return Err(BELOW_VOLUME.into());
        }
        point.subpath.clone_from(&options.subpath);
    }
    Ok(point.into())
}

/// Go's `filepath.IsLocal`: a relative path that stays below where it starts, as far as its words tell.
fn is_local(path: &str) -> bool {
    let mut depth = 0_usize;
    for component in Path::new(path).components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    !path.is_empty()
}

fn tmpfs(mount: &Mount, target: String) -> Checked<Wanted> {
    if !mount.source.is_empty() {
        return Err("field Source must not be specified".into());
    }
    let mut point = point(MountKind::Tmpfs, target);
    point.rw = !mount.read_only;
    if mount.read_only {
        point.tmpfs.push("ro".into());
    }
    if let Some(options) = &mount.tmpfs_options {
        point.tmpfs.extend(tmpfs_options(options)?);
    }
    Ok(point.into())
}

fn tmpfs_options(options: &TmpfsOptions) -> Checked<Vec<String>> {
    let mut words = Vec::new();
    if options.size_bytes < 0 {
        return Err("size must not be negative".into());
    }
    if options.size_bytes > 0 {
        words.push(format!("size={}", options.size_bytes));
    }
    if options.mode != 0 {
        words.push(format!("mode={:o}", options.mode));
    }
    for option in options.options.iter().flatten() {
        match option.as_slice() {
            [word] if matches!(word.as_str(), "exec" | "noexec") => words.push(word.clone()),
            [word] | [word, _] => return Err(format!("invalid option: {word}")),
            _ => return Err("invalid option array length".into()),
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::container::{BindOptions, ImageOptions, VolumeOptions};

    fn mount(kind: &str, source: &str) -> Mount {
        Mount {
            kind: kind.into(),
            source: source.into(),
            target: "/x".into(),
            ..Mount::default()
        }
    }

    fn refused(kind: &str, mount: Mount) -> String {
        let message = wanted(&mount).unwrap_err().message;
        let words = format!("invalid mount config for type {kind:?}: ");
        message.strip_prefix(&words).unwrap().to_owned()
    }

    #[test]
    fn refusals() {
        let target = |target: &str| Mount {
            target: target.into(),
            ..mount("bind", "/tmp")
        };
        for (given, want) in [
            (target(""), "field Target must not be empty"),
            (
                target("x"),
                "invalid mount path: 'x' mount path must be absolute",
            ),
            (
                target("/a/.."),
                "invalid specification: destination can't be '/'",
            ),
            (mount("bind", ""), "field Source must not be empty"),
            (
                mount("bind", "x"),
                "invalid mount path: 'x' mount path must be absolute",
            ),
            (
                mount("bind", "/nonexistent"),
                "bind source path does not exist: /nonexistent",
            ),
        ] {
            assert_eq!(refused("bind", given), want);
        }
        let options = |options| Mount {
            bind_options: Some(options),
            ..mount("bind", "/tmp")
        };
        let propagation = BindOptions {
            propagation: "wat".into(),
            ..BindOptions::default()
        };
        assert_eq!(
            refused("bind", options(propagation.clone())),
            "invalid propagation mode: wat"
        );
        let both = BindOptions {
            read_only_non_recursive: true,
            read_only_force_recursive: true,
            ..BindOptions::default()
        };
        assert!(refused("bind", options(both)).starts_with("mount options conflict"));
        let elsewhere = Mount {
            bind_options: Some(propagation),
            ..mount("tmpfs", "")
        };
        assert_eq!(
            refused("tmpfs", elsewhere),
            "field BindOptions must not be specified"
        );
        assert_eq!(
            refused("tmpfs", mount("tmpfs", "x")),
            "field Source must not be specified"
        );
        assert_eq!(refused("npipe", mount("npipe", "x")), "mount type unknown");
        assert_eq!(
            refused("image", mount("image", "")),
            "field Source must not be empty"
        );
        let anonymous = Mount {
            read_only: true,
            ..mount("volume", "")
        };
        assert!(refused("volume", anonymous).starts_with("must not set ReadOnly"));
    }

    #[test]
    fn subpaths_stay_inside() {
        let volume = |source: &str, subpath: &str| Mount {
            volume_options: Some(VolumeOptions {
                subpath: subpath.into(),
                ..VolumeOptions::default()
            }),
            ..mount("volume", source)
        };
        assert_eq!(
            wanted(&volume("v", "a/../b")).unwrap().point.subpath,
            "a/../b"
        );
        for outside in ["/a", "..", "a/../../b"] {
            assert_eq!(refused("volume", volume("v", outside)), BELOW_VOLUME);
        }
        assert!(refused("volume", volume("", "a")).starts_with("must not set Subpath"));
        let image = Mount {
            image_options: Some(ImageOptions {
                subpath: "../x".into(),
            }),
            ..mount("image", "busybox")
        };
        assert_eq!(refused("image", image), BELOW_VOLUME);
        let whole = wanted(&mount("image", "busybox")).unwrap().point;
        assert_eq!((whole.kind, whole.rw), (MountKind::Image, false));
    }

    #[test]
    fn options_of_memory() {
        let with = |options: TmpfsOptions| Mount {
            tmpfs_options: Some(options),
            ..mount("tmpfs", "")
        };
        let words = |list: &[&[&str]]| {
            let list = list
                .iter()
                .map(|o| o.iter().map(|&w| w.to_owned()).collect());
            TmpfsOptions {
                options: Some(list.collect()),
                ..TmpfsOptions::default()
            }
        };
        let all = TmpfsOptions {
            size_bytes: 4096,
            mode: 0o700,
            ..words(&[&["exec"]])
        };
        let point = wanted(&with(all)).unwrap().point;
        assert_eq!(point.tmpfs, ["size=4096", "mode=700", "exec"]);
        for (options, want) in [
            (words(&[&["wat"]]), "invalid option: wat"),
            (words(&[&["exec", "1"]]), "invalid option: exec"),
            (words(&[&[]]), "invalid option array length"),
        ] {
            assert_eq!(refused("tmpfs", with(options)), want);
        }
    }
}
