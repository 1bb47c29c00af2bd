//! Processor time of a daemon with the helpers that it starts, as a control group counts it. Containers have groups of
//! their own, and are not in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

const UNIFIED: &str = "/sys/fs/cgroup";
/// Where version 1 is mounted by all who mount it.
const CPUACCT: &str = "/sys/fs/cgroup/cpuacct";

/// A control group for one daemon, removed when dropped.
pub(crate) struct Account {
    dir: PathBuf,
}

impl Account {
    /// A new group.
    pub(crate) fn new(daemon: &str) -> Result<Self> {
        let above = match Path::new(CPUACCT).exists() {
            true => CPUACCT,
            false => UNIFIED,
        };
        let name = format!("gantry-perf-{}-{daemon}", std::process::id());
        let dir = Path::new(above).join(name);
        fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self { dir })
    }

    /// A command that enters the group before it becomes the program.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"echo $$ >"$0" && exec "$@""#])
            .arg(self.dir.join("cgroup.procs"))
            .arg(program.as_ref());
        command
    }

    /// Milliseconds so far.
    pub(crate) fn processor(&self) -> Result<f64> {
        if let Ok(nanoseconds) = fs::read_to_string(self.dir.join("cpuacct.usage")) {
            return Ok(nanoseconds.trim().parse::<f64>()? / 1e6);
        }
        let stat = fs::read_to_string(self.dir.join("cpu.stat"))?;
        let used = stat
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "));
        Ok(used.context("no usage_usec")?.parse::<f64>()? / 1e3)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // The daemon's helpers end a moment after it.
        for _ in 0..100 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
