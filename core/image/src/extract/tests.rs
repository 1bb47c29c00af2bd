use std::fs as std_fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use tar::{EntryType, Header};

use super::*;

/// An archive under construction, without any of the checks that honest writers make.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(
        mut self,
        path: &[u8],
        kind: u8,
        link: &[u8],
        data: &[u8],
        change: fn(&mut Header),
    ) -> Self {
        if path.len() > 100 {
            self = self.raw(b"long", b'L', b"", path, |_| {});
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::new(kind));
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.set_size(data.len() as u64);
        let old = header.as_old_mut();
        let length = path.len().min(100);
        old.name[..length].copy_from_slice(&path[..length]);
        old.linkname[..link.len()].copy_from_slice(link);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    fn file(self, path: &str, data: &str) -> Self {
        self.raw(path.as_bytes(), b'0', b"", data.as_bytes(), |_| {})
    }
    fn dir(self, path: &str) -> Self {
        self.raw(path.as_bytes(), b'5', b"", b"", |_| {})
    }
    fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(path.as_bytes(), b'2', target.as_bytes(), b"", |_| {})
    }
    fn link(self, path: &str, target: &str) -> Self {
        self.raw(path.as_bytes(), b'1', target.as_bytes(), b"", |_| {})
    }
    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let base = key.len() + value.len() + 3;
            let mut length = base + 1;
            while length != base + length.to_string().len() {
                length = base + length.to_string().len();
            }
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.raw(b"pax", b'x', b"", &data, |_| {})
    }
    fn into(self, root: &Path, style: WhiteoutStyle) -> io::Result<Extracted> {
        let mut bytes = self.0;
        bytes.resize(bytes.len() + 1024, 0);
        extract(root, style, &mut &bytes[..])
    }
}

/// A directory to unpack into, with something outside to hit.
struct Place {
    _dir: tempfile::TempDir,
    root: PathBuf,
    outside: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std_fs::create_dir(&root).unwrap();
        std_fs::create_dir(&outside).unwrap();
        std_fs::write(outside.join("secret"), "untouched").unwrap();
        Self {
            _dir: dir,
            root,
            outside,
        }
    }
    /// Nothing outside has changed.
    fn assert_contained(&self) {
        let names: Vec<_> = std_fs::read_dir(&self.outside).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let secret = self.outside.join("secret");
        assert_eq!(std_fs::read(&secret).unwrap(), b"untouched");
        assert_eq!(secret.metadata().unwrap().nlink(), 1);
        let above = std_fs::read_dir(self.root.parent().unwrap())
            .unwrap()
            .count();
        assert_eq!(above, 2);
    }
}

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

/// Archives damaged in every way that a fixed sequence of random numbers brings: an error or not, never a panic, and
/// nothing outside.
#[test]
fn damaged_archives() {
    let place = Place::new();
    let honest = Tar::default()
        .dir("d/")
        .file("d/f", "content")
        .symlink("s", "../outside")
        .file("d/.wh.gone", "")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.name", b"d/sparse"),
            ("GNU.sparse.realsize", b"4096"),
            ("SCHILY.xattr.user.x", b"y"),
        ])
        .raw(b"x", b'0', b"", b"1\n0\n0\n", |_| {})
        .file(&"long/".repeat(30), "x")
        .link("h", "d/f");
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for round in 0..3000 {
        let mut bytes = honest.0.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = u8::try_from(random(256)).unwrap(),
                1 => bytes.truncate(at.max(1)),
                _ => bytes[at] = b"/.0079\0\xff"[random(8)],
            }
        }
        // Half of the time the checksums are right, so that the damage gets further in.
        if round % 2 == 0 {
            for block in bytes.chunks_exact_mut(512) {
                if block[257..262] == *b"ustar" {
                    let mut header = Header::new_old();
                    header.as_mut_bytes().copy_from_slice(block);
                    header.set_cksum();
                    block.copy_from_slice(header.as_bytes());
                }
            }
        }
        let style = [WhiteoutStyle::Overlay, WhiteoutStyle::Apply][round % 2];
        let _ = extract(&place.root, style, &mut &bytes[..]);
        if round % 100 == 0 {
            place.assert_contained();
            std_fs::remove_dir_all(&place.root).unwrap();
            std_fs::create_dir(&place.root).unwrap();
        }
    }
    place.assert_contained();
}
