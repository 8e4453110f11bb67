//! TLS: whom a client takes for the server it was told of. Paired servers are known by the fingerprint of their
//! key, whatever the rest of their certificate says; others by the certificate authorities of the system.

use crate::config::fingerprint::Fingerprint;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use rustls_platform_verifier::Verifier;
use sha2::{Digest, Sha256};
use std::sync::{Arc, OnceLock};

/// Who is taken for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Whom the system's certificate authorities vouch for.
    System,
    /// Who has the key with this fingerprint.
    Pinned(Fingerprint),
    /// Nobody: the connection ends with [`Stranger`], which tells the fingerprint, before anything is sent.
    Nobody,
}

/// A server with another key than the pinned one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stranger {
    /// The key it has.
    pub(super) now: Fingerprint,
    /// The one it should have.
    pub(super) was: Option<Fingerprint>,
}

impl std::fmt::Display for Stranger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the server's key is {}", self.now)
    }
}

impl std::error::Error for Stranger {}

/// What a client speaks TLS with. No IO: the system's authorities are read at the first handshake that needs them.
///
/// # Errors
/// One line, when the cryptography has no common version of TLS.
pub(super) fn config(trust: Trust) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let judge = Judge { trust, provider: Arc::clone(&provider), system: OnceLock::new() };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("no TLS: {error}"))?;
    let judge = Arc::new(judge);
    Ok(builder.dangerous().with_custom_certificate_verifier(judge).with_no_client_auth())
}

#[derive(Debug)]
struct Judge {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    system: OnceLock<Result<Verifier, Error>>,
}

impl Judge {
    fn system(&self) -> Result<&Verifier, Error> {
        let made = self.system.get_or_init(|| Verifier::new(Arc::clone(&self.provider)));
        made.as_ref().map_err(Clone::clone)
    }
}

/// SHA-256 of the public key in a certificate.
fn fingerprint(certificate: &CertificateDer<'_>) -> Result<Fingerprint, Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(Fingerprint(Sha256::digest(parsed.subject_public_key_info().as_ref()).into()))
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let was = match self.trust {
            Trust::System => {
                return self.system()?.verify_server_cert(certificate, chain, name, ocsp, now);
            }
            Trust::Pinned(fingerprint) => Some(fingerprint),
            Trust::Nobody => None,
        };
        let now = fingerprint(certificate)?;
        if was == Some(now) {
            return Ok(ServerCertVerified::assertion());
        }
        let stranger = OtherError(Arc::new(Stranger { now, was }));
        Err(Error::InvalidCertificate(CertificateError::Other(stranger)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why a handshake failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Another key than the pinned one, or any where none is known.
    Stranger(Stranger),
    /// A certificate nobody vouches for; why, in words that follow "its certificate".
    Certificate(String),
    /// The other side does not speak TLS.
    NoTls,
    /// Anything else, in the words of TLS.
    Other(String),
}

/// What an error of a connection says about TLS; none when it is about something else.
pub(super) fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<Refusal> {
    let tls = find(error)?;
    Some(match tls {
        Error::InvalidCertificate(CertificateError::Other(other)) => match other.0.downcast_ref::<Stranger>()
        {
            Some(Stranger { now, was }) => Refusal::Stranger(Stranger { now: *now, was: *was }),
            None => Refusal::Certificate(format!("is not accepted ({other})")),
        },
        Error::InvalidCertificate(why) => Refusal::Certificate(match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".to_owned(),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "is not valid yet: one of the two clocks is wrong".to_owned()
            }
            CertificateError::UnknownIssuer => "is signed by nobody this machine knows".to_owned(),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "is for another name".to_owned()
            }
            CertificateError::Revoked => "was revoked".to_owned(),
            other => format!("is not accepted ({other})"),
        }),
        Error::InvalidMessage(_) => Refusal::NoTls,
        other => Refusal::Other(other.to_string()),
    })
}

/// The error of TLS among the causes. One inside an IO error is no cause of it in the sense of `source`.
fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<Error>() {
            return Some(tls);
        }
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => {
                let inner: &'a (dyn std::error::Error + 'static) = inner;
                Some(inner)
            }
            None => error.source(),
        };
    }
    None
}
