//! Points in time as the API shows them: RFC 3339 in UTC with up to nine decimals, trailing zeros dropped.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Nanoseconds since the Unix epoch. The default is Go's zero time, `0001-01-01T00:00:00Z`, which the API uses for
/// "never".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(jiff::Timestamp);

/// A string that is not an RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid time {0:?}: want RFC 3339")]
pub struct TimestampError(pub String);

/// Seconds from the Unix epoch back to Go's zero time.
const ZERO_SECONDS: i64 = -62_135_596_800;

impl Timestamp {
    /// Go's zero time: the API's word for "never".
    #[must_use]
    pub fn zero() -> Self {
        Self(jiff::Timestamp::new(ZERO_SECONDS, 0).expect("year 1 is in range"))
    }
    /// The wall clock.
    #[must_use]
    pub fn now() -> Self {
        Self(jiff::Timestamp::now())
    }
    /// From seconds and nanoseconds since the epoch; out-of-range values give [`Timestamp::zero`].
    #[must_use]
    pub fn from_unix(seconds: i64, nanoseconds: i32) -> Self {
        jiff::Timestamp::new(seconds, nanoseconds).map_or_else(|_| Self::zero(), Self)
    }
    /// Whole seconds since the epoch.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0.as_second()
    }
    /// Nanoseconds since the epoch.
    #[must_use]
    pub fn nanoseconds(self) -> i128 {
        self.0.as_nanosecond()
    }
    /// Whether this is Go's zero time.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::zero()
    }
    /// Time from `earlier` to this; zero when it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::try_from(self.0.duration_since(earlier.0)).unwrap_or_default()
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::zero()
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_unix(
            since.as_secs().try_into().unwrap_or(i64::MAX),
            since.subsec_nanos().cast_signed(),
        )
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = TimestampError;
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        text.parse()
            .map(Self)
            .map_err(|_| TimestampError(text.into()))
    }
}
impl TryFrom<String> for Timestamp {
    type Error = TimestampError;
    fn try_from(text: String) -> Result<Self, TimestampError> {
        text.parse()
    }
}
impl From<Timestamp> for String {
    fn from(time: Timestamp) -> String {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_form() {
        assert_eq!(Timestamp::zero().to_string(), "0001-01-01T00:00:00Z");
        assert_eq!(
            Timestamp::from_unix(1, 500_000_000).to_string(),
            "1970-01-01T00:00:01.5Z"
        );
        let text = "2024-05-06T07:08:09.123456789Z";
        assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
        assert!("yesterday".parse::<Timestamp>().is_err());
    }
}
