//! How etcd is known, and what it is shown.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use gantry_plugin_sdk::{DriverError, DriverResult};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::options::TlsOptions;

fn unreadable(path: &Path, why: &dyn Display) -> DriverError {
    DriverError::invalid(format!("overlay: tls: reading {}: {why}", path.display()))
}

fn certificates(path: &Path) -> DriverResult<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|e| unreadable(path, &e))?;
    match read.is_empty() {
        true => Err(unreadable(path, &"no certificate in it")),
        false => Ok(read),
    }
}

/// A configuration for servers that the options tell how to know; without options, for no server at all.
pub(super) fn config(options: Option<&TlsOptions>) -> DriverResult<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match options.map(|options| &options.ca) {
        None => {}
        Some(Some(path)) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|e| unreadable(path, &e))?;
            }
        }
        Some(None) => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| DriverError::internal(format!("setting up TLS: {e}")))?
        .with_root_certificates(roots);
    let pair = options.and_then(|o| Some((o.certificate.as_ref()?, o.key.as_ref()?)));
    let Some((certificate, key)) = pair else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(certificate)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| unreadable(key, &e))?;
    builder
        .with_client_auth_cert(chain, secret)
        .map_err(|e| unreadable(certificate, &e))
}
