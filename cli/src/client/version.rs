//! API versions.

use gantry_wire::ApiVersion;

/// Reads a version, with or without the `v` of paths.
pub(crate) fn parse(text: &str) -> Option<ApiVersion> {
    text.strip_prefix('v').unwrap_or(text).parse().ok()
}

/// The version to go on with after an older daemon has refused `tried`, if that is what `message` says.
pub(crate) fn after_refusal(tried: ApiVersion, message: &str) -> Option<ApiVersion> {
    let (_, rest) = message.split_once("is too new. Maximum supported API version is ")?;
    parse(rest.split_whitespace().next()?.trim_end_matches(['.', ',']))
        .filter(|older| *older < tried)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_version_to_go_on_with() {
        let message = "client version 1.51 is too new. Maximum supported API version is 1.41";
        let older = ApiVersion::new(1, 41);
        assert_eq!(after_refusal(ApiVersion::MAX, message), Some(older));
        assert_eq!(after_refusal(older, message), None);
        assert_eq!(after_refusal(ApiVersion::MAX, "no such image"), None);
        assert_eq!(parse("v1.41"), Some(older));
    }
}
