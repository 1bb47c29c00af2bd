//! Mirrors: of Docker Hub and of others, good ones and bad ones; and configuration that changes under way.

use std::fs;
use std::net::{SocketAddr, TcpListener};

use gantry_e2e::{
    Engine, HttpServer, Options, Registry, Request, Response, ask, eventually, free_port, run,
};
use serde_json::{Value, json};

use crate::{digest_in, engine, forget, push};

/// What a mirror answers instead of what the registry behind it says.
type Twist = fn(&Request, Response) -> Response;

/// A mirror of a registry.
fn mirror(registry: &Registry, twist: Twist) -> HttpServer {
    let behind = SocketAddr::from(([127, 0, 0, 1], registry.port()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    HttpServer::start(listener, None, move |request| {
        twist(request, ask(behind, request))
    })
}

fn url(mirror: &HttpServer) -> String {
    format!("http://{}", mirror.address())
}

fn is_blob(request: &Request) -> bool {
    request.path().contains("/blobs/")
}

/// Blobs and manifests of the right length, and of another content.
fn lie(_: &Request, mut response: Response) -> Response {
    if let Some(middle) = response.body.len().checked_div(2)
        && let Some(byte) = response.body.get_mut(middle)
    {
        *byte ^= 1;
    }
    response
}

fn lie_about_blobs(request: &Request, response: Response) -> Response {
    if is_blob(request) {
        lie(request, response)
    } else {
        response
    }
}

fn lose_blobs(request: &Request, response: Response) -> Response {
    if is_blob(request) {
        Response::new(404, "")
    } else {
        response
    }
}

fn lack(_: &Request, _: Response) -> Response {
    Response::new(
        404,
        r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
    )
}

fn refuse(_: &Request, _: Response) -> Response {
    Response::new(503, "")
}

/// Each kind of failing mirror, of a registry that is no Docker Hub: the image comes all the same, and whole.
#[test]
fn of_any_registry_with_fall_back() {
    let registry = Registry::start();
    let domain = registry.domain();
    let name = format!("{domain}/box:1");
    let first = engine(json!({}));
    let pushed = push(&first, &name);
    first.finish();
    let dead = format!("http://127.0.0.1:{}", free_port());
    for twist in [lie as Twist, lie_about_blobs, lose_blobs, lack, refuse] {
        let bad = mirror(&registry, twist);
        let engine = Engine::with(Options {
            config: Some(
                json!({"registry-mirrors": [format!("{domain}={dead}"), format!("{domain}={}", url(&bad))]}),
            ),
            ..Options::default()
        });
        assert_eq!(digest_in(&engine.docker(&["pull", &name]).ok()), pushed);
        assert_eq!(
            engine.docker(&["run", "--rm", &name, "echo", "whole"]).ok(),
            "whole"
        );
        assert!(!bad.seen().is_empty(), "it was asked first");
        engine.finish();
    }
    // One that is good is all that is needed, and is not shown the registry's password.
    let good = mirror(&registry, |_, response| response);
    let engine = Engine::with(Options {
        config: Some(json!({"registry-mirrors": [format!("nowhere.test={}", url(&good))]})),
        ..Options::default()
    });
    let configuration = engine.dir().join("config");
    fs::create_dir_all(&configuration).unwrap();
    let auths = json!({"auths": {"nowhere.test": {"auth": "YWxpY2U6c2VjcmV0"}}});
    fs::write(configuration.join("config.json"), auths.to_string()).unwrap();
    assert_eq!(
        digest_in(&engine.docker(&["pull", "nowhere.test/box:1"]).ok()),
        pushed
    );
    assert!(
        good.seen()
            .iter()
            .all(|seen| seen.header("authorization").is_empty())
    );
    engine.finish();
}

/// containerd's file: a mirror that may not say what a tag stands for, with a header of its own.
#[test]
fn by_hosts_toml() {
    let registry = Registry::start();
    let domain = registry.domain();
    let name = format!("{domain}/box:1");
    let (tagless, root) = (
        mirror(&registry, |_, response| response),
        mirror(&registry, |_, response| response),
    );
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join(&domain);
    fs::create_dir(&own).unwrap();
    fs::write(
        own.join("hosts.toml"),
        format!(
            "[host.\"{}\"]\ncapabilities = [\"pull\"]\n[host.\"{}\".header]\nx-team = \"build\"\n\
             [host.\"{}/v2\"]\noverride_path = true\n",
            url(&tagless),
            url(&tagless),
            url(&root)
        ),
    )
    .unwrap();
    let engine = engine(json!({"registry-config-dirs": [dir.path()]}));
    let pushed = push(&engine, &name);
    assert!(
        tagless.seen().is_empty() && root.seen().is_empty(),
        "nobody pushes to a mirror"
    );
    forget(&engine, &name).ok();
    assert_eq!(digest_in(&engine.docker(&["pull", &name]).ok()), pushed);
    assert!(
        tagless
            .seen()
            .iter()
            .all(|seen| !seen.path().ends_with("/manifests/1"))
    );
    let seen = root.seen();
    assert!(
        seen.iter().any(|seen| seen.path() == "/v2/box/manifests/1"),
        "{seen:?}"
    );
    assert!(seen.iter().all(|seen| {
        seen.target
            .contains(&format!("ns={}", domain.replace(':', "%3A")))
    }));
    assert!(seen.iter().all(|seen| seen.header("x-team").is_empty()));
    forget(&engine, &name).ok();
    let by_digest = format!("{domain}/box@{pushed}");
    engine.docker(&["pull", &by_digest]).ok();
    let seen = tagless.seen();
    assert!(
        seen.iter().any(|seen| seen.path().ends_with(&pushed)),
        "{seen:?}"
    );
    assert!(seen.iter().all(|seen| seen.header("x-team") == "build"));
    engine.finish();
}

/// SIGHUP: mirrors, insecure registries and directories, and a file that is wrong.
#[test]
fn configuration_is_read_again() {
    let registry = Registry::start();
    let engine = Engine::with(Options {
        config: Some(json!({})),
        files: vec![("/etc/hosts", "127.0.0.1 localhost registry.test\n".into())],
        ..Options::default()
    });
    engine.import_busybox("box:1");
    let domain = format!("registry.test:{}", registry.port());
    let name = format!("{domain}/box:1");
    engine.docker(&["tag", "box:1", &name]).ok();
    engine
        .docker(&["push", &name])
        .fails(1, "http: server gave HTTP response to HTTPS client");
    let reload = |config: Value, done: &str| {
        let before = engine.log().matches(done).count();
        fs::write(engine.dir().join("daemon.json"), config.to_string()).unwrap();
        run("kill", &["-HUP", &engine.pid().to_string()]).ok();
        eventually("the file is read", 30, || {
            (engine.log().matches(done).count() > before).then_some(())
        });
    };
    reload(
        json!({"insecure-registries": ["ftp://x"]}),
        "insecure registry ftp://x should not contain '://'",
    );
    reload(
        json!({"registry-mirrors": ["x"]}),
        "invalid mirror: no scheme specified for",
    );
    reload(
        json!({"insecure-registries": [domain.clone()]}),
        "configuration reloaded",
    );
    let pushed = push(&engine, &name);
    let shown = engine
        .docker(&["info", "-f", "{{json .RegistryConfig}}"])
        .ok();
    assert!(shown.contains(&domain), "{shown}");
    let good = mirror(&registry, |_, response| response);
    reload(
        json!({"insecure-registries": [domain.clone()], "registry-mirrors": [url(&good), format!("{domain}={}", url(&good))]}),
        "configuration reloaded",
    );
    let shown = engine.docker(&["info"]).ok();
    assert!(
        shown.contains(&format!("Registry Mirrors:\n  {}/", url(&good))),
        "{shown}"
    );
    let shown = engine.gantry(&["info"]).ok();
    assert!(
        shown.contains(&format!("{domain}={}/", url(&good))),
        "{shown}"
    );
    forget(&engine, &name).ok();
    assert_eq!(digest_in(&engine.docker(&["pull", &name]).ok()), pushed);
    assert!(!good.seen().is_empty());
    // Docker Hub's, too, which is out of reach itself.
    let hub = format!("{}/library/box:1", registry.domain());
    engine.docker(&["tag", &name, "box:1"]).ok();
    push(&engine, &hub);
    engine.docker(&["rmi", "box:1"]).ok();
    engine.docker(&["pull", "box:1"]).ok();
    engine.finish();
}
