//! Values of options as Go's `units`, `strconv` and `time` packages read them, with their words for what they refuse.

use std::time::Duration;

use super::LogOptionError;

type Result<T> = std::result::Result<T, LogOptionError>;

/// Bytes with decimal units (`units.FromHumanSize`): `10m` is ten million.
pub(super) fn human(text: &str) -> Result<u64> {
    size(text, 1000)
}

/// Bytes with binary units (`units.RAMInBytes`): `10m` is ten times 1,048,576.
pub(crate) fn ram(text: &str) -> Result<u64> {
    size(text, 1024)
}

fn size(text: &str, unit: u64) -> Result<u64> {
    let invalid = || LogOptionError::new(format!("invalid size: '{text}'"));
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let suffix = suffix
        .strip_prefix(' ')
        .unwrap_or(suffix)
        .to_ascii_lowercase();
    let power = match suffix.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(invalid()),
    };
    // A size beyond 2^63 is clamped by the conversion, which is as good as no limit.
    Ok((number * unit.pow(power) as f64) as u64)
}

/// `strconv.Atoi`.
pub(crate) fn integer(text: &str) -> Result<i64> {
    text.parse()
        .map_err(|_| LogOptionError::new(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
}

/// `strconv.ParseBool`.
pub(crate) fn boolean(text: &str) -> Result<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(LogOptionError::new(format!(
            "strconv.ParseBool: parsing {text:?}: invalid syntax"
        ))),
    }
}

/// `time.ParseDuration`, without signs.
pub(crate) fn duration(text: &str) -> Result<Duration> {
    let invalid = || LogOptionError::new(format!("time: invalid duration {text:?}"));
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(|| {
                LogOptionError::new(format!("time: missing unit in duration {text:?}"))
            })?;
        let (number, after) = rest.split_at(end);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        seconds += number
            * match unit {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => {
                    return Err(LogOptionError::new(format!(
                        "time: unknown unit {unit:?} in duration {text:?}"
                    )));
                }
            };
        rest = after;
    }
    match text {
        "" => Err(invalid()),
        _ => Duration::try_from_secs_f64(seconds).map_err(|_| invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(human("10m").unwrap(), 10_000_000);
        assert_eq!(human("1.5 KB").unwrap(), 1500);
        assert_eq!(ram("10m").unwrap(), 10 << 20);
        assert_eq!(ram("2GiB").unwrap(), 2 << 30);
        for bad in ["", "x", "1x", "-1", "1.2.3", "m"] {
            assert_eq!(
                human(bad).unwrap_err().to_string(),
                format!("invalid size: '{bad}'")
            );
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1m0.5s").unwrap(), Duration::from_millis(60_500));
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(duration("0").unwrap(), Duration::ZERO);
        let words = |text| duration(text).unwrap_err().to_string();
        assert_eq!(words("5"), "time: missing unit in duration \"5\"");
        assert_eq!(words("5x"), "time: unknown unit \"x\" in duration \"5x\"");
        assert_eq!(words(""), "time: invalid duration \"\"");
        assert_eq!(words("s"), "time: invalid duration \"s\"");
    }
}
