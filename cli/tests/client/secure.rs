//! TLS, with both sides proving who they are.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::fake::{Daemon, Done, container};

/// A CA and a certificate that it has signed, for both sides; written as the client looks for them.
struct Keys {
    ca: String,
    cert: String,
    key: String,
}

impl Keys {
    fn new() -> Self {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let cert = cert.signed_by(&key, &issuer).unwrap();
        Self {
            ca: ca_pem,
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }

    fn write(&self, daemon: &Daemon) {
        let directory = daemon.home().join(".docker");
        std::fs::create_dir_all(&directory).unwrap();
        for (name, pem) in [
            ("ca.pem", &self.ca),
            ("cert.pem", &self.cert),
            ("key.pem", &self.key),
        ] {
            std::fs::write(directory.join(name), pem).unwrap();
        }
    }

    fn server(&self) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap())
            .unwrap();
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .unwrap();
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap(),
            )
            .unwrap()
    }
}

/// A TLS door in front of the scripted daemon; returns its address.
fn door(daemon: &Daemon, keys: &Keys) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (socket, acceptor) = (daemon.socket(), TlsAcceptor::from(Arc::new(keys.server())));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, socket) = (acceptor.clone(), socket.clone());
                tokio::spawn(async move {
                    // A client that is turned away is what one test is about.
                    let Ok(mut outside) = acceptor.accept(stream).await else {
                        return;
                    };
                    let inside = UnixStream::connect(socket).unwrap();
                    inside.set_nonblocking(true).unwrap();
                    let mut inside = tokio::net::UnixStream::from_std(inside).unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
    });
    address
}

#[test]
fn a_session_goes_over_tls() {
    let daemon = Daemon::start(container(
        |peer| {
            let input = peer.read_to_end();
            peer.frame(1, &input);
        },
        3,
    ));
    let keys = Keys::new();
    keys.write(&daemon);
    let address = door(&daemon, &keys);
    let input = daemon.home().join("input");
    std::fs::write(&input, "secret\n".repeat(100_000)).unwrap();
    let output = daemon
        .client(&format!(
            "--tlsverify -H tcp://{address} run -i busybox cat"
        ))
        .stdin(std::fs::File::open(&input).unwrap())
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.stdout == std::fs::read(&input).unwrap(),
        "{} bytes",
        output.stdout.len()
    );
}

#[test]
fn a_server_that_the_ca_does_not_know_is_refused() {
    let daemon = Daemon::start(|_, peer| peer.reply(200, "[]"));
    let address = door(&daemon, &Keys::new());
    Keys::new().write(&daemon);
    let refused = daemon.run(&format!("--tlsverify -H tcp://{address} ps -q"));
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("certificate"), "{}", refused.err);
    assert!(daemon.seen().is_empty());
}

#[test]
fn without_verification_any_server_will_do() {
    let daemon = Daemon::start(|_, peer| peer.reply(200, "[]"));
    let (server, mut client) = (Keys::new(), Keys::new());
    let address = door(&daemon, &server);
    // The server still wants to know the client.
    (client.cert, client.key) = (server.cert.clone(), server.key.clone());
    client.write(&daemon);
    let listed = daemon.run(&format!("--tls -H tcp://{address} ps -q"));
    assert_eq!(
        listed,
        Done {
            code: Some(0),
            out: String::new(),
            err: String::new()
        }
    );
}
