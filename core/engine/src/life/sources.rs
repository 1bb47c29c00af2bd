//! Where a container's mounts come from: what must be so of a bind's source, parts of volumes, images.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_driver_api::{Mount, MountPlan};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};

use crate::container::record::{MountPoint, Record};
use crate::create::images::view_key;
use crate::engine::blocking;
use crate::{Engine, EngineError, Result};

impl Engine {
    /// Mounts an image where the container finds it.
    pub(super) async fn image_source(
        &self,
        record: &Record,
        point: &MountPoint,
    ) -> Result<PathBuf> {
        let images = self.services.images.clone();
        let key = view_key(&record.id, point);
        let target = self.volume_mounts(&record.id).join(&key);
        let point = point.clone();
        let outcome = blocking(move || {
            let plan = images.container_mounts(&point.driver, &key)?;
            place(&plan, &target).map_err(|e| {
                EngineError::internal(format!("failed to mount image {}: {e}", point.source))
            })?;
            // A view does not change: a path that was inside stays inside.
            let part = part(&target, &point.subpath).and_then(|fd| real_path(&fd));
            part.map_err(|e| no_access(&point.subpath, "image", &point.source, &e))
        });
        outcome.await?
    }
}

/// A part of a volume, mounted by descriptor: whoever writes to the volume meanwhile cannot lead the mount out of it.
///
/// # Errors
/// Parts that there are not, and links that lead out.
pub(super) fn volume_part(root: &Path, point: &MountPoint, target: &Path) -> Result<()> {
    let mounted = part(root, &point.subpath).and_then(|fd| {
        let plan = MountPlan::single(Mount::Bind {
            source: format!("/proc/self/fd/{}", fd.as_raw_fd()).into(),
            read_only: false,
        });
        match fd_is_directory(&fd)? {
            true => place(&plan, target),
            false => {
                std::fs::create_dir_all(target.parent().unwrap_or(target))?;
                std::fs::File::create(target)?;
                gantry_sys::mount::detach(target)?;
                gantry_sys::mount::attach(&plan, target)
            }
        }
    });
    mounted.map_err(|e| no_access(&point.subpath, "volume", &point.name, &e))
}

fn no_access(part: &str, what: &str, name: &str, error: &std::io::Error) -> EngineError {
    EngineError::bad_request(format!(
        "cannot access path {part} of {what} {name}: {error}"
    ))
}

/// Mounts a plan at a directory that is made for it.
fn place(plan: &MountPlan, target: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(target)?;
    gantry_sys::mount::detach(target)?;
    gantry_sys::mount::attach(plan, target)
}

/// What is at a path below `root`; links never lead out.
fn part(root: &Path, below: &str) -> std::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let base = rustix::fs::openat(CWD, root, flags | OFlags::DIRECTORY, Mode::empty())?;
    if below.is_empty() {
        return Ok(base);
    }
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(
        &base,
        below,
        flags,
        Mode::empty(),
        how,
    )?)
}

fn fd_is_directory(fd: &OwnedFd) -> std::io::Result<bool> {
    let mode = rustix::fs::fstat(fd)?.st_mode;
    Ok(rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::Directory)
}

fn real_path(fd: &OwnedFd) -> std::io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// A bind that is to see later mounts of the host needs a source that spreads them.
///
/// # Errors
/// Docker's refusals.
pub(super) fn check_propagation(point: &MountPoint, source: &Path) -> Result<()> {
    let (shared, wanted) = match point.propagation.as_str() {
        "shared" | "rshared" => (true, "shared"),
        "slave" | "rslave" => (false, "shared or slave"),
        _ => return Ok(()),
    };
    let looking = |e: std::io::Error| EngineError::io(format!("look at {}", point.source), &e);
    let stat = rustix::fs::statx(CWD, source, AtFlags::empty(), StatxFlags::MNT_ID);
    let id = stat.map_err(|e| looking(e.into()))?.stx_mnt_id;
    let table = std::fs::read_to_string("/proc/self/mountinfo").map_err(looking)?;
    let Some(mount) = MountLine::find(&table, id) else {
        // Mounted away meanwhile: the kernel will say what there is.
        return Ok(());
    };
    if mount.shared || (mount.slave && !shared) {
        return Ok(());
    }
    Err(EngineError::internal(format!(
        "path {} is mounted on {} but it is not a {wanted} mount",
        point.source, mount.place
    )))
}

/// A line of proc_pid_mountinfo(5).
#[derive(Debug, PartialEq)]
struct MountLine<'a> {
    place: &'a str,
    shared: bool,
    slave: bool,
}

impl<'a> MountLine<'a> {
    fn find(table: &'a str, id: u64) -> Option<Self> {
        table.lines().find_map(|line| {
            let mut fields = line.split(' ');
            if fields.next()?.parse() != Ok(id) {
                return None;
            }
            let place = fields.nth(3)?;
            let optional: Vec<&str> = fields.skip(1).take_while(|field| *field != "-").collect();
            let has = |word: &str| optional.iter().any(|field| field.starts_with(word));
            Some(Self {
                place,
                shared: has("shared:"),
                slave: has("master:"),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::MountKind;
    use crate::create::mounts::point;

    #[test]
    fn lines_of_mounts() {
        let table = "20 1 8:1 / / rw shared:1 - ext4 /dev/sda rw\n21 20 8:2 / /a rw,noatime - ext4 /dev/sdb rw\n\
                     22 20 8:3 /x /b rw master:3 propagate_from:2 - ext4 /dev/sdc rw\n";
        let find = |id| MountLine::find(table, id).map(|m| (m.place, m.shared, m.slave));
        assert_eq!(find(20), Some(("/", true, false)));
        assert_eq!(find(21), Some(("/a", false, false)));
        assert_eq!(find(22), Some(("/b", false, true)));
        assert_eq!(find(2), None);
    }

    #[test]
    fn parts_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("volume");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink("a", root.join("in")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        let path = |below: &str| part(&root, below).and_then(|fd| real_path(&fd));
        assert_eq!(path("").unwrap(), root.canonicalize().unwrap());
        assert!(path("in/b").unwrap().ends_with("volume/a/b"));
        assert!(path("out").is_err() && path("a/../../x").is_err() && path("none").is_err());
    }

    #[test]
    fn a_private_source_does_not_spread() {
        let mut bind = point(MountKind::Bind, "/x".into());
        // The kernel keeps procfs where nobody shares it with the system's first namespace.
        bind.source = "/proc".into();
        assert!(check_propagation(&bind, Path::new("/proc")).is_ok());
        bind.propagation = "rshared".into();
        let shared = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let shared = shared
            .lines()
            .any(|l| l.contains(" /proc ") && l.contains(" shared:"));
        assert_eq!(check_propagation(&bind, Path::new("/proc")).is_ok(), shared);
    }
}
