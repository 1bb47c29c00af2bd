//! What is forwarded: the container's lines, with what tells the parts of a long one from each other.

use crate::entry::Entry;

/// One line, or a part of one that was too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// When it was written, in nanoseconds since the epoch.
    pub nanos: i64,
    /// From standard error.
    pub stderr: bool,
    /// The text, without the newline.
    pub text: Vec<u8>,
    /// Set for parts.
    pub partial: Option<Partial>,
}

/// Which part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// The same for all parts of a line.
    pub id: String,
    /// From 1 on.
    pub ordinal: u32,
    /// Whether the line ends here.
    pub last: bool,
}

impl Message {
    /// Whole seconds and the nanoseconds beyond.
    pub(crate) fn time(&self) -> (i64, u32) {
        let nanos = self.nanos.rem_euclid(1_000_000_000);
        // Less than a thousand million.
        (self.nanos.div_euclid(1_000_000_000), nanos as u32)
    }
}

/// Numbers the parts of long lines, which the log shows by the newline that only the last one has.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// For each stream: the identity of its unfinished line, and how many parts came.
    open: [Option<(String, u32)>; 2],
}

impl Parts {
    /// A line of the log as a message.
    pub(crate) fn message(&mut self, entry: &Entry<'_>) -> Message {
        let mut text = Vec::new();
        entry.text_into(&mut text);
        let complete = text.last() == Some(&b'\n');
        if complete {
            text.pop();
        }
        let nanos = entry.nanos();
        let open = &mut self.open[usize::from(entry.stderr)];
        let partial = match (open.take(), complete) {
            (None, true) => None,
            (begun, last) => {
                let (id, before) = begun.unwrap_or_else(|| {
                    // The parts of a line share its time, and no other line of the stream is in between.
                    (format!("{:016x}{}", nanos, u8::from(entry.stderr)), 0)
                });
                if !last {
                    *open = Some((id.clone(), before + 1));
                }
                Some(Partial {
                    id,
                    ordinal: before + 1,
                    last,
                })
            }
        };
        Message {
            nanos,
            stderr: entry.stderr,
            text,
            partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_numbered_per_stream() {
        let mut parts = Parts::default();
        let mut next = |text: &str, stream: &str| {
            let line =
                format!(r#"{{"log":"{text}","stream":"{stream}","time":"1970-01-01T00:00:01Z"}}"#);
            let message = parts.message(&Entry::parse(line.as_bytes()).unwrap());
            let partial = message.partial.map(|p| (p.ordinal, p.last));
            (String::from_utf8(message.text).unwrap(), partial)
        };
        assert_eq!(next(r"a\n", "stdout"), ("a".into(), None));
        assert_eq!(next("b", "stdout"), ("b".into(), Some((1, false))));
        assert_eq!(next(r"e\n", "stderr"), ("e".into(), None));
        assert_eq!(next("c", "stdout"), ("c".into(), Some((2, false))));
        assert_eq!(next(r"\n", "stdout"), (String::new(), Some((3, true))));
        assert_eq!(next(r"d\n", "stdout"), ("d".into(), None));
    }
}
