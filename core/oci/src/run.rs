//! `run`: create, start and, unless it is to be left alone, wait and remove.

use std::path::Path;

use crate::attend::attend;
use crate::cli::RunArgs;
use crate::create::{self, Created};
use crate::delete;
use crate::error::Result;
use crate::log::Log;
use crate::start;

/// The command; the container's exit code, or 0 when it is left alone.
pub(crate) fn run(root: &Path, args: &RunArgs, log: &Log) -> Result<u8> {
    let Created {
        container,
        lock,
        mut born,
    } = create::make(root, &args.create, args.detach, log)?;
    if let Err(e) = start::go(&container, lock, log) {
        born.kill();
        delete::remove(&container, log)?;
        return Err(e);
    }
    if args.detach {
        return Ok(0);
    }
    let ended = attend(born.pid, born.terminal.take());
    if !args.keep {
        delete::remove(&container, log)?;
    }
    ended
}
