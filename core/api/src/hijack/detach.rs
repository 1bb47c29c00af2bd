//! The key sequence with which a client leaves a terminal without ending what runs there.

use base64::Engine as _;

use crate::error::ApiError;

const DEFAULT: &str = "ctrl-p,ctrl-q";

/// Finds the sequence in what is typed, however the bytes arrive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    /// So many of them were typed and held back.
    matched: usize,
}

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q`: single characters and `ctrl-` with one of `a-z @ [ \ ] ^ _`, separated by commas. Nothing
    /// is the default.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        let text = text.filter(|text| !text.is_empty()).unwrap_or(DEFAULT);
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        keys.map(|keys| Self { keys, matched: 0 })
            .ok_or_else(|| ApiError::bad_request(format!("Invalid detach keys ({text}) provided")))
    }

    /// The sequence's bytes.
    pub(crate) fn to_base64(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(&self.keys)
    }

    /// Appends to `out` those of the typed bytes that are not (or not yet) part of the sequence. True when the
    /// sequence is complete; what was typed after it is dropped.
    pub(crate) fn pass(&mut self, typed: &[u8], out: &mut Vec<u8>) -> bool {
        for &byte in typed {
            // What was held back may contain a later beginning of the sequence.
            while self.matched > 0 && byte != self.keys[self.matched] {
                let held = &self.keys[..self.matched];
                let keep = (1..=held.len())
                    .find(|&skip| held[skip..] == self.keys[..held.len() - skip])
                    .unwrap_or(held.len());
                out.extend_from_slice(&held[..keep]);
                self.matched -= keep;
            }
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return true;
                }
            } else {
                out.push(byte);
            }
        }
        false
    }
}

fn key(text: &str) -> Option<u8> {
    match (text.strip_prefix("ctrl-"), text.as_bytes()) {
        (Some(control), _) => match control.as_bytes() {
            [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
            [b'@'] => Some(0),
            [sign @ (b'[' | b'\\' | b']' | b'^' | b'_')] => Some(sign - b'[' + 27),
            _ => None,
        },
        (None, [byte]) => Some(*byte),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str, chunks: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut keys = DetachKeys::parse(Some(keys)).unwrap();
        let mut out = Vec::new();
        let done = chunks.iter().any(|chunk| keys.pass(chunk, &mut out));
        (out, done)
    }

    #[test]
    fn sequences() {
        let keys = |text| DetachKeys::parse(text).map(|keys| keys.keys).ok();
        assert_eq!(keys(None), Some(vec![16, 17]));
        assert_eq!(keys(Some("")), Some(vec![16, 17]));
        assert_eq!(
            keys(Some("a,ctrl-a,ctrl-@,ctrl-_")),
            Some(vec![b'a', 1, 0, 31])
        );
        let keys = DetachKeys::parse(Some("ctrl-a,b")).unwrap();
        assert_eq!(keys.to_base64(), "AWI=");
        for bad in ["ctrl-", "ctrl-P", "ab", "a,", "ctrl-1"] {
            assert!(DetachKeys::parse(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_sequence_is_found_across_reads_and_nothing_else_is_lost() {
        assert_eq!(
            typed("ctrl-p,ctrl-q", &[b"ab\x10", b"\x11c"]),
            (b"ab".to_vec(), true)
        );
        assert_eq!(
            typed("ctrl-p,ctrl-q", &[b"\x10", b"x\x11"]),
            (b"\x10x\x11".to_vec(), false)
        );
        assert_eq!(
            typed("ctrl-p,ctrl-q", &[b"\x10\x10\x11"]),
            (b"\x10".to_vec(), true)
        );
        assert_eq!(typed("a,a,b", &[b"aaab", b"zz"]), (b"a".to_vec(), true));
        assert_eq!(typed("a,b,a,c", &[b"ababac"]), (b"ab".to_vec(), true));
        assert_eq!(typed("q", &[b"xq"]), (b"x".to_vec(), true));
    }
}
