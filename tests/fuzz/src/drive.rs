//! Running a target without libFuzzer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::Target;
use crate::mutate::{Random, mutate};

/// An input may take no longer, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Inputs that did not end in an error or panic are kept as further seeds, up to so many.
const MAX_SEEDS: usize = 256;

/// How long, and from where on.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The same number brings the same inputs.
    pub seed: u64,
    /// Ends after so many inputs, if not before by time.
    pub rounds: Option<u32>,
    /// Ends after this time.
    pub time: Option<Duration>,
    /// Where each input is written before it is run: for findings that end the process.
    pub trace: Option<PathBuf>,
}

/// Runs a target on its seeds and on what becomes of them.
///
/// # Panics
/// On a finding, with the input and how to run it again.
pub fn drive(target: &Target, plan: &Plan) -> u32 {
    let mut seeds = (target.seeds)();
    let mut random = Random::new(plan.seed);
    for seed in seeds.clone() {
        run(target, plan, &seed, 0);
    }
    let started = Instant::now();
    let mut rounds = 0;
    while plan.rounds.is_none_or(|end| rounds < end)
        && plan.time.is_none_or(|end| started.elapsed() < end)
    {
        rounds += 1;
        let input = mutate(&seeds, target.words, &mut random);
        run(target, plan, &input, rounds);
        // Changes add up, so that inputs come that are further from the first ones.
        if rounds % 64 == 0 && input.len() < 16 << 10 {
            if seeds.len() < MAX_SEEDS {
                seeds.push(input);
            } else {
                let at = random.below(MAX_SEEDS);
                seeds[at] = input;
            }
        }
    }
    rounds
}

fn run(target: &Target, plan: &Plan, input: &[u8], round: u32) {
    if let Some(trace) = &plan.trace {
        std::fs::write(trace, input).expect("the trace can be written");
    }
    let started = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let took = started.elapsed();
    assert!(
        ended.is_ok() && took < PATIENCE,
        "{}: input {round} of seed {} {}:\n{}",
        target.name,
        plan.seed,
        if ended.is_ok() {
            "took too long"
        } else {
            "panics"
        },
        input.escape_ascii()
    );
}
