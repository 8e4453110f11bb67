//! Hostile and broken answers, over each way of streaming.

use crate::fake_server::{FakeServer, Reply, Request, Step};
use crate::suite::{check_order, collect, failure, request, text};
use crate::{backend_at, questions};
use duet::chat::{Channel, GenErrorKind, GenEvent};
use duet::config::BackendKind;
use pretty_assertions::assert_eq;
use serde_json::json;

/// One good piece and the end, in the dialect of a kind.
fn spoken(kind: BackendKind) -> (String, String) {
    match kind {
        BackendKind::Ollama => (
            format!("{}\n", json!({"message": {"content": "half"}, "done": false})),
            format!("{}\n", json!({"done": true, "done_reason": "stop"})),
        ),
        _ => (
            format!("data: {}\n\n", json!({"choices": [{"delta": {"content": "half"}}]})),
            format!("data: {}\n\n", json!({"choices": [{"delta": {}, "finish_reason": "stop"}]})),
        ),
    }
}

fn content_type(kind: BackendKind) -> &'static str {
    if kind == BackendKind::Ollama { "application/x-ndjson" } else { "text/event-stream" }
}

/// A server of this kind that gives these steps to every question.
async fn server(kind: BackendKind, steps: Vec<Step>) -> FakeServer {
    FakeServer::tcp(move |request: &Request| match request.method.as_str() {
        "POST" => Reply::new(200, content_type(kind), "").steps(steps.clone()),
        _ => Reply::json(404, &json!({"error": "not here"})),
    })
    .await
}

async fn play(kind: BackendKind, steps: Vec<Step>) -> Vec<GenEvent> {
    let server = server(kind, steps).await;
    let events = collect(&backend_at(server.url(), Some(kind)), request("small", "Hi")).await;
    check_order(&events);
    assert_eq!(questions(&server).len(), 1, "nothing is sent twice");
    events
}

const KINDS: [BackendKind; 3] = [BackendKind::Openai, BackendKind::Mlx, BackendKind::Ollama];

#[tokio::test]
async fn a_byte_at_a_time_is_an_answer() {
    for kind in KINDS {
        let (half, end) = spoken(kind);
        let steps = (half + &end).bytes().map(|byte| Step::Send(vec![byte])).collect();
        let events = play(kind, steps).await;
        assert_eq!(text(&events, Channel::Answer), "half");
        assert!(matches!(events.last(), Some(GenEvent::Done { .. })), "{kind:?}: {events:?}");
    }
}

#[tokio::test]
async fn an_endless_line_is_cut_off_with_the_text_kept() {
    for kind in KINDS {
        let (half, _) = spoken(kind);
        let mut steps = vec![Step::Send(half.into_bytes())];
        // A hundred megabytes would come; nobody waits for more than eight.
        steps.extend((0..100).map(|_| Step::Send(vec![b'x'; 1024 * 1024])));
        let events = play(kind, steps).await;
        assert_eq!(text(&events, Channel::Answer), "half");
        assert!(failure(&events).1.contains("larger than 8 MiB"), "{kind:?}: {events:?}");
    }
}

#[tokio::test]
async fn garbage_ends_it_and_a_little_of_it_does_not() {
    for kind in KINDS {
        let (half, end) = spoken(kind);
        let bad: &[u8] = if kind == BackendKind::Ollama { b"\0\xff{]\n" } else { b"data: \0\xff{]\n\n" };
        let send = |parts: &[&[u8]]| parts.iter().map(|part| Step::Send(part.to_vec())).collect::<Vec<_>>();
        let events = play(kind, send(&[bad, half.as_bytes(), bad, end.as_bytes()])).await;
        assert!(matches!(events.last(), Some(GenEvent::Done { .. })), "{kind:?}: {events:?}");
        let events = play(kind, send(&[half.as_bytes(), bad, bad, bad, end.as_bytes()])).await;
        assert_eq!(text(&events, Channel::Answer), "half");
        assert_eq!(failure(&events).1.lines().next(), Some("mac sent 3 events in a row that make no sense"));
        // No line breaks at all.
        let events = play(kind, vec![Step::Send(vec![0; 4096]), Step::Send(vec![0xff; 4096])]).await;
        assert_eq!(failure(&events).0, GenErrorKind::Protocol);
    }
}

#[tokio::test]
async fn another_encoding_costs_only_its_letters() {
    for kind in KINDS {
        let (half, end) = spoken(kind);
        let (before, after) = half.split_once("half").expect("it is there");
        let latin = [before.as_bytes(), b"Gr\xfc\xdfe", after.as_bytes(), end.as_bytes()].concat();
        let events = play(kind, vec![Step::Send(latin)]).await;
        assert_eq!(text(&events, Channel::Answer), "Gr\u{fffd}\u{fffd}e", "{kind:?}");
    }
}

#[tokio::test]
async fn compressed_answers_are_refused() {
    for kind in KINDS {
        let server = FakeServer::tcp(move |request: &Request| match request.method.as_str() {
            "POST" => {
                Reply::new(200, content_type(kind), vec![0x1f, 0x8b, 8, 0]).header("content-encoding", "gzip")
            }
            _ => Reply::json(404, &json!({})),
        })
        .await;
        let events = collect(&backend_at(server.url(), Some(kind)), request("small", "Hi")).await;
        let (error, message) = failure(&events);
        assert_eq!(error, GenErrorKind::Protocol);
        assert!(message.starts_with("mac compresses its answers (gzip)"), "{message}");
        let headers = questions(&server)[0].headers.to_lowercase();
        assert!(headers.contains("accept-encoding: identity"), "{headers}");
    }
}

#[tokio::test]
async fn a_page_in_place_of_an_answer() {
    for kind in KINDS {
        let page = "<html><head><title>Welcome to the hotel</title></head></html>";
        let server = FakeServer::tcp(move |_| Reply::new(200, "text/html", page)).await;
        let events = collect(&backend_at(server.url(), Some(kind)), request("small", "Hi")).await;
        let (error, message) = failure(&events);
        assert_eq!(error, GenErrorKind::Protocol);
        assert!(message.contains("a web page titled \"Welcome to the hotel\""), "{kind:?}: {message}");
    }
}

#[tokio::test]
async fn lists_that_are_hostile_are_bounded() {
    let many: Vec<_> = (0..10_000).map(|n| json!({"name": format!("m{n}"), "key": format!("m{n}"), "id": format!("m{n}"), "loaded_instances": []})).collect();
    let body = json!({"models": many, "data": many}).to_string();
    for kind in [BackendKind::Ollama, BackendKind::LmStudio, BackendKind::LlamaSwap, BackendKind::Openai] {
        let body = body.clone();
        let server = FakeServer::tcp(move |_| Reply::new(200, "application/json", body.clone())).await;
        let models = backend_at(server.url(), Some(kind)).models().await.expect("a list");
        assert_eq!(models.len(), 2000, "{kind:?}");
        for reply in [
            Reply::new(200, "application/json", "x".repeat(9_000_000)),
            Reply::new(200, "application/json", "[".repeat(100_000)),
            Reply::json(200, &json!({"error": "not here"})),
            Reply::new(200, "text/html", "<html>"),
        ] {
            let server = FakeServer::tcp(move |_| reply.clone()).await;
            let error = backend_at(server.url(), Some(kind)).models().await.expect_err("nonsense");
            assert_eq!(error.kind, GenErrorKind::Protocol, "{kind:?}: {error}");
        }
    }
}
