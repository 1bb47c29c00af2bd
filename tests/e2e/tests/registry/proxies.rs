//! Proxies: tunnels for TLS, absolute requests without, and who is reached without them.

use std::fs;
use std::net::SocketAddr;

use gantry_e2e::{Authority, Engine, Options, Proxy, Registry, Serve, free_port};
use serde_json::json;

use crate::{digest_in, forget, push};

/// A registry that only the proxy can find.
#[test]
fn with_and_without_tls() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(&dir.path().join("authority"));
    let pair = authority.sign("server", &["DNS:far.test"]);
    let secure = Registry::with(&Serve {
        tls: Some(&pair),
        ..Serve::default()
    });
    let plain = Registry::start();
    let own = dir.path().join("certs.d/far.test:5000");
    fs::create_dir_all(&own).unwrap();
    fs::copy(authority.certificate(), own.join("ca.crt")).unwrap();
    let to = |registry: &Registry| SocketAddr::from(([127, 0, 0, 1], registry.port()));
    // "me:pw"
    let proxy = Proxy::start(
        &[
            ("far.test:5000", to(&secure)),
            ("plain.test:5000", to(&plain)),
        ],
        "Basic bWU6cHc=",
    );
    let url = format!("http://me:pw@127.0.0.1:{}", proxy.port());
    let direct = format!("direct.test:{}", free_port());
    let engine = Engine::with(Options {
        config: Some(json!({
            "registry-config-dirs": [dir.path().join("certs.d")],
            "insecure-registries": ["plain.test:5000"],
            "proxies": {"http-proxy": url, "https-proxy": url, "no-proxy": "direct.test"},
        })),
        files: vec![("/etc/hosts", "127.0.0.1 localhost direct.test\n".into())],
        ..Options::default()
    });
    engine.import_busybox("box:1");
    let pushed = push(&engine, "far.test:5000/box:1");
    forget(&engine, "far.test:5000/box:1").ok();
    assert_eq!(
        digest_in(&engine.docker(&["pull", "far.test:5000/box:1"]).ok()),
        pushed
    );
    let lines = proxy.lines();
    assert!(
        lines
            .iter()
            .all(|line| line == "CONNECT far.test:5000 HTTP/1.1"),
        "{lines:?}"
    );
    // TLS is tried first, and what answers there is no TLS.
    let name = "plain.test:5000/box:1";
    engine.docker(&["tag", "far.test:5000/box:1", name]).ok();
    engine.docker(&["push", name]).ok();
    let lines = proxy.lines();
    let put = "PUT http://plain.test:5000/v2/box/manifests/1 ";
    assert!(lines.iter().any(|line| line.starts_with(put)), "{lines:?}");
    // Past the proxy nobody listens.
    engine
        .docker(&["pull", &format!("{direct}/box:1")])
        .fails(1, "connection refused");
    assert!(
        !proxy
            .lines()
            .iter()
            .any(|line| line.contains("direct.test"))
    );
    // The machine itself is never asked by proxy, and nobody is shown the proxy's password.
    let near = format!("{}/box:1", plain.domain());
    engine.docker(&["pull", &near]).ok();
    let shown = engine.docker(&["info"]).ok();
    assert!(
        shown.contains("HTTPS Proxy: http://xxxxx:xxxxx@127.0.0.1:"),
        "{shown}"
    );
    engine.finish();
}

/// The daemon's environment, and a proxy that refuses.
#[test]
fn a_proxy_that_refuses() {
    let registry = Registry::start();
    let to = SocketAddr::from(([127, 0, 0, 1], registry.port()));
    let proxy = Proxy::start(&[("far.test:443", to)], "Basic bWU6cHc=");
    let engine = Engine::with(Options {
        args: vec![
            "--https-proxy".into(),
            format!("http://127.0.0.1:{}", proxy.port()),
        ],
        ..Options::default()
    });
    engine
        .docker(&["pull", "far.test/box:1"])
        .fails(1, "proxyconnect");
    assert!(
        proxy
            .lines()
            .contains(&"CONNECT far.test:443 HTTP/1.1".to_owned())
    );
    engine.finish();
}
