//! Whether the kernel killed a process of the container for want of memory.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// The counter of OOM kills of a memory cgroup; the file stays open, so that it can be read whatever becomes of its path.
#[derive(Debug)]
pub(crate) struct Oom {
    file: Option<OwnedFd>,
    before: u64,
}

impl Oom {
    /// Opens the counter in a v1 or v2 cgroup's directory; without one there are no kills.
    pub(crate) fn open(dir: Option<&Path>) -> Self {
        let open = |name: &str| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::open(dir?.join(name), flags, Mode::empty()).ok()
        };
        let mut oom = Self {
            file: open("memory.oom_control").or_else(|| open("memory.events")),
            before: 0,
        };
        oom.before = oom.count();
        oom
    }

    /// Whether there was a kill since.
    pub(crate) fn happened(&self) -> bool {
        self.count() > self.before
    }

    fn count(&self) -> u64 {
        let mut buffer = [0; 512];
        let read = |fd| rustix::io::pread(fd, &mut buffer[..], 0).ok();
        let n = self.file.as_ref().and_then(read).unwrap_or(0);
        kills(&String::from_utf8_lossy(&buffer[..n]))
    }
}

fn kills(text: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix("oom_kill "));
    line.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_formats() {
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
        let v2 = "low 0\nhigh 0\nmax 9\noom 3\noom_kill 1\noom_group_kill 0\n";
        assert_eq!((super::kills(v1), super::kills(v2)), (2, 1));
        assert_eq!(super::kills("oom_kill_disable 1\n"), 0);
    }
}
