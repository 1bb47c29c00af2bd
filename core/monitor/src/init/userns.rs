//! Containers with a user namespace of their own: what needs the host's root is done before it is given up.
//!
//! The process that the monitor cloned opens the trees that the container mounts, then clones the real first process,
//! as a child of the monitor, into all new namespaces at once, so that they belong to the new user namespace.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use gantry_monitor::plan::{IdMap, MountSource, Plan};
use gantry_monitor::protocol::Stage;
use rustix::fs::{Gid, Uid};

use crate::fault::{At, Step};
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
}

/// Opens the plan's sources and goes on as root of the new user namespace, in the container's first process.
pub(crate) fn enter(inherited: &Inherited<'_>, plan: &Plan) -> Step<Sources> {
    let sources = Sources::open(plan)?;
    let launch = inherited.launch;
    if let (Some(fds), Some(owner)) = (&inherited.stdio, owner(&launch.uid_map, &launch.gid_map)) {
        own(fds, owner);
    }
    let flags = clone_flags(&launch.namespaces) | libc::CLONE_PARENT as u64;
    let what = || "clone the container's process into a user namespace".to_owned();
    match sys::clone3(flags, None).at(Stage::Namespace, what)? {
        Fork::Parent(pid) => {
            sync::send(inherited.sync.as_fd(), &Packet::Pid(pid));
            sys::exit(0)
        }
        Fork::Child => {}
    }
    // The monitor writes the maps meanwhile.
    match sync::receive(inherited.sync.as_fd()) {
        Some(Packet::Go) => {}
        _ => sys::exit(1),
    }
    sys::set_groups(&[]).at(Stage::Namespace, || "setgroups".into())?;
    sys::set_ids(0, 0).at(Stage::Namespace, || {
        "become root of the user namespace".into()
    })?;
    Ok(sources)
}

impl Sources {
    fn open(plan: &Plan) -> Step<Self> {
        let open = |source: &MountSource| match source {
            MountSource::Bind { source, recursive } => tree::bind(source, *recursive).map(Some),
            MountSource::Tree(plan) => tree::of_plan(plan).map(Some),
            MountSource::Filesystem { .. } | MountSource::Cgroup => Ok(None),
        };
        Ok(Self {
            root: tree::detached_root(plan)?,
            mounts: plan
                .mounts
                .iter()
                .map(|m| open(&m.source))
                .collect::<Step<_>>()?,
        })
    }

    /// Attaches the root over `/`; returns it and the other trees.
    pub(crate) fn attach(self) -> Step<(Root, Vec<Option<OwnedFd>>)> {
        let mut root = None;
        for tree in self.root {
            root = Some(tree::attach_root(tree, Path::new("/"))?);
        }
        root.ok_or_else(tree::no_root)
            .map(|root| (root, self.mounts))
    }
}

/// The host's numbers of root in a user namespace with these maps.
pub(crate) fn owner(uid_map: &[IdMap], gid_map: &[IdMap]) -> Option<(u32, u32)> {
    let root = |map: &[IdMap]| {
        map.iter()
            .find(|m| m.inside == 0 && m.count > 0)
            .map(|m| m.outside)
    };
    Some((root(uid_map)?, root(gid_map)?))
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
