//! Device nodes and symbolic links.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use gantry_monitor::plan::{Device, DeviceKind, Plan};
use gantry_monitor::protocol::Stage;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use rustix::io::Errno;

use crate::fault::{At, Step, plain};
use crate::init::mounts::Context;
use crate::init::root::Kind;
use crate::init::tree;

/// Makes the plan's devices and links. What exists already stays (a bind-mounted `/dev`, say).
pub(crate) fn make(context: &Context<'_>, plan: &Plan) -> Step<()> {
    let mut last = None;
    for device in &plan.devices {
        let what = || format!("make device {}", device.path.display());
        if context.user_ns {
            bind(context, device)?;
        } else {
            let (dir, name) = parent(context, &device.path, &mut last).at(Stage::Mount, what)?;
            node(dir, name, device).at(Stage::Mount, what)?;
        }
    }
    for (path, target) in &plan.symlinks {
        let what = || format!("make symbolic link {}", path.display());
        let (dir, name) = parent(context, path, &mut last).at(Stage::Mount, what)?;
        match rustix::fs::symlinkat(target, dir, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(crate::fault::failure(Stage::Mount, e, what())),
        }
    }
    Ok(())
}

type Last<'a> = Option<(&'a Path, OwnedFd)>;

/// The directory of a path, which the one before it mostly shares, and the name in it.
fn parent<'p, 'l>(
    context: &Context<'_>,
    path: &'p Path,
    last: &'l mut Last<'p>,
) -> Result<(&'l OwnedFd, &'p Path), Errno> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL);
    };
    if last.as_ref().is_none_or(|(known, _)| *known != dir) {
        *last = Some((dir, context.root.ensure(dir, Kind::Directory)?));
    }
    match last {
        Some((_, fd)) => Ok((fd, Path::new(name))),
        None => Err(Errno::NOENT),
    }
}

fn node(dir: &OwnedFd, name: &Path, device: &Device) -> Result<(), Errno> {
    let kind = match device.kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
        DeviceKind::Fifo => FileType::Fifo,
    };
    let number = rustix::fs::makedev(device.major, device.minor);
    match rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(device.mode), number) {
        Err(Errno::EXIST) => return Ok(()),
        other => other?,
    }
    if (device.uid, device.gid) != (0, 0) {
        let owner = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(dir, name, Some(owner.0), Some(owner.1), flags)?;
    }
    Ok(())
}

fn bind(context: &Context<'_>, device: &Device) -> Step<()> {
    if device.kind == DeviceKind::Fifo {
        let message = format!(
            "make device {}: not in a user namespace",
            device.path.display()
        );
        return Err(plain(Stage::Mount, message));
    }
    let host = if device.host_path.as_os_str().is_empty() {
        &device.path
    } else {
        &device.host_path
    };
    let fd = tree::bind(host, false)?;
    context
        .root
        .attach(fd.as_fd(), &device.path)
        .at(Stage::Mount, || {
            format!("bind device {}", device.path.display())
        })
}
