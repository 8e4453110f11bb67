//! What a backend must do, checked over a scripted fake: first the checks that hold for every backend
//! (`support/suite.rs`, which also run over the real engine), then what only a fake can be made to do.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking, helpers included")]

#[path = "conformance/engine.rs"]
mod engine;
#[path = "support/fake_lmstudio.rs"]
mod fake_lmstudio;
#[path = "support/fake_ollama.rs"]
mod fake_ollama;
#[path = "support/fake_server.rs"]
mod fake_server;
#[path = "conformance/kinds.rs"]
mod kinds;
#[path = "conformance/lmstudio.rs"]
mod lmstudio;
#[path = "conformance/ollama.rs"]
mod ollama;
#[path = "support/recorder.rs"]
mod recorder;
#[path = "support/suite.rs"]
mod suite;
#[path = "conformance/traps.rs"]
mod traps;

use duet::backend::{Backend, LoadReason};
use duet::chat::{Channel, Finish, GenErrorKind, GenEvent};
use duet::config::{BackendConfig, BackendKind};
use fake_server::{FakeServer, Reply, Request, Step, events};
use futures_util::StreamExt;
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use suite::{Manner, Prompts, check_order, collect, failure, request, suite, text};

const CHAT: &str = "POST /v1/chat/completions";

/// A recorded answer of llama-server, with a comment, progress, thinking, usage and timings.
const RECORDED: &str = concat!(
    "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null}}],\"object\":\"chat.completion.chunk\",\"prompt_progress\":{\"total\":12,\"cache\":4,\"processed\":12,\"time_ms\":9}}\n\n",
    ":\n\n",
    "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"reasoning_content\":\"Hm. \"}}]}\n\n",
    "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":\"Grüße \"}}]}\n\n",
    "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":\"aus 東京 😀\"}}]}\n\n",
    "data: {\"choices\":[{\"finish_reason\":\"stop\",\"index\":0,\"delta\":{}}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"completion_tokens\":7,\"prompt_tokens\":12,\"total_tokens\":19,\"prompt_tokens_details\":{\"cached_tokens\":4}},\"timings\":{\"cache_n\":4,\"prompt_n\":8,\"prompt_ms\":9.5,\"predicted_n\":7,\"predicted_ms\":70.0}}\n\n",
    "data: [DONE]\n\n",
);
const ANSWER: &str = "Grüße aus 東京 😀";

pub(crate) fn backend(server: &FakeServer) -> Backend {
    backend_at(server.url(), None)
}

/// A server here, of this kind, or one whose kind is found out.
pub(crate) fn backend_at(url: &str, kind: Option<BackendKind>) -> Backend {
    let config =
        BackendConfig { name: "mac".to_owned(), url: url.to_owned(), kind, ..BackendConfig::default() };
    Backend::server(&config).expect("a good address")
}

/// Questions a server was asked; looks at what it is don't count.
pub(crate) fn questions(server: &FakeServer) -> Vec<Request> {
    server.requests().into_iter().filter(|request| request.method == "POST").collect()
}

pub(crate) fn delta(content: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": null}]})
}

pub(crate) fn finish(reason: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

/// A small server with one model, `small`, that tells the time in words.
pub(crate) fn talker(request: &Request) -> Reply {
    match request.route().as_str() {
        "GET /health" => Reply::json(200, &json!({"status": "ok"})),
        "GET /props" => Reply::json(200, &json!({"role": "router", "models_autoload": true})),
        "GET /engine/status" => Reply::json(200, &json!({"version": duet::VERSION, "pid": 1})),
        "GET /v1/models" => {
            Reply::json(200, &json!({"data": [{"id": "small", "status": {"value": "loaded"}}]}))
        }
        "POST /models/load" | CHAT if request.json()["model"] != "small" => Reply::json(
            404,
            &json!({"error": {"code": 404, "message": "no model `nosuchmodel`", "type": "not_found_error"}}),
        ),
        "POST /models/load" => Reply::json(200, &json!({"success": true})),
        CHAT => {
            let words = ["It ", "is ", "five ", "past ", "nine", "."];
            let limit = request.json()["max_tokens"].as_u64().unwrap_or(100);
            let said = words.len().min(usize::try_from(limit).expect("small"));
            let mut chunks: Vec<Value> = words[..said].iter().map(|word| delta(word)).collect();
            chunks.push(finish(if said < words.len() { "length" } else { "stop" }));
            chunks.push(json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": said}}));
            let mut steps = events(&chunks);
            steps.push(Step::Send(b"data: [DONE]\n\n".to_vec()));
            Reply::stream(steps)
        }
        other => Reply::json(404, &json!({"error": {"message": format!("no route {other}")}})),
    }
}

pub(crate) fn prompts() -> Prompts {
    Prompts {
        model: "small".to_owned(),
        question: "What time is it?".to_owned(),
        long: "What time is it, in words?".to_owned(),
        missing_model: "nosuchmodel".to_owned(),
        manner: Manner::Loads,
    }
}

#[tokio::test]
async fn a_server_passes_the_suite() {
    let server = FakeServer::tcp(talker).await;
    suite(&backend(&server), &prompts()).await;
}

/// A server that gives these steps to every question, and has nothing else to say.
async fn scripted(steps: Vec<Step>) -> FakeServer {
    FakeServer::tcp(move |request| match request.method.as_str() {
        "POST" => Reply::stream(steps.clone()),
        _ => Reply::json(404, &json!({"detail": "Not Found"})),
    })
    .await
}

#[tokio::test]
async fn one_question_is_one_post() {
    let server = scripted(vec![Step::Send(RECORDED.into())]).await;
    let events = collect(&backend(&server), request("small", "Hi")).await;
    check_order(&events);
    assert_eq!(text(&events, Channel::Answer), ANSWER);
    assert_eq!(text(&events, Channel::Thinking), "Hm. ");
    let requests = questions(&server);
    assert_eq!(requests.iter().map(Request::route).collect::<Vec<_>>(), [CHAT]);
    let sent = requests[0].json();
    let headers = requests[0].headers.to_lowercase();
    let length = format!("content-length: {}\r\n", requests[0].body.len());
    assert!(headers.contains(&length) && !headers.contains("transfer-encoding"), "{headers}");
    assert_eq!(
        (&sent["model"], &sent["stream"], &sent["temperature"]),
        (&json!("small"), &json!(true), &json!(0.0))
    );
    assert!(requests[0].headers.to_lowercase().contains("accept-encoding: identity"));
}

#[tokio::test]
async fn any_split_of_a_recorded_stream_gives_the_same_events() {
    let whole = scripted(vec![Step::Send(RECORDED.into())]).await;
    let expected = collect(&backend(&whole), request("small", "Hi")).await;
    for size in [1, 2, 3, 7, 64] {
        let steps = RECORDED.as_bytes().chunks(size).map(|chunk| Step::Send(chunk.to_vec())).collect();
        let server = scripted(steps).await;
        assert_eq!(collect(&backend(&server), request("small", "Hi")).await, expected, "in pieces of {size}");
    }
}

#[tokio::test]
async fn a_cut_is_complete_only_after_the_finish_reason() {
    let end = RECORDED.find("\"stop\"").expect("recorded") + "\"stop\",\"index\":0,\"delta\":{}}]}".len();
    for cut in (0..RECORDED.len()).step_by(29).chain([end - 1, end]) {
        let server = scripted(vec![Step::Send(RECORDED.as_bytes()[..cut].to_vec()), Step::Cut]).await;
        let events = collect(&backend(&server), request("small", "Hi")).await;
        check_order(&events);
        assert!(ANSWER.starts_with(&text(&events, Channel::Answer)), "cut at {cut}: {events:?}");
        let is_done = matches!(events.last(), Some(GenEvent::Done { finish: Finish::Stop, .. }));
        assert_eq!(is_done, cut >= end, "cut at {cut}: {events:?}");
        if !is_done {
            assert_eq!(failure(&events).0, GenErrorKind::Protocol);
        }
        assert_eq!(questions(&server).len(), 1, "nothing is sent twice");
    }
}

#[tokio::test]
async fn text_comes_as_it_is_sent_and_dropping_the_stream_hangs_up() {
    let steps = [Step::Gate]
        .into_iter()
        .chain(events(&[delta("one")]))
        .chain([Step::Gate])
        .chain(events(&[delta("two")]));
    let server = scripted(steps.collect()).await;
    let mut stream = backend(&server).generate(request("small", "Hi"));
    assert_eq!(stream.next().await, Some(GenEvent::Accepted));
    server.open(1);
    assert_eq!(
        stream.next().await,
        Some(GenEvent::Delta { channel: Channel::Answer, text: "one".to_owned() })
    );
    drop(stream);
    server.hangups(1).await;
}

#[tokio::test]
async fn errors_in_the_middle_keep_the_text() {
    let steps = |error: &str| {
        let mut steps = events(&[delta("half")]);
        steps.push(Step::Send(format!("{error}\n\ndata: [DONE]\n\n").into_bytes()));
        steps
    };
    for error in [
        r#"data: {"error":{"message":"CUDA error","code":500}}"#,
        r#"data: {"error":"CUDA error"}"#,
        "event: error\ndata: CUDA error",
    ] {
        let server = scripted(steps(error)).await;
        let events = collect(&backend(&server), request("small", "Hi")).await;
        check_order(&events);
        assert_eq!(text(&events, Channel::Answer), "half");
        let (kind, message) = failure(&events);
        assert_eq!(kind, GenErrorKind::Refused);
        assert!(message.starts_with("mac stopped small: CUDA error\n"), "{message}");
    }
}

#[tokio::test]
async fn too_large_an_event_ends_the_answer() {
    let mut steps = events(&[delta("half")]);
    steps.extend((0..9).map(|_| Step::Send(vec![b'x'; 1024 * 1024])));
    let server = scripted(steps).await;
    let events = collect(&backend(&server), request("small", "Hi")).await;
    assert_eq!(text(&events, Channel::Answer), "half");
    assert!(failure(&events).1.contains("larger than 8 MiB"), "{events:?}");
}

#[tokio::test]
async fn refusals_before_the_stream() {
    use GenErrorKind as K;
    let overflow = json!({"error": {"code": 400, "message": "x", "type": "exceed_context_size_error", "n_prompt_tokens": 9000, "n_ctx": 8192}});
    let page = "<html><head><title>Welcome to the hotel</title></head></html>";
    let cases = [
        (
            Reply::json(400, &overflow),
            K::ContextFull,
            "the conversation takes 9000 tokens, small on mac has room for 8192",
        ),
        (Reply::json(401, &json!({"error": "no"})), K::Auth, "mac refuses the key (401): no"),
        (
            Reply::json(503, &json!({"error": {"message": "Loading model"}})),
            K::Refused,
            "mac is not ready (503): Loading model",
        ),
        (
            Reply::new(302, "text/plain", "").header("location", "http://169.254.169.254/x"),
            K::Refused,
            "mac: the server redirects to http://169.254.169.254/x; change the address if that is meant",
        ),
        (
            Reply::new(307, "text/plain", ""),
            K::Refused,
            "mac: the server redirects to nowhere; change the address if that is meant",
        ),
        (
            Reply::new(200, "text/html", page),
            K::Protocol,
            "is not a chat server: it answered with a web page titled \"Welcome to the hotel\"",
        ),
        (
            Reply::json(200, &json!({"error": "Unexpected endpoint"})),
            K::Refused,
            "mac stopped small: Unexpected endpoint",
        ),
        (
            Reply::stream(vec![Step::Send(vec![1, 2, 3])]).header("content-encoding", "gzip"),
            K::Protocol,
            "mac compresses its answers (gzip)",
        ),
        (Reply::raw(b"220 mail.example ESMTP\r\n"), K::Protocol, "is not an HTTP server"),
        (Reply::raw(b""), K::Protocol, "the connection to mac broke"),
        (Reply::new(500, "text/plain", "x".repeat(5_000_000)), K::Refused, "mac failed (500): xxx"),
    ];
    for (reply, kind, words) in cases {
        let server = FakeServer::tcp(move |_| reply.clone()).await;
        let backend = backend_at(server.url(), Some(BackendKind::Openai));
        let events = collect(&backend, request("small", "Hi")).await;
        check_order(&events);
        let (got, message) = failure(&events);
        assert_eq!(got, kind, "{message}");
        let first = message.lines().next().unwrap_or_default();
        assert!(first.contains(words), "{message}");
        assert!(message.lines().count() <= 2 && message.len() < 600, "{message}");
        assert_eq!(questions(&server).len(), 1, "nothing is sent twice");
    }
}

#[tokio::test]
async fn an_answer_in_one_piece_is_an_answer() {
    let whole =
        json!({"choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]});
    let server = FakeServer::tcp(move |_| Reply::json(200, &whole)).await;
    let events = collect(&backend(&server), request("small", "Hi")).await;
    check_order(&events);
    assert_eq!(text(&events, Channel::Answer), "Hello");
}

#[tokio::test]
async fn nobody_there() {
    let server = FakeServer::tcp(talker).await;
    let backend = backend(&server);
    server.stop().await;
    let events = collect(&backend, request("small", "Hi")).await;
    let (kind, message) = failure(&events);
    assert_eq!((kind, events.len()), (GenErrorKind::Unreachable, 1));
    assert!(message.contains("nothing listens there") && message.contains("http://127.0.0.1:"), "{message}");
    assert_eq!(backend.models().await.expect_err("nobody").kind, GenErrorKind::Unreachable);
}

#[tokio::test]
async fn nonsense_in_place_of_a_list() {
    for (reply, words) in [
        (Reply::new(200, "text/html", "<html><title>Hi</title>"), "a web page titled \"Hi\""),
        (Reply::json(200, &json!({"error": "not here"})), "not here"),
        (Reply::new(200, "application/json", "x".repeat(9_000_000)), "larger than 8192 KiB"),
    ] {
        let server = FakeServer::tcp(move |_| reply.clone()).await;
        let error = backend(&server).models().await.expect_err("nonsense");
        assert_eq!(error.kind, GenErrorKind::Protocol);
        assert!(error.message.contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_load_that_fails_says_why() {
    let server = FakeServer::tcp(|request| match request.route().as_str() {
        "POST /models/load" => Reply::json(200, &json!({"success": true})),
        _ => Reply::json(200, &json!({"data": [{"id": "small", "status": {"value": "failed", "message": "cut off at byte 7"}}]})),
    })
    .await;
    let error = backend_at(server.url(), Some(BackendKind::LlamaServer))
        .load("small", LoadReason::Asked)
        .await
        .expect_err("it fails");
    assert_eq!(error.kind, GenErrorKind::Model);
    assert_eq!(error.message.lines().next(), Some("mac can't load small: cut off at byte 7"));
}

#[tokio::test]
async fn a_server_that_loads_by_itself_says_so() {
    let server = FakeServer::tcp(|_| Reply::json(404, &json!({"detail": "Not Found"}))).await;
    let error = backend(&server).load("small", LoadReason::Asked).await.expect_err("it can't be told");
    assert_eq!(error.kind, GenErrorKind::Refused);
    assert!(error.message.starts_with("mac can't be told to load a model"), "{error}");
}

#[tokio::test]
async fn a_load_waits_until_the_model_is_resident() {
    let looks = std::sync::atomic::AtomicUsize::new(0);
    let server = FakeServer::tcp(move |request| match request.route().as_str() {
        "POST /models/load" => Reply::json(200, &json!({"success": true})),
        _ => {
            let state = ["unloaded", "loading", "loaded"]
                [looks.fetch_add(1, std::sync::atomic::Ordering::SeqCst).min(2)];
            Reply::json(200, &json!({"data": [{"id": "small", "status": {"value": state}}]}))
        }
    })
    .await;
    let backend = backend_at(server.url(), Some(BackendKind::LlamaServer));
    backend.load("small", LoadReason::Asked).await.expect("it loads");
    assert_eq!(server.count("GET /v1/models"), 3);
}
