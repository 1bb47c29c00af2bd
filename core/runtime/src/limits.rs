//! A word in the log about limits that the engine has not the right to set: the container runs all the same.

use gantry_model::ContainerId;
use gantry_monitor::plan::Process;
use gantry_sys::host::HostFacts;
use rustix::process::{Resource, getrlimit};

/// `RLIMIT_*` by number, as far as a container's root may want more of them than it has.
const RESOURCES: [(u32, Resource, &str); 16] = [
    (0, Resource::Cpu, "cpu"),
    (1, Resource::Fsize, "fsize"),
    (2, Resource::Data, "data"),
    (3, Resource::Stack, "stack"),
    (4, Resource::Core, "core"),
    (5, Resource::Rss, "rss"),
    (6, Resource::Nproc, "nproc"),
    (7, Resource::Nofile, "nofile"),
    (8, Resource::Memlock, "memlock"),
    (9, Resource::As, "as"),
    (10, Resource::Locks, "locks"),
    (11, Resource::Sigpending, "sigpending"),
    (12, Resource::Msgqueue, "msgqueue"),
    (13, Resource::Nice, "nice"),
    (14, Resource::Rtprio, "rtprio"),
    (15, Resource::Rttime, "rttime"),
];

/// Warns of what will be left as it is for want of `CAP_SYS_RESOURCE`. Containers inherit this process's limits.
pub(crate) fn warn(id: &ContainerId, process: &Process, oom: Option<i32>, host: &HostFacts) {
    if host.bounding_set.has("SYS_RESOURCE") && !host.in_user_namespace {
        return;
    }
    for name in beyond(process) {
        tracing::warn!(container = %id, "the hard limit of {name} may not be raised: it stays as it is");
    }
    if oom.is_some_and(|score| score < 0) {
        tracing::warn!(container = %id, "the OOM score may not be lowered: it stays as it is");
    }
}

/// The limits that are asked to be higher than the hard ones there are.
fn beyond(process: &Process) -> Vec<&'static str> {
    let higher = process.rlimits.iter().filter_map(|limit| {
        let (_, resource, name) = RESOURCES.iter().find(|r| r.0 == limit.resource)?;
        // None is no limit.
        let hard = getrlimit(*resource).maximum?;
        (limit.hard > hard).then_some(*name)
    });
    higher.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_monitor::plan::Rlimit;

    #[test]
    fn only_higher_hard_limits_are_told() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let limit = |hard| Process {
            rlimits: vec![Rlimit {
                resource: 7,
                soft: 1,
                hard,
            }],
            ..Process::default()
        };
        assert!(beyond(&limit(1)).is_empty());
        let Some(hard) = hard else {
            return;
        };
        assert_eq!(beyond(&limit(hard + 1)), ["nofile"]);
        assert_eq!(beyond(&limit(u64::MAX)), ["nofile"]);
    }
}
