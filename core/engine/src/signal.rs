//! Signal names and numbers as clients write them.

use crate::{EngineError, Result};

/// The signals that have names, without `SIG`, with their numbers on the Linux architectures this engine runs on.
const NAMES: &[(&str, i32)] = &[
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
];

/// The first real-time signal that the C library leaves to programs, and the last.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Reads `SIGTERM`, `term`, `15`, `RTMIN+3` or `SIGRTMAX-1`.
///
/// # Errors
/// `invalid signal: x`, a bad request.
pub(crate) fn parse(text: &str) -> Result<i32> {
    let invalid = || EngineError::bad_request(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&number) {
            Ok(number)
        } else {
            Err(invalid())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(&(_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(number);
    }
    realtime(name).ok_or_else(invalid)
}

fn realtime(name: &str) -> Option<i32> {
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let offset = match rest.strip_prefix('+') {
            Some(digits) => digits.parse::<i32>().ok()?,
            None if rest.is_empty() => 0,
            None => return None,
        };
        return (0..=RTMAX - RTMIN)
            .contains(&offset)
            .then_some(RTMIN + offset);
    }
    let rest = name.strip_prefix("RTMAX")?;
    let offset = match rest.strip_prefix('-') {
        Some(digits) => digits.parse::<i32>().ok()?,
        None if rest.is_empty() => 0,
        None => return None,
    };
    (0..=RTMAX - RTMIN)
        .contains(&offset)
        .then_some(RTMAX - offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, want) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("Usr1", 10),
            ("SIGRTMIN+3", 37),
            ("RTMIN", 34),
            ("RTMAX-1", 63),
            ("64", 64),
        ] {
            assert_eq!(parse(text).unwrap(), want, "{text}");
        }
        for bad in [
            "", "0", "65", "-1", "SIGFOO", "RTMIN+31", "RTMIN3", "RTMAX+1",
        ] {
            let error = parse(bad).unwrap_err();
            assert_eq!(error.message, format!("invalid signal: {bad}"));
        }
    }
}
