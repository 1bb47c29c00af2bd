//! The engine itself.

mod info;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use info::{
    AddressPool, Commit, DeviceInfo, FirewallInfo, IndexInfo, PluginsInfo, RateLimit,
    RegistryServiceConfig, Runtime, SwarmInfo, SystemInfo,
};

/// Credentials for a registry: body of `POST /auth`, and the `X-Registry-Auth` header.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthConfig {
    /// User.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// Password or access token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// `base64(user:password)`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth: String,
    /// Obsolete.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub email: String,
    /// Host of the registry, or `https://index.docker.io/v1/`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serveraddress: String,
    /// OAuth2 refresh token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identitytoken: String,
    /// Bearer token to be used as it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub registrytoken: String,
}

/// Secrets are not printed.
impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("serveraddress", &self.serveraddress)
            .finish_non_exhaustive()
    }
}

/// What a client brings to prove itself to registries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// `X-Registry-Auth`: for the registry that the request is about.
    pub one: Option<AuthConfig>,
    /// `X-Registry-Config`: by address, for whichever registries come up.
    pub many: BTreeMap<String, AuthConfig>,
}

/// Reply of `POST /auth`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AuthReply {
    /// Token to be kept instead of the password; empty when there is none.
    pub identity_token: String,
    /// `Login Succeeded`.
    pub status: String,
}

/// Secrets are not printed.
impl std::fmt::Debug for AuthReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthReply")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// Reply of `GET /version`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SystemVersion {
    /// Product.
    pub platform: ProductName,
    /// Parts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<Component>,
    /// Version of the engine.
    pub version: String,
    /// Newest API version.
    pub api_version: String,
    /// Oldest API version.
    #[serde(rename = "MinAPIVersion")]
    pub min_api_version: String,
    /// Commit it was built from.
    pub git_commit: String,
    /// Version of the compiler (clients show it under this name).
    pub go_version: String,
    /// Operating system.
    pub os: String,
    /// Architecture in Go's words.
    pub arch: String,
    /// Kernel release.
    pub kernel_version: String,
    /// Experimental features are on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub experimental: bool,
    /// When it was built.
    pub build_time: String,
}

/// Name of the product.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ProductName {
    /// The name.
    pub name: String,
}

/// A part of the engine and its version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Component {
    /// `Engine` and so on.
    pub name: String,
    /// Version.
    pub version: String,
    /// More.
    pub details: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let config = AuthConfig {
            password: "hush".into(),
            auth: "hush".into(),
            identitytoken: "hush".into(),
            registrytoken: "hush".into(),
            ..AuthConfig::default()
        };
        let auth = RegistryAuth {
            one: Some(config.clone()),
            many: BTreeMap::from([("hub".into(), config)]),
        };
        let reply = AuthReply {
            identity_token: "hush".into(),
            status: "fine".into(),
        };
        let text = format!("{auth:?} {reply:?}");
        assert!(text.contains("fine") && !text.contains("hush"), "{text}");
    }
}
