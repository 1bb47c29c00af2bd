//! What the calling process takes on itself so that the containers' processes, its children, have it.

use std::collections::HashMap;
use std::path::PathBuf;

use gantry_monitor::direct::{self, Schedule};
use oci_spec::runtime as oci;

use crate::error::{Context, Result};

/// Inherited settings.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    pub(crate) personality: Option<oci::LinuxPersonality>,
    pub(crate) time: Option<TimeNamespace>,
    scheduler: Option<oci::Scheduler>,
    io_priority: Option<oci::LinuxIOPriority>,
}

/// A time namespace to be made or joined.
#[derive(Debug)]
pub(crate) struct TimeNamespace {
    pub(crate) path: Option<PathBuf>,
    pub(crate) offsets: HashMap<String, oci::LinuxTimeOffset>,
}

impl Inherited {
    /// Takes out of a process what its parent can set for it.
    pub(crate) fn take_of_process(&mut self, process: &mut oci::Process) {
        self.scheduler = process.scheduler().clone();
        process.set_scheduler(None);
        self.io_priority = *process.io_priority();
        process.set_io_priority(None);
    }
    /// Sets it, for the rest of this process's short life.
    pub(crate) fn apply(&self) -> Result<()> {
        if let Some(personality) = &self.personality {
            direct::set_personality(match personality.domain() {
                oci::LinuxPersonalityDomain::PerLinux => 0,
                oci::LinuxPersonalityDomain::PerLinux32 => 8,
            })
            .context(|| "set personality".into())?;
        }
        if let Some(scheduler) = &self.scheduler {
            direct::set_schedule(&schedule(scheduler)).context(|| "set scheduler".into())?;
        }
        if let Some(priority) = &self.io_priority {
            let class = match priority.class() {
                oci::IOPriorityClass::IoprioClassRt => 1,
                oci::IOPriorityClass::IoprioClassBe => 2,
                oci::IOPriorityClass::IoprioClassIdle => 3,
            };
            let level = u8::try_from(priority.priority()).unwrap_or(u8::MAX);
            direct::set_io_priority(class, level).context(|| "set io priority".into())?;
        }
        if let Some(time) = &self.time {
            direct::time_namespace(time.path.as_ref(), &offsets(&time.offsets))
                .context(|| "time namespace".into())?;
        }
        Ok(())
    }
}

/// The lines of `timens_offsets`.
fn offsets(offsets: &HashMap<String, oci::LinuxTimeOffset>) -> String {
    let line = |(clock, offset): (&String, &oci::LinuxTimeOffset)| {
        let (secs, nanosecs) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        format!("{clock} {secs} {nanosecs}\n")
    };
    offsets.iter().map(line).collect()
}

fn schedule(scheduler: &oci::Scheduler) -> Schedule {
    use oci::LinuxSchedulerPolicy as P;
    let flag = |f: &oci::LinuxSchedulerFlag| match f.to_string().as_str() {
        "SCHED_FLAG_RESET_ON_FORK" => 0x01,
        "SCHED_FLAG_RECLAIM" => 0x02,
        "SCHED_FLAG_DL_OVERRUN" => 0x04,
        "SCHED_FLAG_KEEP_POLICY" => 0x08,
        "SCHED_FLAG_KEEP_PARAMS" => 0x10,
        "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
        "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
        _ => 0,
    };
    Schedule {
        policy: match scheduler.policy() {
            P::SchedOther => 0,
            P::SchedFifo => 1,
            P::SchedRr => 2,
            P::SchedBatch => 3,
            P::SchedIso => 4,
            P::SchedIdle => 5,
            P::SchedDeadline => 6,
        },
        flags: scheduler
            .flags()
            .iter()
            .flatten()
            .map(flag)
            .fold(0, |all, one| all | one),
        nice: scheduler.nice().unwrap_or(0),
        priority: scheduler.priority().unwrap_or(0).cast_unsigned(),
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    }
}
