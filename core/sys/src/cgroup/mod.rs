//! Control groups, version 1, hybrid and version 2, over their file systems.
//!
//! [`Cgroups`] says what is mounted; [`Group`] is one container's place in all of it: [`Group::create`] makes its
//! directories (in every v1 hierarchy with a controller, or in the unified one), [`Group::apply`] sets [`Limits`],
//! [`Group::update`] changes them in use, all or none, [`Group::set_devices`] the device rules. Values are version 1's; on version 2 they are converted as runc does. A limit whose controller
//! the host lacks is an error that names the file; what Docker itself leaves out on such hosts, the caller leaves out.

mod detect;
mod devices;
mod files;
mod group;
mod limits;
mod oom;
mod read;
mod stats;
mod v1;
mod v2;
mod writes;

#[cfg(test)]
mod tests;

pub use detect::{Cgroups, Mode};
pub use devices::{DeviceAccess, DeviceKind, DeviceRule};
pub use files::CgroupError;
pub use group::Group;
pub use limits::{DeviceValue, Limits};
pub use oom::OomWatch;
pub use stats::{BlkioEntry, BlkioStats, CpuStats, MemoryStats, PidsStats, Stats};
pub use writes::Restore;
