//! Who is not let in, and that they learn nothing.

use crate::support::{Reply, Server, TOKEN, request, serve, wait_until};
use serde_json::json;
use std::io::{Read, Write};
use std::time::Duration;

/// Refused, in few bytes that tell nothing.
fn tells_nothing(what: &str, reply: &Reply, statuses: &[u16]) {
    assert!(statuses.contains(&reply.status), "{what}: {reply:?}");
    assert!(reply.len() <= 200, "{what}: {} bytes: {reply:?}", reply.len());
    let text = format!("{}{}", reply.head, reply.body).to_lowercase();
    for word in
        ["duet", "builtin", "gguf", "model", "/tmp", "server:", env!("CARGO_PKG_VERSION"), "allow-origin"]
    {
        assert!(!text.contains(word), "{what}: {word:?} in {reply:?}");
    }
}

#[test]
fn without_the_token_nothing_is_learnt() {
    let server = Server::start();
    let right = format!("Bearer {TOKEN}");
    let wrong = format!("Bearer {TOKEN}x");
    let near = format!("Bearer {}", TOKEN.trim_end_matches('9'));
    let long = format!("Bearer {}", "x".repeat(1 << 20));
    let query = format!("/v1/models?api_key={TOKEN}&token={TOKEN}");
    let get = |headers: &[(&str, &str)]| request("GET", "/v1/models", headers, b"");
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("none", get(&[]), &[401]),
        ("empty", get(&[("authorization", "")]), &[401]),
        ("empty bearer", get(&[("authorization", "Bearer ")]), &[401]),
        ("wrong", get(&[("authorization", &wrong)]), &[401]),
        ("a beginning", get(&[("authorization", &near)]), &[401]),
        ("another scheme", get(&[("authorization", &format!("Basic {TOKEN}"))]), &[401]),
        ("bare", get(&[("authorization", TOKEN)]), &[401]),
        ("two", get(&[("authorization", &right), ("authorization", &right)]), &[401]),
        ("query", request("GET", &query, &[], b""), &[401]),
        // These never get as far as a token: they are no request.
        ("1 MB", get(&[("authorization", &long)]), &[431]),
        ("NUL", get(&[("authorization", "Bearer a\0b")]), &[400]),
        ("no route", request("GET", "/nowhere", &[], b""), &[401]),
        ("method", request("DELETE", "/v1/models", &[], b""), &[401]),
        ("shutdown", request("POST", "/engine/shutdown", &[], b"{}"), &[401]),
        ("pairing", request("POST", "/engine/pair", &[], br#"{"code":"x","name":"y"}"#), &[401]),
        ("health of others", request("POST", "/health", &[], b""), &[401]),
        ("chat", request("POST", "/v1/chat/completions", &[], br#"{"messages":[]}"#), &[401]),
        ("status", request("GET", "/engine/status", &[], b""), &[401]),
    ];
    for (what, bytes, statuses) in &cases {
        // From the sixth wrong one on an address waits: the right one in between forgives.
        assert_eq!(server.ask("GET", "/v1/models", b"").status, 200);
        tells_nothing(what, &server.raw(bytes), statuses);
    }
    let health = server.raw(&request("GET", "/health", &[], b""));
    assert_eq!((health.status, health.body.as_str()), (200, r#"{"status":"ok"}"#));
    tells_nothing("health", &health, &[200]);
    assert!(server.log().contains("a token in an address is ignored"), "{}", server.log());
    assert!(!server.log().contains(TOKEN));
    assert!(
        server.ask("GET", "/v1/models", b"").head.contains("server: duet/"),
        "those who are known are told"
    );
}

#[test]
fn wrong_tokens_wait_longer_and_longer() {
    let server = Server::start();
    let try_wrong = || {
        let mut stream = server.connect();
        stream.write_all(&request("GET", "/v1/models", &[("authorization", "Bearer x")], b"")).unwrap();
        stream
    };
    for _ in 0..5 {
        assert_eq!(Reply::read(&mut try_wrong()).status, 401);
    }
    let mut sixth = try_wrong();
    wait_until("the sixth waits", || server.log().contains("waits from=127.0.0.1 seconds=1"));
    let mut seventh = try_wrong();
    wait_until("the seventh waits", || server.log().contains("waits from=127.0.0.1 seconds=2"));
    assert_eq!(server.ask("GET", "/v1/models", b"").status, 200, "the right one does not wait");
    assert_eq!(Reply::read(&mut sixth).status, 401);
    assert_eq!(Reply::read(&mut seventh).status, 401);
}

#[test]
fn only_for_this_machine_and_not_from_pages() {
    let server =
        Server::with(&[], "[serve]\nnames = [\"mac.local\"]\norigins = [\"https://chat.example\"]\n");
    let token = format!("Bearer {TOKEN}");
    let body = br#"{"model":"builtin","messages":[{"role":"user","content":"Hello"}]}"#;
    let post = |headers: &[(&str, &str)]| {
        let mut all = vec![("authorization", token.as_str())];
        all.extend_from_slice(headers);
        server.raw(&request("POST", "/v1/chat/completions", &all, body))
    };
    let port = server.address.port();
    for host in ["localhost", "127.0.0.1", "mac.local", "[::1]", &format!("127.0.0.1:{port}"), "localhost:9"]
    {
        assert_eq!(post(&[("host", host)]).status, 200, "{host}");
    }
    for host in ["evil.example", "", "127.0.0.1:0", "127.0.0.1.nip.io", "192.168.0.1", "localhost:x"] {
        tells_nothing(host, &post(&[("host", host)]), &[421]);
    }
    tells_nothing("two hosts", &post(&[("host", "localhost"), ("host", "localhost")]), &[421]);
    let bare = format!("GET /v1/models HTTP/1.1\r\nauthorization: {token}\r\nconnection: close\r\n\r\n");
    tells_nothing("no host", &server.raw(bare.as_bytes()), &[421]);
    let absolute = request("GET", "http://evil.example/v1/models", &[("authorization", &token)], b"");
    tells_nothing("absolute", &server.raw(&absolute), &[421]);
    let rebound = request("GET", "/health", &[("host", "evil.example")], b"");
    tells_nothing("rebound health", &server.raw(&rebound), &[421]);

    for headers in [
        &[("origin", "https://evil.example")][..],
        &[("origin", "null")],
        &[("origin", "http://localhost")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("upgrade", "websocket"), ("sec-websocket-version", "13")],
    ] {
        tells_nothing("a page", &post(headers), &[403]);
    }
    let preflight = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    let preflight = server.raw(&request("OPTIONS", "/v1/chat/completions", &preflight, b""));
    tells_nothing("preflight", &preflight, &[403]);

    // A simple request, as a form of any page can send it.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"] {
        assert_eq!(post(&[("content-type", kind)]).status, 415, "{kind}");
    }
    assert_eq!(post(&[("content-type", "application/json; charset=utf-8")]).status, 200);
    assert_eq!(post(&[("content-encoding", "gzip")]).status, 415);

    let allowed = post(&[("origin", "https://chat.example"), ("sec-fetch-site", "cross-site")]);
    assert_eq!(allowed.status, 200);
    assert!(allowed.head.contains("access-control-allow-origin: https://chat.example"), "{}", allowed.head);
    let preflight = [("origin", "https://chat.example"), ("access-control-request-method", "POST")];
    let preflight = server.raw(&request("OPTIONS", "/v1/chat/completions", &preflight, b""));
    assert_eq!(preflight.status, 204);
    assert!(!post(&[]).head.contains("access-control"), "no page, no such headers");
}

#[test]
fn what_others_can_reach_needs_more() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, missing, next) in [
        (&["--listen", "0.0.0.0:0"][..], "a token and TLS are missing", "tui serve token add NAME"),
        (&["--listen", "[::]:0", "--tls"], "a token is missing", "tui serve token add NAME"),
        (&["--listen", "192.0.2.1:0", "--insecure"], "a token is missing", "tui serve token add NAME"),
    ] {
        let (code, _, told) = serve(dir.path(), arguments);
        assert_eq!(code, 2, "{told}");
        assert!(told.contains(missing) && told.contains(next), "{told}");
        assert!(told.lines().count() <= 2, "{told}");
    }
    let (code, _, told) = serve(dir.path(), &["--announce"]);
    assert!(code == 2 && told.contains("nobody else can reach"), "{code} {told}");
    assert_eq!(serve(dir.path(), &["token", "add", "laptop"]).0, 0);
    let (code, _, told) = serve(dir.path(), &["--listen", "0.0.0.0:0"]);
    assert!(code == 2 && told.contains("TLS is missing") && told.contains("--tls"), "{code} {told}");
    assert!(!dir.path().join("run/serve/engine.activity").exists(), "nothing was started");

    let server = Server::start_in(dir, &["--listen", "0.0.0.0:0", "--insecure"], "", Some(TOKEN));
    let told = server.told();
    assert!(told.contains("--insecure") && told.contains("can be read and changed by everybody"), "{told}");
    assert!(told.contains("0.0.0.0 means every interface"), "{told}");
    assert_eq!(server.answer("Hello"), "Hello! How can I help you today?");
}

#[test]
fn tokens_have_names_and_can_be_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let (code, token, told) = serve(dir.path(), &["token", "add", "laptop"]);
    assert!(code == 0 && told.contains("laptop") && !told.contains(token.trim()), "{told}");
    let token = token.trim().to_owned();
    assert_eq!(serve(dir.path(), &["token", "add", "laptop"]).0, 2);
    assert_eq!(serve(dir.path(), &["token", "revoke", "phone"]).0, 2);
    let listed = serve(dir.path(), &["token", "list"]).1;
    assert!(listed.starts_with("laptop\t") && !listed.contains(&token), "{listed}");

    let server = Server::start_in(dir, &[], "", None);
    let as_laptop = || {
        let authorization = format!("Bearer {token}");
        server.raw(&request("GET", "/v1/models", &[("authorization", &authorization)], b"")).status
    };
    assert_eq!(as_laptop(), 200);
    let other = serve(server.dir(), &["token", "add", "phone"]).1;
    let authorization = format!("Bearer {}", other.trim());
    let as_phone = request("GET", "/v1/models", &[("authorization", &authorization)], b"");
    assert_eq!(server.raw(&as_phone).status, 200, "a new one counts at once");
    assert_eq!(serve(server.dir(), &["token", "revoke", "laptop"]).0, 0);
    assert_eq!(as_laptop(), 401, "one taken back does not");
    assert_eq!(server.raw(&as_phone).status, 200);
    assert!(server.log().contains(" phone GET /v1/models 200"), "the log names it: {}", server.log());
}

#[test]
fn the_first_start_makes_a_token_and_shows_it_once() {
    let server = Server::start_in(tempfile::tempdir().unwrap(), &[], "", None);
    let told = server.told();
    let token = told.split_whitespace().find(|word| word.starts_with("duet_")).unwrap().to_owned();
    assert!(told.contains("tokens.json"), "{told}");
    let authorization = format!("Bearer {token}");
    let bytes = request("GET", "/v1/models", &[("authorization", &authorization)], b"");
    assert_eq!(server.raw(&bytes).status, 200);
    assert_eq!(server.raw(&request("GET", "/v1/models", &[], b"")).status, 401);
    let kept = std::fs::read_to_string(server.dir().join("data/serve/tokens.json")).unwrap();
    assert!(!kept.contains(&token) && !server.log().contains(&token));
    let (code, _, told) = serve(server.dir(), &["--listen", "127.0.0.1:0"]);
    assert!(code == 1 && told.contains("runs already"), "{code} {told}");
}

#[test]
fn a_token_can_come_from_a_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let text = "from-a-file-0123456789abcdef0123456789";
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let path = file.to_str().unwrap();
    let (code, _, told) = serve(dir.path(), &["--listen", "127.0.0.1:0", "--token-file", path]);
    assert!(code == 2 && told.contains("chmod 600"), "{told}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let arguments = ["--token-file".to_owned(), path.to_owned()];
    let server = Server::start_in(dir, &arguments.each_ref().map(String::as_str), "", None);
    assert!(!server.told().contains("made a token"), "one is enough: {}", server.told());
    let authorization = format!("Bearer {text}");
    let bytes = request("GET", "/v1/models", &[("authorization", &authorization)], b"");
    assert_eq!(server.raw(&bytes).status, 200);
}

#[test]
fn slow_clients_are_cut() {
    let config = "[serve.limits]\nheader = 1\nbody = 1\nconnections = 6\n";
    let server = Server::with(&[], config);
    let token = format!("Bearer {TOKEN}");
    let ends = |what: &str, first: &[u8], status: u16| {
        let mut stream = server.connect();
        stream.write_all(first).unwrap();
        let reply = Reply::read(&mut stream);
        assert_eq!(reply.status, status, "{what}: {reply:?}");
    };
    ends("nothing at all", b"", 0);
    ends("a header without end", b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx: ", 0);
    let header = [("authorization", token.as_str()), ("content-length", "100")];
    ends("a body without end", &request("POST", "/v1/chat/completions", &header, b"{"), 408);
    // One byte now and then does not help.
    let mut stream = server.connect();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut was_cut = false;
    wait_until("it is cut", || {
        was_cut |= stream.write_all(b"x").is_err() || matches!(stream.read(&mut [0]), Ok(0));
        was_cut
    });

    // Idle ones leave: the server never holds more than it may, and has room again.
    let idle: Vec<_> = (0..12).map(|_| server.connect()).collect();
    wait_until("it was full", || server.log().contains("too many are open"));
    wait_until("there is room again", || server.raw(&request("GET", "/health", &[], b"")).status == 200);
    drop(idle);
}

#[test]
fn nothing_of_a_question_or_a_token_is_written_down() {
    let server = Server::with(&["-v"], "");
    let canary = "canary-xylophone-4711";
    server.chat(&json!({"model": "builtin", "messages": [{"role": "user", "content": canary}]}));
    server.raw(&request(
        "GET",
        &format!("/v1/models?q={canary}"),
        &[("authorization", "Bearer canary-xylophone-4711")],
        b"",
    ));
    wait_until("the access line is there", || server.told().contains("POST /v1/chat/completions 200"));
    wait_until("the other, too", || server.told().contains("GET /v1/models 401"));
    assert!(!server.told().contains("xylophone"), "{}", server.told());
    for file in walk(server.dir()) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("xylophone") && !text.contains(TOKEN), "{}", file.display());
    }
    let worker = server.worker();
    if let Ok(arguments) = std::fs::read(format!("/proc/{worker}/cmdline")) {
        assert!(!String::from_utf8_lossy(&arguments).contains(TOKEN));
    }
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() { files.extend(walk(&entry.path())) } else { files.push(entry.path()) }
    }
    files
}

/// An address of this machine through which a multicast comes back; none where the system has none.
fn multicast() -> Option<std::net::Ipv4Addr> {
    use std::net::{IpAddr, Ipv4Addr, UdpSocket};
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let comes_back = |own: &Ipv4Addr| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.join_multicast_v4(&group, own).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        socket.send_to(b"x", (group, socket.local_addr().ok()?.port())).ok()?;
        socket.recv_from(&mut [0]).ok()
    };
    let all = if_addrs::get_if_addrs().ok()?.into_iter().filter(|interface| !interface.is_loopback());
    let own = all.filter_map(|interface| match interface.ip() {
        IpAddr::V4(own) => Some(own),
        IpAddr::V6(_) => None,
    });
    own.into_iter().find(|own| comes_back(own).is_some())
}

#[test]
fn it_is_announced_when_asked_for() {
    let Some(own) = multicast() else {
        println!("skipped: no multicast here");
        return;
    };
    let listen = format!("{own}:0");
    let arguments = ["--listen", &listen, "--tls", "--announce"];
    let server = Server::start_in(tempfile::tempdir().unwrap(), &arguments, "", Some(TOKEN));
    let key = server.told().split("SHA256:").nth(1).unwrap().lines().next().unwrap().to_owned();
    let browser = mdns_sd::ServiceDaemon::new().unwrap();
    let events = browser.browse("_duet._tcp.local.").unwrap();
    let mut found = None;
    wait_until("it is found", || {
        if let Ok(mdns_sd::ServiceEvent::ServiceResolved(service)) =
            events.recv_timeout(Duration::from_secs(1))
            && service.port == server.address.port()
        {
            found = Some(service.txt_properties.clone());
        }
        found.is_some()
    });
    let properties = found.unwrap();
    let names: Vec<&str> = properties.iter().map(mdns_sd::TxtProperty::key).collect();
    assert_eq!(names, ["tls", "key"], "no version, no models");
    assert_eq!(properties.get_property_val_str("key"), Some(format!("sha256:{key}").as_str()));
    let _ = browser.shutdown();
}
