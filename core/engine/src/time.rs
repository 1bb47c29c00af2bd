//! Times as clients write them.

use std::time::Duration;

use gantry_model::Timestamp;

use crate::{EngineError, Result};

/// Reads `1136073600[.5]`, RFC 3339 or how long before `now` (`1h30m`, Go's form).
///
/// # Errors
/// Text that is none of these.
pub fn parse(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Some(time) = unix(text) {
        return Ok(time);
    }
    if let Some(ago) = duration(text) {
        let ago = i128::try_from(ago.as_nanos()).unwrap_or(0);
        let then = now.nanoseconds() - ago;
        let seconds = i64::try_from(then.div_euclid(1_000_000_000)).unwrap_or(0);
        let rest = i32::try_from(then.rem_euclid(1_000_000_000)).unwrap_or(0);
        return Ok(Timestamp::from_unix(seconds, rest));
    }
    text.parse().map_err(|_| {
        EngineError::bad_request(format!(
            "failed to parse value as time or duration: {text:?}"
        ))
    })
}

fn unix(text: &str) -> Option<Timestamp> {
    let (seconds, decimals) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    if decimals.len() > 9 || !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanoseconds = format!("{decimals:0<9}").parse().ok()?;
    Some(Timestamp::from_unix(seconds, nanoseconds))
}

/// Go's `time.ParseDuration` for positive durations.
fn duration(text: &str) -> Option<Duration> {
    let mut total = 0f64;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let now = Timestamp::from_unix(10_000, 0);
        for (text, want) in [
            ("1136073600", Timestamp::from_unix(1_136_073_600, 0)),
            ("1.5", Timestamp::from_unix(1, 500_000_000)),
            ("1h30m", Timestamp::from_unix(4600, 0)),
            ("10s", Timestamp::from_unix(9990, 0)),
            ("1970-01-01T00:00:01Z", Timestamp::from_unix(1, 0)),
        ] {
            assert_eq!(parse(text, now).unwrap(), want, "{text}");
        }
        for bad in ["", "yesterday", "1x", "h"] {
            assert!(parse(bad, now).is_err(), "{bad}");
        }
    }
}
