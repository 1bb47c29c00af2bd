//! Mounts of a container, made and taken away while it runs or for its next start.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_driver_api::{Mount as Planned, MountPlan};
use gantry_model::container::{ContainerConfig, HostConfig, Mount};
use gantry_store::Batch;
use gantry_sys::mount::{self, Attributes, Spread};
use gantry_sys::mountns::{MountSpace, Mounted};
use gantry_wire::MountsUpdate;

use crate::container::Container;
use crate::container::record::{MountKind, MountPoint, Record};
use crate::create::mounts::{Wanted, clean, collect};
use crate::engine::blocking;
use crate::{Engine, EngineError, Result};

/// What was done to the mounts of a container, in order.
pub(super) struct Change {
    /// The container's namespace, while it runs.
    space: Option<Arc<MountSpace>>,
    removed: Vec<Removed>,
    added: Vec<Added>,
    /// As they were asked for.
    wishes: Vec<Mount>,
}

struct Removed {
    point: MountPoint,
    /// The tree, while the container runs, to be attached again.
    tree: Option<OwnedFd>,
}

struct Added {
    point: MountPoint,
    /// Made on the way.
    new_volume: bool,
    /// In the container by now.
    attached: bool,
}

impl Engine {
    /// Changes mounts, all or nothing; what is removed goes first. The container's turn is held.
    pub(super) async fn change_mounts(
        &self,
        container: &Arc<Container>,
        wish: &MountsUpdate,
    ) -> Result<Change> {
        let record = container.record();
        let removed = to_remove(&record, &wish.remove)?;
        let wanted = to_add(&record, &wish.add, &removed)?;
        let space = match record.state.phase.has_process() {
            true => {
                let pid = record.state.pid;
                let space = blocking(move || MountSpace::of(pid)).await?;
                Some(Arc::new(space.map_err(|e| {
                    EngineError::internal(format!("cannot enter the container's mounts: {e}"))
                })?))
            }
            false => None,
        };
        let mut change = Change {
            space,
            removed: Vec::new(),
            added: Vec::new(),
            wishes: wish.add.clone(),
        };
        let outcome = self
            .make_change(&record, &mut change, removed, wanted)
            .await;
        match outcome {
            Ok(()) => Ok(change),
            Err(error) => {
                change.undo(self, &record).await;
                Err(error)
            }
        }
    }

    async fn make_change(
        &self,
        record: &Record,
        change: &mut Change,
        removed: Vec<MountPoint>,
        wanted: Vec<Wanted>,
    ) -> Result<()> {
        for point in removed {
            let tree = match &change.space {
                Some(space) => Some(take_away(space.clone(), point.clone()).await?),
                None => None,
            };
            change.removed.push(Removed { point, tree });
        }
        for wanted in wanted {
            let (point, new_volume) = match wanted.point.kind {
                MountKind::Volume => self.make_volume(record, wanted).await?,
                _ => (wanted.point, false),
            };
            change.added.push(Added {
                point,
                new_volume,
                attached: false,
            });
            let Some(added) = change.added.last_mut() else {
                continue;
            };
            if let Some(space) = &change.space {
                added.point.made = self.bring_in(record, space, &added.point).await?;
                added.attached = true;
            } else if added.point.kind == MountKind::Volume && !added.point.no_copy {
                let root = self.root(record).await?;
                self.fill(record, &added.point, &root).await?;
            }
        }
        Ok(())
    }

    /// Mounts one thing in a running container; returns whether its place had to be made.
    async fn bring_in(
        &self,
        record: &Record,
        space: &Arc<MountSpace>,
        point: &MountPoint,
    ) -> Result<bool> {
        let source = match point.kind {
            MountKind::Bind => crate::life::bind_source(point)?,
            MountKind::Volume => {
                let source = self.volume_source(record, point).await?;
                self.fill_running(space, point, &source).await?;
                source
            }
            MountKind::Tmpfs => PathBuf::new(),
            MountKind::Image => return Err(no_image_mounts()),
        };
        let (space, point) = (space.clone(), point.clone());
        blocking(move || {
            let target = Path::new(&point.destination);
            let attach = || space.attach(tree_of(&space, &point, &source)?, target);
            attach().map_err(|error| in_words(&point, &source, error))
        })
        .await?
    }

    /// Copies what the container has at the volume's place into the volume, when that is empty.
    async fn fill_running(
        &self,
        space: &Arc<MountSpace>,
        point: &MountPoint,
        source: &Path,
    ) -> Result<()> {
        if point.no_copy || !point.subpath.is_empty() {
            return Ok(());
        }
        let (space, source) = (space.clone(), source.to_owned());
        let destination = point.destination.clone();
        let filled = blocking(move || {
            let volume = mount::tree(&source, false)?;
            shift(&space, &volume, false)?;
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
            let volume = gantry_sys::inroot::open(
                &volume,
                Path::new("."),
                flags,
                rustix::fs::Mode::empty(),
            )?;
            gantry_volume::copy_up(space.root(), &destination, volume.as_fd())
        })
        .await?;
        let name = point.name.clone();
        filled.map_err(|source| gantry_volume::VolumeError::Copy { name, source }.into())
    }
}

impl Engine {
    /// The container does not use a volume any more.
    async fn let_go_of_volume(&self, record: &Record, point: &MountPoint, running: bool) {
        let volumes = &self.services.volumes;
        if running {
            let own = self.volume_mounts(&record.id).join(&point.name);
            let unmounted = blocking(move || match own.symlink_metadata() {
                Ok(_) => mount::detach(&own).and_then(|()| std::fs::remove_dir(&own)),
                Err(_) => Ok(()),
            });
            if let Err(error) | Ok(Err(error)) = unmounted
                .await
                .map(|done| done.map_err(|e| EngineError::io("unmount a volume", &e)))
            {
                tracing::warn!(volume = point.name, %error, "cannot give back a volume's mount");
            }
            if let Err(error) = volumes.unmount(&point.name, &record.id).await {
                tracing::warn!(volume = point.name, %error, "cannot give back a volume");
            }
        }
        volumes.release(&point.name, &record.id);
    }
}

impl Change {
    /// Says in the record what is so by now.
    pub(super) fn apply(&self, record: &mut Record) {
        for Removed { point, .. } in &self.removed {
            let target = &point.destination;
            record.mounts.retain(|m| m.destination != *target);
            forget(&mut record.host_config, target);
        }
        record
            .mounts
            .extend(self.added.iter().map(|a| a.point.clone()));
        if !self.wishes.is_empty() {
            let mounts = record.host_config.mounts.get_or_insert_default();
            mounts.extend(self.wishes.iter().cloned());
        }
    }

    /// Takes everything back, the last first.
    pub(super) async fn undo(self, engine: &Engine, before: &Record) {
        let failed = |point: &MountPoint, error: &dyn std::fmt::Display| {
            tracing::error!(container = %before.id, target = point.destination, %error, "cannot undo a change of mounts");
        };
        for added in self.added.into_iter().rev() {
            let point = added.point;
            if added.attached
                && let Some(space) = &self.space
                && let Err(error) = take_away(space.clone(), point.clone()).await
            {
                failed(&point, &error);
            }
            if point.kind == MountKind::Volume && !is_used(&before.mounts, &point) {
                engine
                    .let_go_of_volume(before, &point, self.space.is_some())
                    .await;
                if added.new_volume
                    && let Err(error) = engine.services.volumes.remove(&point.name, true).await
                {
                    failed(&point, &error);
                }
            }
        }
        for Removed { point, tree } in self.removed.into_iter().rev() {
            let (Some(space), Some(tree)) = (self.space.clone(), tree) else {
                continue;
            };
            let target = PathBuf::from(&point.destination);
            match blocking(move || space.attach(tree, &target)).await {
                Err(error) => failed(&point, &error),
                Ok(Err(error)) => failed(&point, &error),
                Ok(Ok(_)) => {}
            }
        }
    }

    /// Gives volumes back that are no longer used. `after` is the record as it is kept.
    pub(super) async fn finish(self, engine: &Engine, after: &Record) {
        for Removed { point, tree } in self.removed {
            drop(tree);
            if point.kind != MountKind::Volume || is_used(&after.mounts, &point) {
                continue;
            }
            if point.anonymous {
                let mut batch = Batch::new();
                let disowned = engine
                    .services
                    .volumes
                    .disown(std::iter::once(point.name.clone()), &mut batch);
                let kept = match disowned {
                    Ok(()) => engine
                        .services
                        .store
                        .commit(batch)
                        .await
                        .map_err(|e| e.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                if let Err(error) = kept {
                    tracing::warn!(
                        volume = point.name,
                        error,
                        "cannot keep an anonymous volume"
                    );
                }
            }
            engine
                .let_go_of_volume(after, &point, self.space.is_some())
                .await;
        }
    }
}

/// Whether a volume is mounted elsewhere in the container.
fn is_used(mounts: &[MountPoint], point: &MountPoint) -> bool {
    mounts
        .iter()
        .any(|m| m.kind == MountKind::Volume && m.name == point.name)
}

fn no_image_mounts() -> EngineError {
    EngineError::bad_request("an image can be mounted only when a container is created")
}

/// The mounts at these paths, those inside others first.
fn to_remove(record: &Record, paths: &[String]) -> Result<Vec<MountPoint>> {
    let mut points: Vec<MountPoint> = Vec::new();
    for path in paths {
        let target = clean(path);
        let found = record.mounts.iter().find(|m| m.destination == target);
        let found = found.filter(|_| path.starts_with('/')).ok_or_else(|| {
            EngineError::bad_request(format!("container {} has no mount at {path}", record.name))
        })?;
        if found.kind == MountKind::Image {
            return Err(no_image_mounts());
        }
        if !points.iter().any(|p| p.destination == target) {
            points.push(found.clone());
        }
    }
    for point in &points {
        let inside = format!("{}/", point.destination);
        let other = record.mounts.iter().find(|m| {
            m.destination.starts_with(&inside)
                && !points.iter().any(|p| p.destination == m.destination)
        });
        if let Some(other) = other {
            return Err(EngineError::conflict(format!(
                "cannot remove the mount at {}: {} is mounted inside of it",
                point.destination, other.destination
            )));
        }
    }
    points.sort_by_key(|p| std::cmp::Reverse(Path::new(&p.destination).components().count()));
    Ok(points)
}

/// New mounts, checked as at creation, those inside others last.
fn to_add(record: &Record, mounts: &[Mount], removed: &[MountPoint]) -> Result<Vec<Wanted>> {
    let host = HostConfig {
        mounts: Some(mounts.to_vec()),
        volume_driver: record.host_config.volume_driver.clone(),
        ..HostConfig::default()
    };
    let none = |name: &str| Err(EngineError::not_found(format!("No such container: {name}")));
    let mut wanted = collect(&ContainerConfig::default(), &host, none)?;
    for Wanted { point, .. } in &wanted {
        if point.kind == MountKind::Image {
            return Err(no_image_mounts());
        }
        let target = &point.destination;
        let stays = |m: &&MountPoint| !removed.iter().any(|r| r.destination == m.destination);
        if record
            .mounts
            .iter()
            .filter(stays)
            .any(|m| m.destination == *target)
        {
            return Err(EngineError::bad_request(format!(
                "Duplicate mount point: {target}"
            )));
        }
    }
    wanted.sort_by_key(|w| Path::new(&w.point.destination).components().count());
    Ok(wanted)
}

/// Forgets how a mount was asked for.
fn forget(host: &mut HostConfig, target: &str) {
    let is_target = |path: &str| clean(path) == *target;
    if let Some(mounts) = &mut host.mounts {
        mounts.retain(|m| !is_target(&m.target));
    }
    if let Some(binds) = &mut host.binds {
        binds.retain(|bind| !is_target(bind.split(':').nth(1).unwrap_or(bind)));
    }
    host.tmpfs.retain(|path, _| !is_target(path));
}

/// The tree of a mount, dressed as the container will have it.
fn tree_of(space: &MountSpace, point: &MountPoint, source: &Path) -> std::io::Result<OwnedFd> {
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
    shift(space, &tree, true)?;
    Ok(tree)
}

/// Shows files to a container with a user namespace of its own as that says.
fn shift(space: &MountSpace, tree: &OwnedFd, below: bool) -> std::io::Result<()> {
    let Some(users) = space.users() else {
        return Ok(());
    };
    let attributes = Attributes {
        users: Some(users),
        ..Attributes::default()
    };
    mount::set_attributes(tree, below, &attributes)
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

fn in_words(point: &MountPoint, source: &Path, error: std::io::Error) -> EngineError {
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
async fn take_away(space: Arc<MountSpace>, point: MountPoint) -> Result<OwnedFd> {
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
