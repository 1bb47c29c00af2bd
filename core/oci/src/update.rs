//! `update`: other limits for a container at work.

use std::io::Read;
use std::path::Path;

use gantry_runtime::standalone;
use gantry_sys::cgroup::Limits;
use oci_spec::runtime as oci;

use crate::bundle;
use crate::cli::UpdateArgs;
use crate::error::{Context, Error, Result};
use crate::resources::{self, Extra};
use crate::state::{Container, Status};

const MAX_INPUT: u64 = 1 << 20;

/// The command.
pub(crate) fn update(root: &Path, args: &UpdateArgs) -> Result<()> {
    let container = Container::open(root, &args.id)?;
    let _lock = container.lock()?;
    if matches!(container.status(), Status::Stopped | Status::Creating) {
        return Err(Error::NotRunning);
    }
    let (limits, extra) = wanted(args)?;
    let group = container.group()?;
    group.apply(&limits)?;
    let cgroups = resources::cgroups(&resources::host()?)?;
    extra.apply(&cgroups, &group)
}

/// The limits of a file, or those of options. Device rules are not changed.
fn wanted(args: &UpdateArgs) -> Result<(Limits, Extra)> {
    let Some(path) = &args.resources else {
        return Ok((of_options(args), Extra::default()));
    };
    let what = || format!("read {}", path.display());
    let text = if path == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().take(MAX_INPUT).read_to_string(&mut text);
        read.map(|_| text).context(what)?
    } else {
        bundle::read(path).context(what)?
    };
    let mut given: oci::LinuxResources = serde_json::from_str(&text)
        .map_err(|e| Error::refused(format!("invalid resources: {e}")))?;
    given.set_devices(None);
    let extra = Extra::take_of(&mut given);
    Ok((resources::given(standalone::limits(&given)?), extra))
}

fn of_options(args: &UpdateArgs) -> Limits {
    Limits {
        memory: args.memory,
        memory_swap: args.memory_swap,
        memory_reservation: args.memory_reservation,
        cpu_shares: args.cpu_shares,
        cpu_quota: args.cpu_quota,
        cpu_period: args.cpu_period,
        cpu_realtime_runtime: args.cpu_rt_runtime,
        cpu_realtime_period: args.cpu_rt_period,
        cpuset_cpus: args.cpuset_cpus.clone(),
        cpuset_mems: args.cpuset_mems.clone(),
        pids: args.pids_limit,
        blkio_weight: args.blkio_weight,
        ..Limits::default()
    }
}
