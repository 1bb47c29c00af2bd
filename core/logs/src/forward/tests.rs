//! Each driver against a receiver that speaks the real protocol.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket, UnixDatagram};

use super::*;
use crate::attrs::tests::{options, subject};

fn message(text: &str, stderr: bool) -> Message {
    Message {
        nanos: 1_500_000_000,
        stderr,
        text: text.into(),
        partial: None,
    }
}

fn driver(name: &str, pairs: &[(&str, &str)]) -> Box<dyn Forwarder> {
    crate::check(name, &options(pairs)).unwrap();
    open(name, &options(pairs), &subject()).unwrap().unwrap()
}

async fn tcp() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Reads until `enough` says so.
async fn read_until(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    enough: impl Fn(&[u8]) -> bool,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !enough(&bytes) {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "ended after {}", bytes.escape_ascii());
        bytes.extend_from_slice(&buffer[..read]);
    }
    bytes
}

#[tokio::test]
async fn journald_speaks_the_native_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    let place = path.to_str().unwrap();
    let pairs = [
        ("journald-socket", place),
        ("tag", "{{.Name}}"),
        ("labels", "cc"),
        ("env", "A"),
    ];
    let mut journald = driver("journald", &pairs);
    journald.connect().await.unwrap();
    let two_lines = message("one\ntwo", true);
    journald
        .send(&[message("hello", false), two_lines])
        .await
        .unwrap();
    let mut buffer = vec![0; 65536];
    let read = socket.recv(&mut buffer).await.unwrap();
    let text = String::from_utf8(buffer[..read].to_vec()).unwrap();
    let mut fields: Vec<&str> = text.lines().collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "A=x=y",
            "CC=3",
            "CONTAINER_ID=0123456789ab",
            &format!("CONTAINER_ID_FULL={}", subject().id),
            "CONTAINER_NAME=web",
            "CONTAINER_TAG=web",
            "IMAGE_NAME=busybox:1",
            "MESSAGE=hello",
            "PRIORITY=6",
            "SYSLOG_IDENTIFIER=web",
            "SYSLOG_TIMESTAMP=1970-01-01T00:00:01.5Z",
        ]
    );
    let read = socket.recv(&mut buffer).await.unwrap();
    let second = &buffer[..read];
    assert!(second.ends_with(b"MESSAGE\n\x07\0\0\0\0\0\0\0one\ntwo\n"));
    assert!(memchr::memmem::find(second, b"PRIORITY=3\n").is_some());
}

#[tokio::test]
async fn journald_takes_large_messages_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut journald = driver("journald", &[("journald-socket", path.to_str().unwrap())]);
    let large = "x".repeat(4 << 20);
    journald.send(&[message(&large, false)]).await.unwrap();
    socket.readable().await.unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let flags = rustix::net::RecvFlags::empty();
    rustix::net::recvmsg(&socket, &mut [], &mut control, flags).unwrap();
    let fd = control.drain().find_map(|message| match message {
        rustix::net::RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let mut file = std::fs::File::from(fd.expect("a descriptor"));
    std::io::Seek::rewind(&mut file).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert!(text.ends_with(&format!("MESSAGE={large}\n")));
    assert!(file.set_len(0).is_err(), "it is sealed");
}

/// The parts of `<priority>rest`.
fn priority(line: &str) -> (&str, &str) {
    line.strip_prefix('<').unwrap().split_once('>').unwrap()
}

#[tokio::test]
async fn syslog_over_datagrams() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = format!("udp://{}", socket.local_addr().unwrap());
    let pairs = [
        ("syslog-address", address.as_str()),
        ("syslog-facility", "local1"),
        ("syslog-format", "rfc3164"),
        ("tag", "t"),
    ];
    let batch = [message("out", false), message("err", true)];
    driver("syslog", &pairs).send(&batch).await.unwrap();
    let mut buffer = [0; 2048];
    let mut next = async || {
        let read = socket.recv(&mut buffer).await.unwrap();
        String::from_utf8(buffer[..read].to_vec()).unwrap()
    };
    let first = next().await;
    let (number, rest) = priority(&first);
    assert_eq!(number, "142", "local1.info");
    let end = format!(
        " {} t[{}]: out\n",
        crate::tag::hostname(),
        std::process::id()
    );
    assert!(
        rest.ends_with(&end) && rest.len() == 15 + end.len(),
        "{rest}"
    );
    assert_eq!(priority(&next().await).0, "139", "local1.err");
}

#[tokio::test]
async fn syslog_over_streams_in_each_format() {
    let (listener, address) = tcp().await;
    let address = format!("tcp://{address}");
    for (format, is_time) in [
        ("", None),
        ("rfc5424", Some(20)),
        ("rfc5424micro", Some(27)),
    ] {
        let pairs = [
            ("syslog-address", address.as_str()),
            ("syslog-format", format),
        ];
        let mut syslog = driver("syslog", &pairs);
        syslog.connect().await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let batch = [message("one", false), message("two", false)];
        let (sent, got) = tokio::join!(
            syslog.send(&batch),
            read_until(&mut stream, |b| b.ends_with(b"two\n"))
        );
        sent.unwrap();
        let text = String::from_utf8(got).unwrap();
        let line = text.lines().next().unwrap();
        let (number, rest) = priority(line);
        assert_eq!(number, "30", "daemon.info");
        let (pid, host) = (std::process::id(), crate::tag::hostname());
        match is_time {
            None => assert!(
                rest.ends_with(&format!(" 0123456789ab[{pid}]: one")),
                "{rest}"
            ),
            Some(length) => {
                let words: Vec<&str> = rest.split(' ').collect();
                assert!(words[0] == "1" && words[1].starts_with("19"), "{rest}");
                let zoned = words[1].len() == length || !words[1].ends_with('Z');
                assert!(zoned, "{rest}");
                let pid = pid.to_string();
                assert_eq!(
                    words[2..],
                    [&host, "0123456789ab", &pid, "0123456789ab", "-", "one"]
                );
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_ends_is_noticed() {
    let (listener, address) = tcp().await;
    let address = format!("tcp://{address}");
    let mut syslog = driver("syslog", &[("syslog-address", address.as_str())]);
    syslog.connect().await.unwrap();
    drop(listener.accept().await.unwrap());
    // The old connection is noticed to be dead, and a new one made, before anything is lost in it.
    let batch = [message("x", false)];
    let receive = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, |b| b.ends_with(b"x\n")).await
    };
    let (sent, _) = tokio::join!(syslog.send(&batch), receive);
    sent.unwrap();
    drop(listener);
    assert!(syslog.send(&batch).await.is_err());
}

/// A CA, a certificate for `localhost` by it, and their files.
fn certificates(dir: &Path) -> std::sync::Arc<rustls::ServerConfig> {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    std::fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    let cert = params.signed_by(&key, &issuer).unwrap();
    std::fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        std::sync::Arc::new(roots),
        provider.clone(),
    );
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        .with_single_cert(
            vec![cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    std::sync::Arc::new(config)
}

#[tokio::test]
async fn syslog_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(certificates(dir.path()));
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
    let (listener, address) = tcp().await;
    let address = format!("tcp+tls://localhost:{}", address.port());
    let base = [
        ("syslog-address", address.as_str()),
        ("syslog-format", "rfc5424"),
    ];
    let accept = async || {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor.accept(stream).await
    };
    let batch = [message("secret", false)];
    for trust in [
        &[("syslog-tls-ca-cert", ca.as_str())][..],
        &[("syslog-tls-skip-verify", "true")],
        &[
            ("syslog-tls-ca-cert", ca.as_str()),
            ("syslog-tls-cert", cert.as_str()),
            ("syslog-tls-key", key.as_str()),
        ],
    ] {
        let pairs = [&base[..], trust].concat();
        let mut syslog = driver("syslog", &pairs);
        let receive = async {
            let mut stream = accept().await.unwrap();
            let known = stream.get_ref().1.peer_certificates().is_some();
            assert_eq!(known, trust.len() == 3, "{trust:?}");
            read_until(&mut stream, |b| b.ends_with(b"secret\n")).await
        };
        let (sent, got) = tokio::join!(syslog.send(&batch), receive);
        sent.unwrap();
        let text = String::from_utf8(got).unwrap();
        let (length, rest) = text.split_once(' ').unwrap();
        assert_eq!(
            length.parse::<usize>().unwrap(),
            rest.len(),
            "octets are counted"
        );
    }
    let mut distrusting = driver("syslog", &base);
    let (sent, accepted) = tokio::join!(distrusting.send(&batch), accept());
    assert!(
        sent.is_err() && accepted.is_err(),
        "the system does not know this CA"
    );
}

/// The next value of MessagePack, as JSON; extensions as arrays of type and bytes.
fn unpack(bytes: &mut &[u8]) -> serde_json::Value {
    use rmp::decode as d;
    let text = |bytes: &mut &[u8], length: u32| {
        let (text, rest) = bytes.split_at(length as usize);
        *bytes = rest;
        serde_json::Value::from(String::from_utf8_lossy(text).into_owned())
    };
    let mut probe = *bytes;
    match d::read_marker(&mut probe).unwrap() {
        rmp::Marker::FixArray(_) | rmp::Marker::Array16 => {
            let length = d::read_array_len(bytes).unwrap();
            (0..length).map(|_| unpack(bytes)).collect()
        }
        rmp::Marker::FixMap(_) | rmp::Marker::Map16 => {
            let length = d::read_map_len(bytes).unwrap();
            let pairs = (0..length).map(|_| {
                let key = unpack(bytes);
                (key.as_str().unwrap().to_owned(), unpack(bytes))
            });
            serde_json::Value::Object(pairs.collect())
        }
        rmp::Marker::FixStr(_) | rmp::Marker::Str8 | rmp::Marker::Str16 => {
            let length = d::read_str_len(bytes).unwrap();
            text(bytes, length)
        }
        rmp::Marker::FixExt8 => {
            let meta = d::read_ext_meta(bytes).unwrap();
            let (value, rest) = bytes.split_at(8);
            *bytes = rest;
            serde_json::json!([meta.typeid, value])
        }
        _ => d::read_int::<i64, _>(bytes).unwrap().into(),
    }
}

#[tokio::test]
async fn fluentd_forwards_events() {
    let (listener, address) = tcp().await;
    let address = address.to_string();
    let pairs = [
        ("fluentd-address", address.as_str()),
        ("tag", "docker.{{.Name}}"),
        ("labels", "a"),
    ];
    let mut fluentd = driver("fluentd", &pairs);
    fluentd.connect().await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut part = message("part", true);
    part.partial = Some(Partial {
        id: "7".into(),
        ordinal: 2,
        last: true,
    });
    let batch = [message("hello", false), part];
    let (sent, bytes) = tokio::join!(
        fluentd.send(&batch),
        read_until(&mut stream, |b| b.ends_with(b"part"))
    );
    sent.unwrap();
    let mut rest = bytes.as_slice();
    let id = subject().id;
    assert_eq!(
        unpack(&mut rest),
        serde_json::json!(["docker.web", 1, {
            "a": "1", "container_id": id, "container_name": "/web", "source": "stdout", "log": "hello",
        }])
    );
    assert_eq!(
        unpack(&mut rest),
        serde_json::json!(["docker.web", 1, {
            "a": "1", "container_id": id, "container_name": "/web", "source": "stderr", "log": "part",
            "partial_message": "true", "partial_id": "7", "partial_ordinal": "2", "partial_last": "true",
        }])
    );
    assert!(rest.is_empty());
}

#[tokio::test]
async fn fluentd_connections_are_renewed_on_request() {
    let (listener, address) = tcp().await;
    let address = address.to_string();
    let interval = std::time::Duration::from_millis(100);
    for (asynchronous, connections) in [("true", 2), ("false", 1)] {
        let pairs = [
            ("fluentd-address", address.as_str()),
            ("fluentd-async", asynchronous),
            ("fluentd-async-reconnect-interval", "100ms"),
        ];
        let mut fluentd = driver("fluentd", &pairs);
        let mut accepted = Vec::new();
        let mut send = async |accepted: &mut Vec<_>| {
            let batch = [message("x", false)];
            let mut sent = std::pin::pin!(fluentd.send(&batch));
            loop {
                tokio::select! {
                    sent = &mut sent => break sent.unwrap(),
                    taken = listener.accept() => accepted.push(taken.unwrap()),
                }
            }
        };
        send(&mut accepted).await;
        tokio::time::sleep(interval).await;
        send(&mut accepted).await;
        // What was not accepted yet waits for it.
        while accepted.len() < connections {
            accepted.push(listener.accept().await.unwrap());
        }
        let more = std::future::poll_fn(|cx| std::task::Poll::Ready(listener.poll_accept(cx)));
        assert!(more.await.is_pending(), "{asynchronous}");
    }
}

#[tokio::test]
async fn fluentd_gives_a_receiver_the_time_that_was_said() {
    let (listener, address) = tcp().await;
    let address = address.to_string();
    let pairs = [
        ("fluentd-address", address.as_str()),
        ("fluentd-write-timeout", "50ms"),
    ];
    let mut fluentd = driver("fluentd", &pairs);
    fluentd.connect().await.unwrap();
    let (_deaf, _) = listener.accept().await.unwrap();
    // More than the kernel keeps for one that does not read.
    let batch = [message(&"x".repeat(32 << 20), false)];
    let undelivered = fluentd.send(&batch).await.unwrap_err();
    assert_eq!(undelivered.error.kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn fluentd_waits_for_acknowledgements() {
    let (listener, address) = tcp().await;
    let address = format!("tcp://{address}");
    let pairs = [
        ("fluentd-address", address.as_str()),
        ("fluentd-request-ack", "true"),
        ("fluentd-sub-second-precision", "true"),
        ("fluentd-async", "true"),
    ];
    let mut fluentd = driver("fluentd", &pairs);
    assert!(!fluentd.must_be_there());
    let batch = [message("a", false), message("b", false)];
    // The first message is acknowledged, then the connection ends.
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let bytes = read_until(&mut stream, |b| {
            let chunks: Vec<usize> = memchr::memmem::find_iter(b, b"chunk").collect();
            chunks.len() == 2 && b.len() == chunks[1] + 5 + 2 + 32
        });
        let bytes = bytes.await;
        let event = unpack(&mut bytes.as_slice());
        assert_eq!(
            event[1],
            serde_json::json!([0, [0, 0, 0, 1, 29, 205, 101, 0]])
        );
        let chunk = event[3]["chunk"].as_str().unwrap();
        let mut answer = Vec::new();
        rmp::encode::write_map_len(&mut answer, 1).unwrap();
        rmp::encode::write_str(&mut answer, "ack").unwrap();
        rmp::encode::write_str(&mut answer, chunk).unwrap();
        stream.write_all(&answer).await.unwrap();
    };
    let (sent, ()) = tokio::join!(fluentd.send(&batch), serve);
    assert_eq!(sent.unwrap_err().sent, 1);
}

#[tokio::test]
async fn gelf_over_udp_compressed_and_in_chunks() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = format!("udp://{}", socket.local_addr().unwrap());
    let mut buffer = [0; 2048];
    for form in ["gzip", "zlib", "none"] {
        let pairs = [
            ("gelf-address", address.as_str()),
            ("gelf-compression-type", form),
            ("env", "B"),
        ];
        let mut gelf = driver("gelf", &pairs);
        gelf.send(&[message("hello", true)]).await.unwrap();
        let read = socket.recv(&mut buffer).await.unwrap();
        let mut json = Vec::new();
        match form {
            "gzip" => flate2::read::GzDecoder::new(&buffer[..read]).read_to_end(&mut json),
            "zlib" => flate2::read::ZlibDecoder::new(&buffer[..read]).read_to_end(&mut json),
            _ => Read::read_to_end(&mut &buffer[..read], &mut json),
        }
        .unwrap();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let subject = subject();
        assert_eq!(
            value,
            serde_json::json!({
                "version": "1.1", "host": crate::tag::hostname(), "short_message": "hello", "timestamp": 1.5,
                "level": 3, "_command": "sh -c date", "_container_id": subject.id, "_container_name": "web",
                "_created": "1970-01-01T00:00:01Z", "_image_id": subject.image_id,
                "_image_name": "busybox:1", "_tag": "0123456789ab", "_B": "2",
            })
        );
    }
    let pairs = [
        ("gelf-address", address.as_str()),
        ("gelf-compression-type", "none"),
    ];
    let long = "y".repeat(3000);
    driver("gelf", &pairs)
        .send(&[message(&long, false)])
        .await
        .unwrap();
    let (mut json, mut ids) = (Vec::new(), Vec::new());
    for number in 0..3 {
        let read = socket.recv(&mut buffer).await.unwrap();
        let chunk = &buffer[..read];
        assert!(read <= 1420 && chunk[..2] == [0x1e, 0x0f]);
        assert_eq!(chunk[10..12], [number, 3]);
        ids.push(chunk[2..10].to_vec());
        json.extend_from_slice(&chunk[12..]);
    }
    assert!(ids[0] == ids[1] && ids[1] == ids[2]);
    let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(value["short_message"], long);
}

#[tokio::test]
async fn gelf_over_tcp_ends_messages_with_a_null_byte() {
    let (listener, address) = tcp().await;
    let address = format!("tcp://{address}");
    let mut gelf = driver("gelf", &[("gelf-address", address.as_str())]);
    let batch = [message("a", false), message("b", false)];
    let receive = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, |b| b.iter().filter(|b| **b == 0).count() == 2).await
    };
    let (sent, bytes) = tokio::join!(gelf.send(&batch), receive);
    sent.unwrap();
    let texts: Vec<String> = bytes
        .split(|b| *b == 0)
        .filter(|json| !json.is_empty())
        .map(|json| serde_json::from_slice::<serde_json::Value>(json).unwrap())
        .map(|value| value["short_message"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(texts, ["a", "b"]);
}
