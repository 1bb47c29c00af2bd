//! TLS for TCP listeners, with dockerd's three files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// Where keys and certificates are, all PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate and those above it (`--tlscert`).
    pub certificate: PathBuf,
    /// The server's key (`--tlskey`).
    pub key: PathBuf,
    /// Clients must show a certificate signed by one of these (`--tlsverify --tlscacert`); `None` lets everyone in.
    pub client_ca: Option<PathBuf>,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, unreadable or not PEM.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// Key and certificate do not fit each other, or the authorities are unusable.
    #[error("could not set up TLS: {0}")]
    Config(String),
}

/// A configuration for [`crate::Listener::Tls`].
///
/// # Errors
/// See [`TlsError`].
pub fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let config = |error: &dyn std::fmt::Display| TlsError::Config(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| config(&e))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|e| config(&e))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|e| config(&e))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unreadable(&files.key, error))?;
    let mut config = builder
        .with_single_cert(certificates(&files.certificate)?, key)
        .map_err(|e| config(&e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(path, error))
}

fn unreadable(path: &Path, error: rustls::pki_types::pem::Error) -> TlsError {
    let source = match error {
        rustls::pki_types::pem::Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, format!("{other:?}")),
    };
    TlsError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::ClientConfig;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio_rustls::{TlsAcceptor, TlsConnector};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::service::Service;
    use crate::socket::Socket;

    /// An authority's files, and leaves signed by it.
    struct Authority(Issuer<'static, KeyPair>);

    impl Authority {
        fn new(path: &Path) -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            std::fs::write(path, params.self_signed(&key).unwrap().pem()).unwrap();
            Self(Issuer::new(params, key))
        }
        fn leaf(&self, certificate: &Path, key: &Path) {
            let pair = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
            let signed = params.signed_by(&pair, &self.0).unwrap();
            std::fs::write(certificate, signed.pem()).unwrap();
            std::fs::write(key, pair.serialize_pem()).unwrap();
        }
    }

    /// What a ping over TLS answers.
    async fn ping(server: &TlsFiles, client: Option<&TlsFiles>) -> io::Result<String> {
        let mut roots = RootCertStore::empty();
        let ca = server.client_ca.as_ref().unwrap();
        for certificate in certificates(ca).unwrap() {
            roots.add(certificate).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(files) => builder
                .with_client_auth_cert(
                    certificates(&files.certificate).unwrap(),
                    PrivateKeyDer::from_pem_file(&files.key).unwrap(),
                )
                .unwrap(),
        };
        let (here, there) = UnixStream::pair()?;
        let acceptor = TlsAcceptor::from(server_config(server).unwrap());
        let routes = Service::new(crate::routes::finish(Router::new()));
        let stop = CancellationToken::new();
        tokio::spawn(crate::server::connection(
            Socket::Unix(here),
            Some(acceptor),
            routes,
            stop,
        ));
        let name = "localhost".try_into().unwrap();
        let mut stream = TlsConnector::from(Arc::new(config))
            .connect(name, there)
            .await?;
        stream
            .write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn only_clients_with_a_certificate_are_let_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let files = |name: &str| TlsFiles {
            certificate: path(&format!("{name}.pem")),
            key: path(&format!("{name}.key")),
            client_ca: Some(path("ca.pem")),
        };
        let authority = Authority::new(&path("ca.pem"));
        let stranger = Authority::new(&path("other-ca.pem"));
        for (signer, name) in [
            (&authority, "server"),
            (&authority, "client"),
            (&stranger, "thief"),
        ] {
            signer.leaf(&files(name).certificate, &files(name).key);
        }
        let server = files("server");
        let answer = ping(&server, Some(&files("client"))).await.unwrap();
        assert!(answer.ends_with("\r\n\r\nOK"), "{answer}");
        assert!(ping(&server, None).await.is_err());
        assert!(ping(&server, Some(&files("thief"))).await.is_err());
    }

    #[test]
    fn a_bad_file_is_named() {
        let files = TlsFiles {
            certificate: "/nowhere/cert.pem".into(),
            key: "/dev/null".into(),
            client_ca: None,
        };
        let error = server_config(&files).unwrap_err().to_string();
        assert!(error.starts_with("/dev/null: "), "{error}");
    }
}
