//! Challenges and credentials against scripted servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{Answer, Seen, Server, hub, manifest, user};
use gantry_plugin_sdk::registry::{Credentials, Endpoint, Headers};
use gantry_plugin_sdk::{Call, ErrorCode, Registry};

const MANIFEST: &str = r#"{"schemaVersion":2}"#;

fn ok() -> Answer {
    let headers = vec![
        (
            "Content-Type",
            "application/vnd.oci.image.manifest.v1+json".into(),
        ),
        ("RateLimit-Limit", "100;w=21600".into()),
    ];
    (200, headers, MANIFEST.into())
}

fn challenge(realm: &str) -> Answer {
    let value =
        format!(r#"Bearer realm="{realm}/token",service="reg",scope="repository:a/b:pull""#);
    (401, vec![("WWW-Authenticate", value)], Vec::new())
}

/// A registry that wants the tokens `t1`, `t2`, ... of a token server, and moves on when told.
fn pair(
    token: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static,
) -> (Server, Server, Arc<AtomicUsize>) {
    let generation = Arc::new(AtomicUsize::new(1));
    let now = generation.clone();
    let tokens = Server::start(move |seen| token(seen, now.load(Ordering::SeqCst)));
    let (realm, now) = (tokens.url(), generation.clone());
    let registry = Server::start(move |seen| {
        let wanted = format!("Bearer t{}", now.load(Ordering::SeqCst));
        if seen.header("authorization") == wanted {
            ok()
        } else {
            challenge(&realm)
        }
    });
    (registry, tokens, generation)
}

fn gives(generation: usize) -> Answer {
    let body = format!(r#"{{"token":"t{generation}","expires_in":300}}"#);
    (200, Vec::new(), body.into())
}

#[test]
fn a_token_is_fetched_kept_and_renewed() {
    let (registry, tokens, generation) = pair(|_, generation| gives(generation));
    let hub = hub();
    let call = Call::new("t");
    let get = || {
        hub.fetch_manifest(
            &call,
            manifest(registry.endpoint(Credentials::default()), "a/b"),
        )
    };
    let reply = get().unwrap();
    assert_eq!(reply.bytes, MANIFEST.as_bytes());
    assert_eq!(
        reply.rate_limit,
        [("RateLimit-Limit".to_owned(), "100;w=21600".to_owned())]
    );
    let asked = &tokens.seen()[0];
    assert_eq!(
        asked.line,
        "GET /token?service=reg&scope=repository%3Aa%2Fb%3Apull"
    );
    assert_eq!(asked.header("authorization"), "", "anonymous");
    get().unwrap();
    assert_eq!(tokens.seen().len(), 1, "the token is used again");
    assert_eq!(registry.seen().len(), 3);
    generation.store(2, Ordering::SeqCst);
    get().unwrap();
    assert_eq!(
        tokens.seen().len(),
        2,
        "a token that is no good any more is replaced"
    );
}

#[test]
fn a_password_goes_to_the_token_server_and_nowhere_else() {
    let (registry, tokens, _) = pair(|seen, generation| {
        // "me:secret"
        match seen.header("authorization") {
            "Basic bWU6c2VjcmV0" => gives(generation),
            _ => (
                401,
                Vec::new(),
                br#"{"details":"incorrect username or password"}"#.to_vec(),
            ),
        }
    });
    let hub = hub();
    let call = Call::new("t");
    let get = |who| hub.fetch_manifest(&call, manifest(registry.endpoint(who), "a/b"));
    get(user("me", "secret")).unwrap();
    assert!(tokens.seen()[0].line.contains("account=me"));
    assert!(
        registry
            .seen()
            .iter()
            .all(|seen| !seen.header("authorization").starts_with("Basic"))
    );
    // Another user's token is not used.
    let error = get(user("me", "wrong")).unwrap_err();
    assert_eq!(error.code, ErrorCode::Unauthenticated);
    let url = registry.url();
    assert_eq!(
        error.message,
        format!(
            "Get \"{url}/v2/a/b/manifests/latest\": unauthorized: incorrect username or password"
        )
    );
}

#[test]
fn a_refresh_token_is_posted() {
    let (registry, tokens, _) = pair(|seen, generation| {
        assert!(seen.line.starts_with("POST /token"));
        let body = format!(r#"{{"access_token":"t{generation}"}}"#);
        (200, Vec::new(), body.into())
    });
    let who = Credentials {
        username: "<token>".into(),
        identity_token: "refresh me".into(),
        ..Credentials::default()
    };
    hub()
        .fetch_manifest(&Call::new("t"), manifest(registry.endpoint(who), "a/b"))
        .unwrap();
    let body = &tokens.seen()[0].body;
    for part in [
        "grant_type=refresh_token",
        "refresh_token=refresh+me",
        "service=reg",
        "scope=repository%3Aa%2Fb%3Apull",
    ] {
        assert!(body.contains(part), "{part} in {body}");
    }
}

#[test]
fn a_login_brings_a_refresh_token() {
    let (registry, tokens, _) = pair(|_, generation| {
        let body = format!(r#"{{"token":"t{generation}","refresh_token":"keep"}}"#);
        (200, Vec::new(), body.into())
    });
    let reply = hub()
        .authenticate(&Call::new("t"), registry.endpoint(user("me", "secret")))
        .unwrap();
    assert_eq!(
        (reply.status.as_str(), reply.identity_token.as_str()),
        ("Login Succeeded", "keep")
    );
    assert!(tokens.seen()[0].line.contains("offline_token=true"));
}

#[test]
fn what_a_token_does_not_allow_is_denied() {
    let tokens = Server::start(|_| gives(1));
    let realm = tokens.url();
    let registry = Server::start(move |seen| {
        let mut answer = challenge(&realm);
        if !seen.header("authorization").is_empty() {
            answer.1[0].1 += ",error=\"insufficient_scope\"";
        }
        answer
    });
    let error = hub()
        .fetch_manifest(
            &Call::new("t"),
            manifest(registry.endpoint(Credentials::default()), "a/b"),
        )
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::PermissionDenied);
    assert_eq!(
        error.message,
        "denied: requested access to the resource is denied"
    );
    assert_eq!(registry.seen().len(), 2, "no third attempt");
}

#[test]
fn a_redirect_does_not_get_the_authorisation() {
    let elsewhere = Server::start(|_| ok());
    let target = format!("{}/somewhere", elsewhere.url());
    let registry = Server::start(move |seen| match seen.header("authorization") {
        "" => (
            401,
            vec![("WWW-Authenticate", "Basic realm=x".into())],
            Vec::new(),
        ),
        _ if seen.line.contains("same") => (302, vec![("Location", "/v2/next".into())], Vec::new()),
        _ if seen.line.contains("next") => ok(),
        _ => (307, vec![("Location", target.clone())], Vec::new()),
    });
    let hub = hub();
    let get = |repository| {
        hub.fetch_manifest(
            &Call::new("t"),
            manifest(registry.endpoint(user("me", "secret")), repository),
        )
        .unwrap()
    };
    get("a/b");
    let seen = elsewhere.seen();
    assert_eq!((seen.len(), seen[0].header("authorization")), (1, ""));
    get("same");
    assert!(
        registry
            .seen()
            .last()
            .unwrap()
            .header("authorization")
            .starts_with("Basic ")
    );
}

#[test]
fn own_headers_and_the_name_that_is_meant() {
    let elsewhere = Server::start(|_| ok());
    let target = format!("{}/somewhere", elsewhere.url());
    let mirror = Server::start(move |seen| match seen.line.contains("/far/") {
        true => (307, vec![("Location", target.clone())], Vec::new()),
        false => ok(),
    });
    let endpoint = Endpoint {
        domain: "reg.example:5000".into(),
        url: format!("{}/v2/proxy/", mirror.url()),
        override_path: true,
        namespaced: true,
        headers: Headers(vec![("x-team".into(), "build".into())]),
        ..Endpoint::default()
    };
    let get =
        |repository| hub().fetch_manifest(&Call::new("t"), manifest(endpoint.clone(), repository));
    get("a/near").unwrap();
    get("a/far").unwrap();
    let seen = mirror.seen();
    assert_eq!(
        seen[0].line,
        "GET /v2/proxy/a/near/manifests/latest?ns=reg.example%3A5000"
    );
    assert!(seen.iter().all(|seen| seen.header("x-team") == "build"));
    assert_eq!(elsewhere.seen()[0].header("x-team"), "");
}

#[test]
fn a_password_is_not_shown_to_who_was_redirected_to() {
    let thief = Server::start(|_| {
        (
            401,
            vec![("WWW-Authenticate", "Basic realm=x".into())],
            Vec::new(),
        )
    });
    let target = thief.url();
    let registry = Server::start(move |_| (307, vec![("Location", target.clone())], Vec::new()));
    let error = hub()
        .fetch_manifest(
            &Call::new("t"),
            manifest(registry.endpoint(user("me", "secret")), "a/b"),
        )
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::Unauthenticated);
    assert!(
        thief
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_empty())
    );
}

#[test]
fn redirects_end() {
    let registry = Server::start(|_| (302, vec![("Location", "/again".into())], Vec::new()));
    let get = |server: &Server| {
        hub().fetch_manifest(
            &Call::new("t"),
            manifest(server.endpoint(Credentials::default()), "a/b"),
        )
    };
    assert!(
        get(&registry)
            .unwrap_err()
            .message
            .contains("stopped after 10 redirects")
    );
    let odd = Server::start(|_| {
        (
            302,
            vec![("Location", "file:///etc/passwd".into())],
            Vec::new(),
        )
    });
    assert!(
        get(&odd)
            .unwrap_err()
            .message
            .contains("unsupported scheme")
    );
}
