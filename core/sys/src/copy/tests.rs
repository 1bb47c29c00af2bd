use std::fs as std_fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{CWD, Timestamps, XattrFlags, makedev};

use super::*;

fn open(path: &Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::openat(CWD, path, flags, Mode::empty()).unwrap()
}

/// A tree with one of everything.
fn sample(root: &Path) {
    let at = |name: &str| root.join(name);
    std_fs::create_dir_all(at("dir/deep")).unwrap();
    std_fs::write(at("dir/file"), "hello").unwrap();
    std_fs::hard_link(at("dir/file"), at("dir/deep/same")).unwrap();
    symlink("/etc/passwd", at("link")).unwrap();
    chown(at("dir/file"), Some(1000), Some(1001)).unwrap();
    std_fs::set_permissions(at("dir/file"), std_fs::Permissions::from_mode(0o4751)).unwrap();
    let name = c"pipe";
    fs::mknodat(open(root), name, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let (device, zero) = (FileType::CharacterDevice, makedev(1, 5));
    fs::mknodat(open(root), c"zero", device, Mode::RUSR, zero).unwrap();
    let holes = std_fs::File::create(at("holes")).unwrap();
    holes.set_len(64 << 20).unwrap();
    pwrite_at(&holes, b"middle", 32 << 20);
    fs::fsetxattr(&holes, c"user.key", b"value", XattrFlags::empty()).unwrap();
    // Version 2, CAP_NET_BIND_SERVICE permitted and effective.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fs::fsetxattr(
        &holes,
        c"security.capability",
        &capability,
        XattrFlags::empty(),
    )
    .unwrap();
    std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    for (name, second) in [("dir/deep", 1), ("dir", 2)] {
        let time = rustix::fs::Timespec {
            tv_sec: second,
            tv_nsec: 123_456_789,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        fs::utimensat(CWD, at(name), &times, AtFlags::empty()).unwrap();
    }
}

fn pwrite_at(file: &std_fs::File, bytes: &[u8], at: u64) {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at).unwrap();
}

#[test]
fn a_copy_is_like_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std_fs::create_dir(&from).unwrap();
    std_fs::create_dir(&to).unwrap();
    sample(&from);
    tree(open(&from).as_fd(), open(&to).as_fd()).unwrap();
    let names = [
        "",
        "dir",
        "dir/file",
        "dir/deep",
        "dir/deep/same",
        "link",
        "pipe",
        "zero",
        "holes",
    ];
    for name in names {
        let (a, b) = (from.join(name), to.join(name));
        let (a, b) = (
            std_fs::symlink_metadata(a).unwrap(),
            std_fs::symlink_metadata(b).unwrap(),
        );
        let of = |m: &std_fs::Metadata| {
            (
                m.mode(),
                m.uid(),
                m.gid(),
                m.rdev(),
                m.mtime(),
                m.mtime_nsec(),
                m.nlink(),
            )
        };
        assert_eq!(of(&a), of(&b), "{name}");
    }
    assert_eq!(std_fs::read(to.join("dir/deep/same")).unwrap(), b"hello");
    assert_eq!(
        std_fs::read_link(to.join("link")).unwrap(),
        Path::new("/etc/passwd")
    );
    let same = |name: &str| std_fs::metadata(to.join(name)).unwrap().ino();
    assert_eq!(same("dir/file"), same("dir/deep/same"));
    assert!(!to.join("socket").exists());
    let (a, b) = (
        std_fs::File::open(from.join("holes")).unwrap(),
        std_fs::File::open(to.join("holes")).unwrap(),
    );
    assert!(same_data(a.as_fd(), b.as_fd()).unwrap());
    assert!(
        b.metadata().unwrap().blocks() < 1000,
        "the holes are filled"
    );
    let attributes = attributes::extended(b.as_fd()).unwrap();
    assert_eq!(attributes, attributes::extended(a.as_fd()).unwrap());
    assert_eq!(attributes.len(), 2);
}

#[test]
fn data_differs_by_its_last_byte() {
    let make = |bytes: &[u8]| {
        let file = tempfile::tempfile().unwrap();
        pwrite_at(&file, bytes, 0);
        file
    };
    let (a, b, c) = (
        make(&[7; 300_000]),
        make(&[7; 300_000]),
        make(&[7; 300_001]),
    );
    assert!(same_data(a.as_fd(), b.as_fd()).unwrap());
    assert!(!same_data(a.as_fd(), c.as_fd()).unwrap());
    pwrite_at(&b, &[8], 299_999);
    assert!(!same_data(a.as_fd(), b.as_fd()).unwrap());
}

#[test]
fn attributes_that_are_no_more_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    for (path, key) in [(&from, c"user.new"), (&to, c"user.old")] {
        std_fs::create_dir(path).unwrap();
        fs::fsetxattr(open(path), key, b"1", XattrFlags::empty()).unwrap();
    }
    let (a, b) = (open(&from), open(&to));
    attributes(a.as_fd(), b.as_fd(), &fs::fstat(&a).unwrap()).unwrap();
    assert_eq!(
        attributes::extended(a.as_fd()).unwrap(),
        attributes::extended(b.as_fd()).unwrap()
    );
}
