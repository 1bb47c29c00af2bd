//! Names: giving them, taking them away, and images that go with their last one. The rules and words are Docker's.

use std::collections::HashSet;

use gantry_model::{ImageId, Reference, Timestamp};
use gantry_store::Batch;

use crate::manifest;
use crate::query::wrong_platform;
use crate::record::ReferenceRecord;
use crate::service::Shared;
use crate::{Error, ImageUse, ListQuery, RemoveOptions, Removed, Result};

/// Why an image cannot go.
struct Obstacle {
    /// Not even by force.
    hard: bool,
    /// A container uses it.
    used: bool,
    reason: String,
}

/// Which obstacles count.
#[derive(Clone, Copy)]
struct Mask {
    /// Names, and stopped containers.
    names: bool,
    stopped: bool,
}

/// One removal under way.
struct Removal<'a> {
    shared: &'a Shared,
    uses: &'a [ImageUse],
    records: Vec<Removed>,
    batch: Batch,
    /// Names that the batch removes.
    gone: HashSet<String>,
}

pub(crate) fn tag(shared: &Shared, source: &str, target: &Reference) -> Result<()> {
    if target.digest().is_some() {
        return Err(Error::Invalid(
            "refusing to create a tag with a digest reference".into(),
        ));
    }
    let id = shared.find(source)?;
    let target = target.clone().with_default_tag();
    let _guard = shared.naming.lock();
    let mut record = shared.image(&id)?;
    let from = Reference::parse(source)
        .ok()
        .and_then(|name| shared.lookup(&name).ok().flatten())
        .and_then(|record| record.target);
    record.last_tagged = Timestamp::now();
    let mut batch = Batch::new();
    let reference = ReferenceRecord {
        image: id.clone(),
        target: from,
    };
    batch.put(&shared.references, &target.to_string(), &reference)?;
    batch.put(&shared.images, id.as_str(), &record)?;
    let (time, event) = shared.image_event("tag", id.to_string(), target.familiar(), record.labels);
    batch.event(time, event);
    shared.store.commit(batch).wait()?;
    Ok(())
}

pub(crate) fn remove(
    shared: &Shared,
    name: &str,
    options: &RemoveOptions,
    uses: &[ImageUse],
) -> Result<Vec<Removed>> {
    let (records, deleted) = take(shared, name, options, uses)?;
    if deleted {
        shared.collect_blobs()?;
    }
    Ok(records)
}

/// As [`remove`], but for the blobs; tells whether some may be nobody's now.
fn take(
    shared: &Shared,
    name: &str,
    options: &RemoveOptions,
    uses: &[ImageUse],
) -> Result<(Vec<Removed>, bool)> {
    let id = shared.find(name)?;
    if let [first, ..] = &options.platforms[..] {
        let have = shared.platform_of(&id)?;
        if !options
            .platforms
            .iter()
            .any(|p| manifest::provides(&have, p))
        {
            return Err(wrong_platform(name, first));
        }
    }
    let force = options.force;
    let mut done = step(shared, uses, |removal| match is_prefix(&id, name) {
        true => removal.by_id(&id, force),
        false => removal.by_name(&id, name, force),
    })?;
    let mut records = done.records;
    let deleted = matches!(done.outcome, Outcome::Image(_));
    // Images that only this one stood on; what is in the way of that is no error.
    while let Outcome::Image(Some(parent)) = done.outcome
        && !options.keep_parents
        && shared.images.contains(parent.as_str())?
    {
        done = step(shared, uses, |removal| removal.delete(&parent, false, true))?;
        records.append(&mut done.records);
    }
    Ok((records, deleted))
}

/// What one step of a removal did.
struct Done {
    records: Vec<Removed>,
    outcome: Outcome,
}

/// What is gone.
enum Outcome {
    Names,
    /// The image too; it had this parent.
    Image(Option<ImageId>),
}

/// Takes one image or name away, and with an image the layers that nothing else needs.
fn step(
    shared: &Shared,
    uses: &[ImageUse],
    work: impl FnOnce(&mut Removal<'_>) -> Result<Outcome>,
) -> Result<Done> {
    let guard = shared.naming.lock();
    let mut removal = Removal {
        shared,
        uses,
        records: Vec::new(),
        batch: Batch::new(),
        gone: HashSet::new(),
    };
    let outcome = work(&mut removal)?;
    let Removal {
        batch, mut records, ..
    } = removal;
    shared.store.commit(batch).wait()?;
    drop(guard);
    if matches!(outcome, Outcome::Image(_)) {
        let layers = shared.collect_layers()?;
        let layers = layers
            .iter()
            .map(|chain| Removed::Deleted(chain.to_string()));
        records.extend(layers);
    }
    Ok(Done { records, outcome })
}

/// Removes images that have no name (with `all`, also those that no container uses), and returns the bytes freed.
pub(crate) fn prune(
    shared: &Shared,
    all: bool,
    query: &ListQuery,
    uses: &[ImageUse],
) -> Result<(Vec<Removed>, u64)> {
    let used: HashSet<&ImageId> = uses.iter().map(|u| &u.image).collect();
    let (mut records, mut deleted) = (Vec::new(), false);
    let before = shared.unpacked_bytes()?;
    for summary in shared.list(query)? {
        let tagged = !summary.repo_tags.is_empty();
        if used.contains(&summary.id) || (tagged && !all) {
            continue;
        }
        let names: Vec<String> = if tagged {
            summary.repo_tags
        } else {
            vec![summary.id.to_string()]
        };
        for name in names {
            match take(shared, &name, &RemoveOptions::default(), uses) {
                Ok((removed, gone)) => {
                    records.extend(removed);
                    deleted |= gone;
                }
                // Another removal came first, or a child stands on it.
                Err(Error::Conflict(_) | Error::NoSuchImage(_)) => {}
                Err(error) => {
                    if deleted {
                        shared.sweep();
                    }
                    return Err(error);
                }
            }
        }
    }
    if deleted {
        shared.collect_blobs()?;
    }
    let after = shared.unpacked_bytes()?;
    Ok((records, before.saturating_sub(after)))
}

impl Shared {
    /// Bytes of all layers, unpacked.
    pub(crate) fn unpacked_bytes(&self) -> Result<u64> {
        let mut total = 0;
        self.layers.for_each("", |_, layer| {
            total += layer.size;
            true
        })?;
        Ok(total)
    }

    /// Removes blobs that nothing needs.
    pub(crate) fn collect_blobs(&self) -> Result<()> {
        // Layer records may be on their way out.
        self.store.commit(Batch::new()).wait()?;
        let collected = self.content.collect::<Error>(|| self.wanted_blobs())?;
        if !collected.blobs.is_empty() {
            tracing::debug!(
                blobs = collected.blobs.len(),
                bytes = collected.bytes,
                "removed unreferenced content"
            );
        }
        Ok(())
    }
}

impl Removal<'_> {
    fn names(&self, id: &ImageId) -> Result<Vec<Reference>> {
        let mut names = self.shared.names_of(id)?;
        names.retain(|name| !self.gone.contains(&name.to_string()));
        Ok(names)
    }

    fn by_name(&mut self, id: &ImageId, name: &str, force: bool) -> Result<Outcome> {
        let names = self.names(id)?;
        if !force
            && is_single(&names)
            && let Some(user) = self.uses.iter().find(|user| user.image == *id)
        {
            return Err(Error::Conflict(format!(
                "unable to remove repository reference \"{name}\" (must force) - container {} is using its referenced image {}",
                short(&user.container),
                id.short()
            )));
        }
        let reference = Reference::parse(name)?;
        let reference = crate::pull::canonical(&reference).with_default_tag();
        self.untag(id, &reference)?;
        if reference.digest().is_none() {
            let left = self.names(id)?;
            let same = |other: &&Reference| other.name() == reference.name();
            if !left
                .iter()
                .filter(same)
                .any(|other| other.digest().is_none())
            {
                // Docker tells of these in its reply, and not as events.
                for other in left.iter().filter(same) {
                    self.drop_name(other);
                }
            }
        }
        if !self.names(id)?.is_empty() {
            return Ok(Outcome::Names);
        }
        self.delete(id, force, true)
    }

    fn by_id(&mut self, id: &ImageId, force: bool) -> Result<Outcome> {
        let names = self.names(id)?;
        if is_single(&names) {
            let mask = Mask {
                names: false,
                stopped: !force,
            };
            if let Some(obstacle) = self.obstacle(id, mask)? {
                return Err(obstacle.error(id));
            }
            for name in &names {
                self.untag(id, name)?;
            }
        }
        self.delete(id, force, false)
    }

    fn drop_name(&mut self, name: &Reference) {
        let key = name.to_string();
        self.batch.delete(&self.shared.references, &key);
        self.gone.insert(key);
        self.records.push(Removed::Untagged(name.familiar()));
    }

    fn untag(&mut self, id: &ImageId, name: &Reference) -> Result<()> {
        self.drop_name(name);
        let shared = self.shared;
        let labels = shared.image(id)?.labels;
        let (time, event) = shared.image_event("untag", id.to_string(), id.to_string(), labels);
        self.batch.event(time, event);
        Ok(())
    }

    /// Deletes the image itself, and tells its parent. After a name was removed (`quiet`), what is in the way of that is no
    /// error.
    fn delete(&mut self, id: &ImageId, force: bool, quiet: bool) -> Result<Outcome> {
        let mask = Mask {
            names: !force,
            stopped: !force,
        };
        if let Some(obstacle) = self.obstacle(id, mask)? {
            let dangling = self.names(id)?.is_empty();
            if quiet && (!dangling || obstacle.hard || obstacle.used) {
                return Ok(Outcome::Names);
            }
            return Err(obstacle.error(id));
        }
        for name in self.names(id)? {
            self.untag(id, &name)?;
        }
        let shared = self.shared;
        let record = shared.image(id)?;
        let labels = record.labels;
        self.batch.delete(&shared.images, id.as_str());
        self.records.push(Removed::Deleted(id.to_string()));
        let (time, event) = shared.image_event("delete", id.to_string(), id.to_string(), labels);
        self.batch.event(time, event);
        Ok(Outcome::Image(record.parent))
    }

    fn obstacle(&self, id: &ImageId, mask: Mask) -> Result<Option<Obstacle>> {
        let mut child = false;
        self.shared.images.for_each("", |_, record| {
            child = record.parent.as_ref() == Some(id);
            !child
        })?;
        let obstacle =
            |hard: bool, used: bool, reason: String| Some(Obstacle { hard, used, reason });
        if child {
            return Ok(obstacle(
                true,
                false,
                "image has dependent child images".into(),
            ));
        }
        let user = |running: bool| {
            self.uses
                .iter()
                .find(|user| user.image == *id && user.running == running)
                .map(|user| short(&user.container))
        };
        if let Some(container) = user(true) {
            let reason = format!("image is being used by running container {container}");
            return Ok(obstacle(true, true, reason));
        }
        if mask.names && !self.names(id)?.is_empty() {
            let reason = "image is referenced in multiple repositories".into();
            return Ok(obstacle(false, false, reason));
        }
        if mask.stopped
            && let Some(container) = user(false)
        {
            let reason = format!("image is being used by stopped container {container}");
            return Ok(obstacle(false, true, reason));
        }
        Ok(None)
    }
}

impl Obstacle {
    fn error(self, id: &ImageId) -> Error {
        let force = if self.hard {
            "cannot be forced"
        } else {
            "must be forced"
        };
        Error::Conflict(format!(
            "unable to delete {} ({force}) - {}",
            id.short(),
            self.reason
        ))
    }
}

fn short(container: &str) -> &str {
    container.get(..12).unwrap_or(container)
}

fn is_prefix(id: &ImageId, name: &str) -> bool {
    id.as_str().starts_with(name) || id.hex().starts_with(name)
}

/// Whether all names are one: at most one tag, and digests of its repository only. None at all are not.
fn is_single(names: &[Reference]) -> bool {
    if names.len() <= 1 {
        return names.len() == 1;
    }
    let (digests, tags): (Vec<&Reference>, Vec<&Reference>) =
        names.iter().partition(|name| name.digest().is_some());
    if tags.len() > 1 {
        return false;
    }
    let repositories: HashSet<String> = digests.iter().map(|name| name.name()).collect();
    let one = tags.first().unwrap_or(&digests[0]).name();
    repositories.len() == 1 && repositories.contains(&one)
}
