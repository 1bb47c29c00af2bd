//! Registries with TLS: authorities, client certificates, HTTP/2, and what goes wrong with them.

use std::fs;
use std::path::Path;

use gantry_e2e::{Authority, Registry, Serve, eventually, skopeo_digest};
use serde_json::json;

use crate::{digest_in, engine, forget, push};

const UNKNOWN: &str =
    "tls: failed to verify certificate: x509: certificate signed by unknown authority";

/// `localhost` is trusted without TLS, and so is its address: this name of the machine is not.
fn name_of(registry: &Registry) -> String {
    format!("registry.test:{}", registry.port())
}

/// An engine for which that name is this machine's, with directories for registries below `dirs`.
fn engine_with(dirs: &Path) -> gantry_e2e::Engine {
    let engine = gantry_e2e::Engine::with(gantry_e2e::Options {
        config: Some(json!({"registry-config-dirs": [dirs]})),
        files: vec![("/etc/hosts", "127.0.0.1 localhost registry.test\n".into())],
        ..Default::default()
    });
    engine.import_busybox("box:1");
    engine
}

#[test]
fn an_authority_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(&dir.path().join("authority"));
    let pair = authority.sign("server", &["DNS:registry.test", "IP:127.0.0.1"]);
    let registry = Registry::with(&Serve {
        password: true,
        tls: Some(&pair),
        ..Serve::default()
    });
    let dirs = dir.path().join("certs.d");
    let engine = engine_with(&dirs);
    let domain = name_of(&registry);
    let name = format!("{domain}/box:1");
    let login = || engine.docker(&["login", "-u", "alice", "-p", "secret", &domain]);
    login().fails(1, UNKNOWN);
    engine.docker(&["pull", &name]).fails(1, UNKNOWN);
    // Without a restart.
    let own = dirs.join(&domain);
    fs::create_dir_all(&own).unwrap();
    fs::copy(authority.certificate(), own.join("ca.crt")).unwrap();
    login().ok();
    let pushed = push(&engine, &name);
    forget(&engine, &name).ok();
    assert_eq!(digest_in(&engine.gantry(&["pull", &name]).ok()), pushed);
    let same = format!("docker://{}/box:1", registry.domain());
    let trusted = own.display().to_string();
    assert_eq!(
        pushed,
        skopeo_digest(&same, &["--cert-dir", &trusted, "--creds", "alice:secret"])
    );
    // Documents by HTTP/2, blobs on connections of their own.
    let by = |protocol: &str, what: &str| {
        let log = registry.log();
        log.lines()
            .any(|line| line.contains(protocol) && line.contains(what))
    };
    eventually("the requests are logged", 30, || {
        (by("HTTP/2.0", "/manifests/") && by("HTTP/1.1", "/blobs/sha256:")).then_some(())
    });
    engine.finish();
}

#[test]
fn client_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(&dir.path().join("authority"));
    let pair = authority.sign("server", &["DNS:registry.test", "IP:127.0.0.1"]);
    let client = authority.sign("client", &[]);
    let stranger = Authority::new(&dir.path().join("strangers")).sign("stranger", &[]);
    let registry = Registry::with(&Serve {
        tls: Some(&pair),
        client_ca: Some(authority.certificate()),
        ..Serve::default()
    });
    let dirs = dir.path().join("certs.d");
    let engine = engine_with(&dirs);
    let name = format!("{}/box:1", name_of(&registry));
    engine.docker(&["tag", "box:1", &name]).ok();
    let own = dirs.join(name_of(&registry));
    fs::create_dir_all(&own).unwrap();
    fs::copy(authority.certificate(), own.join("ca.crt")).unwrap();
    engine.docker(&["push", &name]).fails(1, "registry.test");
    fs::copy(&client.certificate, own.join("client.cert")).unwrap();
    let missing = "missing key client.key for client certificate client.cert. CA certificates must use the extension .crt";
    engine.docker(&["push", &name]).fails(1, missing);
    fs::copy(&client.key, own.join("client.key")).unwrap();
    // Of two, the one that the server's authority has signed.
    fs::copy(&stranger.certificate, own.join("another.cert")).unwrap();
    fs::copy(&stranger.key, own.join("another.key")).unwrap();
    let pushed = push(&engine, &name);
    forget(&engine, &name).ok();
    assert_eq!(digest_in(&engine.docker(&["pull", &name]).ok()), pushed);
    let same = format!("docker://{}/box:1", registry.domain());
    let skopeo = dir.path().join("skopeo");
    fs::create_dir(&skopeo).unwrap();
    for file in ["ca.crt", "client.cert", "client.key"] {
        fs::copy(own.join(file), skopeo.join(file)).unwrap();
    }
    assert_eq!(
        pushed,
        skopeo_digest(&same, &["--cert-dir", &skopeo.display().to_string()])
    );
    fs::remove_file(own.join("client.cert")).unwrap();
    engine.docker(&["pull", &name]).fails(
        1,
        "missing client certificate client.cert for key client.key",
    );
    engine.finish();
}

/// The same by containerd's file: another address, an authority, a client certificate, a header.
#[test]
fn hosts_toml() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(&dir.path().join("authority"));
    let pair = authority.sign("server", &["IP:127.0.0.1"]);
    let client = authority.sign("client", &[]);
    let registry = Registry::with(&Serve {
        tls: Some(&pair),
        client_ca: Some(authority.certificate()),
        ..Serve::default()
    });
    let own = dir.path().join("certs.d/images.example");
    fs::create_dir_all(&own).unwrap();
    let engine = engine(json!({"registry-config-dirs": [dir.path().join("certs.d")]}));
    let file = |text: String| fs::write(own.join("hosts.toml"), text).unwrap();
    let name = "images.example/box:1";
    file("server = \"ftp://x\"".into());
    engine
        .docker(&["pull", name])
        .fails(1, "hosts.toml: invalid host \"ftp://x\"");
    file(format!(
        "server = \"https://{}/v2\"\nca = {:?}\nclient = [[{:?}, {:?}]]\n[header]\nx-team = \"build\"\n",
        registry.domain(),
        authority.certificate(),
        client.certificate,
        client.key
    ));
    let pushed = push(&engine, name);
    forget(&engine, name).ok();
    assert_eq!(digest_in(&engine.gantry(&["pull", name]).ok()), pushed);
    // Nobody is asked for a certificate who has none to show: the authority alone does not do.
    file(format!(
        "server = \"https://{}\"\nskip_verify = true\n",
        registry.domain()
    ));
    engine.docker(&["pull", name]).fails(1, &registry.domain());
    engine.finish();
}
