//! TLS to a receiver.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Whom to trust, and who we are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TlsFiles {
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    skip_verify: bool,
}

impl TlsFiles {
    /// From options whose names begin like this. As with Docker, `skip-verify` counts whatever its value is.
    pub(crate) fn of(options: &BTreeMap<String, String>, prefix: &str) -> Self {
        let option = |name: &str| options.get(&format!("{prefix}{name}"));
        let path = |name: &str| option(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Self {
            ca: path("ca-cert"),
            cert: path("cert"),
            key: path("key"),
            skip_verify: option("skip-verify").is_some(),
        }
    }

    /// Reads the files; without a CA of its own the system's are trusted.
    ///
    /// # Errors
    /// Files that are not there or not what they should be.
    pub(crate) fn config(&self) -> io::Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let builder = match self.skip_verify {
            false => builder.with_root_certificates(self.roots()?),
            true => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        };
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect)
            .map_err(|e| unreadable(cert, &e))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|e| unreadable(key, &e))?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(io::Error::other)
    }

    fn roots(&self) -> io::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let Some(ca) = &self.ca else {
            for certificate in rustls_native_certs::load_native_certs().certs {
                // The system may hold some that this library does not take.
                let _ = roots.add(certificate);
            }
            return Ok(roots);
        };
        let certificates = CertificateDer::pem_file_iter(ca).map_err(|e| unreadable(ca, &e))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|e| unreadable(ca, &e))?;
            roots.add(certificate).map_err(io::Error::other)?;
        }
        Ok(roots)
    }
}

fn unreadable(path: &std::path::Path, error: &rustls::pki_types::pem::Error) -> io::Error {
    io::Error::other(format!("could not read {}: {error}", path.display()))
}

/// The name that the receiver's certificate must carry.
pub(crate) fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).map_err(io::Error::other)
}

/// Takes any server for the right one; only its possession of the key is checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
