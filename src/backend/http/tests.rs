//! Requests over real connections to scripted servers of this machine.

use super::*;
use pretty_assertions::assert_eq;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::AtomicUsize;

/// A server that counts connections and gives each of them these bytes.
fn serve(listener: TcpListener, reply: &'static [u8]) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            counted.fetch_add(1, Ordering::SeqCst);
            let mut bytes = [0; 4096];
            let _ = stream.read(&mut bytes);
            let _ = stream.write_all(reply);
        }
    });
    count
}

const OK: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\nconnection: close\r\n\r\n{\"ok\":true}";

fn listener(ip: [u8; 4], port: u16) -> TcpListener {
    TcpListener::bind((Ipv4Addr::from(ip), port)).expect("a port")
}

fn url(listener: &TcpListener) -> String {
    format!("http://{}", listener.local_addr().expect("an address"))
}

fn http(url: &str) -> Http {
    Http::tcp("mac", url, Key::None).expect("a good address")
}

#[tokio::test]
async fn a_redirect_is_told_and_not_followed() {
    let other = listener([127, 0, 0, 1], 0);
    let to = url(&other);
    let followed = serve(other, OK);
    for status in [301, 302, 303, 307, 308] {
        let first = listener([127, 0, 0, 1], 0);
        let from = url(&first);
        let reply = format!(
            "HTTP/1.1 {status} X\r\nlocation: {to}/v1/models\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let asked = serve(first, Box::leak(reply.into_bytes().into_boxed_slice()));
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("key");
        crate::paths::replace_file(&file, b"canary").expect("written");
        let http = Http::tcp("mac", &from, Key::File(file)).expect("a good address");
        let error = http.get("/v1/models", QUICK).await.expect_err("refused").error;
        assert_eq!(error.kind, GenErrorKind::Refused);
        assert!(error.message.contains(&format!("redirects to {to}/v1/models")), "{}", error.message);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
    assert_eq!(followed.load(Ordering::SeqCst), 0, "the key goes nowhere else");
}

/// A listener whose queue is full: who connects waits in vain, as with a machine that is off.
#[cfg(target_os = "linux")]
fn black_hole(ip: [u8; 4], port: u16) -> (std::os::fd::OwnedFd, Vec<std::os::fd::OwnedFd>) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with};
    let address = SocketAddr::from((ip, port));
    let listening =
        socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
    bind(&listening, &address).expect("the port is free");
    listen(&listening, 0).expect("it listens");
    let waiting = (0..4)
        .map(|_| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("a socket");
            let _ = connect(&socket, &address);
            socket
        })
        .collect();
    (listening, waiting)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn of_many_addresses_one_that_lives_is_enough() {
    let alive = listener([127, 0, 0, 9], 0);
    let port = alive.local_addr().expect("an address").port();
    let holes: Vec<_> = (2..6).map(|last| black_hole([127, 0, 0, last], port)).collect();
    let count = serve(alive, OK);
    let mut given: Vec<SocketAddr> = (2..6).map(|last| SocketAddr::from(([127, 0, 0, last], port))).collect();
    given.push(SocketAddr::from(([127, 0, 0, 9], port)));
    let mut http = http(&format!("http://many.test:{port}"));
    if let Way::Network(peer) = &mut http.way {
        peer.given = Some(given.clone());
    }
    http.get("/", QUICK).await.expect("the last one answers");
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert_eq!(
        http.addresses().await.expect("found").first(),
        given.last(),
        "and is tried first from now on"
    );
    assert!(http.knock().await.is_some());
    drop(holes);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn nobody_at_any_address_is_said_in_time() {
    let hole = black_hole([127, 0, 0, 7], 0);
    let address = rustix::net::getsockname(&hole.0).expect("an address");
    let port = SocketAddr::try_from(address).expect("an address").port();
    let hole = black_hole([127, 0, 0, 8], port);
    let http = http(&format!("http://127.0.0.8:{port}"));
    let error = http.get("/", QUICK).await.expect_err("nobody is there").error;
    assert_eq!(error.kind, GenErrorKind::Unreachable);
    assert!(error.message.contains("no connection within 2 s"), "{}", error.message);
    assert_eq!(http.knock().await, None);
    drop(hole);
}

#[tokio::test]
async fn a_name_nobody_has_is_told_apart() {
    let http = http("http://no-such-host.invalid:1");
    let error = http.get("/", QUICK).await.expect_err("nobody").error;
    assert_eq!(error.kind, GenErrorKind::Unreachable);
    let (first, second) = error.message.split_once('\n').expect("two lines");
    assert!(first.contains("no such host") && second.contains("check `url`"), "{}", error.message);
}

#[tokio::test]
async fn what_is_no_server_of_the_kind_is_told() {
    let ssh = listener([127, 0, 0, 1], 0);
    let place = url(&ssh);
    serve(ssh, b"SSH-2.0-OpenSSH_9.2\r\n");
    let error = http(&place).get("/", QUICK).await.expect_err("no HTTP").error;
    assert!(error.message.contains("is not an HTTP server"), "{}", error.message);

    let plain = listener([127, 0, 0, 1], 0);
    let place = url(&plain).replace("http:", "https:");
    let asked = serve(plain, OK);
    let error = http(&place).get("/", QUICK).await.expect_err("no TLS").error;
    assert_eq!(error.kind, GenErrorKind::Protocol);
    assert!(error.message.contains("does not speak TLS\nwrite http://"), "{}", error.message);
    let address = match place.parse() {
        Ok(Address::Http(address)) => address,
        other => panic!("{other:?}"),
    };
    let pinned = Http::direct("mac", &address, Key::None, Trust::Pinned(Fingerprint([1; 32]))).expect("made");
    let error = pinned.get("/", QUICK).await.expect_err("no TLS").error;
    assert_eq!(error.kind, GenErrorKind::Untrusted, "never plain where TLS was pinned");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_socket_of_this_machine() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.sock");
    let http = Http::socket("box", &path, Key::None).expect("made");
    let error = http.get("/", QUICK).await.expect_err("nobody");
    assert_eq!((error.error.kind, error.reach), (GenErrorKind::Unreachable, Reach::Nobody));
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).expect("a request");
        stream.write_all(OK).expect("sent");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    });
    assert_eq!(http.get("/", QUICK).await.expect("an answer")["ok"], true);
}

/// TLS servers with keys of their own.
#[cfg(feature = "local")]
mod tls {
    use super::*;
    use pretty_assertions::assert_eq;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

    struct Server {
        base: String,
        key: Fingerprint,
        requests: Arc<AtomicUsize>,
    }

    fn address(url: &str) -> HttpAddress {
        match url.parse() {
            Ok(Address::Http(address)) => address,
            other => panic!("{other:?}"),
        }
    }

    fn start(port: u16) -> Server {
        use sha2::Digest;
        let key = rcgen::KeyPair::generate().expect("a key");
        let names = vec!["somebody.else".to_owned()];
        let certificate =
            rcgen::CertificateParams::new(names).and_then(|p| p.self_signed(&key)).expect("signed");
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        let fingerprint = Fingerprint(sha2::Sha256::digest(spki).into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let der = CertificateDer::from(certificate.der().to_vec());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![der], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .expect("a certificate");
        let listener = listener([127, 0, 0, 1], port);
        let base = format!("https://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(AtomicUsize::new(0));
        let (counted, config) = (Arc::clone(&requests), Arc::new(config));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let connection = rustls::ServerConnection::new(Arc::clone(&config)).expect("a connection");
                let mut stream = rustls::StreamOwned::new(connection, stream);
                let mut bytes = [0; 4096];
                if stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let _ = stream.write_all(OK);
                    let _ = stream.flush();
                }
            }
        });
        Server { base, key: fingerprint, requests }
    }

    #[tokio::test]
    async fn only_the_pinned_key_is_taken_whatever_the_certificate_says() {
        let (mac, thief) = (start(0), start(0));
        let pinned = |server: &Server| {
            Http::direct("mac", &address(&server.base), Key::None, Trust::Pinned(mac.key)).expect("made")
        };
        let http = pinned(&mac);
        for _ in 0..2 {
            assert_eq!(http.get("/", QUICK).await.expect("an answer")["ok"], true);
        }
        let http = pinned(&thief);
        let error = http.get("/", QUICK).await.expect_err("another key");
        assert_eq!((error.error.kind, error.reach), (GenErrorKind::Untrusted, Reach::Nobody));
        let (first, second) = error.error.message.split_once('\n').expect("two lines");
        assert_eq!(
            first,
            format!("mac: certificate changed. was {} now {}, nothing was sent", mac.key, thief.key)
        );
        assert!(second.contains("tui backends pair mac"), "{second}");
        assert_eq!(http.stranger(), Some(thief.key));
        let counts = [&mac, &thief].map(|server| server.requests.load(Ordering::SeqCst));
        assert_eq!(counts, [2, 0], "no byte of a request reached the other one");
    }

    #[tokio::test]
    async fn without_a_pin_the_authorities_decide() {
        let server = start(0);
        let http = Http::direct("mac", &address(&server.base), Key::None, Trust::System).expect("made");
        let error = http.get("/", QUICK).await.expect_err("self-signed").error;
        assert_eq!(error.kind, GenErrorKind::Untrusted);
        assert!(
            error.message.contains("its certificate is") && error.message.contains("nothing was sent"),
            "{}",
            error.message
        );
        let look = Http::direct("mac", &address(&server.base), Key::None, Trust::Nobody).expect("made");
        assert!(look.get("/", QUICK).await.is_err());
        assert_eq!(look.stranger(), Some(server.key), "which is how pairing sees the key");
        assert_eq!(server.requests.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_handshake_that_never_ends_is_given_up() {
        let silent = listener([127, 0, 0, 1], 0);
        let base = url(&silent).replace("http:", "https:");
        let held: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let hold = Arc::clone(&held);
        std::thread::spawn(move || {
            for stream in silent.incoming() {
                hold.lock().expect("not poisoned").extend(stream);
            }
        });
        let http = Http::direct("mac", &address(&base), Key::None, Trust::System).expect("made");
        let error = http.get("/", QUICK).await.expect_err("silence").error;
        assert_eq!(error.kind, GenErrorKind::Unreachable);
        assert!(error.message.contains("no connection within 2 s"), "{}", error.message);
        assert_eq!(held.lock().expect("not poisoned").len(), 1);
    }
}
