//! API versions.

/// A version such as 1.51.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion(pub(crate) u16, pub(crate) u16);

/// The version whose shapes this client knows.
pub(crate) const NEWEST: ApiVersion = ApiVersion(1, 51);

impl ApiVersion {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.strip_prefix('v').unwrap_or(text).split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }

    /// The version to go on with after an older daemon has refused `self`, if that is what `message` says.
    pub(crate) fn after_refusal(self, message: &str) -> Option<Self> {
        let (_, rest) = message.split_once("is too new. Maximum supported API version is ")?;
        Self::parse(rest.split_whitespace().next()?.trim_end_matches(['.', ',']))
            .filter(|older| *older < self)
    }
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_version_to_go_on_with() {
        let message = "client version 1.51 is too new. Maximum supported API version is 1.41";
        assert_eq!(NEWEST.after_refusal(message), Some(ApiVersion(1, 41)));
        assert_eq!(ApiVersion(1, 41).after_refusal(message), None);
        assert_eq!(NEWEST.after_refusal("no such image"), None);
        assert!(ApiVersion(1, 9) < ApiVersion(1, 10));
    }
}
