//! Drives the real zygote: a busybox root, launches as the daemon makes them, and a client that never waits for ever.

mod container;
mod control;
mod look;
mod machine;
mod root;

use std::time::Duration;

pub(crate) use container::*;
pub(crate) use control::*;
pub(crate) use look::*;
pub(crate) use machine::*;
pub(crate) use root::*;

/// Nothing here takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
