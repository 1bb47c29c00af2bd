//! The query string.

use axum::extract::FromRequestParts;
use gantry_model::Timestamp;
use gantry_wire::{Filters, lenient};
use http::request::Parts;

use crate::error::ApiError;

/// The query, read as dockerd reads it.
pub(crate) struct Query(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        Ok(Self(pairs.into_owned().collect()))
    }
}

impl Query {
    /// The first value; empty when there is none.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.given(name).unwrap_or_default()
    }
    /// The first value, when it is not empty.
    pub(crate) fn some(&self, name: &str) -> Option<&str> {
        self.given(name).filter(|value| !value.is_empty())
    }
    /// The first value, which may be empty.
    fn given(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(key, _)| key == name);
        pair.map(|(_, value)| value.as_str())
    }
    /// Every value.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let pairs = self.0.iter().filter(|(key, _)| key == name);
        pairs.map(|(_, value)| value.clone()).collect()
    }
    /// Anything but nothing, `0`, `no`, `false` and `none` is yes.
    pub(crate) fn flag(&self, name: &str) -> bool {
        let value = self.text(name).trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }
    /// A whole number, when one is given.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.some(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    ApiError::bad_request(format!("strconv.Atoi: parsing {text:?}: invalid syntax"))
                })
            })
            .transpose()
    }
    /// `filters`.
    pub(crate) fn filters(&self) -> Result<Filters, ApiError> {
        Ok(Filters::parse(self.text("filters"))?)
    }
    /// A point in time, `seconds[.nanoseconds]` since the epoch or RFC 3339; none for nothing and for zero.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.some(name).filter(|text| *text != "0") else {
            return Ok(None);
        };
        unix_time(text)
            .or_else(|| text.parse().ok())
            .map(Some)
            .ok_or_else(|| {
                ApiError::bad_request(format!("invalid value for {name:?}: {text:?} is no time"))
            })
    }
    /// `platform`, written `os[/arch[/variant]]` or as OCI JSON; in the former form.
    pub(crate) fn platform(&self) -> Result<Option<String>, ApiError> {
        self.some("platform").map(platform).transpose()
    }
    /// Every value of a parameter that names platforms, each as in [`Query::platform`].
    pub(crate) fn platforms(&self, name: &str) -> Result<Vec<String>, ApiError> {
        let values = self.all(name);
        let given = values.iter().filter(|value| !value.is_empty());
        given.map(|value| platform(value)).collect()
    }
}

fn platform(text: &str) -> Result<String, ApiError> {
    if !text.starts_with('{') {
        return Ok(text.to_owned());
    }
    let platform: gantry_wire::ImagePlatform = lenient::from_slice(text.as_bytes())?;
    let parts = [
        Some(platform.os),
        Some(platform.architecture),
        platform.variant,
    ];
    let parts = parts.into_iter().flatten().filter(|part| !part.is_empty());
    Ok(parts.collect::<Vec<_>>().join("/"))
}

/// Go's form of a time in queries: seconds and up to nine decimals.
fn unix_time(text: &str) -> Option<Timestamp> {
    let (seconds, decimals) = text.split_once('.').unwrap_or((text, ""));
    if !decimals.bytes().all(|b| b.is_ascii_digit()) || decimals.len() > 9 {
        return None;
    }
    let nanoseconds = format!("{decimals:0<9}").parse().ok()?;
    Some(Timestamp::from_unix(seconds.parse().ok()?, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query(
            url::form_urlencoded::parse(text.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    #[test]
    fn flags_are_dockerds() {
        for (text, want) in [
            ("", false),
            ("a=", false),
            ("a=0", false),
            ("a=None", false),
            ("a=False", false),
            ("a=1", true),
            ("a=True", true),
            ("a=yes", true),
        ] {
            assert_eq!(query(text).flag("a"), want, "{text}");
        }
    }

    #[test]
    fn numbers_and_times() {
        assert_eq!(query("t=-1").number("t").unwrap(), Some(-1));
        assert_eq!(query("t=").number("t").unwrap(), None);
        assert!(query("t=x").number("t").is_err());
        let time = |text: &str| query(text).time("since").unwrap();
        assert_eq!(
            time("since=1.5"),
            Some(Timestamp::from_unix(1, 500_000_000))
        );
        assert_eq!(
            time("since=1700000000.000000001"),
            Some(Timestamp::from_unix(1_700_000_000, 1))
        );
        assert_eq!(
            time("since=1970-01-01T00:00:02Z"),
            Some(Timestamp::from_unix(2, 0))
        );
        assert_eq!(time("since=0"), None);
        assert!(query("since=soon").time("since").is_err());
    }

    #[test]
    fn platforms_come_in_two_forms() {
        let platform = |text: &str| {
            let text: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
            query(&format!("platform={text}")).platform().unwrap()
        };
        assert_eq!(platform("linux/arm64").as_deref(), Some("linux/arm64"));
        assert_eq!(
            platform(r#"{"os":"linux","architecture":"arm","variant":"v7"}"#).as_deref(),
            Some("linux/arm/v7")
        );
        assert_eq!(platform(""), None);
    }
}
