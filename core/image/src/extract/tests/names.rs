//! Names, and where they lead.

use std::fs as std_fs;

use tar::Header;

use super::*;

#[test]
fn names_that_want_out_stay_in() {
    let place = Place::new();
    let outside = place.outside.to_str().unwrap();
    Tar::default()
        .file("../../../dots", "1")
        .file("/absolute", "2")
        .file("a/../../../../up", "3")
        .symlink("rootlink", "/")
        .file("rootlink/through", "4")
        .into(&place.root, WhiteoutStyle::Overlay)
        .unwrap();
    for name in ["dots", "absolute", "up", "through"] {
        assert!(place.root.join(name).is_file(), "{name}");
    }
    place.assert_contained();

    for (what, tar) in [
        (
            "a symlinked parent",
            Tar::default().symlink("s", outside).file("s/x", "x"),
        ),
        (
            "a relative one",
            Tar::default().symlink("s", "../outside").file("s/x", "x"),
        ),
        (
            "a parent that becomes a symlink",
            Tar::default()
                .dir("d")
                .file("d/x", "x")
                .symlink("d", outside)
                .file("d/y", "y"),
        ),
        (
            "a hard link outside",
            Tar::default()
                .link("h", &format!("{outside}/secret"))
                .file("h", "y"),
        ),
        (
            "a hard link up",
            Tar::default().link("h", "../outside/secret"),
        ),
        (
            "a hard link through a symlink",
            Tar::default().symlink("s", outside).link("h", "s/secret"),
        ),
        ("a hard link to the root", Tar::default().link("h", "/")),
        (
            "a whiteout of the parent",
            Tar::default().file(".wh...", ""),
        ),
        ("a whiteout of nothing", Tar::default().file(".wh.", "")),
        (
            "a whiteout through a symlink",
            Tar::default()
                .symlink("s", outside)
                .file("s/.wh.secret", ""),
        ),
        (
            "an opaque mark through a symlink",
            Tar::default()
                .symlink("s", outside)
                .file("s/.wh..wh..opq", ""),
        ),
        (
            "a null byte",
            Tar::default().pax(&[("path", b"a\0b")]).file("x", "x"),
        ),
        (
            "a file as a parent",
            Tar::default().file("f", "x").file("f/y", "y"),
        ),
    ] {
        for style in [WhiteoutStyle::Overlay, WhiteoutStyle::Apply] {
            std_fs::remove_dir_all(&place.root).unwrap();
            std_fs::create_dir(&place.root).unwrap();
            let tar = Tar(tar.0.clone());
            assert!(tar.into(&place.root, style).is_err(), "{what}");
            place.assert_contained();
        }
    }
}

#[test]
fn long_names_in_every_form() {
    let place = Place::new();
    let deep = |letter: &str| [letter.repeat(120), letter.repeat(120)].join("/");
    let (gnu, pax, link) = (deep("g"), deep("p"), deep("l"));
    Tar::default()
        .file(&gnu, "gnu")
        .pax(&[("path", pax.as_bytes())])
        .file("short", "pax")
        .raw(link.as_bytes(), b'1', gnu.as_bytes(), b"", |_| {})
        .pax(&[("linkpath", pax.as_bytes())])
        .symlink("sym", "short")
        .raw(b"ustar", b'0', b"", b"ustar", |h| {
            let ustar = Header::new_ustar();
            let size = h.size().unwrap();
            *h = ustar;
            h.set_size(size);
            h.set_mode(0o644);
            h.set_uid(0);
            h.set_gid(0);
            h.set_path(format!("{}/{}", "u".repeat(140), "v".repeat(90)))
                .unwrap();
        })
        .into(&place.root, WhiteoutStyle::Overlay)
        .unwrap();
    let read = |name: &str| std_fs::read(place.root.join(name)).unwrap();
    assert_eq!(read(&gnu), b"gnu");
    assert_eq!(read(&link), b"gnu");
    assert_eq!(read(&pax), b"pax");
    assert_eq!(read("sym"), b"pax");
    assert_eq!(
        read(&format!("{}/{}", "u".repeat(140), "v".repeat(90))),
        b"ustar"
    );
    for (what, tar) in [
        ("a component", Tar::default().file(&"n".repeat(256), "")),
        ("a path", Tar::default().file(&"n/".repeat(3000), "")),
        (
            "a link",
            Tar::default().raw(b"s", b'2', &b"n/".repeat(3000), b"", |_| {}),
        ),
    ] {
        let error = tar.into(&place.root, WhiteoutStyle::Overlay).unwrap_err();
        assert!(
            error.to_string().contains("name too long"),
            "{what}: {error}"
        );
    }
}

#[test]
fn links_in_circles_are_errors() {
    for tar in [
        Tar::default()
            .symlink("a", "b")
            .symlink("b", "a")
            .file("a/x", "x"),
        Tar::default().symlink("a", "a/a").file("a/x", "x"),
        Tar::default().link("a", "a"),
        Tar::default().link("a", "b").link("b", "a"),
    ] {
        for style in [WhiteoutStyle::Overlay, WhiteoutStyle::Apply] {
            let place = Place::new();
            assert!(Tar(tar.0.clone()).into(&place.root, style).is_err());
            place.assert_contained();
        }
    }
}
