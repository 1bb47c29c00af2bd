//! A busybox root file system, and what Docker puts into it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use gantry_monitor::plan::*;

/// Docker's default capabilities.
pub(crate) const DEFAULT_CAPS: u64 = 0xa804_25fb;

const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "true", "false", "sleep", "ls", "id", "head", "tail", "wc", "dd", "kill",
    "ps", "stty", "tty", "mkdir", "touch", "hostname", "mount", "readlink", "stat", "grep", "env",
    "pwd", "trap", "seq", "yes", "ip", "test", "chmod", "cp", "rm", "df", "md5sum", "mknod",
    "unshare", "tr", "setsid",
];

pub(crate) fn busybox(root: &Path) {
    for dir in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "srv"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:Web:/srv:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(
        root.join("etc/group"),
        "root:x:0:\nweb:x:44:\nextra:x:50:web\n",
    )
    .unwrap();
}

pub(crate) fn process(argv: &[&str]) -> Process {
    Process {
        argv: argv.iter().map(ToString::to_string).collect(),
        env: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()],
        cwd: "/".into(),
        capabilities: Capabilities {
            bounding: DEFAULT_CAPS,
            effective: DEFAULT_CAPS,
            permitted: DEFAULT_CAPS,
            inheritable: 0,
            ambient: 0,
        },
        ..Process::default()
    }
}

pub(crate) fn sh(script: &str) -> [&str; 3] {
    ["sh", "-c", script]
}

fn default_mounts() -> Vec<Mount> {
    let quiet = ["nosuid", "noexec", "nodev"];
    vec![
        Mount::parse("proc", "proc", "/proc", quiet),
        Mount::parse(
            "tmpfs",
            "tmpfs",
            "/dev",
            ["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        Mount::parse(
            "devpts",
            "devpts",
            "/dev/pts",
            [
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        Mount::parse(
            "sysfs",
            "sysfs",
            "/sys",
            ["nosuid", "noexec", "nodev", "ro"],
        ),
        Mount::parse("mqueue", "mqueue", "/dev/mqueue", quiet),
        Mount::parse(
            "tmpfs",
            "shm",
            "/dev/shm",
            ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"],
        ),
    ]
}

fn default_devices() -> Vec<Device> {
    [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ]
    .into_iter()
    .map(|(name, major, minor)| Device {
        path: Path::new("/dev").join(name),
        major,
        minor,
        mode: 0o666,
        ..Device::default()
    })
    .collect()
}

/// What a container has by Docker's defaults, but its root file system.
pub(crate) fn default_plan(argv: &[&str]) -> Plan {
    Plan {
        hostname: Some("box".into()),
        mounts: default_mounts(),
        devices: default_devices(),
        symlinks: [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("ptmx", "pts/ptmx"),
            ("core", "/proc/kcore"),
        ]
        .map(|(a, b)| (Path::new("/dev").join(a), b.into()))
        .to_vec(),
        masked_paths: [
            "/proc/kcore",
            "/proc/keys",
            "/proc/timer_list",
            "/proc/acpi",
            "/sys/firmware",
        ]
        .map(PathBuf::from)
        .to_vec(),
        readonly_paths: [
            "/proc/bus",
            "/proc/fs",
            "/proc/irq",
            "/proc/sys",
            "/proc/sysrq-trigger",
        ]
        .map(PathBuf::from)
        .to_vec(),
        process: process(argv),
        ..Plan::default()
    }
}
