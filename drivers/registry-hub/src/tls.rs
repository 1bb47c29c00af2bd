//! What makes a server trustworthy, and what is shown to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_plugin_sdk::registry::ClientCertificate;
use gantry_plugin_sdk::{DriverError, DriverResult};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
};

/// A configuration that trusts the system's authorities and those in `ca_files`; with `skip_verify`, anybody. Shows one
/// of `pairs` where that is asked for.
pub(crate) fn config(
    skip_verify: bool,
    ca_files: &[PathBuf],
    pairs: &[ClientCertificate],
) -> DriverResult<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let shown = Arc::new(Shown::load(pairs, &provider)?);
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| DriverError::internal(format!("setting up TLS: {e}")))?;
    if skip_verify {
        return Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_client_cert_resolver(shown));
    }
    let mut roots = RootCertStore::empty();
    // A machine without authorities can still use its own in `ca_files`, or plain HTTP.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let mut own = Vec::new();
    for path in ca_files {
        let bad = |e: rustls::pki_types::pem::Error| {
            DriverError::invalid(format!("reading {}: {e}", path.display()))
        };
        for certificate in CertificateDer::pem_file_iter(path).map_err(bad)? {
            let certificate = certificate.map_err(bad)?;
            roots.add(certificate.clone()).map_err(|e| {
                DriverError::invalid(format!("authority in {}: {e}", path.display()))
            })?;
            own.push(certificate);
        }
    }
    let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|e| DriverError::internal(format!("loading the system's authorities: {e}")))?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusted { authorities, own }))
        .with_client_cert_resolver(shown))
}

/// The client certificates, of which the server's list of authorities and signature schemes chooses one.
#[derive(Debug)]
struct Shown(Vec<Arc<CertifiedKey>>);

impl Shown {
    fn load(pairs: &[ClientCertificate], provider: &CryptoProvider) -> DriverResult<Self> {
        let load = |pair: &ClientCertificate| {
            let bad = |path: &Path, e: &dyn std::fmt::Display| {
                DriverError::invalid(format!("reading {}: {e}", path.display()))
            };
            let chain = CertificateDer::pem_file_iter(&pair.certificate)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|e| bad(&pair.certificate, &e))?;
            if chain.is_empty() {
                return Err(bad(&pair.certificate, &"no certificate in it"));
            }
            let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(|e| bad(&pair.key, &e))?;
            CertifiedKey::from_der(chain, key, provider)
                .map(Arc::new)
                .map_err(|e| bad(&pair.certificate, &e))
        };
        pairs.iter().map(load).collect::<Result<_, _>>().map(Self)
    }
}

/// Whether an authority that the server named has signed any certificate of the chain.
fn suits(key: &CertifiedKey, authorities: &[&[u8]]) -> bool {
    authorities.is_empty()
        || key.cert.iter().any(|certificate| {
            webpki::EndEntityCert::try_from(certificate).is_ok_and(|certificate| {
                let issuer = DistinguishedName::in_sequence(certificate.issuer());
                authorities.contains(&issuer.as_ref())
            })
        })
}

impl ResolvesClientCert for Shown {
    fn resolve(
        &self,
        authorities: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let usable = || {
            let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
            self.0.iter().filter(usable)
        };
        // A list may leave out what the server accepts all the same.
        let suitable = usable().find(|key| suits(key, authorities));
        suitable.or_else(|| usable().next()).cloned()
    }
    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Certificates that an authority has signed, and those that were configured themselves: a registry's self-signed
/// certificate is its own authority, which Go accepts and webpki does not.
#[derive(Debug)]
struct Trusted {
    authorities: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.own.iter().any(|own| own == end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        self.authorities.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities
            .verify_tls12_signature(message, certificate, signed)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities
            .verify_tls13_signature(message, certificate, signed)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// Accepts every certificate, but still only who holds its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
