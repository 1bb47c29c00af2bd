//! Taking Docker's multiplexed frames apart again, where a client wants bare bytes.

const HEADER: usize = 8;

/// A stream of frames, however the bytes arrive; or of bare bytes, which pass through.
#[derive(Debug)]
pub(super) struct Demux {
    bare: bool,
    header: [u8; HEADER],
    /// So many bytes of the header are there.
    have: usize,
    /// So many bytes of the frame are still to come.
    rest: usize,
}

impl Demux {
    /// `bare` for a terminal's bytes, which are in no frames.
    pub(super) fn new(bare: bool) -> Self {
        Self {
            bare,
            header: [0; HEADER],
            have: 0,
            rest: 0,
        }
    }

    /// The next piece of payload, and what comes after it. `None` when there is none in these bytes.
    pub(super) fn next<'a>(&mut self, mut bytes: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        if self.bare {
            return (!bytes.is_empty()).then_some((bytes, &[]));
        }
        while self.rest == 0 {
            let count = bytes.len().min(HEADER - self.have);
            self.header[self.have..self.have + count].copy_from_slice(&bytes[..count]);
            self.have += count;
            bytes = &bytes[count..];
            if self.have < HEADER {
                return None;
            }
            let [.., a, b, c, d] = self.header;
            self.rest = u32::from_be_bytes([a, b, c, d]) as usize;
            self.have = 0;
        }
        if bytes.is_empty() {
            return None;
        }
        let (payload, after) = bytes.split_at(self.rest.min(bytes.len()));
        self.rest -= payload.len();
        Some((payload, after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_is_found_however_it_is_cut() {
        let stream = b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\x04errs";
        for size in 1..=stream.len() {
            let (mut demux, mut got) = (Demux::new(false), Vec::new());
            for mut chunk in stream.chunks(size) {
                while let Some((payload, after)) = demux.next(chunk) {
                    got.extend_from_slice(payload);
                    chunk = after;
                }
            }
            assert_eq!(got, b"outerrs", "in pieces of {size}");
        }
        assert_eq!(Demux::new(true).next(b"raw"), Some((&b"raw"[..], &b""[..])));
        assert_eq!(Demux::new(true).next(b""), None);
    }
}
