//! Trees of mounts, made for a container and taken out of it again.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use gantry_driver_api::{Mount as Planned, MountPlan};
use gantry_sys::mount::{self, Attributes, Spread};
use gantry_sys::mountns::{MountSpace, Mounted};

use crate::container::record::{MountKind, MountPoint};
use crate::engine::blocking;
use crate::{EngineError, Result};

/// The tree of a mount, dressed as the container will have it; below `apart` are volumes that are file systems of
/// their own.
pub(super) fn tree_of(
    space: &MountSpace,
    point: &MountPoint,
    source: &Path,
    apart: &Path,
) -> std::io::Result<OwnedFd> {
    if point.kind == MountKind::Tmpfs {
        let (uid, gid) = space.owner();
        let mut options = vec![format!("uid={uid}"), format!("gid={gid}")];
        options.extend(tmpfs_options(&point.tmpfs));
        return mount::detached(&MountPlan::single(Planned::Filesystem {
            fstype: "tmpfs".into(),
            source: "tmpfs".into(),
            options,
        }));
    }
    let tree = mount::tree(source, !point.non_recursive)?;
    let (spread, below) = match point.propagation.as_str() {
        "private" => (Spread::Private, false),
        "slave" => (Spread::Slave, false),
        "rslave" => (Spread::Slave, true),
        "shared" => (Spread::Shared, false),
        "rshared" => (Spread::Shared, true),
        _ => (Spread::Private, true),
    };
    let attributes = Attributes {
        spread: Some(spread),
        ..Attributes::default()
    };
    mount::set_attributes(&tree, below, &attributes)?;
    if !point.rw {
        let attributes = Attributes {
            read_only: true,
            ..Attributes::default()
        };
        mount::set_attributes(&tree, !point.read_only_non_recursive, &attributes)?;
    }
    // As at a start: a path of the host's keeps its owners, and so does a file system of its own.
    if point.kind == MountKind::Volume && !source.starts_with(apart) {
        shift(space, &tree)?;
    }
    Ok(tree)
}

/// Shows files to a container with a user namespace of its own as that says.
fn shift(space: &MountSpace, tree: &OwnedFd) -> std::io::Result<()> {
    let Some(users) = space.users() else {
        return Ok(());
    };
    let attributes = Attributes {
        users: Some(users),
        ..Attributes::default()
    };
    mount::set_attributes(tree, true, &attributes)
}

/// Docker's `noexec,nosuid,nodev`, each undone by its opposite.
fn tmpfs_options(given: &[String]) -> Vec<String> {
    const PAIRS: [(&str, &str); 3] = [("noexec", "exec"), ("nosuid", "suid"), ("nodev", "dev")];
    let has = |word: &str| given.iter().any(|g| g == word);
    let defaults = PAIRS.iter().filter(|(_, opposite)| !has(opposite));
    let mut options: Vec<String> = defaults.map(|(word, _)| (*word).to_owned()).collect();
    let is_word = |g: &String| PAIRS.iter().any(|(a, b)| g == a || g == b);
    options.extend(given.iter().filter(|g| !is_word(g)).cloned());
    options
}

pub(super) fn in_words(point: &MountPoint, source: &Path, error: std::io::Error) -> EngineError {
    let what = match point.kind {
        MountKind::Tmpfs => "tmpfs".to_owned(),
        _ => source.display().to_string(),
    };
    let mut message = format!(
        "error mounting {what:?} to rootfs at {:?}: {error}",
        point.destination
    );
    if error.raw_os_error() == Some(rustix::io::Errno::NOTDIR.raw_os_error()) {
        message += ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type";
    }
    match error.kind() {
        std::io::ErrorKind::InvalidInput => EngineError::bad_request(message),
        _ => EngineError::internal(message),
    }
}

/// Takes one mount out of a running container.
pub(super) async fn take_away(space: Arc<MountSpace>, point: MountPoint) -> Result<OwnedFd> {
    blocking(move || {
        let made = point.made;
        let expected = std::fs::metadata(&point.source).ok();
        let is_it = |mounted: &Mounted| is_the_mount(&point, expected.as_ref(), mounted);
        let target = Path::new(&point.destination);
        match space.detach(target, made, is_it) {
            Ok(detached) => Ok(detached.tree),
            Err(error) => {
                let message = format!("cannot remove the mount at {}: ", point.destination);
                match error
                    .raw_os_error()
                    .map(rustix::io::Errno::from_raw_os_error)
                {
                    Some(rustix::io::Errno::BUSY) => Err(EngineError::conflict(
                        message + "it is busy: a process of the container uses it",
                    )),
                    _ => Err(EngineError::conflict(format!("{message}{error}"))),
                }
            }
        }
    })
    .await?
}

/// Whether what is mounted is what the record means: a container that moves its directories about must not have the
/// engine take away what hides the host from it.
fn is_the_mount(
    point: &MountPoint,
    expected: Option<&std::fs::Metadata>,
    mounted: &Mounted,
) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = Path::new(&point.destination);
    let engines = ["/proc", "/sys", "/dev"];
    if engines
        .iter()
        .any(|dir| mounted.path.starts_with(dir) && !place.starts_with(dir))
    {
        return false;
    }
    match (point.kind, expected) {
        (MountKind::Tmpfs, _) => mounted.tmpfs,
        (_, Some(source)) if point.subpath.is_empty() => {
            (source.dev(), source.ino()) == (mounted.device, mounted.inode)
        }
        _ => true,
    }
}
