//! Debian's docker-registry without access control, with passwords, and with tokens.

use gantry_e2e::{Authority, Engine, Realm, Registry, Serve, skopeo_digest};
use serde_json::json;

use crate::{digest_in, engine, forget, push};

#[test]
fn without_access_control() {
    let registry = Registry::start();
    let engine = engine(json!({}));
    let name = format!("{}/open/box:1", registry.domain());
    let pushed = push(&engine, &name);
    assert_eq!(
        pushed,
        skopeo_digest(&format!("docker://{name}"), &["--tls-verify=false"])
    );
    forget(&engine, &name).ok();
    assert_eq!(digest_in(&engine.docker(&["pull", &name]).ok()), pushed);
    forget(&engine, &name).ok();
    assert_eq!(digest_in(&engine.gantry(&["pull", &name]).ok()), pushed);
    engine.gantry(&["push", &name]).ok();
    engine.finish();
}

#[test]
fn passwords() {
    let registry = Registry::with_password();
    let engine = engine(json!({}));
    let domain = registry.domain();
    let name = format!("{domain}/private/box:1");
    engine.docker(&["tag", "box:1", &name]).ok();
    engine
        .docker(&["push", &name])
        .fails(1, "no basic auth credentials");
    let login = |password: &str| engine.docker(&["login", "-u", "alice", "-p", password, &domain]);
    login("wrong").fails(1, "401 Unauthorized");
    assert!(login("secret").ok().contains("Login Succeeded"));
    let pushed = push(&engine, &name);
    let options = ["--tls-verify=false", "--creds", "alice:secret"];
    assert_eq!(pushed, skopeo_digest(&format!("docker://{name}"), &options));
    forget(&engine, &name).ok();
    assert_eq!(digest_in(&engine.gantry(&["pull", &name]).ok()), pushed);
    engine.docker(&["logout", &domain]).ok();
    engine
        .docker(&["pull", &name])
        .fails(1, "no basic auth credentials");
    engine.finish();
}

#[test]
fn tokens() {
    let dir = tempfile::tempdir().unwrap();
    let realm = Realm::start(&Authority::new(dir.path()));
    let registry = Registry::with(&Serve {
        realm: Some(&realm),
        ..Serve::default()
    });
    let engine = engine(json!({}));
    let domain = registry.domain();
    let (private, public) = (
        format!("{domain}/team/box:1"),
        format!("{domain}/public/box:1"),
    );
    // Nobody may push, and what nobody may see is not there.
    engine.docker(&["tag", "box:1", &private]).ok();
    engine
        .docker(&["push", &private])
        .fails(1, "denied: requested access to the resource is denied");
    engine
        .docker(&["pull", &private])
        .fails(1, "pull access denied for");
    engine
        .docker(&["login", "-u", "alice", "-p", "wrong", &domain])
        .fails(1, "unauthorized: incorrect username or password");
    engine
        .docker(&["login", "-u", "alice", "-p", "secret", &domain])
        .ok();
    // The client keeps a token instead of the password.
    let kept = std::fs::read_to_string(engine.dir().join("config/config.json")).unwrap();
    assert!(kept.contains("refresh-alice"), "{kept}");
    let pushed = push(&engine, &private);
    assert_eq!(push(&engine, &public), pushed);
    let options = ["--tls-verify=false", "--creds", "alice:secret"];
    assert_eq!(
        pushed,
        skopeo_digest(&format!("docker://{private}"), &options)
    );
    let posted = |seen: &gantry_e2e::Request| {
        seen.method == "POST"
            && String::from_utf8_lossy(&seen.body).contains("grant_type=refresh_token")
    };
    assert!(
        realm.seen().iter().any(posted),
        "the token is used to get others"
    );
    forget(&engine, &private).ok();
    assert_eq!(digest_in(&engine.gantry(&["pull", &private]).ok()), pushed);
    forget(&engine, &private).ok();
    engine.docker(&["logout", &domain]).ok();
    engine
        .docker(&["pull", &private])
        .fails(1, "pull access denied for");
    assert_eq!(digest_in(&engine.docker(&["pull", &public]).ok()), pushed);
    engine.finish();
}

/// What clients send themselves: the two headers, and `POST /auth`.
#[test]
fn credentials_of_requests() {
    let registry = Registry::with_password();
    let engine = engine(json!({}));
    let domain = registry.domain();
    engine
        .docker(&["login", "-u", "alice", "-p", "secret", &domain])
        .ok();
    push(&engine, &format!("{domain}/private/box:1"));
    let auth = |body: &str| engine.api("POST", "/auth", Some(body));
    let with = |password: &str| {
        json!({"username": "alice", "password": password, "serveraddress": domain}).to_string()
    };
    let (status, reply) = auth(&with("secret"));
    assert_eq!(status, 200, "{reply}");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&reply).unwrap(),
        json!({"IdentityToken": "", "Status": "Login Succeeded"})
    );
    let (status, reply) = auth(&with("wrong"));
    assert_eq!(status, 401, "{reply}");
    assert!(
        reply.contains("failed with status: 401 Unauthorized"),
        "{reply}"
    );
    assert_eq!(auth("{").0, 400);

    let inspect =
        |header: &str, value: &serde_json::Value| status_with(&engine, &domain, header, value);
    let alice = json!({"username": "alice", "password": "secret"});
    assert_eq!(inspect("X-Registry-Auth", &alice), "200");
    assert_eq!(
        inspect("X-Registry-Auth", &json!({"auth": "YWxpY2U6c2VjcmV0"})),
        "200"
    );
    assert_eq!(
        inspect("X-Registry-Config", &json!({ domain.clone(): alice })),
        "200"
    );
    assert_eq!(
        inspect("X-Registry-Config", &json!({"other.example": alice})),
        "401"
    );
    assert_eq!(inspect("X-Registry-Auth", &json!({})), "401");
    engine.finish();
}

/// The status of a look at `private/box:1` with one header of JSON in base64.
fn status_with(engine: &Engine, domain: &str, header: &str, value: &serde_json::Value) -> String {
    let script = r#"curl -s -o /dev/null -w '%{http_code}' --unix-socket "$1" -H "$2: $(printf %s "$3" | base64 -w0)" "$4""#;
    let socket = engine.socket().display().to_string();
    let url = format!("http://localhost/distribution/{domain}/private/box:1/json");
    engine
        .client(
            "sh",
            &[
                "-c",
                script,
                "sh",
                &socket,
                header,
                &value.to_string(),
                &url,
            ],
        )
        .ok()
}
