//! Changing inputs.

/// Pseudo-random numbers, the same for the same seed (xorshift64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed ^ 0x9e37_79b9_7f4a_7c15 | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }
}

/// What is odd in many formats: ends of numbers, of names, of strings, of nesting.
const ODD: [&[u8]; 24] = [
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"-1",
    b"0",
    b"1e999",
    b"18446744073709551616",
    b"9223372036854775807",
    b"4294967295",
    b"2147483648",
    b"/",
    b"../",
    b"..",
    b".",
    b":",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b" ",
    b"\n",
    "\u{202e}".as_bytes(),
];
/// Inputs do not grow beyond.
const MAX: usize = 64 << 10;

/// One input made of the seeds: one of them, changed in a few places.
pub(crate) fn mutate(seeds: &[Vec<u8>], words: &[&str], random: &mut Random) -> Vec<u8> {
    let mut bytes = match seeds {
        [] => Vec::new(),
        seeds => seeds[random.below(seeds.len())].clone(),
    };
    for _ in 0..=random.below(6) {
        change(&mut bytes, seeds, words, random);
    }
    bytes.truncate(MAX);
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[&str], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let span = random.below((bytes.len() - at).min(64) + 1);
    match random.below(9) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.byte();
            }
        }
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..at + span)),
        4 => {
            let odd = ODD[random.below(ODD.len())];
            bytes.splice(at..at + span, odd.iter().copied());
        }
        5 if !words.is_empty() => {
            let word = words[random.below(words.len())];
            bytes.splice(at..at, word.bytes());
        }
        6 => {
            let part = bytes[at..at + span].to_vec();
            let part = part.repeat(1 + random.below(40));
            bytes.splice(at..at, part);
        }
        7 if !seeds.is_empty() => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        // Deeper than any honest document.
        _ => {
            let open = [&b"["[..], b"{\"a\":", b"(", b"\"\\"][random.below(4)];
            let deep = open.repeat(1 + random.below(400));
            bytes.splice(at..at, deep);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs() {
        let seeds = [b"hello world".to_vec(), b"{\"a\": 1}".to_vec()];
        let inputs = |seed| {
            let mut random = Random::new(seed);
            (0..500)
                .map(|_| mutate(&seeds, &["word"], &mut random))
                .collect::<Vec<_>>()
        };
        assert_eq!(inputs(7), inputs(7));
        assert_ne!(inputs(7), inputs(8));
        let distinct: std::collections::HashSet<_> = inputs(7).into_iter().collect();
        assert!(distinct.len() > 300, "{}", distinct.len());
    }
}
