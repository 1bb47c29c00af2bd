//! Overlay file systems: by the new mount API where it can, by `mount(2)` on kernels before 6.5 and for long paths.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_driver_api::Mount as Layer;
use gantry_monitor::options::attr;
use gantry_monitor::plan::Mount;
use gantry_monitor::protocol::Stage;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, MountFlags};

use crate::fault::{At, Step, failure, plain};
use crate::init::mounts::make_read_only;
use crate::init::root::DIRECTORY;
use crate::init::tree::{create, refused, set_options};

/// The longest value that `fsconfig(2)` takes.
const MAX_VALUE: usize = 255;

/// The longest options that `mount(2)` takes: a page.
const MAX_OPTIONS: usize = 4096;

/// An overlay. `NAMETOOLONG` when only the old system call can make it ([`legacy_overlay`]).
pub(crate) fn overlay(
    lower: &[PathBuf],
    upper: Option<(&PathBuf, &PathBuf)>,
    options: &[String],
) -> Step<OwnedFd> {
    let too_long = || failure(Stage::Mount, Errno::NAMETOOLONG, "mount overlay".into());
    let what = || "mount overlay".to_owned();
    // Kernels before 6.5 take the words below one by one, and then refuse the whole.
    if kernel_version() < (6, 5) {
        return Err(too_long());
    }
    let fs =
        rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).at(Stage::Mount, what)?;
    let set = |key: &str, path: &Path| -> Step<()> {
        if path.as_os_str().len() > MAX_VALUE {
            return Err(too_long());
        }
        rustix::mount::fsconfig_set_string(&fs, key, path)
            .map_err(|e| refused(&fs, e, format!("mount overlay: {key} {}", path.display())))
    };
    for dir in lower {
        set("lowerdir+", dir)?;
    }
    if let Some((upper, work)) = upper {
        set("upperdir", upper)?;
        set("workdir", work)?;
    }
    let mount = Mount::parse("overlay", "overlay", "/", options);
    set_options(&fs, "overlay", &mount.data)?;
    create(&fs, mount.attr_set).map_err(|e| refused(&fs, e, what()))
}

/// Major and minor version of the running kernel.
fn kernel_version() -> (u32, u32) {
    let uts = rustix::system::uname();
    let release = uts.release().to_string_lossy();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// An overlay through `mount(2)`, whose options may be longer; attached at `staging`.
pub(crate) fn legacy_overlay(layer: &Layer, staging: &Path) -> Step<OwnedFd> {
    let Layer::Overlay {
        lower,
        upper,
        work,
        options,
    } = layer
    else {
        return Err(plain(Stage::Mount, "path too long to mount"));
    };
    let what = || "mount overlay".to_owned();
    // Paths are given relative to what they share, or the options of many layers would exceed a page.
    let base = common_base(lower.iter().chain(upper).chain(work));
    rustix::process::chdir(&base).at(Stage::Mount, what)?;
    let mount = Mount::parse("overlay", "overlay", "/", options);
    let data = legacy_data(
        &base,
        lower,
        upper.as_deref().zip(work.as_deref()),
        &mount.data,
    );
    if data.len() >= MAX_OPTIONS {
        return Err(plain(
            Stage::Mount,
            format!("mount overlay: too many layers ({})", lower.len()),
        ));
    }
    let mount_data =
        std::ffi::CString::new(data).map_err(|_| failure(Stage::Mount, Errno::INVAL, what()))?;
    // Staging is opened first, for it may be a relative of the working directory.
    let target = rustix::fs::open(staging, DIRECTORY, Mode::empty()).at(Stage::Mount, what)?;
    let target = format!("/proc/self/fd/{}", target.as_raw_fd());
    let flags = MountFlags::empty();
    rustix::mount::mount(
        "overlay",
        target.as_str(),
        "overlay",
        flags,
        mount_data.as_c_str(),
    )
    .at(Stage::Mount, what)?;
    let fd = rustix::fs::open(staging, DIRECTORY, Mode::empty()).at(Stage::Mount, what)?;
    if mount.attr_set & attr::RDONLY != 0 {
        make_read_only(fd.as_fd(), false).at(Stage::Mount, what)?;
    }
    Ok(fd)
}

/// The option string of `mount(2)`: `:` separates layers and `,` options, so both are escaped in names.
fn legacy_data(
    base: &Path,
    lower: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    options: &[String],
) -> String {
    let name = |path: &Path, layer: bool| {
        let path = path.strip_prefix(base).unwrap_or(path).to_string_lossy();
        let path = path.replace('\\', "\\\\").replace(',', "\\,");
        if layer {
            path.replace(':', "\\:")
        } else {
            path
        }
    };
    let layers: Vec<String> = lower.iter().map(|l| name(l, true)).collect();
    let mut data = format!("lowerdir={}", layers.join(":"));
    if let Some((upper, work)) = upper {
        data += &format!(
            ",upperdir={},workdir={}",
            name(upper, false),
            name(work, false)
        );
    }
    for option in options {
        data.push(',');
        data.push_str(option);
    }
    data
}

fn common_base<'a>(mut paths: impl Iterator<Item = &'a PathBuf>) -> PathBuf {
    let first = paths.next().and_then(|p| p.parent());
    let mut base = first.unwrap_or(Path::new("/")).to_owned();
    for path in paths {
        while !path.starts_with(&base) || *path == base {
            if !base.pop() {
                return PathBuf::from("/");
            }
        }
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_options_are_relative_and_escaped() {
        let lower = [PathBuf::from("/s/a:b/fs"), PathBuf::from("/s/2/fs")];
        let (upper, work) = (PathBuf::from("/s/3/u,p"), PathBuf::from("/s/3/w"));
        let base = common_base(lower.iter().chain([&upper, &work]));
        assert_eq!(base, Path::new("/s"));
        let data = legacy_data(&base, &lower, Some((&upper, &work)), &["volatile".into()]);
        assert_eq!(
            data,
            r"lowerdir=a\:b/fs:2/fs,upperdir=3/u\,p,workdir=3/w,volatile"
        );
        assert_eq!(common_base([PathBuf::from("/x")].iter()), Path::new("/"));
    }
}
