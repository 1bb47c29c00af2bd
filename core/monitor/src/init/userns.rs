//! Containers with a user namespace of their own: what needs the host's root is done before it is given up.
//!
//! The process that the monitor cloned opens the trees that the container mounts (mapped, where the plan says so, to the
//! container's numbers), makes its device nodes, enters the user namespace and clones the real first process, as a child
//! of the monitor, into all other new namespaces at once, so that they belong to the user namespace.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use gantry_monitor::plan::{IdMap, Launch, MountSource, Plan, Rlimit};
use gantry_monitor::protocol::Stage;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::fault::{At, Step, failure, plain};
use crate::init::bench::{self, Bench};
use crate::init::root::Root;
use crate::init::{Inherited, clone_flags, tree};
use crate::sync::{self, Packet};
use crate::sys::{self, Fork};

/// Detached trees made with the host's privileges.
#[derive(Debug)]
pub(crate) struct Sources {
    root: Vec<OwnedFd>,
    /// By the number of the mount in the plan.
    mounts: Vec<Option<OwnedFd>>,
    /// By the number of the device in the plan; none where nodes cannot be made.
    pub(crate) devices: Vec<Option<OwnedFd>>,
}

/// Opens the plan's sources and goes on as root of the user namespace, in the container's first process.
pub(crate) fn enter(
    inherited: &Inherited<'_>,
    plan: &Plan,
    userns: BorrowedFd<'_>,
) -> Step<Sources> {
    let launch = inherited.launch;
    let owner = owner(&launch.uid_map, &launch.gid_map);
    let sources = Sources::open(plan, launch, userns, owner)?;
    if let (Some(fds), Some(owner)) = (&inherited.stdio, owner) {
        own(fds, owner);
    }
    plan.process.rlimits.iter().for_each(raise_limit);
    let what = || "clone the container's process into a user namespace".to_owned();
    sys::setns(userns, libc::CLONE_NEWUSER).at(Stage::Namespace, what)?;
    let flags = clone_flags(&launch.namespaces) | libc::CLONE_PARENT as u64;
    let (told, teller) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at(Stage::Namespace, what)?;
    match sys::clone3(flags, None).at(Stage::Namespace, what)? {
        Fork::Parent(pid) => {
            sync::send(inherited.sync.as_fd(), &Packet::Pid(pid));
            sys::exit(0)
        }
        // Nothing of its own may reach the monitor before that packet: until the teller's last end closes.
        Fork::Child => drop(teller),
    }
    let _ = rustix::io::read(&told, &mut [0; 1]);
    drop(told);
    sys::set_groups(&[]).at(Stage::Namespace, || "setgroups".into())?;
    sys::set_ids(0, 0).at(Stage::Namespace, || {
        "become root of the user namespace".into()
    })?;
    Ok(sources)
}

impl Sources {
    fn open(
        plan: &Plan,
        launch: &Launch,
        userns: BorrowedFd<'_>,
        owner: Option<(u32, u32)>,
    ) -> Step<Self> {
        let mut mounts = Vec::with_capacity(plan.mounts.len());
        for mount in &plan.mounts {
            let (tree, recursive) = match &mount.source {
                MountSource::Bind { source, recursive } => {
                    (tree::bind(source, *recursive)?, *recursive)
                }
                MountSource::Tree(plan) => (tree::of_plan(plan)?, true),
                MountSource::Filesystem { .. } | MountSource::Cgroup => {
                    mounts.push(None);
                    continue;
                }
            };
            if mount.idmapped {
                let what = || format!("map the IDs of {}", mount.target.display());
                idmap(tree.as_fd(), userns, recursive).map_err(|e| cannot_map(e, what()))?;
            }
            mounts.push(Some(tree));
        }
        let mut root = Vec::new();
        let mut mapped = Vec::new();
        if plan.idmapped_root {
            mapped = bench::mapped_root(plan, userns)?;
        } else {
            root = tree::detached_root(plan)?;
        }
        // From here on this process mounts where nobody else sees it, and the bench covers a path: what is needed of the
        // host, or shared with it, is cloned by now.
        let bench = Bench::open(&launch.socket_dir)?;
        for (n, layer) in mapped.into_iter().enumerate() {
            let owner = owner.ok_or_else(|| plain(Stage::Plan, "no root is mapped"))?;
            root.push(layer.mount(&bench, n, owner)?);
        }
        Ok(Self {
            root,
            mounts,
            devices: bench::devices(&bench, plan, launch)?,
        })
    }

    /// Attaches the root over `/`; returns it and the other trees, those of mounts and those of devices.
    pub(crate) fn attach(self) -> Step<(Root, Trees, Trees)> {
        let mut root = None;
        for tree in self.root {
            root = Some(tree::attach_root(tree, Path::new("/"))?);
        }
        root.ok_or_else(tree::no_root)
            .map(|root| (root, self.mounts, self.devices))
    }
}

/// Trees that are there already, by their number in the plan.
pub(crate) type Trees = Vec<Option<OwnedFd>>;

/// Maps the IDs of a detached mount: what is 0 on the disk is root of the user namespace.
pub(crate) fn idmap(
    tree: BorrowedFd<'_>,
    userns: BorrowedFd<'_>,
    recursive: bool,
) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let attr = sys::MountAttr {
        set: MOUNT_ATTR_IDMAP,
        userns_fd: userns.as_raw_fd() as u64,
        ..sys::MountAttr::default()
    };
    sys::mount_setattr(tree, recursive, &attr)
}

/// The failure of [`idmap`], with what usually is the reason.
pub(crate) fn cannot_map(errno: Errno, what: String) -> gantry_monitor::protocol::Failure {
    let why = match errno {
        Errno::INVAL | Errno::NOSYS => ": its file system does not support ID-mapped mounts",
        _ => "",
    };
    failure(Stage::Mount, errno, format!("{what}{why}"))
}

/// A new user namespace with these maps and, when asked for, a network namespace that belongs to it. They live as long
/// as the descriptors.
pub(crate) fn make(
    uid_map: &[IdMap],
    gid_map: &[IdMap],
    network: bool,
) -> Step<(OwnedFd, Option<OwnedFd>)> {
    let what = || "make a user namespace".to_owned();
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at(Stage::Namespace, what)?;
    let network_flag = if network { libc::CLONE_NEWNET } else { 0 };
    let flags = libc::CLONE_NEWUSER | network_flag;
    let child = match sys::clone3(flags as u64, None).at(Stage::Namespace, what)? {
        Fork::Child => {
            drop(write);
            // Until the parent has what it wants, or is gone.
            let _ = rustix::io::read(&read, &mut [0; 1]);
            sys::exit(0)
        }
        Fork::Parent(pid) => pid,
    };
    let open = |name: &str| {
        let path = format!("/proc/{child}/ns/{name}");
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .at(Stage::Namespace, what)
    };
    let made = || -> Step<(OwnedFd, Option<OwnedFd>)> {
        write_map(child, "uid_map", uid_map)?;
        write_map(child, "gid_map", gid_map)?;
        Ok((open("user")?, network.then(|| open("net")).transpose()?))
    };
    let made = made();
    drop(write);
    sys::wait(child);
    made
}

fn write_map(process: i32, file: &str, map: &[IdMap]) -> Step<()> {
    let path = format!("/proc/{process}/{file}");
    let lines: String = map
        .iter()
        .map(|m| format!("{} {} {}\n", m.inside, m.outside, m.count))
        .collect();
    let write = || {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path.as_str(), flags, Mode::empty())?;
        rustix::io::write(&fd, lines.as_bytes())
    };
    write()
        .at(Stage::Namespace, || format!("write {file}"))
        .map(drop)
}

/// Lifts a hard limit while the host's privileges last; root of the user namespace may only lower it.
fn raise_limit(limit: &Rlimit) {
    if let Ok((soft, hard)) = sys::rlimit(limit.resource, None)
        && limit.hard > hard
    {
        // What may not be raised is left where it is: see `process::set_rlimit`.
        let _ = sys::rlimit(limit.resource, Some((soft, limit.hard)));
    }
}

/// The host's number of an ID inside.
pub(crate) fn outside(map: &[IdMap], inside: u32) -> Option<u32> {
    map.iter().find_map(|m| {
        let offset = inside.checked_sub(m.inside).filter(|o| *o < m.count)?;
        m.outside.checked_add(offset)
    })
}

/// The host's numbers of root in a user namespace with these maps.
pub(crate) fn owner(uid_map: &[IdMap], gid_map: &[IdMap]) -> Option<(u32, u32)> {
    Some((outside(uid_map, 0)?, outside(gid_map, 0)?))
}

/// Gives streams to the root of a user namespace, who may then give them to another user of it.
pub(crate) fn own(fds: &[OwnedFd; 3], (uid, gid): (u32, u32)) {
    for fd in fds {
        let is_pipe = rustix::fs::fstat(fd).is_ok_and(|s| {
            rustix::fs::FileType::from_raw_mode(s.st_mode) == rustix::fs::FileType::Fifo
        });
        if is_pipe {
            // Without it only opening the stream anew by its path fails.
            let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_inside_and_outside() {
        let map = |inside, outside, count| IdMap {
            inside,
            outside,
            count,
        };
        let maps = [map(0, 1000, 1), map(1, 100_000, 10)];
        assert_eq!(outside(&maps, 0), Some(1000));
        assert_eq!(outside(&maps, 10), Some(100_009));
        assert_eq!(outside(&maps, 11), None);
        assert_eq!(owner(&maps, &maps[1..]), None);
    }

    #[test]
    fn namespaces_outlive_the_process_that_made_them() {
        let map = [IdMap {
            inside: 0,
            outside: 300_000,
            count: 10,
        }];
        let (user, net) = make(&map, &map, true).unwrap();
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        let own = |name: &str| std::fs::metadata(format!("/proc/self/ns/{name}")).unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_ne!(inode(&user), own("user").ino());
        assert_ne!(inode(&net.unwrap()), own("net").ino());
        assert!(make(&[], &[], false).is_err());
    }
}
