//! System call filters: Docker's profiles, and an own compiler of them to the kernel's classic BPF.
//!
//! A [`Profile`] in Docker's JSON form is [resolved](Profile::resolve) for a container (its capabilities, the kernel,
//! the architecture) to a [`Filter`], the same that an OCI specification holds; [`compile`] makes a [`Program`] of it.
//! Meaning of a filter, for one call on one architecture (libseccomp's and runc's, so that profiles mean here what they
//! mean there):
//! - the first rule without conditions for the call decides; without one, the first rule whose conditions all hold;
//!   without that, the default action;
//! - two conditions on one argument in one rule are alternatives, each a rule of its own;
//! - a call with a number beyond all that the filter names is answered `ENOSYS` where the default refuses, so that
//!   programs fall back to what an older kernel has;
//! - names that an architecture does not have are skipped; an architecture that is not named is killed;
//! - on i386 a rule without conditions for a socket or System V IPC call also covers its `socketcall`/`ipc` form.
//!
//! Nothing is skipped in silence: an action or flag that cannot be had is an error.

mod arch;
mod bpf;
mod compile;
mod profile;

#[cfg(test)]
mod tests;

pub use arch::Arch;
pub use compile::{Action, Compare, Condition, Filter, Program, Rule, compile};
pub use profile::{Profile, ResolveFor};

/// Docker's default profile.
pub const DEFAULT_PROFILE: &str = include_str!("default.json");

/// `SECCOMP_FILTER_FLAG_*` of `seccomp(2)`.
pub mod flag {
    /// Apply to all threads.
    pub const TSYNC: u32 = 1;
    /// Log every action but allow.
    pub const LOG: u32 = 1 << 1;
    /// Leave speculative store bypass as it is.
    pub const SPEC_ALLOW: u32 = 1 << 2;
}

/// A profile that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    /// Not a profile.
    #[error("Decoding seccomp profile failed: {0}")]
    Decode(String),
    /// A profile that contradicts itself, or holds what the kernel cannot take.
    #[error("seccomp: {0}")]
    Invalid(String),
    /// Something of the format that is not done here.
    #[error("seccomp: {0} is not supported")]
    Unsupported(String),
    /// The kernel takes no more than 4096 instructions.
    #[error("seccomp filter of {0} instructions is too long for the kernel")]
    TooLong(usize),
}
