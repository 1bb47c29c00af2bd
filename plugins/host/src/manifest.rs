//! What a plugin file says of itself, read and judged before any of it is mapped.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use gantry_driver_api::{Kind, Manifest, PROTOCOL, PROTOCOL_MIN};
use object::read::ReadCache;
use object::{Architecture, Object, ObjectSection, ObjectSegment};

use crate::PluginError;

/// The ELF section that holds the manifest, as JSON.
pub const SECTION: &str = ".gantry.manifest";
/// Larger manifests are refused.
const MAX_MANIFEST: u64 = 64 * 1024;

/// The kind and name that a file name stands for, or none for files that are no drivers.
#[must_use]
pub fn kind_and_name(file_name: &str) -> Option<(Kind, String)> {
    let stem = file_name.strip_prefix("libgantry_")?.strip_suffix(".so")?;
    let (word, name) = stem.split_once('_')?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == word)?;
    (!name.is_empty()).then(|| (kind, name.to_owned()))
}

/// Refuses what anyone but root and `owners` could have written.
///
/// # Errors
/// `Untrusted`, with owner or mode.
pub fn check_trust(path: &Path, metadata: &Metadata, owners: &[u32]) -> Result<(), PluginError> {
    let refuse = |why: String| {
        Err(PluginError::Untrusted {
            path: path.to_owned(),
            why,
        })
    };
    if metadata.uid() != 0 && !owners.contains(&metadata.uid()) {
        return refuse(format!("it belongs to user {}", metadata.uid()));
    }
    if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o7777;
        return refuse(format!("others may write to it (mode {mode:04o})"));
    }
    Ok(())
}

/// Reads the manifest out of an open file; returns it with its bytes.
///
/// # Errors
/// `NotAPlugin` with what is wrong with the file.
pub fn read(path: &Path, file: &File) -> Result<(Manifest, Vec<u8>), PluginError> {
    let refuse = |why: String| PluginError::NotAPlugin {
        path: path.to_owned(),
        why,
    };
    let cache = ReadCache::new(file);
    let elf =
        object::File::parse(&cache).map_err(|e| refuse(format!("no whole ELF file ({e})")))?;
    check_shape(&elf, file.metadata().map_or(0, |m| m.size())).map_err(&refuse)?;
    let section = elf
        .section_by_name(SECTION)
        .ok_or_else(|| refuse(format!("it has no section {SECTION}")))?;
    if section.size() > MAX_MANIFEST {
        return Err(refuse(format!("its manifest has {} bytes", section.size())));
    }
    let bytes = section
        .data()
        .map_err(|e| refuse(format!("its manifest cannot be read ({e})")))?;
    let manifest = serde_json::from_slice(bytes)
        .map_err(|e| refuse(format!("its manifest is not valid ({e})")))?;
    Ok((manifest, bytes.to_vec()))
}

/// The dynamic linker trusts what it maps: a damaged file kills the process.
fn check_shape<'a>(elf: &impl Object<'a>, size: u64) -> Result<(), String> {
    let ours = match std::env::consts::ARCH {
        "x86_64" => Some(Architecture::X86_64),
        "aarch64" => Some(Architecture::Aarch64),
        _ => None,
    };
    if ours.is_some_and(|ours| ours != elf.architecture()) {
        return Err(format!(
            "it is for another machine ({:?})",
            elf.architecture()
        ));
    }
    let whole = elf.segments().all(|segment| {
        let (offset, length) = segment.file_range();
        offset.checked_add(length).is_some_and(|end| end <= size)
    });
    if !whole || elf.segments().next().is_none() {
        return Err("no whole ELF file (its segments are not in it)".to_owned());
    }
    Ok(())
}

/// Compares a manifest with the file's name and with what this engine speaks.
///
/// # Errors
/// `Misnamed` or `Protocol`.
pub fn check(path: &Path, manifest: &Manifest, kind: Kind, name: &str) -> Result<(), PluginError> {
    // A library's name cannot have the dash that a driver's may.
    if manifest.kind != kind || manifest.name.replace('-', "_") != name {
        return Err(PluginError::Misnamed {
            path: path.to_owned(),
            kind: manifest.kind,
            name: manifest.name.clone(),
        });
    }
    if manifest.protocol_min > PROTOCOL || manifest.protocol_max < PROTOCOL_MIN {
        return Err(PluginError::Protocol {
            min: manifest.protocol_min,
            max: manifest.protocol_max,
            ours_min: PROTOCOL_MIN,
            ours_max: PROTOCOL,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names() {
        assert_eq!(
            kind_and_name("libgantry_network_my_bridge.so"),
            Some((Kind::Network, "my_bridge".to_owned()))
        );
        for other in [
            "libgantry_plugin_sdk_macros.so",
            "libgantry_network_.so",
            "libgantry_network.so",
            "libgantry_volume_local.rlib",
            "gantryd",
        ] {
            assert_eq!(kind_and_name(other), None, "{other}");
        }
    }
}
