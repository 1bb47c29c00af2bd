#![no_main]

use std::sync::OnceLock;

use gantry_fuzz::{Target, target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    static TARGET: OnceLock<&Target> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("GANTRY_FUZZ_TARGET").expect("GANTRY_FUZZ_TARGET names a target");
        target(&name).expect("GANTRY_FUZZ_TARGET names a target")
    });
    (target.run)(input);
});
