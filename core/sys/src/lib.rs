//! The audited system calls: mounts, namespaces, cgroups, netlink, nftables, seccomp.
//!
//! What the rest of Gantry asks of the kernel beyond what `rustix` and `nix` say safely is written here once, behind
//! safe functions. Invariants:
//! - every descriptor that is made is close-on-exec;
//! - a path inside a container's file system is only resolved by [`inroot`], never by joining strings;
//! - roots (`/sys/fs/cgroup`, `/proc`) and host facts are passed in, so that tests can use their own;
//! - nothing here executes another program, keeps state of its own or starts a thread that outlives the call.
//!
//! It does not decide anything: which limits, mounts or rules a container gets is said by `gantry-runtime` and
//! `gantry-network`.
#![allow(unsafe_code)]

mod bpf;
pub mod caps;
pub mod cgroup;
pub mod connect;
pub mod copy;
pub mod heap;
pub mod host;
pub mod inroot;
pub mod mount;
pub mod mountns;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod seccomp;
pub mod socket;
pub mod tap;
pub mod view;
pub mod writeback;
pub mod xtables;
