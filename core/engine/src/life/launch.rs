//! The steps of a start: root file system, mounts and network side by side, then the process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_driver_api::{ErrorCode, Mount, MountPlan};
use gantry_runtime::{ConsoleSize, CreateRequest, Process};

use super::sources::{check_propagation, volume_part};
use super::start::Failure;
use crate::attach::join;
use crate::container::Container;
use crate::container::record::{MountKind, MountPoint, Record};
use crate::create::images::view_key;
use crate::create::quota;
use crate::engine::blocking;
use crate::{Engine, EngineError, Result};

impl Engine {
    /// Brings a container's process to life. On failure the caller calls [`Self::undo_launch`].
    pub(super) async fn launch(
        &self,
        container: &Arc<Container>,
        record: &Record,
    ) -> Result<Arc<Process>, Failure> {
        self.reach_log_receiver(record).await?;
        let (userns, network) = self.user_namespaces(record).await?;
        let (root, sandbox, sources) = tokio::join!(
            self.root(record),
            self.make_sandbox(record, network),
            self.mount_sources(record),
        );
        let (root, sandbox, sources) = (root?, sandbox?, sources?);
        let mut input = self.spec_input(record, &sandbox.files, &sources)?;
        input.env.splice(0..0, self.link_env(record)?);
        let spec = self.services.runtime.build_spec(&input)?;
        let request = CreateRequest {
            id: record.id.clone(),
            spec,
            rootfs: root,
            netns: sandbox.netns,
            userns,
            tty: record.config.tty,
            open_stdin: record.config.open_stdin,
            stdin_once: record.config.stdin_once,
            log: self.log_target(record)?,
            console_size: console_size(record),
            runtime: Some(record.host_config.runtime.clone()).filter(|r| r != "gantry"),
        };
        // The process is set up while the network is wired into its namespace; it executes nothing before both are done.
        let (process, network) = tokio::join!(
            self.services.runtime.create(request),
            self.join_networks(record),
        );
        let process = process?;
        let pending = {
            let mut live = container.live.lock();
            live.process = Some(process.clone());
            std::mem::take(&mut live.pending)
        };
        network?;
        for pending in pending {
            join(&process, pending).await?;
        }
        process.start().await?;
        Ok(process)
    }

    /// Takes back whatever a launch did. Idempotent.
    pub(super) async fn undo_launch(&self, container: &Arc<Container>, record: &Record) {
        let process = {
            let mut live = container.live.lock();
            live.pending.clear();
            live.process.take()
        };
        self.clean_up(record, process).await;
    }

    /// Gives back all that a container holds while it runs. What cannot be given back now is found by the next start.
    pub(super) async fn clean_up(&self, record: &Record, process: Option<Arc<Process>>) {
        let log = |what: &str, error: &dyn std::fmt::Display| {
            tracing::warn!(container = %record.id, %error, "cannot give back {what}");
        };
        let processes = async {
            let outcome = match process {
                Some(process) => process.delete().await,
                None => self.services.runtime.forget(&record.id).await,
            };
            if let Err(error) = outcome {
                log("runtime state", &error);
            }
        };
        let ((), network) = tokio::join!(processes, self.leave_networks(record));
        if let Err(error) = network {
            log("the network", &error);
        }
        let mounted = |m: &MountPoint| matches!(m.kind, MountKind::Volume | MountKind::Image);
        if record.mounts.iter().any(mounted)
            && let Err(error) = self.unmount_volumes(record).await
        {
            log("volume mounts", &error);
        }
        for point in &record.mounts {
            if point.kind != MountKind::Volume {
                continue;
            }
            match self.services.volumes.unmount(&point.name, &record.id).await {
                Ok(()) => self.tell_unmounted(record, point),
                Err(error) => log("a volume", &error),
            }
        }
    }

    pub(crate) async fn root(&self, record: &Record) -> Result<MountPlan> {
        let (images, driver, id, image) = (
            self.services.images.clone(),
            record.storage_driver.clone(),
            record.id.clone(),
            record.image.clone(),
        );
        let size = quota(record)?;
        // A foreign runtime's monitor mounts the root more than once, which such an upper directory does not allow.
        let transient = record.is_transient() && record.host_config.runtime == "gantry";
        blocking(move || {
            let mut plan = match images.container_mounts(&driver, id.as_str()) {
                // Made a moment before the power went, and not on the disk by then.
                Err(error) if error.code() == ErrorCode::NotFound => {
                    tracing::warn!(container = %id, "its files are gone, beginning with those of its image");
                    let made = images.prepare_container(id.as_str(), &image, size)?;
                    if made.driver != driver {
                        images.remove_container(&made.driver, id.as_str())?;
                        return Err(error.into());
                    }
                    made.plan
                }
                found => found?,
            };
            if transient {
                unsynced(&mut plan)?;
            }
            Ok(plan)
        })
        .await?
    }

    /// The host path of each mount, in the order of the record's.
    async fn mount_sources(&self, record: &Record) -> Result<Vec<PathBuf>> {
        let mut sources = Vec::with_capacity(record.mounts.len());
        for point in &record.mounts {
            sources.push(match point.kind {
                MountKind::Bind => {
                    let source = bind_source(point)?;
                    check_propagation(point, &source)?;
                    source
                }
                MountKind::Volume => {
                    let source = self.volume_source(record, point).await?;
                    self.tell_mounted(record, point);
                    source
                }
                MountKind::Tmpfs => PathBuf::new(),
                MountKind::Image => self.image_source(record, point).await?,
            });
        }
        Ok(sources)
    }

    /// Mounts what is no directory (an NFS export, say) where the container finds it. Each container has a mount of its own,
    /// which goes with its run; the kernel shares what is below.
    async fn mount_volume(&self, record: &Record, name: &str, plan: MountPlan) -> Result<PathBuf> {
        let target = self.volume_mounts(&record.id).join(name);
        let (place, name) = (target.clone(), name.to_owned());
        blocking(move || {
            std::fs::create_dir_all(&place)?;
            gantry_sys::mount::detach(&place)?;
            gantry_sys::mount::attach(&plan, &place)
        })
        .await?
        .map_err(|e| {
            EngineError::internal(format!(
                "error while mounting volume '{name}': failed to mount: {e}"
            ))
        })?;
        Ok(target)
    }

    /// Takes a container's own mounts of volumes and images away.
    async fn unmount_volumes(&self, record: &Record) -> Result<()> {
        let directories = [
            self.volume_mounts(&record.id),
            self.volume_parts(&record.id),
        ];
        blocking(move || directories.iter().try_for_each(|d| unmount_all(d)))
            .await?
            .map_err(|e| EngineError::io("unmount volumes", &e))
    }

    pub(crate) async fn volume_source(
        &self,
        record: &Record,
        point: &MountPoint,
    ) -> Result<PathBuf> {
        let plan = self.services.volumes.mount(&point.name, &record.id).await?;
        let root = match plan.mounts.as_slice() {
            [Mount::Bind { source, .. }] => source.clone(),
            _ => self.mount_volume(record, &point.name, plan).await?,
        };
        if point.subpath.is_empty() {
            return Ok(root);
        }
        // A part of what the engine keeps is mounted apart from other file systems' parts: it may be shifted.
        let parts = match root.starts_with(self.volume_mounts(&record.id)) {
            true => self.volume_mounts(&record.id),
            false => self.volume_parts(&record.id),
        };
        let (point, target) = (point.clone(), parts.join(view_key(&record.id, point)));
        blocking(move || volume_part(&root, &point, &target).map(|()| target)).await?
    }
}

/// Unmounts and removes everything in a directory that mounts are made in, and the directory.
fn unmount_all(directory: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        gantry_sys::mount::detach(&path)?;
        match path.is_dir() {
            true => std::fs::remove_dir(&path)?,
            false => std::fs::remove_file(&path)?,
        }
    }
    std::fs::remove_dir(directory)
}

/// Nothing is flushed when the root of a container that dies with the boot is unmounted. The kernel marks such an upper
/// directory and refuses it afterwards, because after a power cut it may be torn; within one boot it is not.
fn unsynced(plan: &mut MountPlan) -> Result<()> {
    for mount in &mut plan.mounts {
        let Mount::Overlay {
            work: Some(work),
            options,
            ..
        } = mount
        else {
            continue;
        };
        match std::fs::remove_dir_all(work.join("work/incompat/volatile")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(EngineError::io(work.display(), &e));
            }
            _ => options.push("volatile".into()),
        }
    }
    Ok(())
}

pub(crate) fn bind_source(point: &MountPoint) -> Result<PathBuf> {
    let source = PathBuf::from(&point.source);
    if source.symlink_metadata().is_ok() {
        return Ok(source);
    }
    if !point.create_source {
        return Err(EngineError::bad_request(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            point.source
        )));
    }
    std::fs::create_dir_all(&source).map_err(|e| {
        EngineError::internal(format!(
            "error while creating mount source path '{}': {e}",
            point.source
        ))
    })?;
    Ok(source)
}

fn console_size(record: &Record) -> Option<ConsoleSize> {
    let [height, width] = record.host_config.console_size;
    let size = ConsoleSize {
        height: u16::try_from(height).ok()?,
        width: u16::try_from(width).ok()?,
    };
    (height > 0 && width > 0).then_some(size)
}
