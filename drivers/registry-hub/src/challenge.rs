//! Reading challenges. Source: RFC 7235.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// One challenge of a `WWW-Authenticate` header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// In lower case.
    pub(crate) scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// All challenges of an answer.
pub(crate) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse_challenges)
        .collect()
}

/// `scheme name=value, name="quoted", scheme ...`.
fn parse_challenges(text: &str) -> Vec<Challenge> {
    let mut list: Vec<Challenge> = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| c.is_whitespace() || c == '=' || c == ',')
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            rest = rest[1..].trim_start();
            continue;
        }
        let after = after.trim_start();
        match (after.strip_prefix('='), list.last_mut()) {
            (Some(value), Some(challenge)) => {
                let (value, after) = take_value(value.trim_start());
                challenge.parameters.push((word.to_lowercase(), value));
                rest = after.trim_start_matches([',', ' ', '\t']);
            }
            _ => {
                list.push(Challenge {
                    scheme: word.to_lowercase(),
                    parameters: Vec::new(),
                });
                rest = after.trim_start_matches([',', '=', ' ', '\t']);
            }
        }
    }
    list
}

/// A token or quoted string, and what follows it.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text
            .find(|c: char| c.is_whitespace() || c == ',')
            .unwrap_or(text.len());
        return (text[..end].into(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_field() {
        let hub = parse_challenges(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
        );
        assert_eq!(hub[0].scheme, "bearer");
        assert_eq!(hub[0].parameter("scope"), Some("repository:a/b:pull,push"));
        let two = parse_challenges(r#"Basic realm="a \"b\"", Bearer realm=x, service=y"#);
        assert_eq!(two.len(), 2);
        assert_eq!(two[0].parameter("realm"), Some(r#"a "b""#));
        assert_eq!(two[1].parameter("service"), Some("y"));
        assert_eq!(parse_challenges("Negotiate")[0].scheme, "negotiate");
        for odd in [
            "",
            ",",
            "=",
            "a=b",
            "Bearer realm=\"",
            "Bearer =,=",
            "\"\"\"",
        ] {
            parse_challenges(odd);
        }
    }
}
