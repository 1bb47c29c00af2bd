//! The parents of containers: one zygote per daemon, one monitor per container, and the language they are spoken to in.
//!
//! The binary `gantry-monitor` is a single-threaded **zygote** that forks a **monitor** per container; the monitor clones
//! the container's init, holds its standard streams, writes its log, reaps it, parents its execs and records its exit. The
//! library is what the daemon needs to drive them: the [`plan`] of a container, the control [`protocol`], and a small
//! synchronous [`client`] whose pieces also serve an asynchronous caller.
//!
//! Invariants
//! - Everything a start needs is decided before: the plan is complete, no policy is applied here, no image or daemon
//!   configuration is read. (The one exception is by need: user *names* are looked up inside the mounted root.)
//! - A path inside a container is resolved with `openat2(RESOLVE_IN_ROOT)`; an image cannot lead a mount outside its root.
//! - Whatever fails, every child is reaped; mounts live only in the container's mount namespace and die with it.
//! - The exit record is on disk before anyone is told of an exit.
//! - The daemon may die at any moment: nothing here waits for it, and a new one finds monitors at their sockets.
//!
//! Not here: creating or limiting cgroups, networks, storage snapshots (prepared by the caller, named in the plan).
#![allow(unsafe_code)]

// Modules that only the programs use name the library from outside, as their tests do.
extern crate self as gantry_monitor;

pub mod client;
pub mod direct;
mod exec;
mod fault;
pub mod hooks;
mod init;
mod monitor;
pub mod options;
pub mod plan;
mod process;
pub mod protocol;
mod sync;
mod sys;
mod zygote;

pub use fault::words_of;
pub use zygote::run as serve_zygote;
