//! Device nodes and symbolic links.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use gantry_monitor::plan::{Device, DeviceKind, Plan};
use gantry_monitor::protocol::Stage;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use rustix::io::Errno;

use crate::fault::{At, Step, plain};
use crate::init::bench::file_type;
use crate::init::mounts::Context;
use crate::init::root::Kind;
use crate::init::tree;
use crate::init::userns::Trees;

/// Makes the plan's devices and links. What exists already stays (a bind-mounted `/dev`, say). In a user namespace the
/// nodes in `made` are bound.
pub(crate) fn make(context: &Context<'_>, plan: &Plan, mut made: Trees) -> Step<()> {
    let mut last = None;
    for (n, device) in plan.devices.iter().enumerate() {
        let what = || format!("make device {}", device.path.display());
        if context.user_ns {
            bind(context, device, made.get_mut(n).and_then(Option::take))?;
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
    let number = rustix::fs::makedev(device.major, device.minor);
    match rustix::fs::mknodat(
        dir,
        name,
        file_type(device.kind),
        Mode::from_raw_mode(device.mode),
        number,
    ) {
        Err(Errno::EXIST) if !device.exact || is_there(dir, name, device)? => return Ok(()),
        other => other?,
    }
    if (device.uid, device.gid) != (0, 0) {
        let owner = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(dir, name, Some(owner.0), Some(owner.1), flags)?;
    }
    Ok(())
}

/// Whether what is there already is the device.
fn is_there(dir: &OwnedFd, name: &Path, device: &Device) -> Result<bool, Errno> {
    let there = rustix::fs::statat(dir, name, AtFlags::empty())?;
    let kind = FileType::from_raw_mode(there.st_mode);
    let number = rustix::fs::makedev(device.major, device.minor);
    let same = device.kind == DeviceKind::Fifo || there.st_rdev == number;
    Ok(kind == file_type(device.kind) && same)
}

/// Binds a node that was made outside, or the host's own.
fn bind(context: &Context<'_>, device: &Device, made: Option<OwnedFd>) -> Step<()> {
    let fd = match made {
        Some(fd) => fd,
        None if device.kind == DeviceKind::Fifo => {
            let path = device.path.display();
            let message = format!("make device {path}: not in a user namespace");
            return Err(plain(Stage::Mount, message));
        }
        None if device.host_path.as_os_str().is_empty() => tree::bind(&device.path, false)?,
        None => tree::bind(&device.host_path, false)?,
    };
    context
        .root
        .attach(fd.as_fd(), &device.path)
        .at(Stage::Mount, || {
            format!("bind device {}", device.path.display())
        })
}
