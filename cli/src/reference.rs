//! Image references in their familiar and their full form.

use anyhow::{Result, bail};

/// Docker Hub's name in references.
pub(crate) const HUB: &str = "docker.io";
const MAX_NAME: usize = 255;

/// `domain/path[:tag][@digest]`, with Docker Hub's defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) domain: String,
    pub(crate) path: String,
    pub(crate) tag: Option<String>,
    pub(crate) digest: Option<String>,
}

impl Reference {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            bail!("invalid reference format");
        }
        if text.len() == 64
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            bail!("invalid repository name ({text}), cannot specify 64-byte hexadecimal strings");
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (rest, None),
        };
        let (domain, path) = match name.split_once('/') {
            Some((first, path))
                if first.contains(['.', ':'])
                    || first == "localhost"
                    || first.chars().any(char::is_uppercase) =>
            {
                (
                    if first == "index.docker.io" {
                        HUB
                    } else {
                        first
                    },
                    path.to_owned(),
                )
            }
            _ => (HUB, name.to_owned()),
        };
        let path = if domain == HUB && !path.contains('/') {
            format!("library/{path}")
        } else {
            path
        };
        if path.chars().any(char::is_uppercase) {
            bail!("invalid reference format: repository name ({path}) must be lowercase");
        }
        let reference = Self {
            domain: domain.to_owned(),
            path,
            tag,
            digest,
        };
        if !reference.is_valid() {
            bail!("invalid reference format");
        }
        if reference.name().len() > MAX_NAME {
            bail!("repository name must not be more than {MAX_NAME} characters");
        }
        Ok(reference)
    }

    fn is_valid(&self) -> bool {
        let component = |part: &str| {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            let bytes = part.as_bytes();
            bytes.first().copied().is_some_and(plain)
                && bytes.last().copied().is_some_and(plain)
                && part.split(plain_char).all(|gap| {
                    matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-')
                })
        };
        let tag = |tag: &String| {
            tag.len() <= 128
                && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && tag
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        };
        let digest = |digest: &String| {
            digest.split_once(':').is_some_and(|(algorithm, hex)| {
                !algorithm.is_empty()
                    && hex.len() >= 32
                    && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
        };
        self.path.split('/').all(component)
            && self.tag.as_ref().is_none_or(tag)
            && self.digest.as_ref().is_none_or(digest)
    }

    /// The full name without tag and digest.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The name as people write it.
    pub(crate) fn familiar_name(&self) -> String {
        if self.domain != HUB {
            return self.name();
        }
        match self.path.strip_prefix("library/") {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// Name, tag and digest as people write them.
    pub(crate) fn familiar(&self) -> String {
        let tag = self
            .tag
            .as_ref()
            .map(|tag| format!(":{tag}"))
            .unwrap_or_default();
        let digest = self
            .digest
            .as_ref()
            .map(|digest| format!("@{digest}"))
            .unwrap_or_default();
        format!("{}{tag}{digest}", self.familiar_name())
    }

    /// Adds `latest` where neither tag nor digest is given.
    pub(crate) fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".into());
        }
        self
    }

    pub(crate) fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// The key under which credentials for this registry are kept.
    pub(crate) fn credential_key(&self) -> &str {
        if self.domain == HUB {
            crate::auth::HUB_KEY
        } else {
            &self.domain
        }
    }
}

fn plain_char(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_and_made_familiar_again() {
        for (text, name, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("user/app:1", "docker.io/user/app", "user/app:1"),
            (
                "localhost:5000/a/b",
                "localhost:5000/a/b",
                "localhost:5000/a/b",
            ),
            ("localhost/a", "localhost/a", "localhost/a"),
            ("index.docker.io/library/x", "docker.io/library/x", "x"),
            (
                "quay.io/a/b_c__d.e-f:v1.2_3",
                "quay.io/a/b_c__d.e-f",
                "quay.io/a/b_c__d.e-f:v1.2_3",
            ),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(
                (reference.name().as_str(), reference.familiar().as_str()),
                (name, familiar),
                "{text}"
            );
        }
        let pinned = format!("busybox:1@sha256:{}", "a".repeat(64));
        assert_eq!(Reference::parse(&pinned).unwrap().familiar(), pinned);
        assert_eq!(
            Reference::parse("busybox").unwrap().or_latest().familiar(),
            "busybox:latest"
        );
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "",
            "a//b",
            "-a",
            "a:",
            "a:b:c/d:",
            "a@sha256:xyz",
            "a...b",
            "a b",
            ":x",
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
        let error = Reference::parse("Foo").unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid reference format: repository name (library/Foo) must be lowercase"
        );
        assert!(Reference::parse(&"a".repeat(64)).is_err());
    }
}
