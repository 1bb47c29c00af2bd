//! Syslog over datagrams, streams and TLS.

use std::path::Path;

use tokio::net::UdpSocket;

use super::*;

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
