//! Whether two trees are one.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use gantry_sys::copy;

use crate::extract::whiteout::is_opaque;
use crate::pack;

/// The first path, relative to both, at which the trees below `left` and `right` differ: in names, types, owners, modes,
/// lengths, contents, targets, device numbers or extended attributes; of all but directories also in modification times,
/// for those of directories that no archive names are when they were made.
pub(super) fn first_difference(left: &Path, right: &Path) -> io::Result<Option<PathBuf>> {
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        let names = names(&left.join(&directory))?;
        if names != self::names(&right.join(&directory))? {
            return Ok(Some(directory));
        }
        for name in names {
            let path = directory.join(name);
            let (a, b) = (left.join(&path), right.join(&path));
            let (meta, other) = (fs::symlink_metadata(&a)?, fs::symlink_metadata(&b)?);
            if !alike(&meta, &other) || !same_inside(&a, &b, &meta)? {
                return Ok(Some(path));
            }
            if meta.is_dir() {
                pending.push(path);
            }
        }
    }
    Ok(None)
}

fn names(directory: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn alike(a: &Metadata, b: &Metadata) -> bool {
    let of = |meta: &Metadata| (meta.mode(), meta.uid(), meta.gid(), meta.rdev());
    let time = |meta: &Metadata| (meta.len(), meta.mtime(), meta.mtime_nsec());
    of(a) == of(b) && (a.is_dir() || time(a) == time(b))
}

fn same_inside(a: &Path, b: &Path, meta: &Metadata) -> io::Result<bool> {
    if meta.is_symlink() {
        return Ok(fs::read_link(a)? == fs::read_link(b)?);
    }
    if !meta.is_file() && !meta.is_dir() {
        return Ok(true);
    }
    let (a, b) = (File::open(a)?, File::open(b)?);
    if pack::xattrs(a.as_fd())? != pack::xattrs(b.as_fd())? {
        return Ok(false);
    }
    if meta.is_dir() {
        return Ok(is_opaque(a.as_fd())? == is_opaque(b.as_fd())?);
    }
    copy::same_data(a.as_fd(), b.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(change: impl Fn(&Path)) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), "text").unwrap();
        std::os::unix::fs::symlink("f", dir.path().join("d/l")).unwrap();
        change(dir.path());
        for name in ["d/f", "d/l", "d/more"] {
            let epoch = rustix::fs::Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            let times = rustix::fs::Timestamps {
                last_access: epoch,
                last_modification: epoch,
            };
            let no_follow = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            let path = dir.path().join(name);
            if path.symlink_metadata().is_ok() {
                rustix::fs::utimensat(rustix::fs::CWD, path, &times, no_follow).unwrap();
            }
        }
        dir
    }

    #[test]
    fn every_kind_of_change_is_seen() {
        use std::os::unix::fs::PermissionsExt;
        let whole = tree(|_| {});
        let same = tree(|_| {});
        assert_eq!(first_difference(whole.path(), same.path()).unwrap(), None);
        type Change<'c> = (&'c str, &'c dyn Fn(&Path));
        let changes: [Change<'_>; 6] = [
            ("d/f", &|root| fs::write(root.join("d/f"), "tent").unwrap()),
            ("d/f", &|root| fs::write(root.join("d/f"), "tex").unwrap()),
            ("d/f", &|root| {
                fs::set_permissions(root.join("d/f"), fs::Permissions::from_mode(0o755)).unwrap();
            }),
            ("d", &|root| fs::write(root.join("d/more"), "").unwrap()),
            ("d", &|root| fs::remove_file(root.join("d/l")).unwrap()),
            ("d/l", &|root| {
                fs::remove_file(root.join("d/l")).unwrap();
                std::os::unix::fs::symlink("g", root.join("d/l")).unwrap();
            }),
        ];
        for (place, change) in changes {
            let other = tree(change);
            let found = first_difference(whole.path(), other.path()).unwrap();
            assert_eq!(found.as_deref(), Some(Path::new(place)));
        }
    }
}
