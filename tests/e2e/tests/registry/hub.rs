//! Docker Hub, as far as a fixture can be it.

use gantry_e2e::{Engine, Hub, Options, skopeo_digest};
use serde_json::{Value, json};

use crate::{digest_in, forget, push};

fn engine_for(hub: &Hub) -> Engine {
    Engine::with(Options {
        config: Some(json!({"registry-config-dirs": [hub.config_dir()]})),
        files: vec![("/etc/hosts", hub.hosts())],
        ..Options::default()
    })
}

fn hub_with_busybox() -> Hub {
    let hub = Hub::start();
    hub.registry().push_busybox("library/busybox:latest");
    hub
}

#[test]
fn official_images_without_login() {
    let hub = hub_with_busybox();
    let engine = engine_for(&hub);
    let pulled = engine.docker(&["pull", "busybox"]).ok();
    for words in [
        "Using default tag: latest",
        "latest: Pulling from library/busybox",
        "docker.io/library/busybox:latest",
    ] {
        assert!(pulled.contains(words), "{words}: {pulled}");
    }
    let behind = format!(
        "docker://{}/library/busybox:latest",
        hub.registry().domain()
    );
    assert_eq!(
        digest_in(&pulled),
        skopeo_digest(&behind, &["--tls-verify=false"])
    );
    assert_eq!(
        engine
            .docker(&["run", "--rm", "busybox", "echo", "hi"])
            .ok(),
        "hi"
    );
    // One token, asked for as the Hub's clients do, and layers from elsewhere without it.
    let tokens = hub.seen("auth.docker.io");
    assert!(tokens.iter().all(|seen| {
        seen.target.contains("service=registry.docker.io")
            && seen
                .target
                .contains("scope=repository%3Alibrary%2Fbusybox%3Apull")
    }));
    assert!(!hub.seen("production.cloudflare.docker.com").is_empty());
    engine
        .docker(&["pull", "nothing-of-the-sort"])
        .fails(1, "not found");
    engine.docker(&["pull", "someone/private"]).fails(
        1,
        "pull access denied for someone/private, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
    );
    engine.finish();
}

#[test]
fn login_and_private_images() {
    let hub = hub_with_busybox();
    let engine = engine_for(&hub);
    engine.docker(&["login", "-u", "alice", "-p", "wrong"]).fails(
        1,
        "Get \"https://registry-1.docker.io/v2/\": unauthorized: incorrect username or password",
    );
    assert!(
        engine
            .docker(&["login", "-u", "alice", "-p", "secret"])
            .ok()
            .contains("Login Succeeded")
    );
    engine.import_busybox("box:1");
    let pushed = push(&engine, "alice/box:1");
    let behind = format!("docker://{}/alice/box:1", hub.registry().domain());
    assert_eq!(pushed, skopeo_digest(&behind, &["--tls-verify=false"]));
    forget(&engine, "alice/box:1").ok();
    assert_eq!(
        digest_in(&engine.gantry(&["pull", "alice/box:1"]).ok()),
        pushed
    );
    let secret = |seen: &gantry_e2e::Request| seen.header("authorization").starts_with("Basic ");
    assert!(
        !hub.seen("registry-1.docker.io").iter().any(secret),
        "the password is for the token server"
    );
    engine.finish();
}

#[test]
fn search() {
    let hub = Hub::start();
    let engine = engine_for(&hub);
    let format = "{{.Name}} {{.StarCount}} {{.IsOfficial}}";
    for client in [Engine::docker, Engine::gantry] {
        let found = client(&engine, &["search", "--format", format, "busybox"]).ok();
        assert_eq!(found, "busybox 3421 [OK]\nsomeone/busybox 7");
        let found = client(
            &engine,
            &[
                "search",
                "--limit",
                "1",
                "-f",
                "is-official=true",
                "--format",
                "{{.Name}}",
                "busybox",
            ],
        )
        .ok();
        assert_eq!(found, "busybox");
    }
    assert!(
        hub.seen("index.docker.io")
            .iter()
            .any(|seen| seen.target.contains("n=1"))
    );
    engine
        .docker(&["search", "--limit", "101", "x"])
        .fails(1, "limit 101 is outside the range of [1, 100]");
    engine.finish();
}

#[test]
fn limits() {
    let hub = hub_with_busybox();
    let engine = engine_for(&hub);
    let limit = || {
        let (_, info) = engine.api("GET", "/info", None);
        let info: Value = serde_json::from_str(&info).unwrap();
        info["RegistryConfig"]["RateLimits"]["docker.io"].clone()
    };
    assert_eq!(limit(), Value::Null);
    let pulled = engine.docker(&["pull", "busybox"]).ok();
    assert!(!pulled.contains("Rate limit"), "{pulled}");
    let told = limit();
    assert_eq!(
        (&told["Limit"], &told["Remaining"], &told["Window"]),
        (&json!(100), &json!(99), &json!(21600))
    );
    assert_eq!(told["Source"], "192.0.2.1");
    let shown = engine.gantry(&["info"]).ok();
    assert!(shown.contains("docker.io: 99 of 100 pulls left"), "{shown}");
    // Few are left.
    hub.allow(5);
    forget(&engine, "busybox").ok();
    let pulled = engine.docker(&["pull", "busybox"]).ok();
    assert!(
        pulled.contains("Rate limit of docker.io: 4 of 100 pulls per 6 hours left"),
        "{pulled}"
    );
    // None is left: nobody waits six hours, and nothing is asked again.
    hub.allow(0);
    forget(&engine, "busybox").ok();
    let before = fetched(&hub);
    engine.docker(&["pull", "busybox"]).fails(
        1,
        "toomanyrequests: You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit",
    );
    assert_eq!(fetched(&hub), before + 1);
    engine.finish();
}

/// How many manifests were asked for.
fn fetched(hub: &Hub) -> usize {
    let seen = hub.seen("registry-1.docker.io");
    let manifests = seen
        .iter()
        .filter(|seen| seen.method == "GET" && seen.path().contains("/manifests/"));
    manifests
        .filter(|seen| !seen.header("authorization").is_empty())
        .count()
}
