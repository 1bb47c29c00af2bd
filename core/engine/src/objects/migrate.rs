//! Moving images and containers that do not run from one storage driver to the default one.
//!
//! Objects are moved one by one, each by one durable change of its record, so that whatever ends the daemon in between,
//! each is with the one driver or the other; what is left over is swept away by the next start. Asked again, the move goes on.

use std::os::fd::AsFd;
use std::sync::Arc;

use gantry_driver_api::{Kind, MountPlan};
use gantry_driver_registry::{DriverRegistry, RegistryError};
use gantry_image::{Image, ImageService, Message, Progress};
use gantry_model::ImageId;
use gantry_wire::driver::{DriverMigrate, Migrated, MigrationOutcome as Outcome};

use super::transfer::{Reporter, reported};
use crate::container::Container;
use crate::container::record::{MountKind, Phase, Record};
use crate::create::images::{roots, view_key};
use crate::engine::blocking;
use crate::look::{listed, read_only};
use crate::{Engine, EngineError, MessageStream, Result};

/// What is to be moved.
struct Plan {
    /// The drivers to take from; none: every other than the default.
    from: Option<String>,
    to: String,
    dry_run: bool,
}

impl Plan {
    fn takes(&self, driver: &str) -> bool {
        driver != self.to && self.from.as_deref().is_none_or(|from| from == driver)
    }
}

impl Engine {
    /// Moves everything that can be moved to the default storage driver, and tells what became of each object.
    ///
    /// # Errors
    /// Drivers that are not there, and a target that is not the default.
    pub async fn migrate_storage(&self, request: &DriverMigrate) -> Result<MessageStream> {
        let plan = self.plan(request)?;
        let engine = self.clone();
        reported(move |reporter| {
            engine.migrate_images(&plan, reporter)?;
            let containers = engine.migrate_containers(&plan, reporter);
            tokio::runtime::Handle::current().block_on(containers)
        })
        .await
    }

    fn plan(&self, request: &DriverMigrate) -> Result<Plan> {
        let drivers = &self.services.drivers;
        let named = |name: &str| {
            let name = DriverRegistry::canonical(Kind::Storage, name);
            (!name.is_empty()).then(|| name.to_owned())
        };
        let default = drivers.default_name(Kind::Storage);
        let to = named(&request.to).unwrap_or_else(|| default.clone());
        let from = named(&request.from);
        if to != default {
            return Err(EngineError::bad_request(format!(
                "new containers would bring their images back to {default}, the default storage driver: make {to} the default and restart the daemon first"
            )));
        }
        if from.as_ref() == Some(&to) {
            return Err(EngineError::bad_request(format!(
                "{to} is the storage driver to move to, not from"
            )));
        }
        for name in from.iter().chain([&to]) {
            drivers.storage(name).map_err(|error| match error {
                RegistryError::Unknown { .. } => EngineError::not_found(error.to_string()),
                RegistryError::Unavailable { .. } => gantry_image::Error::from(error).into(),
            })?;
        }
        Ok(Plan {
            from,
            to,
            dry_run: request.dry_run,
        })
    }

    fn migrate_images(&self, plan: &Plan, reporter: &Reporter) -> Result<()> {
        let images = &self.services.images;
        for image in images.elsewhere()? {
            if !plan.takes(&image.driver) {
                continue;
            }
            let done = match plan.dry_run {
                true => Ok(Outcome::WouldMove),
                false => images.settle(&image.id, reporter).map(|()| Outcome::Moved),
            };
            if reporter.cancelled() {
                return Err(gantry_image::Error::Cancelled.into());
            }
            let name = name_of(&image);
            tell(reporter, "image", image.id.as_str(), name, done);
        }
        Ok(())
    }

    async fn migrate_containers(&self, plan: &Plan, reporter: &Reporter) -> Result<()> {
        for container in self.containers.all() {
            let record = container.record();
            if !plan.takes(&record.storage_driver) {
                continue;
            }
            let done = match can_move(&record) {
                Ok(()) if plan.dry_run => Ok(Outcome::WouldMove),
                Ok(()) => self.migrate_container(&container, plan).await,
                Err(reason) => Err(reason),
            };
            tell(
                reporter,
                "container",
                record.id.as_str(),
                record.name.clone(),
                done,
            );
            if reporter.cancelled() {
                return Err(gantry_image::Error::Cancelled.into());
            }
        }
        Ok(())
    }

    async fn migrate_container(&self, container: &Arc<Container>, plan: &Plan) -> Result<Outcome> {
        let _turn = container.queue.lock().await;
        let old = container.record();
        if container.progress().removed || !plan.takes(&old.storage_driver) {
            return Err(EngineError::conflict("it is not there any more"));
        }
        can_move(&old)?;
        let mut new = Record::clone(&old);
        let made = self.make_anew(&mut new).await;
        let saved = match made {
            Ok(()) => self.records.save(&new).await,
            Err(error) => Err(error),
        };
        if let Err(error) = saved {
            self.drop_roots(&new, &old).await?;
            return Err(error);
        }
        container.update(|record| {
            record.storage_driver.clone_from(&new.storage_driver);
            record.mounts.clone_from(&new.mounts);
        });
        // What stays now is swept away by the next start.
        if let Err(error) = self.drop_roots(&old, &new).await {
            tracing::warn!(container = %old.id, %error, "what a container had with its old storage driver stays");
        }
        Ok(Outcome::Moved)
    }

    /// Makes the root and the views of images that `record` has with the default driver, and has it tell of them.
    async fn make_anew(&self, record: &mut Record) -> Result<()> {
        let root = self.root(record).await?;
        let images = self.services.images.clone();
        let mut moved = record.clone();
        let (moved, made) = blocking(move || {
            let made = make_parts(&images, root, &mut moved);
            (moved, made)
        })
        .await?;
        // Where it failed half-way, what was made before is to be removed.
        *record = moved;
        made
    }

    /// Removes what a container has by one record and not by another.
    async fn drop_roots(&self, record: &Record, other: &Record) -> Result<()> {
        let kept: Vec<_> = roots(other).collect();
        let doomed = roots(record).filter(|root| !kept.contains(root));
        self.drop_snapshots(doomed.collect()).await
    }
}

/// The work of [`Engine::make_anew`] on what `root` mounts. A driver is in `record` once it has made what it is there for.
fn make_parts(images: &ImageService, root: MountPlan, record: &mut Record) -> Result<()> {
    let failed = |e| EngineError::io("mount the container's file system", &e);
    let from = listed(&read_only(&root).unwrap_or(root)).map_err(failed)?;
    record.storage_driver =
        images.move_container(record.id.as_str(), &record.image, from.as_fd(), &listed)?;
    for point in &mut record.mounts {
        if point.kind == MountKind::Image {
            let image: ImageId = point
                .name
                .parse()
                .map_err(|_| EngineError::not_found(format!("No such image: {}", point.name)))?;
            let key = view_key(&record.id, point);
            point.driver = images.prepare_view(&key, &image)?.driver;
        }
    }
    Ok(())
}

/// Only what nobody writes to can be moved.
fn can_move(record: &Record) -> Result<()> {
    match record.state.phase {
        Phase::Created | Phase::Exited => Ok(()),
        Phase::Removing => Err(EngineError::conflict("it is being removed")),
        Phase::Restarting => Err(EngineError::conflict("it is waiting to be restarted")),
        Phase::Paused => Err(EngineError::conflict("it is paused")),
        Phase::Starting | Phase::Running => Err(EngineError::conflict("it is running")),
    }
}

fn name_of(image: &Image) -> String {
    let name = image.tags.first().map(gantry_model::Reference::familiar);
    name.unwrap_or_else(|| image.id.short().to_owned())
}

/// One line for people, with the same for programs.
fn tell<E: std::fmt::Display>(
    reporter: &Reporter,
    kind: &str,
    id: &str,
    name: String,
    done: std::result::Result<Outcome, E>,
) {
    let (outcome, reason) = match done {
        Ok(outcome) => (outcome, String::new()),
        Err(error) => (Outcome::Left, error.to_string()),
    };
    let words = match outcome {
        Outcome::Moved => "moved".to_owned(),
        Outcome::WouldMove => "would be moved".to_owned(),
        Outcome::Left => format!("left where it is: {reason}"),
    };
    let mut message = Message::stream(format!("{kind} {name}: {words}\n"));
    let told = Migrated {
        kind: kind.to_owned(),
        id: id.to_owned(),
        name,
        outcome,
        reason,
    };
    message.aux = serde_json::to_value(told).ok();
    reporter.report(message);
}
