//! The server's key. Who we are is the key, not the address: clients pin its fingerprint.

use super::folder::{Folder, encode, refuse_shared, sha256};
use crate::error::{AppError, Exit};
use crate::paths::read_file;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};

const KEY: &str = "key.pem";
const CERT: &str = "cert.pem";
/// Before the certificate in its file: whom it names.
const NAMES: &str = "names: ";
const MAX_PEM: u64 = 1 << 20;

/// A key and certificate ready to serve with.
pub struct Identity {
    /// What TLS needs.
    pub(super) config: Arc<ServerConfig>,
    /// SHA-256 of the public key (its SubjectPublicKeyInfo), base64 without padding.
    pub fingerprint: String,
}

/// Files of our own key (ECDSA P-256) and of its certificate, made on first use. The certificate is made
/// anew, with the same key, when it shall name other hosts.
///
/// # Errors
/// When they can't be made or written.
pub fn own_files(folder: &Folder, names: &[String]) -> Result<(PathBuf, PathBuf), AppError> {
    let made = |error: rcgen::Error| AppError::new(Exit::Error, format!("serve: no certificate: {error}"));
    let _lock = folder.lock()?;
    let key = match folder.read(KEY)? {
        Some(pem) => KeyPair::from_pem(&String::from_utf8_lossy(&pem)).map_err(|error| {
            AppError::new(Exit::Error, format!("{}: not a private key: {error}", folder.file(KEY).display()))
                .hint("move it away for a new one; paired clients then have to be paired again")
        })?,
        None => {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(made)?;
            folder.write(KEY, key.serialize_pem().as_bytes())?;
            folder.remove(CERT)?;
            key
        }
    };
    let names_line = format!("{NAMES}{}\n", names.join(" "));
    let is_current = folder.read(CERT)?.is_some_and(|pem| pem.starts_with(names_line.as_bytes()));
    if !is_current {
        let mut params = CertificateParams::new(names).map_err(made)?;
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, "duet");
        params.distinguished_name = subject;
        let certificate = params.self_signed(&key).map_err(made)?;
        folder.write(CERT, format!("{names_line}{}", certificate.pem()).as_bytes())?;
    }
    Ok((folder.file(CERT), folder.file(KEY)))
}

impl Identity {
    /// Reads a certificate chain and its key.
    ///
    /// # Errors
    /// When a file can't be read, isn't PEM, or the two don't belong together.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, AppError> {
        let read = |path: &Path| {
            read_file(path, MAX_PEM).map_err(|trouble| {
                AppError::new(Exit::Usage, format!("TLS: {}: {trouble}", path.display()))
                    .hint("name files in PEM, or leave both out for a key made on first use")
            })
        };
        let wrong = |path: &Path, what: String| {
            AppError::new(Exit::Usage, format!("TLS: {}: {what}", path.display()))
                .hint("both files are PEM: the certificates, the server's own first, and its private key")
        };
        let (cert_pem, key_pem) = (read(cert)?, read(key)?);
        refuse_shared(key, 0o007)?;
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&cert_pem)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(cert, format!("not a certificate: {error}")))?;
        if chain.is_empty() {
            return Err(wrong(cert, "holds no certificate".to_owned()));
        }
        let private = PrivateKeyDer::from_pem_slice(&key_pem)
            .map_err(|error| wrong(key, format!("not a private key: {error}")))?;
        let provider = default_provider();
        let signing = provider
            .key_provider
            .load_private_key(private)
            .map_err(|error| wrong(key, format!("not a key TLS can use: {error}")))?;
        let certified = CertifiedKey::new(chain, signing);
        certified
            .keys_match()
            .map_err(|error| wrong(cert, format!("does not belong to the key: {error}")))?;
        let public = certified.key.public_key().ok_or_else(|| wrong(key, "has no public key".to_owned()))?;
        let fingerprint = encode(&sha256(public.as_ref()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| AppError::new(Exit::Error, format!("TLS: {error}")))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), fingerprint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_key_stays_when_names_change() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let load = |list: &[&str]| {
            let (cert, key) = own_files(&folder, &names(list)).unwrap_or_else(|e| panic!("{e}"));
            let pem = std::fs::read(&cert).unwrap();
            (Identity::load(&cert, &key).unwrap_or_else(|e| panic!("{e}")).fingerprint, pem)
        };
        let (first, cert) = load(&["localhost", "127.0.0.1"]);
        assert_eq!(first.len(), 43, "256 bits");
        assert_eq!(
            load(&["localhost", "127.0.0.1"]),
            (first.clone(), cert.clone()),
            "nothing changes by itself"
        );
        let (again, other) = load(&["localhost", "mac.local"]);
        assert_eq!(again, first);
        assert_ne!(other, cert);
        assert_eq!(std::fs::metadata(folder.file(KEY)).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn files_that_do_not_belong_together_are_refused() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let files: Vec<_> = dirs
            .iter()
            .map(|dir| own_files(&Folder::open(dir.path()).unwrap(), &["localhost".to_owned()]).unwrap())
            .collect();
        let refused = |cert: &Path, key: &Path| Identity::load(cert, key).err().map(|e| e.to_string());
        assert!(refused(&files[0].0, &files[1].1).unwrap().contains("belong"));
        assert!(refused(&files[0].1, &files[0].1).unwrap().contains("no certificate"));
        assert!(refused(&files[0].0, &files[0].0).unwrap().contains("private key"));
        assert!(refused(&dirs[0].path().join("none"), &files[0].1).unwrap().contains("no such file"));
    }
}
