//! Things that tests need: root file systems, bytes, free ports.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::run::run;

/// A port of the loopback address that nobody uses at the moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback works");
    listener.local_addr().expect("it is bound").port()
}

/// Makes a directory with busybox and links for all its applets.
pub fn busybox_rootfs(dir: &Path) {
    for sub in ["bin", "etc", "tmp", "root", "proc", "sys", "dev", "var/www"] {
        fs::create_dir_all(dir.join(sub)).expect("a temporary directory is writable");
    }
    fs::copy("/bin/busybox", dir.join("bin/busybox")).expect("package busybox-static is installed");
    for applet in run("/bin/busybox", &["--list"])
        .ok()
        .lines()
        .filter(|a| *a != "busybox")
    {
        std::os::unix::fs::symlink("busybox", dir.join("bin").join(applet)).expect("a new link");
    }
    fs::write(
        dir.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/var/www:/bin/sh\n",
    )
    .and_then(|()| {
        fs::write(
            dir.join("etc/group"),
            "root:x:0:\nwww:x:33:\nextra:x:44:www\n",
        )
    })
    .expect("a temporary directory is writable");
}

/// The same bytes each time, which do not compress.
pub fn noise(seed: u64, length: u64) -> Vec<u8> {
    let mut state = seed;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length as usize).collect()
}

/// The path of a tar of [`busybox_rootfs`], made once a test process, whose end it does not outlive: it has no other name.
pub fn busybox_tar() -> &'static str {
    static TAR: OnceLock<(fs::File, String)> = OnceLock::new();
    let (_, path) = TAR.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path().join("root");
        busybox_rootfs(&root);
        let tar = dir.path().join("busybox.tar").display().to_string();
        run(
            "tar",
            &[
                "-C",
                &root.display().to_string(),
                "--owner=0",
                "--group=0",
                "-cf",
                &tar,
                ".",
            ],
        )
        .ok();
        let open = fs::File::open(tar).expect("it was made");
        let path = format!("/proc/{}/fd/{}", std::process::id(), open.as_raw_fd());
        (open, path)
    });
    path
}

/// A Debian root file system made by debootstrap, kept between runs under the build directory.
pub fn debian_rootfs() -> PathBuf {
    let root = crate::engine::bin_dir().join("fixtures/debian");
    if !root.join("etc/debian_version").exists() {
        let new = root.with_extension("new");
        if new.exists() {
            fs::remove_dir_all(&new).expect("it is ours");
        }
        fs::create_dir_all(&new).expect("the build directory is writable");
        let target = new.display().to_string();
        run("debootstrap", &["--variant=minbase", "bookworm", &target]).ok();
        fs::rename(&new, &root).expect("both are in the build directory");
    }
    root
}

/// An OCI layout with an image for each service of the stacks, kept between runs under the build directory.
pub(crate) fn stack_layout() -> PathBuf {
    let fixtures = crate::engine::bin_dir().join("fixtures");
    let layout = fixtures.join("stacks");
    fs::create_dir_all(&fixtures).expect("the build directory is writable");
    // Tests run in processes of their own: one makes the images, the others wait for it.
    let lock =
        fs::File::create(fixtures.join("stacks.lock")).expect("the build directory is writable");
    lock.lock().expect("the file can be locked");
    if !layout.join("index.json").exists() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/stacks/images.sh");
        run("bash", &[OsStr::new(script), layout.as_os_str()]).ok();
    }
    layout
}
