//! The contract of a backend over a fake Ollama, and Ollama's own traps.

use crate::backend_at;
use crate::fake_ollama::{FakeOllama, Fault};
use crate::suite::{Manner, Prompts, check_order, collect, failure, request, suite, text};
use duet::backend::{Backend, LoadReason, LoadWish};
use duet::chat::{
    Change, Channel, Finish, GenErrorKind, GenEvent, GenRequest, KeepAlive, Message, ModelState, Note, Role,
    ServerTimings,
};
use duet::config::{BackendKind, Continues};
use futures_util::StreamExt;
use pretty_assertions::assert_eq;
use serde_json::json;

const CHAT: &str = "POST /api/chat";

async fn ollama() -> (FakeOllama, Backend) {
    let server = FakeOllama::start().await;
    let backend = backend_at(&server.url, None);
    (server, backend)
}

fn timings(events: &[GenEvent]) -> ServerTimings {
    match events.last() {
        Some(GenEvent::Done { timings: Some(timings), .. }) => *timings,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn it_passes_the_suite_in_its_own_dialect() {
    let (server, backend) = ollama().await;
    let prompts = Prompts {
        model: "small:latest".to_owned(),
        question: "What time is it?".to_owned(),
        long: "What time is it, in words?".to_owned(),
        missing_model: "nosuchmodel".to_owned(),
        manner: Manner::Loads,
    };
    suite(&backend, &prompts).await;
    assert_eq!(backend.kind(), Some(BackendKind::Ollama));
    let asked: Vec<String> = server.recorder.requests().into_iter().map(|(route, _)| route).collect();
    assert!(
        !asked.iter().any(|route| route.contains("/v1/chat")),
        "the other route tells too little: {asked:?}"
    );
    assert_eq!(backend.can_continue(), Ok(Continues::Perhaps));
}

#[tokio::test]
async fn the_context_of_a_resident_model_is_kept() {
    let (server, backend) = ollama().await;
    server.make_resident("small:latest", 16_384);
    for name in ["small", "small:latest"] {
        let events = collect(&backend, request(name, "Hi")).await;
        assert_eq!(text(&events, Channel::Answer), "It is five past nine.");
        assert!(!events.iter().any(|event| matches!(event, GenEvent::Loading { .. })), "{events:?}");
    }
    assert_eq!(server.loads(), 0, "with another context it would have been loaded anew");
    for body in server.recorder.sent(CHAT) {
        assert_eq!(body["options"]["num_ctx"], 16_384);
        assert_eq!((&body["truncate"], &body["shift"]), (&json!(false), &json!(false)));
        assert_eq!(body["options"]["temperature"], 0.0);
    }
}

#[tokio::test]
async fn a_cold_model_is_said_to_load_and_a_warm_one_is_not_flattered() {
    let (server, backend) = ollama().await;
    let cold = collect(&backend, request("small", "one two three four")).await;
    check_order(&cold);
    assert_eq!(
        cold.first(),
        Some(&GenEvent::Loading { fraction: 0.0 }),
        "it says nothing itself while it loads"
    );
    let first = timings(&cold);
    assert_eq!((first.prompt_n, first.cache_n, first.load_ms), (Some(14), Some(0), Some(20.0)));
    assert_eq!((first.prompt_ms, first.predicted_ms, first.predicted_n), (Some(100.0), Some(180.0), Some(6)));
    let warm = timings(&collect(&backend, request("small", "one two three four five")).await);
    assert_eq!((warm.prompt_n, warm.cache_n), (Some(1), Some(14)), "the cached ones were not evaluated");
    assert_eq!(server.recorder.sent(CHAT)[0]["options"].get("num_ctx"), None, "its own choice, once");
    assert_eq!(server.recorder.sent(CHAT)[1]["options"]["num_ctx"], 4096);
}

#[tokio::test]
async fn the_list_tells_what_leaves_the_house() {
    let (server, backend) = ollama().await;
    server.make_resident("small:latest", 8192);
    let listing = backend.listing().await.expect("a list");
    let card = &listing.cards[0];
    assert_eq!((card.id.as_str(), &card.state), ("small:latest", &ModelState::Loaded));
    assert_eq!((card.parameters, card.context), (Some(3_212_749_888), Some(8192)));
    assert_eq!(card.kv_bytes_per_token, Some(28 * 8 * 256 * 2));
    assert_eq!(card.quantisation.as_deref(), Some("q4_k_m"));
    assert_eq!(listing.cards[1].hosted_by.as_deref(), Some("https://ollama.com:443"));
    let kept = &listing.residency[0];
    assert_eq!((kept.context, kept.keep_alive), (Some(8192), Some(KeepAlive::ForEver)));
    let ours = backend.model_list().await.expect("a list");
    assert_eq!(
        (&ours[0]["status"]["value"], &ours[1]["hosted_by"]),
        (&json!("loaded"), &json!("https://ollama.com:443"))
    );
    assert_eq!(server.recorder.sent("POST /api/show").len(), 1, "asked once for what does not change");
    assert_eq!(server.loads(), 0, "looking loads nothing");
}

#[tokio::test]
async fn errors_in_the_middle_and_bare_ends_keep_the_text() {
    let (server, backend) = ollama().await;
    server.fault(Some(Fault::ErrorLine));
    let events = collect(&backend, request("small", "Hi")).await;
    check_order(&events);
    assert_eq!(text(&events, Channel::Answer), "It ");
    let (kind, message) = failure(&events);
    assert_eq!(kind, GenErrorKind::Refused);
    assert!(message.starts_with("mac stopped small: an error was encountered"), "{message}");
    server.fault(Some(Fault::Cut));
    let events = collect(&backend, request("small", "Hi")).await;
    assert_eq!(
        (text(&events, Channel::Answer), failure(&events).0),
        ("It ".to_owned(), GenErrorKind::Protocol)
    );
}

#[tokio::test]
async fn a_cancelled_answer_is_noticed_there() {
    let (server, backend) = ollama().await;
    server.fault(Some(Fault::Slow));
    let mut stream = backend.generate(request("small", "Hi"));
    while !matches!(stream.next().await.expect("it goes on"), GenEvent::Delta { .. }) {}
    drop(stream);
    server.recorder.cancelled(1).await;
}

#[tokio::test]
async fn what_it_truncated_in_silence_is_said() {
    let (server, backend) = ollama().await;
    server.fault(Some(Fault::Truncates));
    let long = "word ".repeat(600);
    let events = collect(&backend, request("small", &long)).await;
    let notes: Vec<&GenEvent> = events.iter().filter(|event| matches!(event, GenEvent::Note(_))).collect();
    assert_eq!(notes, [&GenEvent::Note(Note::Cut { sent: 600, read: 40, is_exact: false })]);
    assert!(matches!(events.last(), Some(GenEvent::Done { finish: Finish::Stop, .. })));
    server.fault(None);
    let events = collect(&backend, request("small", &long)).await;
    assert!(!events.iter().any(|event| matches!(event, GenEvent::Note(_))), "{events:?}");
    let too_long = collect(&backend, request("small", &"word ".repeat(5000))).await;
    assert_eq!(failure(&too_long).0, GenErrorKind::ContextFull);
}

#[tokio::test]
async fn models_are_loaded_kept_and_unloaded() {
    let (server, backend) = ollama().await;
    let wish = LoadWish { context: Some(32_768), keep_alive: Some(600), ..LoadWish::default() };
    backend.load_as("small:latest", wish, |_, _| {}).await.expect("it loads");
    assert_eq!(server.resident(), [("small:latest".to_owned(), 32_768)]);
    let keep = Change::KeepAlive(KeepAlive::ForEver);
    backend.change("small:latest", keep).await.expect("it is kept");
    let sent = server.recorder.sent("POST /api/generate");
    assert_eq!((&sent[0]["keep_alive"], &sent[0]["options"]["num_ctx"]), (&json!(600), &json!(32_768)));
    assert_eq!((&sent[1]["keep_alive"], sent[1].get("prompt")), (&json!(-1), None));
    assert!(backend.unload("small:latest").await.expect("it goes"));
    assert!(!backend.unload("small:latest").await.expect("it is gone"));
    assert_eq!(server.resident(), []);

    for (change, words) in [
        (Change::Pin(true), "mac can't be told to pin a model"),
        (keep, "it isn't loaded, and telling its server would load it"),
        (Change::KeepAlive(KeepAlive::Seconds(0)), "it would leave at once"),
        (Change::KeepAlive(KeepAlive::Default), "is not known here"),
    ] {
        let error = backend.change("small:latest", change).await.expect_err(words);
        assert_eq!(error.kind, GenErrorKind::Refused);
        assert!(error.message.contains(words) && error.message.lines().count() == 2, "{error}");
    }
    assert_eq!(server.resident(), [], "nothing was loaded by a refusal");
    let error = backend.load("nosuchmodel", LoadReason::Asked).await.expect_err("it is missing");
    assert_eq!(error.kind, GenErrorKind::Model, "{error}");
}

#[tokio::test]
async fn what_it_can_not_is_refused_before_anything_is_sent() {
    let (server, backend) = ollama().await;
    let warm = GenRequest { max_tokens: Some(0), ..request("small", "Hi") };
    let events = collect(&backend, warm).await;
    let (kind, message) = failure(&events);
    assert_eq!((kind, events.len()), (GenErrorKind::Refused, 1));
    assert!(
        message.starts_with("mac is Ollama: it can't prefill a prompt without answering it\n"),
        "{message}"
    );
    assert_eq!(server.recorder.sent(CHAT).len(), 0);
    assert_eq!(backend.count(&request("small", "Hi")).await, Ok(None));
    assert_eq!(backend.running("small").await, Ok(None));
    let mut begun = request("small", "Hi");
    begun.messages.push(Message::new(Role::Assistant, "It is"));
    let events = collect(&backend, begun).await;
    assert!(matches!(events.last(), Some(GenEvent::Done { .. })), "many templates go on: {events:?}");
}
