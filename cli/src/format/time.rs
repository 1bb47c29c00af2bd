//! Moments as the command line writes and reads them.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ZonedDateTime, civil};

use super::units::{human_duration, parse_duration};

/// Go's `Time.String()` of a Unix time in the local zone: `2026-01-02 15:04:05 +0000 UTC`.
pub(crate) fn unix_local(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(
        |_| seconds.to_string(),
        |at| go_string(&at.to_zoned_datetime(TimeZone::system())),
    )
}

/// Go's `Time.String()` of an RFC 3339 time, in UTC if it says so.
pub(crate) fn rfc3339_go(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(at) => go_string(&at.to_zoned_datetime(TimeZone::UTC)),
        Err(_) => text.to_owned(),
    }
}

/// Unix time of an RFC 3339 time; none if it is not one.
pub(crate) fn seconds(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

/// A build's time as `version` shows it: `Fri May 30 12:07:14 2025`.
pub(crate) fn ansic(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(at) => at
            .to_zoned_datetime(TimeZone::system())
            .strftime("%a %b %e %H:%M:%S %Y")
            .to_string(),
        Err(_) => text.to_owned(),
    }
}

fn go_string(at: &ZonedDateTime) -> String {
    let fraction = at.subsec_nanosecond();
    let fraction = if fraction == 0 {
        String::new()
    } else {
        format!(".{fraction:09}").trim_end_matches('0').to_owned()
    };
    format!(
        "{}{fraction} {}",
        at.strftime("%Y-%m-%d %H:%M:%S"),
        at.strftime("%z %Z")
    )
}

/// RFC 3339 in the local zone with nine digits, as `events` prints it.
pub(crate) fn nanos_local(nanos: i128) -> String {
    let at = Timestamp::from_nanosecond(nanos)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_zoned_datetime(TimeZone::system());
    let zone = at.strftime("%:z").to_string();
    let zone = if zone == "+00:00" {
        "Z".to_owned()
    } else {
        zone
    };
    format!(
        "{}.{:09}{zone}",
        at.strftime("%Y-%m-%dT%H:%M:%S"),
        at.subsec_nanosecond()
    )
}

/// RFC 3339 in the local zone without a fraction.
pub(crate) fn seconds_local(seconds: i64) -> String {
    let at = Timestamp::from_second(seconds)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_zoned_datetime(TimeZone::system());
    let zone = at.strftime("%:z").to_string();
    format!(
        "{}{}",
        at.strftime("%Y-%m-%dT%H:%M:%S"),
        if zone == "+00:00" { "Z" } else { &zone }
    )
}

/// `N days ago`, by this machine's clock.
pub(crate) fn ago(seconds: i64) -> String {
    format!(
        "{} ago",
        human_duration(Timestamp::now().as_second() - seconds)
    )
}

/// Turns what a person gives as `--since` or `--until` into what the API takes.
///
/// Unix times pass as they are, a duration counts back from now, dates are in the local zone unless they name one.
pub(crate) fn api_timestamp(text: &str) -> String {
    if let Ok(nanos) = parse_duration(text) {
        let now = Timestamp::now();
        let then = now
            .checked_sub(SignedDuration::from_nanos(nanos))
            .unwrap_or(now);
        return then.as_second().to_string();
    }
    let zoned = |at: civil::DateTime| {
        at.to_zoned_datetime(TimeZone::system())
            .ok()
            .map(|at| at.timestamp())
    };
    let at = text
        .parse::<Timestamp>()
        .ok()
        .or_else(|| {
            text.contains('-')
                .then(|| text.parse::<civil::DateTime>().ok())
                .flatten()
                .and_then(zoned)
        })
        .or_else(|| {
            text.contains('-')
                .then(|| text.parse::<civil::Date>().ok())
                .flatten()
                .and_then(|day| zoned(day.into()))
        });
    match at {
        Some(at) => format!("{}.{:09}", at.as_second(), at.subsec_nanosecond()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_times_pass_and_dates_are_converted() {
        assert_eq!(api_timestamp("1136073845"), "1136073845");
        assert_eq!(
            api_timestamp("2006-01-02T15:04:05.5Z"),
            "1136214245.500000000"
        );
        assert_eq!(api_timestamp("nonsense"), "nonsense");
        let ten_minutes_ago: i64 = api_timestamp("10m").parse().unwrap();
        assert!(Timestamp::now().as_second() - ten_minutes_ago >= 600);
    }

    #[test]
    fn times_read_as_go_prints_them() {
        assert_eq!(
            rfc3339_go("2026-01-02T15:04:05.120Z"),
            "2026-01-02 15:04:05.12 +0000 UTC"
        );
        assert_eq!(
            rfc3339_go("2026-01-02T15:04:05Z"),
            "2026-01-02 15:04:05 +0000 UTC"
        );
    }
}
