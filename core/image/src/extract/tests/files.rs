//! Contents of files: holes, sparse forms, sizes.

use std::fs as std_fs;
use std::os::unix::fs::MetadataExt;

use super::*;

#[test]
fn zeros_become_holes() {
    let place = Place::new();
    let mut data = vec![0; 3 << 20];
    data[1 << 20] = 1;
    let done = Tar::default()
        .raw(b"f", b'0', b"", &data, |_| {})
        .raw(b"zeros", b'0', b"", &vec![0; 1 << 20], |_| {})
        .into(&place.root, WhiteoutStyle::Overlay)
        .unwrap();
    assert_eq!(done.bytes, 4 << 20);
    assert_eq!(std_fs::read(place.root.join("f")).unwrap(), data);
    assert_eq!(
        std_fs::read(place.root.join("zeros")).unwrap(),
        vec![0; 1 << 20]
    );
    assert!(place.root.join("f").metadata().unwrap().blocks() < 1000);
    assert_eq!(place.root.join("zeros").metadata().unwrap().blocks(), 0);
}

#[test]
fn sparse_files() {
    let place = Place::new();
    let mut map = b"2\n0\n3\n9000000\n2\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"abcde");
    Tar::default()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"real"),
            ("GNU.sparse.realsize", b"9000010"),
        ])
        .raw(b"GNUSparseFile.0/real", b'0', b"", &map, |_| {})
        .into(&place.root, WhiteoutStyle::Overlay)
        .unwrap();
    let bytes = std_fs::read(place.root.join("real")).unwrap();
    assert_eq!(bytes.len(), 9_000_010);
    assert_eq!(
        (&bytes[..3], &bytes[9_000_000..9_000_002]),
        (&b"abc"[..], &b"de"[..])
    );
    assert!(place.root.join("real").metadata().unwrap().blocks() < 100);
}

#[test]
fn sizes_that_lie() {
    let place = Place::new();
    let tar = Tar::default().raw(b"f", b'0', b"", b"", |h| h.set_size(1 << 40));
    let error = tar.into(&place.root, WhiteoutStyle::Overlay).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
    assert!(place.root.join("f").metadata().unwrap().len() < 4096);
    let name = format!("{}/x", "n".repeat(300));
    let error = Tar::default()
        .file(&name, "")
        .into(&place.root, WhiteoutStyle::Overlay)
        .unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
}

/// All forms that GNU tar writes, of a file with more runs than one extension block holds.
#[test]
fn sparse_files_of_gnu_tar() {
    let place = Place::new();
    let source = place.root.parent().unwrap().join("source");
    let file = std_fs::File::create(&source).unwrap();
    for run in 0..40_u64 {
        std::os::unix::fs::FileExt::write_at(&file, &[run as u8 + 1; 5000], run * 200_000).unwrap();
    }
    file.set_len(9_000_000).unwrap();
    let wanted = std_fs::read(&source).unwrap();
    for form in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let made = std::process::Command::new("tar")
            .args(form)
            .args(["--sparse", "--hole-detection=raw", "-cf", "-", "-C"])
            .args([source.parent().unwrap(), Path::new("source")])
            .output()
            .unwrap();
        assert!(
            made.status.success() && made.stdout.len() < 2_000_000,
            "{form:?}"
        );
        let done = extract(&place.root, WhiteoutStyle::Overlay, &mut &made.stdout[..]).unwrap();
        assert_eq!(done.bytes, 9_000_000, "{form:?}");
        let target = place.root.join("source");
        assert!(std_fs::read(&target).unwrap() == wanted, "{form:?}");
        assert!(target.metadata().unwrap().blocks() < 1500, "{form:?}");
        std_fs::remove_file(target).unwrap();
    }
}

#[test]
fn what_must_be_held_in_memory_has_limits() {
    let place = Place::new();
    let huge = vec![b'x'; 2 << 20];
    for kind in [b'L', b'K', b'x', b'g'] {
        let tar = Tar::default()
            .raw(b"meta", kind, b"", &huge, |_| {})
            .file("f", "x");
        let error = tar.into(&place.root, WhiteoutStyle::Overlay).unwrap_err();
        assert!(error.to_string().contains("too large"), "{error}");
    }
    let mut map = b"9999999\n".to_vec();
    map.resize(512, b'0');
    let tar = Tar::default()
        .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9")])
        .raw(b"f", b'0', b"", &map, |_| {});
    assert!(tar.into(&place.root, WhiteoutStyle::Overlay).is_err());
    // Holes cost nothing: a file may claim to be as large as the file system allows, and no larger.
    let claims = |size: &'static [u8]| {
        Tar::default()
            .pax(&[
                ("GNU.sparse.major", b"0"),
                ("GNU.sparse.map", b"0,1"),
                ("GNU.sparse.size", size),
            ])
            .file("big", "x")
            .into(&place.root, WhiteoutStyle::Overlay)
    };
    assert_eq!(claims(b"1099511627776").unwrap().bytes, 1 << 40);
    assert!(place.root.join("big").metadata().unwrap().blocks() < 100);
    assert!(claims(b"9223372036854775807").is_err());
    assert!(claims(b"99999999999999999999").is_err());
}
