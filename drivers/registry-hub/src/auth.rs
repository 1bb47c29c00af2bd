//! What answers challenges. Sources: RFC 6750, distribution's *Token Authentication* and *OAuth2*.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gantry_plugin_sdk::registry::{AuthReply, Credentials, Endpoint};
use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::Hub;
use crate::challenge::{Challenge, challenges};
use crate::client::Purpose;
use crate::error::verb;
use crate::http_call::{Answer, Repeatable, is_own, parse, root_of};

/// A token without a lifetime of its own lives this long.
const DEFAULT_LIFETIME: u64 = 60;
/// Tokens are given up so long before they expire.
const MARGIN: Duration = Duration::from_secs(5);
const MAX_TOKENS: usize = 256;
const MAX_TOKEN_BODY: usize = 1 << 20;
const CLIENT_ID: &str = "gantry";

/// What to answer a challenge with.
pub(crate) struct Answered {
    pub(crate) authorization: HeaderValue,
    /// The refresh token that came with it, if one was asked for.
    identity_token: String,
}

/// Tokens by server, scope and user.
#[derive(Default)]
pub(crate) struct Tokens {
    cache: Mutex<HashMap<Key, (Known, Instant)>>,
    hasher: RandomState,
}

/// What a server wants.
#[derive(Clone)]
enum Known {
    Token(HeaderValue),
    /// The password itself, which comes with every call.
    Password,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    url: String,
    scope: String,
    /// Of the credentials, which are not kept.
    user: u64,
}

impl Tokens {
    fn key(&self, endpoint: &Endpoint, scope: &str) -> Key {
        let who = &endpoint.credentials;
        Key {
            url: endpoint.url.clone(),
            scope: scope.into(),
            user: self.hasher.hash_one((
                &who.username,
                &who.password,
                &who.identity_token,
                &who.registry_token,
            )),
        }
    }

    /// What authorises a request without asking.
    pub(crate) fn known(&self, endpoint: &Endpoint, scope: &str) -> Option<HeaderValue> {
        if !endpoint.credentials.registry_token.is_empty() {
            return bearer(&endpoint.credentials.registry_token).ok();
        }
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, expires) = cache.get(&self.key(endpoint, scope))?;
        if *expires <= Instant::now() {
            return None;
        }
        match value {
            Known::Token(token) => Some(token.clone()),
            Known::Password => basic(&endpoint.credentials).ok(),
        }
    }

    pub(crate) fn forget(&self, endpoint: &Endpoint, scope: &str) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.remove(&self.key(endpoint, scope));
    }

    fn keep(&self, endpoint: &Endpoint, scope: &str, value: Known, lifetime: Duration) {
        let now = Instant::now();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|_, (_, expires)| *expires > now);
        if cache.len() >= MAX_TOKENS {
            cache.clear();
        }
        let expires = now + lifetime.saturating_sub(MARGIN);
        cache.insert(self.key(endpoint, scope), (value, expires));
    }
}

#[derive(Deserialize)]
struct TokenReply {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    refresh_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Hub {
    /// Checks credentials as `docker login` does.
    pub(crate) async fn login(&self, endpoint: Endpoint) -> DriverResult<AuthReply> {
        let url = parse(&format!("{}/", root_of(&endpoint)))?;
        let send = |headers| self.send(&endpoint, &url, Repeatable::get(headers));
        let answer = send(HeaderMap::new()).await?;
        let mut identity_token = String::new();
        let answer = if answer.status() == StatusCode::UNAUTHORIZED {
            let answered = self.answer_challenge(&endpoint, &answer, "", true).await?;
            identity_token = answered.identity_token;
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, answered.authorization);
            send(headers).await?
        } else {
            answer
        };
        let status = answer.status();
        if !status.is_success() {
            let code = match status {
                StatusCode::UNAUTHORIZED => ErrorCode::Unauthenticated,
                _ => answer.failure().await.code,
            };
            return Err(DriverError::new(
                code,
                format!("login attempt to {url} failed with status: {status}"),
            ));
        }
        Ok(AuthReply {
            status: "Login Succeeded".into(),
            identity_token,
        })
    }

    /// Makes the authorisation that an answer asks for.
    pub(crate) async fn answer_challenge(
        &self,
        endpoint: &Endpoint,
        answer: &Answer,
        scope: &str,
        offline: bool,
    ) -> DriverResult<Answered> {
        let credentials = &endpoint.credentials;
        let list = challenges(answer.response.headers());
        if let Some(challenge) = list.iter().find(|c| c.scheme == "bearer") {
            // As Go's client says what went wrong on a request's way.
            let asked = |mut error: DriverError| {
                let (verb, uri) = (verb(answer.method()), answer.uri());
                error.message = format!("{verb} \"{uri}\": {}", error.message);
                error
            };
            let token = self.token(endpoint, challenge, scope, offline).await;
            return token.map_err(asked);
        }
        if !list.iter().any(|c| c.scheme == "basic") {
            return Err(DriverError::new(
                ErrorCode::Unauthenticated,
                "unauthorized: authentication required",
            ));
        }
        if credentials.username.is_empty() {
            return Err(DriverError::new(
                ErrorCode::Unauthenticated,
                format!(
                    "{} \"{}\": no basic auth credentials",
                    verb(answer.method()),
                    answer.uri()
                ),
            ));
        }
        // The redirect's target may be somebody else, who must not get the password.
        let own = Url::parse(&answer.uri().to_string()).is_ok_and(|url| is_own(endpoint, &url));
        if !own {
            return Err(DriverError::new(
                ErrorCode::Unauthenticated,
                "a server that the registry redirected to asks for a password",
            ));
        }
        let authorization = basic(credentials)?;
        if !scope.is_empty() {
            self.tokens.keep(
                endpoint,
                scope,
                Known::Password,
                Duration::from_secs(DEFAULT_LIFETIME),
            );
        }
        Ok(Answered {
            authorization,
            identity_token: String::new(),
        })
    }

    async fn token(
        &self,
        endpoint: &Endpoint,
        challenge: &Challenge,
        scope: &str,
        offline: bool,
    ) -> DriverResult<Answered> {
        let realm = challenge.parameter("realm").unwrap_or_default();
        let realm = parse(realm).map_err(|_| {
            DriverError::invalid(format!(
                "invalid realm {realm:?} in the registry's challenge"
            ))
        })?;
        let credentials = &endpoint.credentials;
        let secret = !credentials.username.is_empty() || !credentials.identity_token.is_empty();
        if secret && realm.scheme() == "http" && endpoint.url.starts_with("https:") {
            return Err(DriverError::new(
                ErrorCode::Unauthenticated,
                format!("the registry wants credentials to be sent to {realm} without TLS"),
            ));
        }
        let service = challenge.parameter("service").unwrap_or_default();
        let scope_wanted = match challenge.parameter("scope") {
            Some(wanted) if !wanted.is_empty() => wanted,
            _ => scope,
        };
        let reply = if credentials.identity_token.is_empty() {
            self.get_token(endpoint, realm, service, scope_wanted, offline)
                .await?
        } else {
            self.post_token(endpoint, realm, service, scope_wanted)
                .await?
        };
        let token = if reply.token.is_empty() {
            &reply.access_token
        } else {
            &reply.token
        };
        if token.is_empty() {
            return Err(DriverError::new(
                ErrorCode::Unauthenticated,
                "authorization server did not include a token in the response",
            ));
        }
        let authorization = bearer(token)?;
        if !scope.is_empty() {
            // A lifetime below a minute is most likely a mistake, says the specification.
            let lifetime = reply
                .expires_in
                .unwrap_or(DEFAULT_LIFETIME)
                .max(DEFAULT_LIFETIME);
            self.tokens.keep(
                endpoint,
                scope,
                Known::Token(authorization.clone()),
                Duration::from_secs(lifetime),
            );
        }
        Ok(Answered {
            authorization,
            identity_token: reply.refresh_token,
        })
    }

    async fn get_token(
        &self,
        endpoint: &Endpoint,
        mut realm: Url,
        service: &str,
        scope: &str,
        offline: bool,
    ) -> DriverResult<TokenReply> {
        let credentials = &endpoint.credentials;
        {
            let mut query = realm.query_pairs_mut();
            if !service.is_empty() {
                query.append_pair("service", service);
            }
            for scope in scope.split_whitespace() {
                query.append_pair("scope", scope);
            }
            if !credentials.username.is_empty() {
                query.append_pair("account", &credentials.username);
            }
            if offline {
                query.append_pair("offline_token", "true");
                query.append_pair("client_id", CLIENT_ID);
            }
        }
        let mut headers = HeaderMap::new();
        if !credentials.username.is_empty() {
            headers.insert(AUTHORIZATION, basic(credentials)?);
        }
        let answer = self
            .send(endpoint, &realm, Repeatable::get(headers))
            .await?;
        read_token(answer).await
    }

    async fn post_token(
        &self,
        endpoint: &Endpoint,
        realm: Url,
        service: &str,
        scope: &str,
    ) -> DriverResult<TokenReply> {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", service)
            .append_pair("client_id", CLIENT_ID)
            .append_pair("scope", scope)
            .append_pair("refresh_token", &endpoint.credentials.identity_token)
            .finish();
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        let request = Repeatable {
            method: Method::POST,
            headers,
            body: form.into(),
            purpose: Purpose::Talk,
        };
        read_token(self.send(endpoint, &realm, request).await?).await
    }
}

async fn read_token(answer: Answer) -> DriverResult<TokenReply> {
    let bytes = answer.succeeded().await?.body(MAX_TOKEN_BODY).await?;
    serde_json::from_slice(&bytes)
        .map_err(|e| DriverError::internal(format!("unable to decode token response: {e}")))
}

fn bearer(token: &str) -> DriverResult<HeaderValue> {
    header(format!("Bearer {token}"))
}

fn basic(credentials: &Credentials) -> DriverResult<HeaderValue> {
    let pair = format!("{}:{}", credentials.username, credentials.password);
    header(format!("Basic {}", BASE64.encode(pair)))
}

fn header(text: String) -> DriverResult<HeaderValue> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| DriverError::invalid("credentials contain forbidden characters"))?;
    value.set_sensitive(true);
    Ok(value)
}
