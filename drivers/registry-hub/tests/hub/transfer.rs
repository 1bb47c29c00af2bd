//! Blobs, manifests, tags and TLS.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::{Server, hub, manifest};
use gantry_plugin_sdk::registry::{Credentials, FetchBlob, FetchReply, Proxies, Repository};
use gantry_plugin_sdk::{Call, DriverResult, ErrorCode, Registry};

fn fetch(server: &Server, offset: u64) -> (DriverResult<FetchReply>, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let request = FetchBlob {
        at: Repository {
            endpoint: server.endpoint(Credentials::default()),
            repository: "a/b".into(),
        },
        digest: format!("sha256:{}", "0".repeat(64)),
        offset,
    };
    let fds = [file.as_file().as_fd()];
    let reply = hub().fetch_blob(&Call::new("t").with_fds(&fds), request);
    let mut text = String::new();
    File::open(file.path())
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    (reply, text)
}

#[test]
fn ranges_are_asked_for_and_checked() {
    let honest = Server::start(|seen| match seen.header("range") {
        "" => (200, Vec::new(), b"0123456789".to_vec()),
        range => {
            assert_eq!(range, "bytes=4-");
            (
                206,
                vec![("Content-Range", "bytes 4-9/10".into())],
                b"456789".to_vec(),
            )
        }
    });
    let (reply, text) = fetch(&honest, 0);
    assert_eq!(
        (reply.unwrap(), text.as_str()),
        (
            FetchReply {
                offset: 0,
                written: 10
            },
            "0123456789"
        )
    );
    let (reply, text) = fetch(&honest, 4);
    assert_eq!(
        (reply.unwrap(), text.as_str()),
        (
            FetchReply {
                offset: 4,
                written: 6
            },
            "456789"
        )
    );

    let deaf = Server::start(|_| (200, Vec::new(), b"0123456789".to_vec()));
    let (reply, text) = fetch(&deaf, 4);
    assert_eq!(
        (reply.unwrap(), text.as_str()),
        (
            FetchReply {
                offset: 0,
                written: 6
            },
            "456789"
        )
    );

    let wrong = Server::start(|_| {
        (
            206,
            vec![("Content-Range", "bytes 2-9/10".into())],
            b"23456789".to_vec(),
        )
    });
    let (reply, text) = fetch(&wrong, 4);
    assert_eq!(
        (reply.unwrap_err().code, text.as_str()),
        (ErrorCode::Unavailable, "")
    );
}

#[test]
fn a_body_that_is_cut_off_is_an_error() {
    let server = Server::start(|_| {
        (
            200,
            vec![
                ("Content-Length", "1000".into()),
                ("Connection", "close".into()),
            ],
            b"short".to_vec(),
        )
    });
    // The scripted server waits for the next request on the same connection: end it from outside.
    let port = server.port;
    let relay = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = relay.local_addr().unwrap();
    std::thread::spawn(move || {
        let (client, _) = relay.accept().unwrap();
        let upstream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let mut answer = [0; 4096];
        let mut upstream = upstream;
        let mut sent = Vec::new();
        while !sent.ends_with(b"short") {
            let count = upstream.read(&mut answer).unwrap();
            std::io::Write::write_all(&mut &client, &answer[..count]).unwrap();
            sent.extend_from_slice(&answer[..count]);
        }
        client.shutdown(std::net::Shutdown::Both).unwrap();
    });
    let mut cut = server;
    cut.port = address.port();
    let (reply, text) = fetch(&cut, 0);
    assert_eq!(
        (reply.unwrap_err().code, text.as_str()),
        (ErrorCode::Unavailable, "short")
    );
}

#[test]
fn nobody_reads_any_more() {
    let server = Server::start(|_| (200, Vec::new(), vec![7; 8 << 20]));
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    drop(reader);
    let request = FetchBlob {
        at: Repository {
            endpoint: server.endpoint(Credentials::default()),
            repository: "a/b".into(),
        },
        digest: "sha256:0".into(),
        offset: 0,
    };
    let fds = [writer.as_fd()];
    let error = hub()
        .fetch_blob(&Call::new("t").with_fds(&fds), request)
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::Cancelled);
}

#[test]
fn deadlines_hold() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut endpoint =
        Server::start(|_| (200, Vec::new(), Vec::new())).endpoint(Credentials::default());
    endpoint.url = format!("http://{}", silent.local_addr().unwrap());
    let call = Call::new("t").with_timeout(Duration::from_millis(100));
    let error = hub()
        .fetch_manifest(&call, manifest(endpoint, "a/b"))
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded);
}

#[test]
fn manifests_are_bounded_and_heads_have_no_body() {
    let server = Server::start(|seen| {
        let length = if seen.line.contains("huge") {
            5 << 20
        } else {
            20
        };
        let digest = format!("sha256:{}", "a".repeat(64));
        (
            200,
            vec![("Docker-Content-Digest", digest)],
            vec![b' '; length],
        )
    });
    let hub = hub();
    let get = |repository| manifest(server.endpoint(Credentials::default()), repository);
    let head = hub.resolve(&Call::new("t"), get("a/b")).unwrap();
    assert_eq!((head.bytes.len(), head.size), (0, 20));
    assert!(head.digest.starts_with("sha256:aaa"));
    assert!(
        server.seen()[0]
            .header("accept")
            .contains("vnd.oci.image.index")
    );
    let error = hub
        .fetch_manifest(&Call::new("t"), get("huge"))
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArgument);
}

#[test]
fn tags_come_in_pages() {
    let server = Server::start(|seen| {
        if seen.line.contains("last=b") {
            (200, Vec::new(), br#"{"name":"a/b","tags":["c"]}"#.to_vec())
        } else {
            let link = "</v2/a/b/tags/list?last=b&n=2>; rel=\"next\"".into();
            (
                200,
                vec![("Link", link)],
                br#"{"name":"a/b","tags":["a","b"]}"#.to_vec(),
            )
        }
    });
    let at = Repository {
        endpoint: server.endpoint(Credentials::default()),
        repository: "a/b".into(),
    };
    assert_eq!(
        hub().list_tags(&Call::new("t"), at).unwrap().tags,
        ["a", "b", "c"]
    );
}

/// `openssl s_server -www` answers every GET with a page.
struct TlsServer {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl TlsServer {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let made = Command::new("openssl")
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
            ])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-keyout", &path("key.pem"), "-out", &path("cert.crt")])
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let child = Command::new("openssl")
            .args([
                "s_server",
                "-quiet",
                "-www",
                "-accept",
                &format!("127.0.0.1:{port}"),
            ])
            .args(["-key", &path("key.pem"), "-cert", &path("cert.crt")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, port, dir };
        let started = (0..3000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        assert!(started, "openssl s_server does not start");
        server
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn servers_must_prove_themselves_unless_told_otherwise() {
    let tls = TlsServer::start();
    let plain = Server::start(|_| (200, Vec::new(), Vec::new()));
    let get = |url: String, skip_verify: bool, ca: bool| {
        let mut endpoint = plain.endpoint(Credentials::default());
        endpoint.url = url;
        endpoint.skip_verify = skip_verify;
        if ca {
            endpoint.ca_files = vec![tls.dir.path().join("cert.crt")];
        }
        hub().fetch_manifest(&Call::new("t"), manifest(endpoint, "a/b"))
    };
    let url = format!("https://127.0.0.1:{}", tls.port);
    let error = get(url.clone(), false, false).unwrap_err();
    // It is not asked again.
    assert_eq!(error.code, ErrorCode::Internal);
    assert_eq!(
        error.message,
        format!(
            "Get \"{url}/v2/a/b/manifests/latest\": tls: failed to verify certificate: x509: certificate signed by unknown authority"
        )
    );
    get(url.clone(), true, false).unwrap();
    get(url.clone(), false, true).unwrap();
    let error = get(format!("https://127.0.0.1:{}", plain.port), true, false).unwrap_err();
    assert!(
        error
            .message
            .ends_with("http: server gave HTTP response to HTTPS client"),
        "{error}"
    );
    let error = get("https://registry.invalid".into(), false, false).unwrap_err();
    assert!(
        error
            .message
            .ends_with("dial tcp: lookup registry.invalid: no such host"),
        "{error}"
    );
}

#[test]
fn proxies_are_asked_for_other_machines_only() {
    // The proxy answers itself; what it is asked shows how.
    let proxy = Server::start(|seen| {
        if seen.line.starts_with("CONNECT") {
            (403, Vec::new(), Vec::new())
        } else {
            (200, Vec::new(), b"{}".to_vec())
        }
    });
    let direct = Server::start(|_| (200, Vec::new(), b"{}".to_vec()));
    let hub = hub();
    let get = |url: &str, except: &str| {
        let mut endpoint = direct.endpoint(Credentials::default());
        endpoint.url = url.into();
        let address = format!("http://me:secret@127.0.0.1:{}", proxy.port);
        endpoint.proxies = Proxies {
            http: address.clone(),
            https: address,
            except: except.into(),
        };
        hub.fetch_manifest(&Call::new("t"), manifest(endpoint, "a/b"))
    };
    get("http://registry.invalid:5000", "").unwrap();
    let seen = proxy.seen();
    assert_eq!(
        seen[0].line,
        "GET http://registry.invalid:5000/v2/a/b/manifests/latest"
    );
    assert_eq!(seen[0].header("proxy-authorization"), "Basic bWU6c2VjcmV0");
    let error = get("https://registry.invalid", "").unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.message.contains("proxyconnect"), "{error}");
    let seen = proxy.seen();
    assert_eq!(seen[1].line, "CONNECT registry.invalid:443");
    assert_eq!(seen[1].header("proxy-authorization"), "Basic bWU6c2VjcmV0");
    get(&direct.url(), "").unwrap();
    let error = get("http://registry.invalid", "other,.invalid").unwrap_err();
    assert!(error.message.contains("no such host"), "{error}");
    assert_eq!(proxy.seen().len(), 2);
}
