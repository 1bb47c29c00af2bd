//! Names of containers: drawn ones, and the rules for given ones.

use crate::{EngineError, Result};

const ADJECTIVES: &[&str] = &[
    "able", "agile", "airy", "amber", "ample", "apt", "ardent", "balmy", "blithe", "bold", "brave",
    "breezy", "bright", "brisk", "calm", "candid", "chipper", "civil", "clear", "clever", "cosmic",
    "cosy", "crisp", "daring", "deft", "dapper", "dreamy", "eager", "earnest", "easy", "elated",
    "epic", "fair", "fluent", "fond", "frank", "fresh", "gentle", "glad", "golden", "grand",
    "hale", "hardy", "hearty", "honest", "humble", "ideal", "jolly", "jovial", "keen", "kind",
    "lively", "loyal", "lucid", "lucky", "mellow", "merry", "mild", "modest", "neat", "nifty",
    "nimble", "noble", "open", "patient", "placid", "plucky", "polite", "prime", "proud", "quick",
    "quiet", "rapid", "ready", "robust", "rosy", "sage", "serene", "sharp", "silent", "smart",
    "snug", "solid", "spry", "stable", "steady", "stoic", "sunny", "swift", "tender", "tidy",
    "trusty", "upbeat", "vivid", "warm", "wise", "witty", "zesty",
];

/// People to whom this trade owes something, and a few who moved things by ship, rail and crane.
const SURNAMES: &[&str] = &[
    "allen",
    "archimedes",
    "babbage",
    "backus",
    "banach",
    "bardeen",
    "bartik",
    "bell",
    "boole",
    "brunel",
    "cantor",
    "cerf",
    "chandra",
    "church",
    "clarke",
    "cocke",
    "codd",
    "cray",
    "curie",
    "dahl",
    "diffie",
    "dijkstra",
    "eckert",
    "edison",
    "einstein",
    "engelbart",
    "erdos",
    "euclid",
    "euler",
    "faraday",
    "feinler",
    "fermat",
    "feynman",
    "floyd",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "goldberg",
    "goldstine",
    "haibt",
    "hamilton",
    "hamming",
    "hellman",
    "herschel",
    "hilbert",
    "hoare",
    "holberton",
    "hopper",
    "huffman",
    "hypatia",
    "iverson",
    "jackson",
    "jennings",
    "kahan",
    "kare",
    "kay",
    "keller",
    "kepler",
    "khayyam",
    "kleene",
    "knuth",
    "lamarr",
    "lamport",
    "leavitt",
    "liskov",
    "lovelace",
    "maxwell",
    "mclean",
    "mccarthy",
    "meitner",
    "mendel",
    "minsky",
    "naur",
    "newton",
    "noether",
    "nygaard",
    "pascal",
    "perlman",
    "perlis",
    "planck",
    "postel",
    "rabin",
    "raman",
    "ride",
    "ritchie",
    "sammet",
    "shannon",
    "shaw",
    "sinoussi",
    "snyder",
    "stallman",
    "stephenson",
    "sutherland",
    "swartz",
    "tesla",
    "thompson",
    "torvalds",
    "turing",
    "wilkes",
    "wing",
    "wirth",
    "wozniak",
    "yalow",
    "zuse",
];

/// A name like `brave_hopper`, drawn by `random`; later tries get a digit.
#[must_use]
pub(crate) fn draw(attempt: u32, random: u64) -> String {
    let pick = |words: &[&'static str], bits: u64| {
        let at = usize::try_from(bits % words.len() as u64).unwrap_or(0);
        words[at]
    };
    let adjective = pick(ADJECTIVES, random & 0xffff_ffff);
    let surname = pick(SURNAMES, random >> 32);
    match attempt {
        0 => format!("{adjective}_{surname}"),
        n => format!("{adjective}_{surname}{}", n % 10),
    }
}

/// Whether `name` may be a container's or volume's: a letter or digit, then more of them or `_.-`.
#[must_use]
pub(crate) fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() > 1
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Checks a container's name as a client gave it; a leading slash is taken off.
///
/// # Errors
/// Docker's refusal.
pub(crate) fn check(given: &str) -> Result<&str> {
    let name = given.strip_prefix('/').unwrap_or(given);
    if is_valid(name) {
        return Ok(name);
    }
    Err(EngineError::bad_request(format!(
        "Invalid container name ({given}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        for good in ["ab", "/ab", "0_.-", "a.b"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "/", "_a", "a b", "a/b", "ä1", "//a"] {
            assert_eq!(
                check(bad).unwrap_err().message,
                format!(
                    "Invalid container name ({bad}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
                )
            );
        }
    }

    #[test]
    fn drawn_names_are_valid() {
        for seed in 0..2000u64 {
            let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert!(is_valid(&draw(u32::from(seed % 2 == 0), random)));
        }
        assert_ne!(draw(0, 0), draw(0, 1));
    }
}
