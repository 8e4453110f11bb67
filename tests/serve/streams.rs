//! Streams that are taken up again after their connection broke, and who may do that.

use crate::support::{Reply, Server, TOKEN, asking, endless, request, serve, wait_until};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;

/// One slot, so that a second answer would have to wait.
const ONE_SLOT: &str = "[engine]\nthreads = 1\nslots = 1\n";

/// A request whose reply comes without the framing of chunks, so that its bytes can be counted.
fn plain(method: &str, route: &str, token: &str, id: Option<&str>, body: &str) -> Vec<u8> {
    let token = format!("Bearer {token}");
    let mut headers = vec![("authorization", token.as_str())];
    headers.extend(id.map(|id| ("x-conversation-id", id)));
    let bytes = request(method, route, &headers, body.as_bytes());
    String::from_utf8(bytes).unwrap().replacen("HTTP/1.1", "HTTP/1.0", 1).into_bytes()
}

fn ask(server: &Server, method: &str, route: &str, token: &str, body: &str) -> Reply {
    server.raw(&plain(method, route, token, None, body))
}

/// A stream with an id: the connection, its head read already.
fn begin(server: &Server, id: &str, body: &Value) -> TcpStream {
    let mut stream = server.connect();
    stream.write_all(&plain("POST", "/v1/chat/completions", TOKEN, Some(id), &body.to_string())).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.0 200") && head.contains(&format!("x-conversation-id: {id}")), "{head}");
    stream
}

/// Reads up to the first word of an answer.
fn first_word(stream: &mut TcpStream) {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("\"content\":\"") {
        let mut bytes = [0; 64];
        let n = stream.read(&mut bytes).unwrap();
        assert!(n > 0, "the answer ended early");
        text.extend_from_slice(&bytes[..n]);
    }
}

/// The words of an answer, from its events.
fn words(events: &str) -> String {
    events
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect()
}

fn slots_used(server: &Server) -> Value {
    server.get("/engine/status")["models"][0]["slots_used"].clone()
}

fn is_idle(server: &Server) -> bool {
    let status = server.get("/engine/status");
    status["queue"] == 0 && status["models"][0]["slots_used"] == 0
}

fn counting() -> Value {
    asking("Count from 1 to 50", &json!({"stream": true}))
}

#[test]
fn a_stream_goes_on_where_its_connection_broke() {
    let server = Server::with(&[], ONE_SLOT);
    let said = server.answer("Count from 1 to 50");
    for cut in [0, 1, 200, 1000] {
        let id = format!("turn-{cut}");
        let mut stream = begin(&server, &id, &counting());
        let mut first = vec![0; cut];
        stream.read_exact(&mut first).unwrap();
        drop(stream);
        let rest = ask(&server, "GET", &format!("/v1/stream?conv_id={id}&from={cut}"), TOKEN, "");
        assert_eq!(rest.status, 200, "{rest:?}");
        let whole = format!("{}{}", String::from_utf8(first).unwrap(), rest.body);
        assert!(whole.ends_with("data: [DONE]\n\n"), "{whole:.300}");
        assert_eq!(words(&whole), said, "cut after {cut}");
        // Finished streams are kept, all of their bytes.
        let again = ask(&server, "GET", &format!("/v1/stream?conv_id={id}"), TOKEN, "");
        assert_eq!(again.body, whole);
        let body = json!({"conversation_ids": [id, "unknown", 5]}).to_string();
        let found = ask(&server, "POST", "/v1/streams/lookup", TOKEN, &body).json();
        assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
        assert_eq!((&found[0]["conversation_id"], &found[0]["is_done"]), (&json!(id), &json!(true)));
        assert_eq!(found[0]["total_bytes"], whole.len());
    }
    wait_until("it is idle", || is_idle(&server));
}

#[test]
fn a_stream_is_stopped_by_a_word_and_not_by_a_broken_connection() {
    let server = Server::with(&[], &format!("[serve.limits]\nresume = 600\n{ONE_SLOT}"));
    let mut stream = begin(&server, "a b/c::d", &endless());
    first_word(&mut stream);
    drop(stream);
    let there =
        || ask(&server, "GET", "/v1/stream?conv_id=a%20b%2Fc%3A%3Ad&from=900000000", TOKEN, "").status;
    assert_eq!(there(), 400, "it goes on, and has no such byte");
    assert_eq!(slots_used(&server), 1);
    // One that waits for the slot is stopped before its first word.
    let waiting = begin(&server, "waits", &endless());
    wait_until("it waits", || server.get("/engine/status")["models"][0]["queued"] == 1);
    for id in ["waits", "a%20b%2Fc%3A%3Ad", "never-was"] {
        let stopped = ask(&server, "DELETE", &format!("/v1/stream?conv_id={id}"), TOKEN, "");
        assert_eq!((stopped.status, stopped.body.as_str()), (204, ""));
    }
    wait_until("both are gone", || is_idle(&server));
    let mut rest = String::new();
    let mut waiting = waiting;
    waiting.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("[DONE]"), "{rest:.300}");
    assert_eq!(there(), 404, "nothing is kept of what was stopped");
    assert_eq!(server.answer("Hello"), "Hello! How can I help you today?");
}

#[test]
fn a_client_that_does_not_come_back_holds_no_slot() {
    let server = Server::with(&[], &format!("[serve.limits]\nresume = 1\nqueue = 1\n{ONE_SLOT}"));
    let mut stream = begin(&server, "a", &endless());
    first_word(&mut stream);
    drop(stream);
    wait_until("the slot is free", || is_idle(&server));
    // Their places among those that run or wait are free as well.
    for _ in 0..4 {
        assert_eq!(server.answer("Hello"), "Hello! How can I help you today?");
    }
    let kept = ask(&server, "GET", "/v1/stream?conv_id=a&from=0", TOKEN, "");
    // Either it was ended, or it came to the end of the context before.
    let last = kept.body.lines().rfind(|line| !line.is_empty()).unwrap_or_default();
    assert!(last.contains("nobody read this answer") || last.contains("[DONE]"), "{last}");
}

#[test]
fn the_same_request_sent_again_joins() {
    let server = Server::with(&[], ONE_SLOT);
    let mut first = begin(&server, "a", &endless());
    first_word(&mut first);
    let mut second = begin(&server, "a", &endless());
    first_word(&mut second);
    let status = server.get("/engine/status");
    assert_eq!((&status["queue"], &status["models"][0]["slots_used"]), (&json!(1), &json!(1)), "{status}");
    // The next turn of the conversation takes its place.
    let mut third = begin(&server, "a", &counting());
    let mut text = String::new();
    third.read_to_string(&mut text).unwrap();
    assert_eq!(words(&text), server.answer("Count from 1 to 50"));
    let mut rest = Vec::new();
    first.read_to_end(&mut rest).unwrap();
    assert!(!String::from_utf8_lossy(&rest).contains("[DONE]"));
}

#[test]
fn streams_belong_to_who_began_them() {
    let dir = tempfile::tempdir().unwrap();
    let (code, token, told) = serve(dir.path(), &["token", "add", "other"]);
    assert_eq!(code, 0, "{told}");
    let other = token.trim().to_owned();
    let server = Server::start_in(dir, &[], ONE_SLOT, Some(TOKEN));
    let mut stream = begin(&server, "mine", &endless());
    first_word(&mut stream);
    let known = ask(&server, "GET", "/v1/stream?conv_id=mine", &other, "");
    let unknown = ask(&server, "GET", "/v1/stream?conv_id=nobodys", &other, "");
    assert_eq!((known.status, &known.body), (404, &unknown.body), "it does not tell what there is");
    assert_eq!(ask(&server, "DELETE", "/v1/stream?conv_id=mine", &other, "").status, 204);
    let body = json!({"conversation_ids": ["mine"]}).to_string();
    assert_eq!(ask(&server, "POST", "/v1/streams/lookup", &other, &body).json(), json!([]));
    assert_eq!(slots_used(&server), 1, "it goes on");
    // Without a token nobody learns anything, and nonsense is refused.
    for (method, route) in [
        ("GET", "/v1/stream?conv_id=mine"),
        ("DELETE", "/v1/stream?conv_id=mine"),
        ("POST", "/v1/streams/lookup"),
    ] {
        assert_eq!(server.raw(&request(method, route, &[], b"")).status, 401, "{method} {route}");
    }
    for route in ["/v1/stream", "/v1/stream?conv_id=", "/v1/stream?conv_id=mine&from=-1"] {
        assert_eq!(ask(&server, "GET", route, TOKEN, "").status, 400, "{route}");
    }
    assert_eq!(ask(&server, "POST", "/v1/streams/lookup", TOKEN, "{}").status, 400);
    let long = plain("POST", "/v1/chat/completions", TOKEN, Some(&"x".repeat(300)), &counting().to_string());
    assert_eq!(server.raw(&long).status, 400);
    // A request that is refused leaves no stream.
    let bad = asking("Hello", &json!({"stream": true, "model": "nowhere"})).to_string();
    let refused = server.raw(&plain("POST", "/v1/chat/completions", TOKEN, Some("bad"), &bad));
    assert_eq!(refused.status, 404, "{refused:?}");
    assert_eq!(ask(&server, "GET", "/v1/stream?conv_id=bad", TOKEN, "").status, 404);
}
