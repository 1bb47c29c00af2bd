//! What clients put into containers: an archive over a tree that is there.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use crate::Owners;
use crate::extract::{Rules, extract_into};
use crate::inflate::inflate;

/// How an archive is put into a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlaceOptions {
    /// The directory that its entries are relative to, from the root; it exists.
    pub directory: Vec<u8>,
    /// Whether a directory and something else may not replace each other.
    pub keep_kinds: bool,
    /// The owner of everything; otherwise as the archive says.
    pub owner: Option<(u32, u32)>,
    /// How the tree's owners are numbered, if not as they are.
    pub owners: Option<Owners>,
}

/// Unpacks an archive (plain or compressed: gzip, bzip2, xz, zstd) into a tree. Links in the tree are followed within it, mounts in it crossed.
///
/// # Errors
/// `AlreadyExists` for what [`PlaceOptions::keep_kinds`] refuses; `UnexpectedEof` and `InvalidData` for bad archives; what
/// the file system says, with the entry's name. What came before stays.
pub fn place(
    root: OwnedFd,
    options: &PlaceOptions,
    input: &mut (dyn Read + Send),
) -> io::Result<()> {
    let (mut plain, _) = inflate(input)?;
    let base = options.directory.as_slice();
    let base = base.strip_prefix(b"/").unwrap_or(base);
    let base = base.strip_suffix(b"/").unwrap_or(base);
    let rules = Rules {
        whiteouts: None,
        base,
        mounts: true,
        keep_kinds: options.keep_kinds,
        owner: options.owner,
        owners: options.owners.as_ref(),
    };
    extract_into(root, rules, &mut plain).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OwnerRange;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    fn tar(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, data) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_uid(5);
            header.set_gid(6);
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, name, *data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn put(root: &Path, options: &PlaceOptions, bytes: &[u8]) -> io::Result<()> {
        place(fs::File::open(root)?.into(), options, &mut &bytes[..])
    }

    fn at(directory: &str) -> PlaceOptions {
        PlaceOptions {
            directory: directory.into(),
            keep_kinds: true,
            ..PlaceOptions::default()
        }
    }

    const FILE: tar::EntryType = tar::EntryType::Regular;
    const DIR: tar::EntryType = tar::EntryType::Directory;

    #[test]
    fn links_of_the_tree_lead_through_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("app")).unwrap();
        fs::create_dir_all(root.join("var/log")).unwrap();
        fs::create_dir_all(dir.path().join("log")).unwrap();
        symlink("/var/log", root.join("app/logs")).unwrap();
        symlink("../../../log", root.join("app/up")).unwrap();
        let bytes = tar(&[
            ("logs/x", FILE, b"1"),
            (".wh.kept", FILE, b"2"),
            ("up/y", FILE, b"3"),
        ]);
        let done = put(&root, &at("/app"), &bytes);
        // `/log` is not there inside, and is made there; the one outside is out of reach.
        assert!(done.is_err() || root.join("log/y").exists());
        assert_eq!(fs::read(root.join("var/log/x")).unwrap(), b"1");
        assert_eq!(fs::read(root.join("app/.wh.kept")).unwrap(), b"2");
        assert_eq!(fs::read_dir(dir.path().join("log")).unwrap().count(), 0);
    }

    #[test]
    fn kinds_and_owners() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("x/sub")).unwrap();
        fs::write(dir.path().join("x/f"), "old").unwrap();
        let error = put(dir.path(), &at("/x/"), &tar(&[("f", DIR, b"")])).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"cannot overwrite non-directory "/x/f" with directory "/x""#
        );
        let error = put(dir.path(), &at("/x"), &tar(&[("sub", FILE, b"")])).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"cannot overwrite directory "/x/sub" with non-directory "/x""#
        );
        let free = PlaceOptions {
            directory: b"x".to_vec(),
            keep_kinds: false,
            owner: Some((7, 8)),
            owners: None,
        };
        put(
            dir.path(),
            &free,
            &tar(&[("sub", FILE, b"1"), ("f", DIR, b"")]),
        )
        .unwrap();
        let meta = dir.path().join("x/sub").metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.is_file()), (7, 8, true));
        assert!(dir.path().join("x/f").is_dir());
        put(
            dir.path(),
            &at("x"),
            &tar(&[("./", DIR, b""), ("g", FILE, b"1")]),
        )
        .unwrap();
        assert_eq!(dir.path().join("x/g").metadata().unwrap().uid(), 5);
        // The directory itself is the container's.
        assert_eq!(dir.path().join("x").metadata().unwrap().uid(), 0);
        let ranges = vec![OwnerRange {
            archive: 0,
            tree: 1000,
            count: 7,
        }];
        let shifted = PlaceOptions {
            owners: Some(Owners {
                users: ranges.clone(),
                groups: ranges,
            }),
            ..at("x")
        };
        put(dir.path(), &shifted, &tar(&[("i", FILE, b"1")])).unwrap();
        let meta = dir.path().join("x/i").metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1005, 1006));
        let stranger = PlaceOptions {
            owner: Some((7, 0)),
            ..shifted
        };
        let error = put(dir.path(), &stranger, &tar(&[("j", FILE, b"1")])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "j: Container ID 7:0 cannot be mapped to a host ID"
        );
        let cut = tar(&[("h", FILE, &[1; 4096])]);
        let error = put(dir.path(), &at("x"), &cut[..2048]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
