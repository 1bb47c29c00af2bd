//! The platform an image is for, as OCI descriptors and `--platform` name it.

use serde::{Deserialize, Serialize};

/// Operating system, architecture and variant in Go's words (`linux`, `amd64`, `v8`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system, `linux`.
    pub os: String,
    /// Architecture in Go's words, `amd64`.
    pub architecture: String,
    /// Variant of the architecture, `v7`; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// The platform this engine was built for.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: String::new(),
        }
        .normalized()
    }

    /// Reads `os[/arch[/variant]]` or a lone architecture; parts left out are the host's. `None` when empty parts or
    /// more than three are given.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return None;
        }
        let host = Self::host();
        let platform = match parts[..] {
            ["linux" | "windows" | "darwin" | "freebsd"] => Self {
                os: parts[0].into(),
                ..host
            },
            [architecture] => Self {
                architecture: architecture.into(),
                variant: String::new(),
                ..host
            },
            [os, architecture] => Self {
                os: os.into(),
                architecture: architecture.into(),
                variant: String::new(),
            },
            [os, architecture, variant] => Self {
                os: os.into(),
                architecture: architecture.into(),
                variant: variant.into(),
            },
            _ => return None,
        };
        Some(platform.normalized())
    }

    /// The same platform in the one spelling used for comparing (`x86_64` is `amd64`, arm64's `v8` is implied).
    #[must_use]
    pub fn normalized(mut self) -> Self {
        let (architecture, variant) = match (self.architecture.as_str(), self.variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "v1") | ("x86_64" | "x86-64", _) => ("amd64", ""),
            ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", ""),
            ("armhf", _) | ("arm", "7" | "") => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("i386" | "i686", _) => ("386", ""),
            _ => return self,
        };
        self.architecture = architecture.into();
        self.variant = variant.into();
        self
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.variant)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for (text, shown) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
        ] {
            assert_eq!(Platform::parse(text).unwrap().to_string(), shown);
        }
        for bad in ["", "linux/", "a/b/c/d"] {
            assert_eq!(Platform::parse(bad), None);
        }
    }
}
