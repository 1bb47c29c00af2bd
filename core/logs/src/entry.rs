//! One line of a log: `{"log":"...","stream":"stdout","attrs":{...},"time":"..."}`, as Docker and the monitor write it.

use memchr::{memchr, memchr2, memmem};

const HEAD: &[u8] = br#"{"log":""#;
const STDOUT: &[u8] = br#"","stream":"stdout""#;
const STDERR: &[u8] = br#"","stream":"stderr""#;
const ATTRS: &[u8] = br#","attrs":"#;
const TIME: &[u8] = br#","time":""#;
const TAIL: &[u8] = b"\"}";

/// A line, taken apart without copying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// The text between its quotes, escapes and all.
    text: &'a [u8],
    /// Standard error.
    pub(crate) stderr: bool,
    /// The JSON object of attributes.
    pub(crate) attrs: Option<&'a [u8]>,
    /// RFC 3339 in UTC, up to nine decimals.
    pub(crate) time: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Takes a line (without its newline) apart. `None`: torn by a full disk or a power cut, or not written by an engine.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let rest = line.strip_prefix(HEAD)?;
        let (text, rest) = rest.split_at(string_end(rest)?);
        let (stderr, rest) = match rest.strip_prefix(STDOUT) {
            Some(rest) => (false, rest),
            None => (true, rest.strip_prefix(STDERR)?),
        };
        let (attrs, rest) = match rest.strip_prefix(ATTRS) {
            Some(attrs) => {
                let (attrs, rest) = attrs.split_at(memmem::rfind(attrs, TIME)?);
                (Some(attrs), rest)
            }
            None => (None, rest),
        };
        let time = rest.strip_prefix(TIME)?.strip_suffix(TAIL)?;
        Some(Self {
            text,
            stderr,
            attrs,
            time,
        })
    }

    /// Appends the text as the container wrote it; the newline at its end is there when the line was complete.
    pub(crate) fn text_into(&self, out: &mut Vec<u8>) {
        let mut rest = self.text;
        while let Some(at) = memchr(b'\\', rest) {
            out.extend_from_slice(&rest[..at]);
            rest = unescape(&rest[at + 1..], out);
        }
        out.extend_from_slice(rest);
    }

    /// The time in nanoseconds since the epoch; 0 when it cannot be read.
    pub(crate) fn nanos(&self) -> i64 {
        nanos(self.time).unwrap_or(0)
    }
}

/// Where the string ends whose begin was cut off.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// Appends what an escape stands for; returns what comes after it.
fn unescape<'a>(escape: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let Some((kind, rest)) = escape.split_first() else {
        return escape;
    };
    out.push(match kind {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'f' => 12,
        b'u' => return unicode(rest, out),
        other => *other,
    });
    rest
}

/// The four digits after `\u`, and those of the other half of a pair of surrogates.
fn unicode<'a>(digits: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let Some((high, rest)) = hex(digits) else {
        return digits;
    };
    let low = rest.strip_prefix(br"\u").and_then(hex);
    let (code, rest) = match (high, low) {
        (0xd800..=0xdbff, Some((low @ 0xdc00..=0xdfff, rest))) => {
            (0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00), rest)
        }
        _ => (high, rest),
    };
    let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    rest
}

fn hex(digits: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = digits.split_at_checked(4)?;
    let text = std::str::from_utf8(digits).ok()?;
    Some((u32::from_str_radix(text, 16).ok()?, rest))
}

/// Nanoseconds since the epoch of `2006-01-02T15:04:05[.999999999]Z`.
fn nanos(time: &[u8]) -> Option<i64> {
    let time = time.strip_suffix(b"Z")?;
    let number = |from: usize, to: usize| -> Option<i64> {
        time.get(from..to)?.iter().try_fold(0, |sum, digit| {
            digit
                .is_ascii_digit()
                .then(|| sum * 10 + i64::from(digit - b'0'))
        })
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let seconds = number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    let mut fraction = 0;
    if let Some(decimals) = time.get(20..) {
        let scale = 9u32.checked_sub(u32::try_from(decimals.len()).ok()?)?;
        fraction = number(20, time.len())? * 10i64.pow(scale);
    }
    let seconds = days(year, month, day) * 86_400 + seconds;
    seconds.checked_mul(1_000_000_000)?.checked_add(fraction)
}

/// Days since the epoch (Howard Hinnant's `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &[u8]) -> String {
        let mut out = Vec::new();
        Entry::parse(line).unwrap().text_into(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_taken_apart() {
        let line = br#"{"log":"a\"b\\\n","stream":"stderr","attrs":{"time":"x,\"time\":\"","k":"v"},"time":"1970-01-01T00:00:01.5Z"}"#;
        let entry = Entry::parse(line).unwrap();
        assert!(entry.stderr);
        assert_eq!(entry.attrs.unwrap(), br#"{"time":"x,\"time\":\"","k":"v"}"#);
        assert_eq!(entry.nanos(), 1_500_000_000);
        assert_eq!(text(line), "a\"b\\\n");
        let plain = br#"{"log":"x","stream":"stdout","time":"2024-02-29T12:34:56Z"}"#;
        let entry = Entry::parse(plain).unwrap();
        assert_eq!((entry.stderr, entry.attrs), (false, None));
        assert_eq!(entry.nanos(), 1_709_210_096_000_000_000);
    }

    #[test]
    fn torn_and_foreign_lines_are_refused() {
        for line in [
            &br#"{"log":"torn"#[..],
            br#"{"log":"torn\"#,
            br#"{"log":"x","stream":"stdout","time":"2024-02-29T1"#,
            br#"{"log":"x","stream":"other","time":"1970-01-01T00:00:01.5Z"}"#,
            br#"{"log":"x","stream":"stdout","attrs":{}}"#,
            b"",
            b"text",
        ] {
            assert_eq!(Entry::parse(line), None, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn escapes_are_undone() {
        let line = |text: &str| {
            format!(r#"{{"log":"{text}","stream":"stdout","time":"1970-01-01T00:00:01Z"}}"#)
        };
        for (escaped, plain) in [
            (r"\u003ca\u0026\u003e", "<a&>"),
            (r"\t\r\b\f\/", "\t\r\u{8}\u{c}/"),
            (r"\u2028\ufffd", "\u{2028}\u{fffd}"),
            (r"\ud83d\ude00!", "\u{1f600}!"),
            (r"\ud83d!", "\u{fffd}!"),
            (r"\\n", "\\n"),
        ] {
            assert_eq!(text(line(escaped).as_bytes()), plain);
        }
    }

    #[test]
    fn times() {
        let at = |text: &str| nanos(text.as_bytes());
        assert_eq!(at("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(
            at("2000-02-29T00:00:00.999999999Z"),
            Some(951_782_400_999_999_999)
        );
        assert_eq!(at("1969-12-31T23:59:59.9Z"), Some(-100_000_000));
        assert_eq!(at("2000-02-29T00:00:00.9999999999Z"), None);
        assert_eq!(at("2000-02-29T00:00:00"), None);
        assert_eq!(at("2000-0x-29T00:00:00Z"), None);
    }
}
