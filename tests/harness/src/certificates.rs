//! Certificates for a test's servers, and the authority that signs them, all created for this run.

use std::{fs, path::Path, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tempfile::TempDir;

/// Creates a certificate for these names or addresses in a new folder: `server.pem` and `server.key`, and
/// `ca.pem`, the authority that a client must trust. No other run's authority has the same name.
#[track_caller]
pub(crate) fn make(names: &[&str]) -> TempDir {
    let dir = TempDir::with_prefix("posthouse-tls-").expect("a separate folder");
    write(dir.path(), names);
    dir
}

/// Like [`make`], in an existing folder.
#[track_caller]
pub(crate) fn write(dir: &Path, names: &[&str]) {
    let mut params = CertificateParams::default();
    let name = format!("posthouse test authority {:016x}", rand::random_range(0..u64::MAX));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("a key");
    let authority = params.self_signed(&key).expect("an authority");
    let issuer = Issuer::new(params, key);

    let key = KeyPair::generate().expect("a key");
    let certificate = leaf(names).signed_by(&key, &issuer).expect("a certificate");
    let files =
        [("ca.pem", authority.pem()), ("server.pem", certificate.pem()), ("server.key", key.serialize_pem())];
    for (file, text) in files {
        fs::write(dir.join(file), text).expect("a file of certificates");
    }
}

/// Creates a self-signed certificate for `localhost`: `certificate.pem` and `key.pem`.
#[track_caller]
pub(crate) fn write_self_signed(dir: &Path) {
    let key = KeyPair::generate().expect("a key");
    let certificate = leaf(&["localhost"]).self_signed(&key).expect("a certificate");
    for (file, text) in [("certificate.pem", certificate.pem()), ("key.pem", key.serialize_pem())] {
        fs::write(dir.join(file), text).expect("a file of certificates");
    }
}

/// A certificate for an RSA key, and the root that leads to it, both in PEM. An authority between the two follows the
/// certificate in its file.
pub struct Certified {
    /// The certificate and the authority that issued it.
    pub chain: String,
    /// The certificate alone.
    pub alone: String,
    /// The root.
    pub root: String,
}

/// Certifies this key (PKCS #8 in PEM) for a name, from the first day of one year to that of another.
///
/// # Panics
/// If the key is none.
#[track_caller]
pub fn certify(key: &str, name: &str, from: i32, until: i32) -> Certified {
    let authority = |what: &str| {
        let mut params = CertificateParams::default();
        let name = format!("posthouse test {what} {:016x}", rand::random_range(0..u64::MAX));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (params, KeyPair::generate().expect("a key"))
    };
    let (root, root_key) = authority("root");
    let root_pem = root.self_signed(&root_key).expect("a root").pem();
    let root = Issuer::new(root, root_key);
    let (between, between_key) = authority("authority");
    let between_pem = between.signed_by(&between_key, &root).expect("an authority").pem();
    let between = Issuer::new(between, between_key);

    let key = KeyPair::from_pem(key).expect("an RSA key");
    let mut params = leaf(&[name]);
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let alone = params.signed_by(&key, &between).expect("a certificate").pem();
    Certified { chain: format!("{alone}{between_pem}"), alone, root: root_pem }
}

fn leaf(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, "posthouse test server");
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params
}

/// A server's TLS settings with the certificate in this folder. The server offers these protocols.
#[track_caller]
pub(crate) fn server(dir: &Path, protocols: &[&str]) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(dir.join("server.pem")).expect("a certificate");
    let chain = chain.collect::<Result<_, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).expect("a key");
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("TLS");
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}
