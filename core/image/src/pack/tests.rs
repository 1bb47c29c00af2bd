use std::fs as std_fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use gantry_driver_api::storage::WhiteoutStyle;

use super::*;
use crate::archive::{Entry, Kind, TarReader};
use crate::extract::extract;

/// Takes every other piece, copies the rest.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Sink for Bytes {
    fn take(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        self.0.append(piece);
        Ok(())
    }
}

fn packed(tree: &Path, shown: &str, options: PackOptions<'_>) -> Vec<u8> {
    let mut bytes = Bytes::default();
    let mut packer = Packer::new(&mut bytes, options);
    let directory = std_fs::File::open(tree).unwrap().into();
    packer.tree(directory, shown.as_bytes()).unwrap();
    packer.finish().unwrap();
    bytes.0
}

fn entries(bytes: &[u8]) -> Vec<Entry> {
    let mut reader = TarReader::new(bytes);
    std::iter::from_fn(|| reader.next().unwrap()).collect()
}

fn names(bytes: &[u8]) -> Vec<String> {
    let name = |entry: Entry| String::from_utf8(entry.path).unwrap();
    entries(bytes).into_iter().map(name).collect()
}

#[test]
fn everything_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(200));
    std_fs::create_dir_all(from.join("d".repeat(120))).unwrap();
    std_fs::create_dir(&to).unwrap();
    std_fs::write(from.join(&long), "long").unwrap();
    std_fs::write(from.join("big"), vec![7; 600_000]).unwrap();
    std_fs::write(from.join("ünïcode"), "").unwrap();
    std_fs::hard_link(from.join("big"), from.join("second")).unwrap();
    symlink("t".repeat(300), from.join("link")).unwrap();
    fs::mknodat(
        std_fs::File::open(&from).unwrap(),
        "node",
        FileType::CharacterDevice,
        0o640.into(),
        fs::makedev(1, 3),
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
    std_fs::set_permissions(from.join("big"), PermissionsExt::from_mode(0o4711)).unwrap();
    std::os::unix::fs::chown(from.join("ünïcode"), Some(3_000_000), Some(12)).unwrap();
    let value = [1_u8, 0, 2];
    let path = from.join("ünïcode");
    fs::setxattr(&path, "user.mine", &value, fs::XattrFlags::empty()).unwrap();
    let bytes = packed(&from, "", PackOptions::default());
    assert_eq!(bytes.len() % 512, 0);
    extract(&to, WhiteoutStyle::Overlay, &mut &bytes[..]).unwrap();
    assert_eq!(std_fs::read(to.join(&long)).unwrap(), b"long");
    assert_eq!(std_fs::read(to.join("second")).unwrap(), vec![7; 600_000]);
    let meta = |name: &str| to.join(name).symlink_metadata().unwrap();
    assert_eq!(meta("big").ino(), meta("second").ino());
    assert_eq!(meta("big").mode() & 0o7777, 0o4711);
    assert_eq!(
        (meta("ünïcode").uid(), meta("ünïcode").gid()),
        (3_000_000, 12)
    );
    assert_eq!(meta("node").rdev(), fs::makedev(1, 3));
    assert_eq!(
        std_fs::read_link(to.join("link"))
            .unwrap()
            .as_os_str()
            .len(),
        300
    );
    assert!(!to.join("socket").exists());
    let mut got = [0; 3];
    fs::getxattr(to.join("ünïcode"), "user.mine", &mut got).unwrap();
    assert_eq!(got, value);
    // Sorted, so that the copy makes the same archive.
    assert_eq!(packed(&to, "", PackOptions::default()), bytes);
}

#[test]
fn the_names_that_clients_expect() {
    let dir = tempfile::tempdir().unwrap();
    std_fs::create_dir(dir.path().join("sub")).unwrap();
    std_fs::write(dir.path().join("sub/f"), "").unwrap();
    for (shown, want) in [
        ("", vec!["sub/", "sub/f"]),
        (".", vec!["./", "./sub/", "./sub/f"]),
        ("/", vec!["/", "/sub/", "/sub/f"]),
        ("x", vec!["x/", "x/sub/", "x/sub/f"]),
    ] {
        assert_eq!(
            names(&packed(dir.path(), shown, PackOptions::default())),
            want
        );
    }
    let mut bytes = Bytes::default();
    let mut packer = Packer::new(&mut bytes, PackOptions::default());
    let parent = std_fs::File::open(dir.path()).unwrap();
    packer.entry(parent.as_fd(), b"sub", b"other").unwrap();
    let missing = packer.entry(parent.as_fd(), b"none", b"none").unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    packer.finish().unwrap();
    assert_eq!(names(&bytes.0), ["other/", "other/f"]);
}

#[test]
fn holes_stay_holes() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std_fs::create_dir(&from).unwrap();
    std_fs::create_dir(&to).unwrap();
    let mut file = std_fs::File::create(from.join("sparse")).unwrap();
    file.write_all(b"start").unwrap();
    io::Seek::seek(&mut file, io::SeekFrom::Start(5 << 30)).unwrap();
    file.write_all(b"end").unwrap();
    file.set_len(6 << 30).unwrap();
    let empty = std_fs::File::create(from.join("void")).unwrap();
    empty.set_len(9 << 30).unwrap();
    let bytes = packed(&from, "", PackOptions::default());
    assert!(bytes.len() < 1 << 20, "{}", bytes.len());
    extract(&to, WhiteoutStyle::Overlay, &mut &bytes[..]).unwrap();
    let copy = to.join("sparse");
    assert_eq!(copy.metadata().unwrap().len(), 6 << 30);
    assert!(copy.metadata().unwrap().blocks() < 1000);
    assert_eq!(to.join("void").metadata().unwrap().len(), 9 << 30);
    let mut end = [0; 3];
    let copy = std_fs::File::open(copy).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&copy, &mut end, 5 << 30).unwrap();
    assert_eq!(&end, b"end");
}

#[test]
fn deletions_are_told_as_layers_tell_them() {
    let dir = tempfile::tempdir().unwrap();
    std_fs::create_dir(dir.path().join("opaque")).unwrap();
    std_fs::create_dir_all(dir.path().join("etc/skip")).unwrap();
    std_fs::write(dir.path().join("opaque/kept"), "").unwrap();
    let opaque = dir.path().join("opaque");
    fs::setxattr(
        &opaque,
        "trusted.overlay.opaque",
        b"y",
        fs::XattrFlags::empty(),
    )
    .unwrap();
    fs::mknodat(
        std_fs::File::open(dir.path().join("etc")).unwrap(),
        "gone",
        FileType::CharacterDevice,
        0.into(),
        0,
    )
    .unwrap();
    let skip = HashSet::from([b"etc/skip".to_vec()]);
    let options = PackOptions {
        layer: true,
        skip: Some(&skip),
        ..PackOptions::default()
    };
    let bytes = packed(dir.path(), "", options);
    assert_eq!(
        names(&bytes),
        [
            "etc/",
            "etc/.wh.gone",
            "opaque/",
            "opaque/.wh..wh..opq",
            "opaque/kept"
        ]
    );
    assert!(entries(&bytes).iter().all(|e| e.kind != Kind::CharDevice));
}

#[test]
fn the_kernels_windows_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    std_fs::create_dir_all(dir.path().join("root/proc")).unwrap();
    std_fs::create_dir_all(dir.path().join("root/tmp")).unwrap();
    std_fs::create_dir_all(dir.path().join("root/dev/null")).unwrap();
    let script = "mount -t proc p root/proc && mount -t tmpfs t root/tmp && touch root/tmp/f && echo && read x";
    let mut child = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .current_dir(dir.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let seen = format!("/proc/{}/root{}/root", child.id(), dir.path().display());
    let options = PackOptions {
        hollow: Some(b"/dev"),
        ..PackOptions::default()
    };
    let bytes = packed(Path::new(&seen), "/", options);
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(names(&bytes), ["/", "/dev/", "/proc/", "/tmp/", "/tmp/f"]);
}

#[test]
fn other_programs_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    std_fs::create_dir_all(from.join("e".repeat(150))).unwrap();
    std_fs::write(from.join("e".repeat(150)).join("f"), "text").unwrap();
    let sparse = std_fs::File::create(from.join("sparse")).unwrap();
    sparse.set_len(50 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 20 << 20).unwrap();
    // Times are written in whole seconds, as other engines do.
    let whole = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    sparse.set_modified(whole).unwrap();
    let text = from.join("e".repeat(150)).join("f");
    std_fs::File::open(text)
        .unwrap()
        .set_modified(whole)
        .unwrap();
    let archive = dir.path().join("a.tar");
    std_fs::write(&archive, packed(&from, "", PackOptions::default())).unwrap();
    let status = std::process::Command::new("tar")
        .arg("-C")
        .arg(&from)
        .arg("--compare")
        .arg("-f")
        .arg(&archive)
        .status();
    assert!(status.unwrap().success());
}
