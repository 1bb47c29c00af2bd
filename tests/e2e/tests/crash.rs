//! The daemon killed at every step of what changes the disk, disks that are full and disks that rot: nothing acknowledged is
//! lost, nothing is left over, and what is missing is all that is fetched again.

#[path = "crash/attachments.rs"]
mod attachments;
#[path = "crash/full.rs"]
mod full;
#[path = "crash/kills.rs"]
mod kills;
#[path = "crash/order.rs"]
mod order;
#[path = "crash/repair.rs"]
mod repair;
#[path = "crash/soak.rs"]
mod soak;
#[path = "crash/tools.rs"]
mod tools;
