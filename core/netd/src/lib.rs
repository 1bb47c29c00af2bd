//! The network helper that outlives the daemon: it answers the name queries of containers, and relays published ports that
//! the kernel cannot translate.
//!
//! This library is the protocol and its client, used by `gantry-network`; the binary `gantry-netd` is the server. The
//! daemon makes a UDP and a TCP socket inside a sandbox's namespace and hands them over with the names that the
//! sandbox may know; from then on netd answers, with or without the daemon.
//!
//! Invariants:
//! - A [`Request`] is MessagePack with named fields in one SEQPACKET packet, or in several that are one message; each is
//!   answered by one [`Reply`].
//! - [`Request::Put`] and [`Request::Remove`] are idempotent and carry all that there is to know of a sandbox, and
//!   [`Request::Foreign`] of a network's members on other hosts, so that a daemon that lost track of a netd, or a netd
//!   that lost everything, is set right by saying it all again.
//! - netd ends when told, and when no sandbox is left, none is relayed to and no daemon is connected.
//!
//! It keeps nothing on disk and decides nothing: who may see which name, and whom a name may lead out, is said by the
//! daemon, and so is what is relayed where. Of the firewall it writes the two sets of names alone; a sandbox's namespace is
//! entered, by throwaway threads, to ask the servers that only the sandbox reaches.

mod client;
mod dns;
mod egress;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod message;
mod names;
mod nameserver;
mod protocol;
mod relay;
mod resolv;
mod server;
mod transport;
mod upstream;

pub use client::{Client, ClientError};
pub use nameserver::NameServer;
pub use protocol::{
    ADDRESS, Alias, Asks, EGRESS_NAMES_V4, EGRESS_NAMES_V6, Egress, Foreign, Listeners, Membership,
    PROTOCOL, Relay, Reply, Request, SandboxNames,
};
pub use resolv::{HostResolv, ResolvConf};
pub use server::{ServeError, serve};
