//! Which images an archive is to have, under which names.

use gantry_model::{ImageId, Platform, Reference};

use crate::service::Shared;
use crate::{Error, Result};

/// An image and the tags to write it under.
pub(crate) struct Chosen {
    pub(super) id: ImageId,
    pub(super) tags: Vec<Reference>,
}

/// A name with a tag means that tag, a name alone all of its tags, anything else an image without its names. Images come
/// in the order in which they are named first.
pub(crate) fn choose(
    shared: &Shared,
    names: &[String],
    platforms: &[Platform],
) -> Result<Vec<Chosen>> {
    let mut chosen = Vec::new();
    for name in names {
        let parsed = Reference::parse(name).ok();
        let bare = parsed
            .as_ref()
            .filter(|name| name.tag().is_none() && name.digest().is_none());
        let tags = match bare {
            Some(bare) => tags_of(shared, bare)?,
            None => Vec::new(),
        };
        if !tags.is_empty() {
            for tag in tags {
                add(&mut chosen, shared, &tag.to_string(), platforms, Some(tag))?;
            }
            continue;
        }
        let tag = parsed.filter(|name| name.tag().is_some() && name.digest().is_none());
        let tag = match tag {
            Some(tag) if shared.lookup(&tag)?.is_some() => Some(tag),
            _ => None,
        };
        add(&mut chosen, shared, name, platforms, tag)?;
    }
    Ok(chosen)
}

fn tags_of(shared: &Shared, repository: &Reference) -> Result<Vec<Reference>> {
    let names = shared.all_names()?.into_values().flatten();
    let mut tags: Vec<Reference> = names
        .filter(|name| name.tag().is_some() && name.name() == repository.name())
        .collect();
    tags.sort();
    Ok(tags)
}

fn add(
    chosen: &mut Vec<Chosen>,
    shared: &Shared,
    name: &str,
    platforms: &[Platform],
    tag: Option<Reference>,
) -> Result<()> {
    let ids = match platforms {
        [] => vec![shared.find(name)?],
        some => some
            .iter()
            .map(|platform| shared.find_for(name, Some(platform)))
            .collect::<Result<_>>()
            .map_err(unsuitable)?,
    };
    for id in ids {
        let at = match chosen.iter().position(|image| image.id == id) {
            Some(at) => at,
            None => {
                let tags = Vec::new();
                chosen.push(Chosen { id, tags });
                chosen.len() - 1
            }
        };
        let tags = &mut chosen[at].tags;
        if let Some(tag) = tag.clone().filter(|tag| !tags.contains(tag)) {
            tags.push(tag);
        }
    }
    Ok(())
}

fn unsuitable(error: Error) -> Error {
    match error {
        Error::WrongPlatform(reason) => {
            Error::WrongPlatform(format!("no suitable export target found: {reason}"))
        }
        other => other,
    }
}
