//! The certificates that TLS trusts: the operating system's, and those of `http.ca`.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::EgressError;

/// The TLS settings of clients, and the roots that they trust. They offer HTTP/2 first, then HTTP/1.1.
pub(super) fn config(ca: Option<&Path>) -> Result<(ClientConfig, Arc<RootCertStore>), EgressError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        let errors: Vec<_> = system.errors.iter().map(ToString::to_string).collect();
        tracing::warn!(
            ?errors,
            "found no trusted certificates in the operating system; requests over TLS will fail"
        );
    }
    if let Some(path) = ca {
        own(path, &mut roots).map_err(|reason| EgressError::Ca { path: path.to_owned(), reason })?;
    }
    let roots = Arc::new(roots);
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(Arc::clone(&roots))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((config, roots))
}

fn own(path: &Path, roots: &mut RootCertStore) -> Result<(), String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let mut found = 0;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
        found += 1;
    }
    if found == 0 { Err("it contains no certificate; use a file in PEM".to_owned()) } else { Ok(()) }
}
