//! Layers that would like to get out of their directory, or to break what unpacks them.

use super::builder::Tar;
use super::loads::{archive_of, docker_archive};
use super::{Victim, assert_refused, config, digest};

/// Each with words of its error. `{}` in a name stands for the directory that holds data-root and secret.
fn layers(outside: &str) -> Vec<(&'static str, Tar, &'static str)> {
    let secret = format!("{outside}/secret");
    let cut = |tar: Tar, at: usize| Tar(tar.0[..at].to_vec());
    vec![
        (
            "a write through a symlink",
            Tar::default().symlink("s", outside).file("s/secret", "x"),
            "s/secret",
        ),
        (
            "a write through a relative symlink",
            Tar::default()
                .symlink("s", "../../../../../..")
                .symlink("t", &format!("s{outside}"))
                .file("t/secret", "x"),
            "t/secret",
        ),
        (
            "a directory that becomes a symlink",
            Tar::default()
                .dir("d")
                .symlink("d", outside)
                .file("d/secret", "x"),
            "d/secret",
        ),
        (
            "a hard link to outside",
            Tar::default().link("h", &secret).file("h", "x"),
            "h: ",
        ),
        (
            "a hard link up",
            Tar::default().link("h", "../../secret"),
            "hard link",
        ),
        (
            "a hard link through a symlink",
            Tar::default().symlink("s", outside).link("h", "s/secret"),
            "h: ",
        ),
        (
            "a hard link to itself",
            Tar::default().link("h", "h"),
            "hard link",
        ),
        (
            "links in a circle",
            Tar::default()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/x", "x"),
            "a/x",
        ),
        (
            "a whiteout of the directory above",
            Tar::default().file(".wh...", ""),
            "invalid whiteout",
        ),
        (
            "a whiteout of the directory itself",
            Tar::default().file("d/.wh..", ""),
            "invalid whiteout",
        ),
        (
            "a whiteout of nothing",
            Tar::default().file(".wh.", ""),
            "invalid whiteout",
        ),
        (
            "a whiteout through a symlink",
            Tar::default()
                .symlink("s", outside)
                .file("s/.wh.secret", ""),
            "s/.wh.secret",
        ),
        (
            "an opaque mark through a symlink",
            Tar::default()
                .symlink("s", outside)
                .file("s/.wh..wh..opq", ""),
            "opq",
        ),
        (
            "a name with a null byte",
            Tar::default().pax(&[("path", b"a\0b")]).file("x", ""),
            "null byte",
        ),
        (
            "a link with a null byte",
            Tar::default()
                .pax(&[("linkpath", b"a\0b")])
                .symlink("x", "y"),
            "null byte",
        ),
        (
            "a file as a directory",
            Tar::default().file("f", "").file("f/x", ""),
            "f/x",
        ),
        (
            "a name of 256 bytes",
            Tar::default().file(&"n".repeat(256), ""),
            "name too long",
        ),
        (
            "a truncated entry",
            cut(Tar::default().file("f", &"x".repeat(2000)), 1000),
            "unexpected end",
        ),
        (
            "a truncated header",
            cut(Tar::default().file("f", "x").file("g", "y"), 1200),
            "tar header",
        ),
        (
            "a bad checksum",
            Tar(Tar::default()
                .file("f", "x")
                .0
                .iter()
                .map(|b| b ^ 1)
                .collect()),
            "tar header",
        ),
        (
            "a huge size",
            Tar::default().raw(b"f", b'0', b"", b"", |h| h.set_size(1 << 62)),
            "unexpected end",
        ),
        (
            "a size beyond all",
            Tar::default().raw(b"f", b'0', b"", b"", |h| h.set_size(u64::MAX)),
            "out of range",
        ),
        (
            "a negative size",
            Tar::default().pax(&[("size", b"-1")]).file("f", "x"),
            "invalid number",
        ),
        (
            "a size that is none",
            Tar::default().pax(&[("size", b"1e9")]).file("f", "x"),
            "invalid number",
        ),
        (
            "an owner beyond all",
            Tar::default().pax(&[("uid", b"4294967295")]).file("f", "x"),
            "owner",
        ),
        (
            "an unknown kind",
            Tar::default().raw(b"f", b'Q', b"", b"", |_| {}),
            "unhandled tar header type",
        ),
        (
            "an extended header of nothing",
            Tar::default().pax(&[("path", b"x")]),
            "without an entry",
        ),
        (
            "a broken extended header",
            Tar::default()
                .raw(b"p", b'x', b"", b"999 path=x\n", |_| {})
                .file("f", ""),
            "extended header",
        ),
        (
            "a huge extended header",
            Tar::default().raw(b"p", b'x', b"", &vec![b'1'; 2 << 20], |_| {}),
            "too large",
        ),
        (
            "overlapping runs",
            Tar::default()
                .pax(&[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.map", b"0,2,1,2"),
                    ("GNU.sparse.size", b"4"),
                ])
                .file("f", "abcd"),
            "sparse",
        ),
        (
            "runs beyond the end",
            Tar::default()
                .pax(&[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.map", b"18446744073709551615,4"),
                    ("GNU.sparse.size", b"4"),
                ])
                .file("f", "abcd"),
            "sparse",
        ),
    ]
}

#[test]
fn hostile_layers_are_errors_and_stay_inside() {
    for late in [true, false] {
        let probe = Victim::new(late);
        let outside = probe.dir.path().to_str().unwrap();
        for (what, tar, words) in layers(outside) {
            let layer = archive_of(tar);
            let result = probe.service_load(&layer);
            assert_refused(what, result, words);
            probe.assert_empty(what);
            assert_refused(what, probe.import(layer), words);
            probe.assert_empty(what);
        }
    }
}

impl Victim {
    /// Loads an image of this layer.
    fn service_load(&self, layer: &[u8]) -> Result<(), gantry_image::Error> {
        let config = config(&[digest(layer)]).to_string();
        self.load(docker_archive(config.as_bytes(), &[layer]))
    }
}

/// What is odd and allowed: names end up inside, whatever they say.
#[test]
fn names_that_want_out_are_taken_as_names_inside() {
    let victim = Victim::new(true);
    let outside = victim.dir.path().display();
    let layer = archive_of(
        Tar::default()
            .file("../../../../secret", "dots")
            .file(&format!("{outside}/secret"), "absolute")
            .symlink("root", "/")
            .file("root/through", "link"),
    );
    victim.service_load(&layer).unwrap();
    let images = victim.service.images.list(&Default::default()).unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(std::fs::read(victim.secret()).unwrap(), b"untouched");
    let snapshots = victim
        .service
        .storage
        .list(&gantry_driver_api::Call::new("t"), ())
        .unwrap();
    let root = snapshots[0].upper.clone().unwrap();
    assert_eq!(std::fs::read(root.join("secret")).unwrap(), b"dots");
    assert_eq!(std::fs::read(root.join("through")).unwrap(), b"link");
    assert!(root.join(format!("./{outside}/secret")).exists());
}

/// Streams that end early or do not inflate.
#[test]
fn damaged_compression() {
    use std::io::Write;
    let plain = archive_of(Tar::default().file("f", &"content ".repeat(4000)));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    let mut flipped = gzip.clone();
    let last = flipped.len() - 6;
    flipped[last] ^= 0xff;
    let victim = Victim::new(true);
    for (what, bytes) in [
        ("gzip cut off", gzip[..gzip.len() - 9].to_vec()),
        ("gzip with a bad checksum", flipped),
        ("gzip of nothing", b"\x1f\x8b\x08\0\0\0\0\0\0\0".to_vec()),
        ("gzip of nonsense", [b"\x1f\x8b", &[0xff; 600][..]].concat()),
        ("zstd cut off", zstd[..zstd.len() / 2].to_vec()),
        (
            "zstd of nonsense",
            [b"\x28\xb5\x2f\xfd", &[0xff; 600][..]].concat(),
        ),
    ] {
        let config = config(&[digest(&plain)]).to_string();
        let result = victim.load(docker_archive(config.as_bytes(), &[&bytes]));
        assert_refused(what, result, "");
        victim.assert_empty(what);
        assert_refused(what, victim.import(bytes), "");
        victim.assert_empty(what);
    }
}
