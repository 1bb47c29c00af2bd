//! Finding images.

use std::collections::{HashMap, HashSet};

use gantry_model::{ImageId, Platform, Reference};

use crate::config::MAX_CONFIG;
use crate::manifest;
use crate::record::ReferenceRecord;
use crate::service::Shared;
use crate::{Error, Image, ImageConfig, Result};

/// Names of images, by image.
pub(crate) type Names = HashMap<ImageId, Vec<Reference>>;

/// That an image is here, and is another platform's.
pub(crate) fn wrong_platform(name: &str, wanted: &Platform) -> Error {
    Error::WrongPlatform(format!(
        "image with reference {name} was found but does not provide the specified platform ({wanted})"
    ))
}

impl Shared {
    /// The image that `name` means: an identifier, a reference, or the beginning of an identifier, in this order.
    pub(crate) fn find(&self, name: &str) -> Result<ImageId> {
        if let Some(id) = full_id(name) {
            return match self.images.contains(id.as_str())? {
                true => Ok(id),
                false => Err(Error::NoSuchImage(name.into())),
            };
        }
        let reference = Reference::parse(name)?;
        if let Some(record) = self.lookup(&reference)? {
            return Ok(record.image);
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
            let mut found = None;
            let mut ambiguous = false;
            self.images
                .for_each(&format!("sha256:{prefix}"), |key, _| {
                    ambiguous = found.is_some();
                    found = Some(key.to_owned());
                    !ambiguous
                })?;
            if let Some(id) = found.filter(|_| !ambiguous) {
                return id.parse().map_err(|_| Error::NoSuchImage(name.into()));
            }
        }
        Err(Error::no_such(reference))
    }

    /// The record of a reference; a digest beside a tag decides alone.
    pub(crate) fn lookup(&self, reference: &Reference) -> Result<Option<ReferenceRecord>> {
        let name = crate::pull::canonical(reference).with_default_tag();
        if let Some(record) = self.references.get(&name.to_string())? {
            return Ok(Some(record));
        }
        // `name@<image identifier>` is understood too.
        if let Some(digest) = reference.digest() {
            let names = self.names_of(digest)?;
            if names.iter().any(|n| n.name() == reference.name()) {
                return Ok(Some(ReferenceRecord {
                    image: digest.clone(),
                    target: None,
                }));
            }
        }
        Ok(None)
    }

    pub(crate) fn config(&self, id: &ImageId) -> Result<ImageConfig> {
        ImageConfig::parse(&self.content.read(id, MAX_CONFIG)?)
    }

    /// As [`Shared::find`]; of an index that has images for several platforms here, the one for `platform`.
    pub(crate) fn find_for(&self, name: &str, platform: Option<&Platform>) -> Result<ImageId> {
        let id = self.find(name)?;
        let Some(wanted) = platform else {
            return Ok(id);
        };
        if manifest::provides(&self.platform_of(&id)?, wanted) {
            return Ok(id);
        }
        if let Some(sibling) = self.sibling(name, &id, wanted, true)? {
            return Ok(sibling.image);
        }
        Err(wrong_platform(name, wanted))
    }

    pub(crate) fn get(&self, name: &str, platform: Option<&Platform>) -> Result<Image> {
        let id = match (self.find_for(name, platform), platform) {
            (Err(Error::WrongPlatform(reason)), Some(wanted)) => {
                let sibling = self.sibling(name, &self.find(name)?, wanted, false)?;
                self.bring_out(sibling.ok_or(Error::WrongPlatform(reason))?)?
            }
            (found, _) => found?,
        };
        let record = self.image(&id)?;
        let mut tags = self.names_of(&id)?;
        tags.retain(|name| name.digest().is_none());
        Ok(Image {
            config: self.config(&id)?,
            tags,
            driver: record.driver,
            id,
        })
    }

    /// These images, and those that were made of them here.
    pub(crate) fn descendants(&self, mut pending: Vec<ImageId>) -> Result<HashSet<ImageId>> {
        let mut children: HashMap<ImageId, Vec<ImageId>> = HashMap::new();
        self.images.for_each("", |id, record| {
            if let (Some(parent), Ok(id)) = (record.parent, id.parse::<ImageId>()) {
                children.entry(parent).or_default().push(id);
            }
            true
        })?;
        let mut found = HashSet::new();
        while let Some(id) = pending.pop() {
            pending.extend(children.remove(&id).into_iter().flatten());
            found.insert(id);
        }
        Ok(found)
    }

    pub(crate) fn all_names(&self) -> Result<Names> {
        let mut names = Names::new();
        self.references.for_each("", |name, record| {
            if let Ok(name) = Reference::parse(name) {
                names.entry(record.image).or_default().push(name);
            }
            true
        })?;
        Ok(names)
    }
}

fn full_id(name: &str) -> Option<ImageId> {
    let id = if name.starts_with("sha256:") {
        name.parse()
    } else {
        format!("sha256:{name}").parse()
    };
    id.ok()
}

/// Names as clients see them: with tags, with digests.
pub(crate) fn split_names(names: &[Reference]) -> (Vec<String>, Vec<String>) {
    let familiar = |digest: bool| {
        let mut list: Vec<String> = names
            .iter()
            .filter(|name| name.digest().is_some() == digest)
            .map(Reference::familiar)
            .collect();
        list.sort();
        list
    };
    (familiar(false), familiar(true))
}
