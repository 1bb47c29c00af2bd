//! Stores that do not let everybody in.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};

use gantry_plugin_sdk::{Driver, ErrorCode, Reconcile};

use super::*;

/// A process that ends with its test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A certificate with its key, in files of the directory.
fn certificate(
    dir: &Path,
    name: &str,
    issuer: Option<&rcgen::Issuer<'_, rcgen::KeyPair>>,
) -> rcgen::Issuer<'static, rcgen::KeyPair> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new([STORE.to_string()]).unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer).unwrap(),
        None => {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.self_signed(&key).unwrap()
        }
    };
    std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    rcgen::Issuer::new(params, key)
}

/// An etcd on the third host, with flags of its own.
fn etcd(hosts: &Hosts, url: &str, dir: &Path, flags: &[&str]) -> Running {
    let mut etcd = hosts.host(3).namespace.command("etcd");
    etcd.args(["--listen-client-urls", url, "--advertise-client-urls", url])
        .args(["--log-level", "error", "--data-dir"])
        .arg(dir.join("data"))
        .args(flags)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Running(etcd.spawn().expect("etcd is installed"))
}

#[test]
fn a_store_with_certificates_is_known_and_knows_its_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let authority = certificate(dir.path(), "ca", None);
    certificate(dir.path(), "etcd", Some(&authority));
    certificate(dir.path(), "host", Some(&authority));
    let path = |name: &str| dir.path().join(name).display().to_string();
    let hosts = Hosts::new(3);
    let url = format!("https://{STORE}:2379");
    let (cert, key, ca) = (path("etcd.pem"), path("etcd.key"), path("ca.pem"));
    let flags = [
        "--cert-file",
        &cert,
        "--key-file",
        &key,
        "--trusted-ca-file",
        &ca,
    ];
    let flags = [&flags[..], &["--client-cert-auth"]].concat();
    let _etcd = etcd(&hosts, &url, dir.path(), &flags);
    let tls =
        json!({"ca": path("ca.pem"), "certificate": path("host.pem"), "key": path("host.key")});
    let host = Host::new(hosts.host(1), &json!({"etcd": [&url], "tls": tls}));
    eventually("the store answers", || host.status("Member") == "yes");
    host.share(network_of("n")).unwrap();
    host.create("n");
    host.allocate("n", "e", &[]).unwrap();
    let options = json!({"etcd": [&url], "tls": {"ca": path("ca.pem")}});
    let stranger = Host::new(hosts.host(2), &options);
    let refused = stranger.share(network_of("m")).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable, "{refused}");
}

#[test]
fn a_store_that_is_not_there_keeps_nobody_waiting() {
    let hosts = Hosts::new(3);
    // No name server is reached from these hosts.
    let options = json!({"etcd": ["http://etcd.nowhere.invalid:2379"]});
    let begun = Instant::now();
    let host = Host::new(hosts.host(1), &options);
    let live = Reconcile::default();
    host.with(|driver| driver.reconcile(&call(), live)).unwrap();
    assert_eq!(host.status("Address"), "192.0.2.1", "the default route's");
    // It is waited for during a second: name servers that do not answer may take ten times as long.
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    // What was found before is better than that.
    let mut host = Host::new(hosts.host(2), &options);
    host.stop();
    std::fs::write(host.root.path().join("address"), "192.0.2.22").unwrap();
    host.start();
    assert_eq!(host.status("Address"), "192.0.2.22");
    let _etcd = Etcd::start(&[hosts.host(3)]);
    let peers = json!({"etcd": [format!("http://{STORE}:2380")]});
    let host = Host::new(hosts.host(1), &peers);
    let error = host.share(network_of("n")).unwrap_err();
    assert!(error.message.contains("is that where etcd"), "{error}");
}

/// What makes users in etcd: `root`, and `host`, who may do everything below one prefix.
const USERS: &str = r#"
    ask() { curl -fs -m 5 -H "Authorization: $TOKEN" "http://192.0.2.3:2379/v3/auth/$1" -d "$2"; }
    token() { ask authenticate "{\"name\": \"root\", \"password\": \"toor\"}" | grep -o '"token":"[^"]*"' | cut -d'"' -f4; }
    encoded() { printf %s "$1" | base64 -w 0; }
"#;
const ENABLE: &str = r#"
    ask role/add '{"name": "root"}'
    ask user/add '{"name": "root", "password": "toor"}'
    ask user/grant '{"user": "root", "role": "root"}'
    ask role/add '{"name": "networks"}'
    ask role/grant '{"name": "networks", "perm": {"permType": "READWRITE",
        "key": "'$(encoded /gantry/overlay/)'", "range_end": "'$(encoded /gantry/overlay0)'"}}'
    ask user/add '{"name": "host", "password": "open sesame"}'
    ask user/grant '{"user": "host", "role": "networks"}'
    ask enable '{}'
"#;
const CHANGE: &str = r#"
    TOKEN=$(token)
    ask user/changepw '{"name": "host", "password": "something else"}'
"#;

#[test]
fn a_store_with_users_lets_in_who_has_a_password() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = Hosts::new(3);
    let url = format!("http://{STORE}:2379");
    let flags = ["--auth-token-ttl", "1", "--bcrypt-cost", "4"];
    let _etcd = etcd(&hosts, &url, dir.path(), &flags);
    let write = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let options =
        |password: &Path| json!({"etcd": [&url], "user": "host", "password_file": password});
    let password = write("password", "open sesame\n", 0o600);
    // It has users only later.
    let host = Host::new(hosts.host(1), &options(&password));
    eventually("the store answers", || host.status("Member") == "yes");
    host.share(network_of("n")).unwrap();
    let at_store = |script: &str| hosts.host(3).namespace.shell(&format!("{USERS}{script}"));
    at_store(ENABLE);
    host.create("n");
    host.allocate("n", "a", &[]).unwrap();
    // Longer than a token and a lease last.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(host.status("Member"), "yes");
    host.allocate("n", "b", &[]).unwrap();
    at_store(CHANGE);
    write("password", "something else", 0o600);
    host.allocate("n", "c", &[]).unwrap();
    eventually("it is followed", || {
        let all = host.with(|driver| driver.shared(&call(), Watch::default()));
        host.share(network_of("m")).is_ok() && all.is_ok_and(|all| all.networks.len() == 2)
    });
    let refused = |options: &Value, why: &str| {
        let stranger = Host::new(hosts.host(2), options);
        let error = stranger.share(network_of("o")).unwrap_err();
        assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
        assert!(error.message.contains(why), "{error}");
        let health = stranger.with(|driver| driver.health(&call())).unwrap();
        let told = format!("{error}{health:?}{:?}", stranger.driver);
        assert!(!told.contains("sesame"), "{told}");
    };
    let old = write("old", "open sesame", 0o600);
    refused(&options(&old), "authentication failed");
    let open = write("open", "something else", 0o644);
    refused(&options(&open), "everybody may use it");
    refused(&options(&dir.path().join("none")), "No such file");
    refused(&json!({"etcd": [&url]}), "user name is empty");
    let mut elsewhere = options(&password);
    elsewhere["prefix"] = json!("/elsewhere");
    refused(&elsewhere, "permission denied");
}

/// Hosts know each other's changes after the tokens that they were followed with have ended, and those of an etcd that was
/// started again; and they do not take it for away.
///
/// A token that is had just before it ends is of no use: the shortest that may come of `ttl` seconds has to last for a
/// question, on a busy machine as well.
fn followed_with_tokens_that_end(kind: &str, ttl: u64) {
    let dir = tempfile::tempdir().unwrap();
    let hosts = Hosts::new(3);
    let url = format!("http://{STORE}:2379");
    let seconds = ttl.to_string();
    let flags = ["--auth-token", kind, "--auth-token-ttl", &seconds];
    let flags = [&flags[..], &["--bcrypt-cost", "4"]].concat();
    // None lasts longer: etcd counts whole seconds.
    let ended = ttl + 1;
    let running = etcd(&hosts, &url, dir.path(), &flags);
    let at_store = |script: &str| hosts.host(3).namespace.shell(&format!("{USERS}{script}"));
    eventually("the store answers", || {
        let ask = format!("curl -fs -m 2 {url}/health");
        hosts.host(3).namespace.try_shell(&ask).is_ok()
    });
    at_store(ENABLE);
    let late = format!(
        "TOKEN=$(token); ask user/list '{{}}' >/dev/null; sleep {ended}; ask user/list '{{}}' || echo ended"
    );
    assert_eq!(at_store(&late), "ended", "tokens end");
    let password = dir.path().join("password");
    std::fs::write(&password, "open sesame").unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    // Longer than a token lasts.
    let options = json!({"etcd": [&url], "user": "host", "password_file": password, "lease": 3});
    let [one, two] = sharing(&hosts, &options);
    let tell = |from: &Host, to: &Host, endpoint: &str| {
        from.allocate("n", endpoint, &[]).unwrap();
        eventually("it is told", || to.others() == [endpoint]);
        from.release("n", endpoint);
        eventually("its end is told", || to.others().is_empty());
    };
    for round in 0..4 {
        tell(&one, &two, &format!("a{round}"));
        // The watch is begun with a token that has ended.
        std::thread::sleep(Duration::from_secs(ended));
        tell(&two, &one, &format!("b{round}"));
    }
    for host in [&one, &two] {
        let log = host.log.lock().clone();
        let clear = |line: &String| line.contains("in clear");
        assert!(log.iter().all(clear), "{log:?}");
    }
    drop(running);
    let _running = etcd(&hosts, &url, dir.path(), &flags);
    for host in [&one, &two] {
        eventually("it is a member", || {
            host.allocate("n", &host.id(), &[]).is_ok()
        });
    }
    eventually("they know each other", || {
        (one.others(), two.others()) == (vec![two.id()], vec![one.id()])
    });
}

#[test]
fn simple_tokens_that_ended_are_renewed_by_who_follows() {
    followed_with_tokens_that_end("simple", 1);
}

#[test]
fn signed_tokens_that_ended_are_renewed_by_who_follows() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "anything").unwrap();
    let key = key.display();
    // These end with a whole second.
    let ttl = 2;
    let kind = format!("jwt,priv-key={key},sign-method=HS256,ttl={ttl}s");
    followed_with_tokens_that_end(&kind, ttl);
}
