//! From what a client sends to what is shown to a registry.

use base64::Engine as _;
use gantry_driver_api::registry::Credentials;
use gantry_model::reference::DEFAULT_DOMAIN;
use gantry_wire as wire;

use crate::{EngineError, Result};

/// What to show to the registry `domain`.
pub(super) fn credentials_for(auth: &wire::RegistryAuth, domain: &str) -> Result<Credentials> {
    let one = auth.one.as_ref();
    let found = one.or_else(|| {
        let mut many = auth.many.iter();
        many.find_map(|(address, auth)| (registry_domain(address) == domain).then_some(auth))
    });
    credentials(found.cloned().unwrap_or_default())
}

/// The name under which references know a registry.
pub(super) fn registry_domain(address: &str) -> String {
    let host = address
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or("");
    match host {
        "" | "index.docker.io" | "registry-1.docker.io" => DEFAULT_DOMAIN.into(),
        host => host.into(),
    }
}

pub(super) fn credentials(auth: wire::AuthConfig) -> Result<Credentials> {
    let mut credentials = Credentials {
        username: auth.username,
        password: auth.password,
        identity_token: auth.identitytoken,
        registry_token: auth.registrytoken,
    };
    if credentials.username.is_empty() && !auth.auth.is_empty() {
        let invalid = || EngineError::bad_request("invalid auth configuration");
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(&auth.auth)
            .map_err(|_| invalid())?;
        let decoded = String::from_utf8(decoded).map_err(|_| invalid())?;
        let (user, password) = decoded.split_once(':').ok_or_else(invalid)?;
        credentials.username = user.to_owned();
        credentials.password = password.trim_end_matches('\0').to_owned();
    }
    Ok(credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains() {
        for (address, want) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("", "docker.io"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("https://ghcr.io/v2", "ghcr.io"),
        ] {
            assert_eq!(registry_domain(address), want);
        }
    }

    #[test]
    fn of_many_the_registry_s_own() {
        let user = |name: &str| wire::AuthConfig {
            username: name.into(),
            ..wire::AuthConfig::default()
        };
        let mut auth = wire::RegistryAuth {
            one: None,
            many: [
                ("https://index.docker.io/v1/".to_owned(), user("hub")),
                ("reg.example:5000".to_owned(), user("own")),
            ]
            .into(),
        };
        let name =
            |auth: &wire::RegistryAuth, domain| credentials_for(auth, domain).unwrap().username;
        assert_eq!(name(&auth, "docker.io"), "hub");
        assert_eq!(name(&auth, "reg.example:5000"), "own");
        assert_eq!(name(&auth, "other.example"), "");
        auth.one = Some(user("this"));
        assert_eq!(name(&auth, "docker.io"), "this");
    }

    #[test]
    fn combined_credentials() {
        let auth = wire::AuthConfig {
            auth: "dTpwOnE=".into(),
            ..wire::AuthConfig::default()
        };
        let credentials = credentials(auth).unwrap();
        assert_eq!(
            (credentials.username.as_str(), credentials.password.as_str()),
            ("u", "p:q")
        );
    }
}
