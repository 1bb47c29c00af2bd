//! Sizes and durations as the command line writes and reads them.
//!
//! The wording and rounding follow go-units and Go's `time` package: scripts parse both.

/// Formats like Go's `%.{precision}g`.
fn general(value: f64, precision: usize) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let scientific = format!("{:.*e}", precision - 1, value);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |digits: &str| {
        if digits.contains('.') {
            digits
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned()
        } else {
            digits.to_owned()
        }
    };
    if exponent < -4 || exponent >= precision as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), exponent.abs());
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    trim(&format!("{value:.decimals$}"))
}

fn scaled(mut size: f64, base: f64, precision: usize, units: &[&str]) -> String {
    let mut unit = 0;
    while size >= base && unit < units.len() - 1 {
        size /= base;
        unit += 1;
    }
    format!("{}{}", general(size, precision), units[unit])
}

/// Bytes in decimal units with three significant digits: `13.3kB`.
pub(crate) fn human_size(size: f64) -> String {
    scaled(
        size,
        1000.0,
        3,
        &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"],
    )
}

/// Bytes in decimal units with four significant digits, as `prune` and `system df` print them.
pub(crate) fn human_size_4(size: f64) -> String {
    scaled(
        size,
        1000.0,
        4,
        &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"],
    )
}

/// Bytes in binary units with four significant digits: `1.952GiB`.
pub(crate) fn binary_size(size: f64) -> String {
    scaled(
        size,
        1024.0,
        4,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"],
    )
}

/// A duration in words: `About a minute`, `3 weeks`.
pub(crate) fn human_duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds as f64 / 3600.0 + 0.5) as i64;
    match (seconds, minutes, hours) {
        (..1, _, _) => "Less than a second".into(),
        (1, _, _) => "1 second".into(),
        (..60, _, _) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".into(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".into(),
        (_, _, ..48) => format!("{hours} hours"),
        (_, _, ..336) => format!("{} days", hours / 24),
        (_, _, ..1440) => format!("{} weeks", hours / 24 / 7),
        (_, _, ..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// Parses a size in binary units: `64m`, `1.5g`, `1GiB`, `512`.
pub(crate) fn parse_size(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let split = text
        .rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')
        .ok_or_else(invalid)?;
    let number = if text.as_bytes()[split] == b' ' {
        &text[..split]
    } else {
        &text[..=split]
    };
    let size: f64 = number.parse().map_err(|_| invalid())?;
    if size < 0.0 {
        return Err(invalid());
    }
    let suffix = text[split + 1..].to_ascii_lowercase();
    let bad = || format!("invalid suffix: '{suffix}'");
    let power = match suffix.as_str() {
        "" | "b" => 0,
        other => {
            let (unit, rest) = other.split_at(other.chars().next().map_or(0, char::len_utf8));
            if !matches!(rest, "" | "b" | "ib") {
                return Err(bad());
            }
            "kmgtp".find(unit).ok_or_else(bad)? as i32 + 1
        }
    };
    Ok((size * 1024f64.powi(power)) as i64)
}

/// Parses a Go duration (`1h30m`, `500ms`, `0`) into nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let value: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let scale = match &rest[..letters] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            unit => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        total += value * scale;
        rest = &rest[letters..];
    }
    if total >= i64::MAX as f64 {
        return Err(invalid());
    }
    Ok(if negative {
        -(total as i64)
    } else {
        total as i64
    })
}

/// Parses a boolean as Go's `strconv.ParseBool` does.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing {text:?}: invalid syntax"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_as_go_units_rounds_them() {
        for (bytes, text) in [
            (0.0, "0B"),
            (999.0, "999B"),
            (1000.0, "1kB"),
            (13_256.0, "13.3kB"),
            (4_261_550.0, "4.26MB"),
            (999_900.0, "1e+03kB"),
            (7.8e10, "78GB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
        assert_eq!(binary_size(2_096_103_424.0), "1.952GiB");
        assert_eq!(binary_size(1024.0 * 1023.0), "1023KiB");
        assert_eq!(human_size_4(1_234_567.0), "1.235MB");
    }

    #[test]
    fn durations_read_as_words() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (3599, "59 minutes"),
            (3601, "About an hour"),
            (3 * 3600, "3 hours"),
            (3 * 86400, "3 days"),
            (20 * 86400, "2 weeks"),
            (100 * 86400, "3 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(human_duration(seconds), text);
        }
    }

    #[test]
    fn sizes_are_parsed_in_binary_units() {
        for (text, bytes) in [
            ("64m", 64 << 20),
            ("1.5g", 3 << 29),
            ("1GiB", 1 << 30),
            ("12", 12),
            ("1 kb", 1024),
            ("10B", 10),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        assert_eq!(parse_size("x"), Err("invalid size: 'x'".into()));
        assert_eq!(parse_size("-1"), Err("invalid size: '-1'".into()));
        assert_eq!(parse_size("1xb"), Err("invalid suffix: 'xb'".into()));
        assert_eq!(parse_size("1bb"), Err("invalid suffix: 'bb'".into()));
    }

    #[test]
    fn go_durations_are_parsed() {
        for (text, nanos) in [
            ("1h30m", 5_400_000_000_000),
            ("500ms", 500_000_000),
            ("1.5s", 1_500_000_000),
            ("-2m", -120_000_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(nanos), "{text}");
        }
        assert_eq!(
            parse_duration("10"),
            Err("time: missing unit in duration \"10\"".into())
        );
        assert!(parse_duration("").is_err());
        assert!(parse_duration("5x").is_err());
    }
}
