//! The key sequence that lets go of a container and leaves it running.

/// Ctrl-P, Ctrl-Q.
pub(crate) const DEFAULT_KEYS: &[u8] = &[16, 17];

/// Parses `ctrl-p,ctrl-q` and the like.
pub(crate) fn parse_keys(text: &str) -> Result<Vec<u8>, String> {
    text.split(',').map(parse_key).collect()
}

fn parse_key(name: &str) -> Result<u8, String> {
    let unknown = || format!("Unknown character: '{name}'");
    if let [byte] = name.as_bytes() {
        return Ok(*byte);
    }
    if name == "DEL" {
        return Ok(127);
    }
    let Some(key) = name.strip_prefix("ctrl-") else {
        return Err(unknown());
    };
    match key.as_bytes() {
        [letter @ b'a'..=b'z'] => Ok(letter - b'a' + 1),
        [mark @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] => Ok(mark & 0x1f),
        _ => Err(unknown()),
    }
}

/// Looks for the sequence in what is typed.
///
/// Keys that may begin the sequence are held back until it is clear whether they do.
pub(crate) struct Watcher {
    keys: Vec<u8>,
    matched: usize,
}

/// What a piece of input comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filtered {
    pub(crate) pass: Vec<u8>,
    pub(crate) detached: bool,
}

impl Watcher {
    pub(crate) fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Returns what to pass on, and whether the sequence was completed; input after it is dropped.
    pub(crate) fn filter(&mut self, input: &[u8]) -> Filtered {
        let mut pass = Vec::with_capacity(input.len());
        for byte in input {
            if self.keys.get(self.matched) != Some(byte) {
                pass.extend_from_slice(&self.keys[..self.matched]);
                self.matched = 0;
            }
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return Filtered {
                        pass,
                        detached: true,
                    };
                }
            } else {
                pass.push(*byte);
            }
        }
        Filtered {
            pass,
            detached: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_names_are_parsed() {
        assert_eq!(parse_keys("ctrl-p,ctrl-q").unwrap(), DEFAULT_KEYS);
        assert_eq!(
            parse_keys("a,ctrl-@,ctrl-[,ctrl-_,DEL").unwrap(),
            [b'a', 0, 27, 31, 127]
        );
        assert_eq!(
            parse_keys("ctrl-pp"),
            Err("Unknown character: 'ctrl-pp'".into())
        );
    }

    #[test]
    fn the_sequence_is_found_across_reads() {
        let mut watcher = Watcher::new(DEFAULT_KEYS.to_vec());
        assert_eq!(
            watcher.filter(b"ab\x10"),
            Filtered {
                pass: b"ab".to_vec(),
                detached: false
            }
        );
        assert_eq!(
            watcher.filter(b"\x11x"),
            Filtered {
                pass: vec![],
                detached: true
            }
        );
    }

    #[test]
    fn keys_that_only_begin_it_are_passed_on_late() {
        let mut watcher = Watcher::new(DEFAULT_KEYS.to_vec());
        assert_eq!(
            watcher.filter(b"\x10"),
            Filtered {
                pass: vec![],
                detached: false
            }
        );
        assert_eq!(
            watcher.filter(b"x"),
            Filtered {
                pass: b"\x10x".to_vec(),
                detached: false
            }
        );
        assert_eq!(
            watcher.filter(b"\x10\x10"),
            Filtered {
                pass: b"\x10".to_vec(),
                detached: false
            }
        );
        assert_eq!(
            watcher.filter(b"\x11"),
            Filtered {
                pass: vec![],
                detached: true
            }
        );
    }
}
