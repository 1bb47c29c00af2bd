//! Docker's json-file encoding: strings as its `jsonlog` package escapes them, and times as RFC 3339 with nanoseconds.

use std::io::Write;

/// For each ASCII byte: 0 goes as it is, 1 is escaped.
const ESCAPED: [bool; 128] = {
    let mut table = [false; 128];
    let mut b = 0;
    while b < 128 {
        table[b] = b < 0x20 || matches!(b as u8, b'"' | b'\\' | b'<' | b'>' | b'&');
        b += 1;
    }
    table
};

/// Appends the content of a JSON string. Every byte that is not UTF-8 becomes U+FFFD.
pub(crate) fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return escape_str(out, text);
    }
    for chunk in bytes.utf8_chunks() {
        escape_str(out, chunk.valid());
        for _ in chunk.invalid() {
            out.extend_from_slice(br"\ufffd");
        }
    }
}

/// So many bytes are looked at together while none of them needs a closer look.
const BLOCK: usize = 32;

/// Whether a byte may have to be escaped. Without branches, so that the compiler looks at many bytes at once.
fn suspicious(b: u8) -> bool {
    (b < 0x20) | (b == b'"') | (b == b'\\') | (b == b'<') | (b == b'>') | (b == b'&') | (b == 0xe2)
}

fn escape_str(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut start = 0;
    let mut i = 0;
    while i < bytes.len() {
        if let Some(block) = bytes[i..].first_chunk::<BLOCK>()
            && !block.iter().fold(false, |any, b| any | suspicious(*b))
        {
            i += BLOCK;
            continue;
        }
        let b = bytes[i];
        let len = if b < 0x80 {
            if !ESCAPED[b as usize] {
                i += 1;
                continue;
            }
            1
        } else if bytes[i..].starts_with(b"\xe2\x80\xa8") || bytes[i..].starts_with(b"\xe2\x80\xa9")
        {
            3
        } else {
            i += 1;
            continue;
        };
        out.extend_from_slice(&bytes[start..i]);
        match b {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
            b'\n' => out.extend_from_slice(br"\n"),
            b'\r' => out.extend_from_slice(br"\r"),
            0xe2 => {
                out.extend_from_slice(br"\u202");
                out.push(if bytes[i + 2] == 0xa8 { b'8' } else { b'9' });
            }
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(br"\u00");
                out.extend_from_slice(&[HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
            }
        }
        i += len;
        start = i;
    }
    out.extend_from_slice(&bytes[start..]);
}

/// A time (nanoseconds since the epoch) as Go's `RFC3339Nano` prints it: UTC, no zeros at the end of the fraction.
pub(crate) fn rfc3339(out: &mut Vec<u8>, nanos: i64) {
    let (seconds, mut fraction) = (
        nanos.div_euclid(1_000_000_000),
        nanos.rem_euclid(1_000_000_000),
    );
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    // Writing to a vector cannot fail.
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}");
    if fraction != 0 {
        let mut width = 9;
        while fraction % 10 == 0 {
            fraction /= 10;
            width -= 1;
        }
        let _ = write!(out, ".{fraction:0width$}");
    }
    out.push(b'Z');
}

/// Year, month and day of a day since the epoch (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year, month, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        escape(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    fn time(nanos: i64) -> String {
        let mut out = Vec::new();
        rfc3339(&mut out, nanos);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_as_docker_escapes_them() {
        assert_eq!(escaped(b"plain \xc3\xa4"), "plain ä");
        assert_eq!(
            escaped(b"a\"b\\c\n\r\t\x1b\x7f"),
            "a\\\"b\\\\c\\n\\r\\u0009\\u001b\x7f"
        );
        assert_eq!(escaped(b"<a&b>"), r"\u003ca\u0026b\u003e");
        assert_eq!(
            escaped("\u{2028}x\u{2029}\u{2027}".as_bytes()),
            "\\u2028x\\u2029\u{2027}"
        );
        assert_eq!(
            escaped(b"\xff\xfeok\xe2\x82"),
            r"\ufffd\ufffdok\ufffd\ufffd"
        );
        assert_eq!(escaped(b"\xed\xa0\x80"), r"\ufffd\ufffd\ufffd");
    }

    #[test]
    fn times_as_go_prints_them() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(1_709_210_096_120_000_000), "2024-02-29T12:34:56.12Z");
        assert_eq!(
            time(1_735_689_599_000_000_001),
            "2024-12-31T23:59:59.000000001Z"
        );
        assert_eq!(
            time(951_782_400_999_999_999),
            "2000-02-29T00:00:00.999999999Z"
        );
        assert_eq!(time(-1), "1969-12-31T23:59:59.999999999Z");
    }
}
