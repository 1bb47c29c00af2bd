//! Every parser of what comes from outside, as a function of bytes.
//!
//! A [`Target`] takes any bytes and must return: a panic, an endless loop, memory without bound or something touched that
//! it had no business with is a finding. Targets are run in two ways: by [`drive`], which needs nothing but a stable
//! compiler and starts from each target's seeds (a short run is part of the tests, a long one of `cargo xtask soak`), and by
//! libFuzzer with its coverage (`tests/fuzz/libfuzzer`, which needs a nightly compiler and `cargo fuzz`).

mod drive;
mod mutate;
mod targets;

pub use drive::{Plan, drive};
pub use targets::TARGETS;

/// One parser.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, for people and for choosing one.
    pub name: &'static str,
    /// Reads bytes. Whether they are an error is its own business.
    pub run: fn(&[u8]),
    /// Inputs that are right, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words that mean something to it.
    pub words: &'static [&'static str],
    /// How many inputs a short run takes: about two seconds' worth without optimisation.
    pub rounds: u32,
}

/// The target of a name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
