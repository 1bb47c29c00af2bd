//! Control groups, version 1, hybrid and version 2, over their file systems.

mod detect;
mod stats;

pub use detect::{Cgroups, Mode};
pub use stats::{BlkioEntry, BlkioStats, CpuStats, MemoryStats, PidsStats, Stats};
