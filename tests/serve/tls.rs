//! TLS: the key is who the server is. Pairing.

use crate::support::{Reply, Server, TOKEN, request, serve, wait_until};
use base64::Engine as _;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

/// Takes the one key with this fingerprint and no other, whatever the certificate says.
#[derive(Debug)]
struct Pinned {
    fingerprint: String,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = rustls::server::ParsedCertificate::try_from(certificate)?;
        let sum = Sha256::digest(parsed.subject_public_key_info().as_ref());
        let fingerprint = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(sum);
        if fingerprint == self.fingerprint {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General(format!("the key is {fingerprint}")))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A request over TLS to a server with this key.
fn over_tls(server: &Server, fingerprint: &str, bytes: &[u8]) -> std::io::Result<Reply> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = Pinned { fingerprint: fingerprint.to_owned(), provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, server.connect());
    stream.write_all(bytes)?;
    stream.flush()?;
    Ok(Reply::read(&mut stream))
}

fn fingerprint(server: &Server) -> String {
    server.told().split("SHA256:").nth(1).unwrap().lines().next().unwrap().to_owned()
}

fn with_token(token: &str, method: &str, route: &str, body: &[u8]) -> Vec<u8> {
    request(method, route, &[("authorization", &format!("Bearer {token}"))], body)
}

#[test]
fn the_key_it_prints_is_the_key_it_has() {
    let server = Server::with(&["--tls"], "");
    let key = fingerprint(&server);
    let models = over_tls(&server, &key, &with_token(TOKEN, "GET", "/v1/models", b"")).unwrap();
    assert!(models.status == 200 && models.body.contains("builtin"), "{models:?}");
    assert_eq!(over_tls(&server, &key, &request("GET", "/v1/models", &[], b"")).unwrap().status, 401);
    let body =
        json!({"model": "builtin", "temperature": 0, "messages": [{"role": "user", "content": "Hello"}]});
    let answer = over_tls(
        &server,
        &key,
        &with_token(TOKEN, "POST", "/v1/chat/completions", body.to_string().as_bytes()),
    );
    let answer = answer.unwrap().json();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello! How can I help you today?");
    let wrong = over_tls(&server, "another", &with_token(TOKEN, "GET", "/v1/models", b""));
    assert!(wrong.unwrap_err().to_string().contains(&key), "another key is noticed before anything is sent");
    assert_eq!(std::fs::metadata(server.dir().join("data/serve/key.pem")).map(|m| mode(&m)).unwrap(), 0o600);
}

fn mode(meta: &std::fs::Metadata) -> u32 {
    use std::os::unix::fs::MetadataExt;
    meta.mode() & 0o777
}

#[test]
fn plain_and_tls_on_the_wrong_port_are_told_apart() {
    let secure = Server::with(&["--tls"], "[serve.limits]\nhandshake = 1\n");
    let plain = secure.raw(&with_token(TOKEN, "GET", "/v1/models", b""));
    assert!(plain.status == 400 && plain.body.contains("https://"), "{plain:?}");
    assert!(plain.body.len() < 100 && !plain.head.contains("server:"));
    // A handshake that never goes on, and one that never begins.
    for first in [&b"\x16\x03\x01"[..], b""] {
        let mut stream = secure.connect();
        stream.write_all(first).unwrap();
        assert_eq!(Reply::read(&mut stream).status, 0);
    }
    assert_eq!(
        over_tls(&secure, &fingerprint(&secure), &request("GET", "/health", &[], b"")).unwrap().status,
        200
    );

    let open = Server::start();
    let error = over_tls(&open, "any", &with_token(TOKEN, "GET", "/v1/models", b"")).unwrap_err();
    assert!(!error.to_string().is_empty());
    assert_eq!(open.answer("Hello"), "Hello! How can I help you today?");
}

#[test]
fn the_certificate_can_be_the_persons() {
    let made = Server::with(&["--tls"], "");
    let files =
        ["cert.pem", "key.pem"].map(|name| made.dir().join("data/serve").join(name).display().to_string());
    let other = Server::with(&["--tls-cert", &files[0], "--tls-key", &files[1]], "");
    assert_eq!(fingerprint(&other), fingerprint(&made));
    let dir = tempfile::tempdir().unwrap();
    let swapped =
        serve(dir.path(), &["--listen", "127.0.0.1:0", "--tls-cert", &files[1], "--tls-key", &files[0]]);
    assert!(swapped.0 == 2 && swapped.2.contains("key.pem"), "{}", swapped.2);
    assert_eq!(serve(dir.path(), &["--tls-cert", &files[0]]).0, 2, "one without the other");
}

/// The parts of `duet://ADDRESS?key=sha256:KEY&code=CODE`.
fn pairing_line(told: &str) -> (String, String, String) {
    let line = told.lines().rev().find(|line| line.contains("duet://")).unwrap();
    let (address, rest) = line.trim().strip_prefix("duet://").unwrap().split_once("?key=sha256:").unwrap();
    let (key, code) = rest.split_once("&code=").unwrap();
    (address.to_owned(), key.to_owned(), code.to_owned())
}

fn pair(server: &Server, key: &str, code: &str, name: &str) -> Reply {
    let body = json!({"code": code, "name": name}).to_string();
    over_tls(server, key, &request("POST", "/engine/pair", &[], body.as_bytes())).unwrap()
}

#[test]
fn a_pairing_gives_one_token_once() {
    let server = Server::start_in(tempfile::tempdir().unwrap(), &["--pair"], "", None);
    wait_until("the line is there", || server.told().contains("duet://"));
    let (address, key, code) = pairing_line(&server.told());
    assert_eq!(address, server.address.to_string());
    assert_eq!(key, fingerprint(&server));
    assert!(!server.told().contains("duet_"), "a pairing needs no other token");
    let refused = pair(&server, &key, "wrong", "laptop");
    assert_eq!((refused.status, refused.body.len() < 100), (401, true));
    let body = json!({"code": code, "name": "laptop", "more": "x".repeat(2000)}).to_string();
    let long = request("POST", "/engine/pair", &[], body.as_bytes());
    assert_eq!(over_tls(&server, &key, &long).unwrap().status, 401, "nobody's long body is read");
    let bad_name = pair(&server, &key, &code, "no name");
    assert_eq!(bad_name.status, 409, "{bad_name:?}");
    let paired = pair(&server, &key, &code, "laptop");
    assert_eq!(paired.status, 200, "{paired:?}");
    let paired: Value = paired.json();
    assert_eq!(paired["name"], "laptop");
    let token = paired["token"].as_str().unwrap();
    assert_eq!(over_tls(&server, &key, &with_token(token, "GET", "/v1/models", b"")).unwrap().status, 200);
    assert_eq!(pair(&server, &key, &code, "again").status, 401, "a code is good once");

    // Beside a server that runs already: where it listens, with its key.
    let (exit, _, told) = serve(server.dir(), &["--pair"]);
    assert_eq!(exit, 0, "{told}");
    let (address, own, code) = pairing_line(&told);
    assert_eq!((address, &own), (server.address.to_string(), &key));
    assert_eq!(pair(&server, &key, &code, "phone").status, 200);
    assert_eq!(serve(server.dir(), &["token", "revoke", "laptop"]).0, 0);
    assert_eq!(over_tls(&server, &key, &with_token(token, "GET", "/v1/models", b"")).unwrap().status, 401);
    assert!(!server.log().contains(&code) && !server.log().contains(token));
}

#[test]
fn a_pairing_beside_a_server_leaves_it_as_it_is() {
    let mut server = Server::with(&["--listen", "0.0.0.0:0", "--tls"], "");
    let key = fingerprint(&server);
    let certificate = server.dir().join("data/serve/cert.pem");
    let before = std::fs::read(&certificate).unwrap();
    let (exit, _, told) = serve(server.dir(), &["--pair"]);
    assert_eq!(exit, 0, "{told}");
    let (address, own, code) = pairing_line(&told);
    let address: std::net::SocketAddr = address.parse().unwrap();
    assert_eq!((address.port(), address.ip().is_unspecified()), (server.address.port(), false));
    assert_eq!(own, key);
    assert_eq!(pair(&server, &key, &code, "phone").status, 200);
    assert!(std::fs::read(&certificate).unwrap() == before, "clients trust the certificate there was");
    let record = server.dir().join("run/serve/listening.json");
    assert!(record.exists());
    server.signal("TERM");
    assert_eq!(server.wait(), 0);
    assert!(!record.exists(), "it ends with the server");

    let plain = Server::start();
    let (exit, _, told) = serve(plain.dir(), &["--pair"]);
    assert!(exit == 2 && told.contains("plain HTTP") && !told.contains("duet://"), "{told}");
    assert!(!plain.dir().join("data/serve/cert.pem").exists());
}

#[test]
fn many_idle_handshakes_leave_room() {
    let server = Server::with(&["--tls"], "[serve.limits]\nhandshake = 1\nconnections = 4\n");
    let idle: Vec<TcpStream> = (0..8).map(|_| server.connect()).collect();
    let key = fingerprint(&server);
    wait_until("there is room again", || {
        over_tls(&server, &key, &request("GET", "/health", &[], b"")).is_ok_and(|reply| reply.status == 200)
    });
    drop(idle);
}
