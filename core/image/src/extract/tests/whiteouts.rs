//! Deletions.

use std::fs as std_fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

use super::*;

#[test]
fn whiteouts_for_overlay() {
    let place = Place::new();
    Tar::default()
        .file("gone/.wh.file", "")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "new")
        .file(".wh.before", "")
        .dir("before")
        .dir("after")
        .file(".wh.after", "")
        .file("stays", "stays")
        .file(".wh.stays", "")
        .file(".wh..wh.plnk/x", "")
        .into(&place.root, WhiteoutStyle::Overlay)
        .unwrap();
    let at = |name: &str| place.root.join(name);
    let mark = at("gone/file").symlink_metadata().unwrap();
    assert!(mark.file_type().is_char_device() && mark.rdev() == 0);
    let opaque = |name: &str| {
        let mut value = [0; 8];
        fs::getxattr(at(name), "trusted.overlay.opaque", &mut value[..])
            .is_ok_and(|n| &value[..n] == b"y")
    };
    assert!(opaque("opaque") && opaque("before") && opaque("after") && !opaque("gone"));
    assert_eq!(std_fs::read(at("stays")).unwrap(), b"stays");
    assert!(at("opaque/new").is_file());
}

#[test]
fn whiteouts_carried_out() {
    let place = Place::new();
    for name in [
        "gone/file",
        "gone/other",
        "opaque/old",
        "opaque/sub/old",
        "both/old",
    ] {
        let path = place.root.join(name);
        std_fs::create_dir_all(path.parent().unwrap()).unwrap();
        std_fs::write(path, "below").unwrap();
    }
    symlink(&place.outside, place.root.join("opaque/out")).unwrap();
    Tar::default()
        .file("gone/.wh.file", "")
        .file("opaque/new", "new")
        .file("opaque/.wh..wh..opq", "")
        .file("both/old", "mine")
        .file("both/.wh.old", "")
        .file(".wh.never", "")
        .into(&place.root, WhiteoutStyle::Apply)
        .unwrap();
    let at = |name: &str| place.root.join(name);
    assert!(!at("gone/file").exists() && at("gone/other").exists());
    let left: Vec<_> = std_fs::read_dir(at("opaque"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["new"]);
    assert_eq!(std_fs::read(at("both/old")).unwrap(), b"mine");
    place.assert_contained();
}

#[test]
fn hard_links_across_layers() {
    let place = Place::new();
    std_fs::write(place.root.join("below"), "below").unwrap();
    Tar::default()
        .link("above", "below")
        .into(&place.root, WhiteoutStyle::Apply)
        .unwrap();
    let inode = |name: &str| place.root.join(name).metadata().unwrap().ino();
    assert_eq!(inode("above"), inode("below"));
}

#[test]
fn a_hard_link_to_what_is_deleted_is_an_error() {
    for style in [WhiteoutStyle::Overlay, WhiteoutStyle::Apply] {
        let place = Place::new();
        if style == WhiteoutStyle::Apply {
            std_fs::write(place.root.join("gone"), "below").unwrap();
        }
        let tar = Tar::default().file(".wh.gone", "").link("new", "gone");
        let error = tar.into(&place.root, style).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
        assert!(place.root.join("new").symlink_metadata().is_err());
    }
}

#[test]
fn a_link_outlives_the_deletion_of_its_target() {
    let place = Place::new();
    Tar::default()
        .file("a", "a")
        .link("b", "a")
        .file(".wh.c", "")
        .file("c", "again")
        .into(&place.root, WhiteoutStyle::Overlay)
        .unwrap();
    assert_eq!(std_fs::read(place.root.join("b")).unwrap(), b"a");
    assert_eq!(std_fs::read(place.root.join("c")).unwrap(), b"again");
}

#[test]
fn odd_marks() {
    for style in [WhiteoutStyle::Overlay, WhiteoutStyle::Apply] {
        let place = Place::new();
        // Of the root, twice, with data, as a directory and as a link.
        Tar::default()
            .file(".wh..wh..opq", "data")
            .dir(".wh..wh..opq")
            .symlink("d/.wh..wh..opq", "/etc")
            .file("d/.wh..wh.aufs", "")
            .dir("d/.wh..wh.orph")
            .file("d/x", "x")
            .into(&place.root, style)
            .unwrap();
        let left = |path: &str| std_fs::read_dir(place.root.join(path)).unwrap().count();
        assert_eq!((left(""), left("d")), (1, 1), "{style:?}");
        for bad in [".wh.", ".wh..", ".wh...", "d/.wh..", "d/.wh./x/../../.."] {
            let tar = Tar::default().file(bad, "");
            let done = tar.into(&place.root, style);
            assert!(done.is_err() || bad.ends_with(".."), "{bad}");
            place.assert_contained();
            assert!(place.root.join("d/x").exists(), "{bad}");
        }
    }
}
