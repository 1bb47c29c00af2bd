//! Mounts of a container, made and taken away while it runs or for its next start.

mod fill;
mod tree;
mod wish;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_model::container::Mount;
use gantry_store::Batch;
use gantry_sys::mount;
use gantry_sys::mountns::MountSpace;
use gantry_wire::MountsUpdate;

use crate::container::Container;
use crate::container::record::{MountKind, MountPoint, Record};
use crate::create::mounts::Wanted;
use crate::engine::blocking;
use crate::{Engine, EngineError, Result};
use tree::{in_words, take_away, tree_of};
use wish::{forget, no_image_mounts, to_add, to_remove};

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
            // Should the daemon die now, the next one knows that the volume is in use.
            let mut intent = record.clone();
            intent
                .mounts
                .extend(change.added.iter().map(|a| a.point.clone()));
            self.records.note(&intent)?;
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
                self.fill_running(record, space, point).await?;
                self.volume_source(record, point).await?
            }
            MountKind::Tmpfs => PathBuf::new(),
            MountKind::Image => return Err(no_image_mounts()),
        };
        let (space, point) = (space.clone(), point.clone());
        let apart = self.volume_mounts(&record.id);
        blocking(move || {
            let target = Path::new(&point.destination);
            let attach = || space.attach(tree_of(&space, &point, &source, &apart)?, target);
            attach().map_err(|error| in_words(&point, &source, error))
        })
        .await?
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
        if let Err(error) = engine.records.note(before) {
            tracing::error!(container = %before.id, %error, "cannot write a container's state");
        }
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
