//! Networks: traffic beside links that are made by hand, and what changes of networks cost.

mod control;
mod dns;
mod overlay;
mod place;
mod ports;
mod roundtrip;
mod traffic;

use anyhow::Result;

use crate::peers::Bench;

pub(crate) use control::{among_many, attach, networks};
pub(crate) use dns::names;
pub(crate) use overlay::overlay;
pub(crate) use ports::ports;
pub(crate) use roundtrip::round_trip;
pub(crate) use traffic::traffic;

/// All of it.
pub(crate) fn print(bench: &Bench, rounds: usize) -> Result<()> {
    traffic(bench, rounds)?;
    overlay(bench, rounds)?;
    round_trip(bench, rounds)?;
    names(bench)?;
    networks(bench, rounds)?;
    attach(bench, rounds)?;
    among_many(bench, rounds)?;
    ports(bench, rounds)
}
