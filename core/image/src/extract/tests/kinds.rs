//! What an entry may be, and how it looks afterwards.

use std::fs as std_fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use super::*;

#[test]
fn everything_an_image_may_hold() {
    let place = Place::new();
    let long = format!("{}/name", "d".repeat(200));
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let done = Tar::default()
        .raw(b"./", b'5', b"", b"", |h| h.set_mode(0o711))
        .dir("dir/")
        .file("dir/plain", "hello")
        .raw(b"dir/suid", b'0', b"", b"x", |h| {
            h.set_mode(0o4755);
            h.set_uid(1234);
            h.set_gid(5678);
        })
        .symlink("dir/sym", "/nowhere/at all")
        .link("dir/hard", "dir/plain")
        .raw(b"dir/null", b'3', b"", b"", |h| {
            h.set_device_major(1).unwrap();
            h.set_device_minor(3).unwrap();
        })
        .raw(b"dir/fifo", b'6', b"", b"", |_| {})
        .raw(b"dir/\xff\xfe", b'0', b"", b"odd", |_| {})
        .file(&long, "long")
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("mtime", b"1234567890.5"),
        ])
        .file("dir/capable", "cap")
        .pax(&[("uid", b"3000000"), ("path", "ünïcode".as_bytes())])
        .file("x", "pax")
        .into(&place.root, WhiteoutStyle::Overlay)
        .unwrap();
    assert_eq!(done.bytes, 5 + 1 + 3 + 4 + 3 + 3);
    let at = |name: &str| place.root.join(name);
    let meta = |name: &str| at(name).symlink_metadata().unwrap();
    assert_eq!(
        place.root.metadata().unwrap().permissions().mode() & 0o7777,
        0o711
    );
    assert_eq!(std_fs::read(at("dir/plain")).unwrap(), b"hello");
    let suid = meta("dir/suid");
    assert_eq!(
        (suid.mode() & 0o7777, suid.uid(), suid.gid()),
        (0o4755, 1234, 5678)
    );
    assert_eq!(
        std_fs::read_link(at("dir/sym")).unwrap(),
        Path::new("/nowhere/at all")
    );
    assert_eq!(meta("dir/hard").ino(), meta("dir/plain").ino());
    let null = meta("dir/null");
    assert!(null.file_type().is_char_device());
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));
    assert!(meta("dir/fifo").file_type().is_fifo());
    let odd = at("dir").join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
    assert_eq!(std_fs::read(odd).unwrap(), b"odd");
    assert_eq!(std_fs::read(at(&long)).unwrap(), b"long");
    assert_eq!(meta("ünïcode").uid(), 3_000_000);
    let capable = at("dir/capable");
    let mut value = [0; 64];
    let length = fs::getxattr(&capable, "security.capability", &mut value[..]).unwrap();
    assert_eq!(&value[..length], capability);
    assert!(fs::getxattr(&capable, "trusted.overlay.opaque", &mut value[..]).is_err());
    assert_eq!(
        (
            meta("dir/capable").mtime(),
            meta("dir/capable").mtime_nsec()
        ),
        (1_234_567_890, 500_000_000)
    );
    assert_eq!(
        meta("dir").mtime(),
        1_000_000,
        "directories keep their time"
    );
}

#[test]
fn later_entries_replace_earlier_ones() {
    let place = Place::new();
    Tar::default()
        .dir("d")
        .file("d/x", "old")
        .dir("d/deep/deeper")
        .file("d/deep/deeper/y", "y")
        .file("d", "now a file")
        .file("e", "a file")
        .dir("e")
        .file("e/z", "z")
        .dir("m")
        .file("m/kept", "kept")
        .raw(b"m", b'5', b"", b"", |h| h.set_mode(0o700))
        .into(&place.root, WhiteoutStyle::Overlay)
        .unwrap();
    assert_eq!(std_fs::read(place.root.join("d")).unwrap(), b"now a file");
    assert!(place.root.join("e/z").is_file() && place.root.join("m/kept").is_file());
    assert_eq!(
        place
            .root
            .join("m")
            .metadata()
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o700
    );
}

#[test]
fn what_replaces_a_symlink_does_not_follow_it() {
    let place = Place::new();
    let secret = place.outside.join("secret");
    let secret = secret.to_str().unwrap();
    Tar::default()
        .symlink("f", secret)
        .file("f", "mine")
        .symlink("d", place.outside.to_str().unwrap())
        .raw(b"d", b'5', b"", b"", |h| h.set_mode(0o700))
        .file("d/x", "mine")
        .symlink("n", secret)
        .raw(b"n", b'6', b"", b"", |h| h.set_mode(0o777))
        .into(&place.root, WhiteoutStyle::Overlay)
        .unwrap();
    assert_eq!(std_fs::read(place.root.join("f")).unwrap(), b"mine");
    assert_eq!(std_fs::read(place.root.join("d/x")).unwrap(), b"mine");
    place.assert_contained();
    assert_eq!(
        place.outside.metadata().unwrap().permissions().mode() & 0o777,
        0o755
    );
}

#[test]
fn deep_trees_are_removed() {
    let place = Place::new();
    let mut tar = Tar::default();
    let mut path = String::new();
    for _ in 0..400 {
        path.push_str("deep/");
        tar = tar.dir(&path);
    }
    tar.file("deep", "flat")
        .into(&place.root, WhiteoutStyle::Overlay)
        .unwrap();
    assert_eq!(std_fs::read(place.root.join("deep")).unwrap(), b"flat");
}

#[test]
fn modes_owners_and_times_at_their_ends() {
    let place = Place::new();
    Tar::default()
        .raw(b"sgid", b'0', b"", b"", |h| {
            h.set_mode(0o2755);
            h.set_uid(2_147_483_648);
            h.set_gid(4_294_967_294);
        })
        .raw(b"sticky", b'5', b"", b"", |h| h.set_mode(0o1777))
        .pax(&[("mtime", b"-1.25")])
        .file("before", "")
        .raw(b"before-gnu", b'0', b"", b"", |h| {
            h.as_old_mut().mtime = [
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe,
            ];
        })
        .pax(&[("mtime", b"1700000000.123456789")])
        .symlink("link", "nowhere")
        .pax(&[("mtime", b"-9223372036854775808.5")])
        .file("never", "")
        .raw(b"block", b'4', b"", b"", |h| {
            h.set_device_major(7).unwrap();
            h.set_device_minor(300).unwrap();
        })
        .into(&place.root, WhiteoutStyle::Overlay)
        .unwrap();
    let meta = |name: &str| place.root.join(name).symlink_metadata().unwrap();
    let sgid = meta("sgid");
    assert_eq!(
        (sgid.mode() & 0o7777, sgid.uid(), sgid.gid()),
        (0o2755, 1 << 31, u32::MAX - 1)
    );
    assert_eq!(meta("sticky").mode() & 0o7777, 0o1777);
    assert_eq!(
        (meta("before").mtime(), meta("before").mtime_nsec()),
        (-2, 750_000_000)
    );
    assert_eq!(meta("before-gnu").mtime(), -2);
    assert_eq!(
        (meta("link").mtime(), meta("link").mtime_nsec()),
        (1_700_000_000, 123_456_789)
    );
    assert!(meta("block").file_type().is_block_device());
    assert_eq!(meta("block").rdev(), rustix::fs::makedev(7, 300));
}

#[test]
fn extended_attributes() {
    let place = Place::new();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Tar::default()
        .pax(&[
            ("SCHILY.xattr.user.k", b"a\0b"),
            ("SCHILY.xattr.trusted.k", b"t"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.overlay.whiteout", b"y"),
            ("SCHILY.xattr.nonsense", b"z"),
        ])
        .raw(b"f", b'0', b"", b"", |h| {
            h.set_uid(5);
            h.set_mode(0o4711);
        })
        .pax(&[
            ("SCHILY.xattr.user.k", b"d"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ])
        .dir("d")
        .pax(&[("SCHILY.xattr.trusted.k", b"s")])
        .symlink("s", "f")
        .into(&place.root, WhiteoutStyle::Overlay)
        .unwrap();
    let get = |name: &str, key: &str| {
        let mut value = [0; 64];
        let length = fs::lgetxattr(place.root.join(name), key, &mut value[..]).ok()?;
        Some(value[..length].to_vec())
    };
    assert_eq!(get("f", "user.k").unwrap(), b"a\0b");
    assert_eq!(get("f", "trusted.k").unwrap(), b"t");
    assert_eq!(get("f", "security.capability").unwrap(), capability);
    assert_eq!(get("f", "user.overlay.whiteout"), None);
    assert_eq!(get("d", "user.k").unwrap(), b"d");
    assert_eq!(get("d", "trusted.overlay.redirect"), None);
    assert_eq!(get("s", "trusted.k").unwrap(), b"s");
    let mode = place.root.join("f").metadata().unwrap().mode();
    assert_eq!(
        mode & 0o7777,
        0o4711,
        "set-id bits outlast owner and attributes"
    );
}

#[test]
fn duplicate_entries_end_as_the_last_one() {
    let place = Place::new();
    let mut tar = Tar::default();
    for round in 0..50 {
        tar = match round % 5 {
            0 => tar.file("x", "file"),
            1 => tar.dir("x").file("x/y", "y"),
            2 => tar.symlink("x", "/etc"),
            3 => tar.raw(b"x", b'6', b"", b"", |_| {}),
            _ => tar.file("other", "o").link("x", "other"),
        };
    }
    tar.file("x", "last")
        .into(&place.root, WhiteoutStyle::Overlay)
        .unwrap();
    assert_eq!(std_fs::read(place.root.join("x")).unwrap(), b"last");
    assert_eq!(std_fs::read(place.root.join("other")).unwrap(), b"o");
    place.assert_contained();
}
