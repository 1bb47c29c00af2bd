//! A short run of every target, the same at each time, and a long one that is not.

use std::time::Duration;

use gantry_fuzz::{Plan, drive, target};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More memory than this no input of some kilobytes may ask for. Each test is a process of its own under nextest.
const MEMORY: u64 = 4 << 30;

fn run(name: &str, plan: &Plan) {
    let limit = Rlimit {
        current: Some(MEMORY),
        ..getrlimit(Resource::As)
    };
    setrlimit(Resource::As, limit).unwrap();
    let target = target(name).unwrap();
    let rounds = drive(target, plan);
    assert!(rounds > 0);
}

fn short(name: &str) {
    let plan = Plan {
        seed: 1,
        rounds: Some(target(name).unwrap().rounds),
        // A machine may be slow; that is no finding.
        time: Some(Duration::from_secs(5)),
        trace: std::env::var_os("GANTRY_FUZZ_TRACE").map(Into::into),
    };
    run(name, &plan);
}

/// `GANTRY_FUZZ_SEED` runs what an earlier run has run; `GANTRY_FUZZ_SECONDS` is how long.
fn long(name: &str) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("GANTRY_FUZZ_SEED").unwrap_or_else(|| {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    });
    println!("{name}: GANTRY_FUZZ_SEED={seed}");
    let plan = Plan {
        seed,
        rounds: None,
        time: Some(Duration::from_secs(
            number("GANTRY_FUZZ_SECONDS").unwrap_or(60),
        )),
        trace: std::env::var_os("GANTRY_FUZZ_TRACE").map(Into::into),
    };
    run(name, &plan);
}

macro_rules! targets {
    ($($name:ident)*) => {
        $( mod $name {
            #[test]
            fn short() {
                super::short(stringify!($name));
            }

            #[test]
            #[ignore = "a minute: cargo xtask soak"]
            fn long() {
                super::long(stringify!($name));
            }
        } )*

        #[test]
        fn every_target_is_run() {
            let known: Vec<_> = gantry_fuzz::TARGETS.iter().map(|t| t.name).collect();
            assert_eq!(known, [$( stringify!($name) ),*]);
        }
    };
}

targets! {
    layer archive manifest config reference hosts_file
    challenge oci_index create filters seccomp devices drivers
    plugin_calls plugin_replies plugin_file logs dns
}
