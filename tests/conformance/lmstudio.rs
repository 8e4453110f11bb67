//! The contract of a backend over a fake LM Studio, and LM Studio's own traps.

use crate::backend_at;
use crate::fake_lmstudio::{FakeLmStudio, Fault};
use crate::suite::{Manner, Prompts, collect, failure, request, suite, text};
use duet::backend::{Backend, LoadReason, LoadWish};
use duet::chat::{Change, Channel, GenErrorKind, GenEvent, KeepAlive, Message, ModelState, Role};
use duet::config::BackendKind;
use futures_util::StreamExt;
use pretty_assertions::assert_eq;
use serde_json::json;

const MODEL: &str = "acme/small";
const CHAT: &str = "POST /v1/chat/completions";

fn backend(server: &FakeLmStudio) -> Backend {
    backend_at(&server.url, None)
}

fn prompts(manner: Manner) -> Prompts {
    Prompts {
        model: MODEL.to_owned(),
        question: "What time is it?".to_owned(),
        long: "What time is it, in words?".to_owned(),
        missing_model: "nosuchmodel".to_owned(),
        manner,
    }
}

#[tokio::test]
async fn it_passes_the_suite() {
    let server = FakeLmStudio::start().await;
    let backend = backend(&server);
    suite(&backend, &prompts(Manner::Loads)).await;
    assert_eq!(backend.kind(), Some(BackendKind::LmStudio));
    assert_eq!(server.instances().len(), 1, "loaded once, though it was told to twice");
    for body in server.recorder.sent(CHAT) {
        assert_eq!(body["stream_options"], json!({"include_usage": true}));
        assert_eq!(body.get("return_progress"), None);
    }
}

#[tokio::test]
async fn an_older_one_passes_it_too() {
    let server = FakeLmStudio::old().await;
    let backend = backend(&server);
    suite(&backend, &prompts(Manner::LoadsWhenAsked)).await;
    assert_eq!(backend.kind(), Some(BackendKind::LmStudio));
    let error = backend.load(MODEL, LoadReason::Asked).await.expect_err("it is too old");
    assert!(
        error.message.starts_with("mac can't be told to load a model: its LM Studio is older than 0.4\n"),
        "{error}"
    );
}

#[tokio::test]
async fn the_list_tells_what_is_loaded_and_looking_loads_nothing() {
    let server = FakeLmStudio::start().await;
    let backend = backend(&server);
    let listing = backend.listing().await.expect("a list");
    assert_eq!((&listing.cards[0].state, listing.cards[0].context), (&ModelState::Unloaded, Some(131_072)));
    assert_eq!(
        (listing.cards[0].parameters, listing.cards[0].bytes),
        (Some(3_000_000_000), Some(2_019_393_189))
    );
    assert_eq!(listing.embedders, ["nomic"]);
    assert_eq!(server.instances(), []);
    let wish = LoadWish { context: Some(8192), ..LoadWish::default() };
    backend.load_as(MODEL, wish, |_, _| {}).await.expect("it loads");
    let card = backend.models().await.expect("a list").remove(0);
    assert_eq!((card.state, card.context), (ModelState::Loaded, Some(8192)));
    let asked: Vec<String> = server.recorder.requests().into_iter().map(|(route, _)| route).collect();
    assert!(!asked.iter().any(|route| route == CHAT), "no question is asked for a look: {asked:?}");
}

#[tokio::test]
async fn another_context_is_no_second_instance() {
    let server = FakeLmStudio::start().await;
    let backend = backend(&server);
    for context in [4096, 4096, 16_384] {
        let wish = LoadWish { context: Some(context), ..LoadWish::default() };
        backend.load_as(MODEL, wish, |_, _| {}).await.expect("it loads");
        assert_eq!(server.instances(), [(MODEL.to_owned(), u64::from(context))]);
    }
    assert!(backend.unload(MODEL).await.expect("it goes"));
    assert!(!backend.unload(MODEL).await.expect("it is gone"));
    assert_eq!(server.instances(), []);
    for (change, words) in [(Change::Pin(true), "pin"), (Change::KeepAlive(KeepAlive::ForEver), "keep")] {
        let error = backend.change(MODEL, change).await.expect_err(words);
        assert!(error.message.starts_with(&format!("mac can't be told to {words} a model: ")), "{error}");
    }
}

#[tokio::test]
async fn a_cold_model_is_said_to_load() {
    let server = FakeLmStudio::start().await;
    let backend = backend(&server);
    server.fault(Some(Fault::Slow));
    let mut stream = backend.generate(request(MODEL, "Hi"));
    let mut events = Vec::new();
    while !matches!(events.last(), Some(GenEvent::Delta { .. })) {
        events.push(stream.next().await.expect("it goes on"));
    }
    // What is asked beside the question may come after its first word; then it is of no use any more.
    assert!(events.iter().all(|event| !matches!(event, GenEvent::Failed(_))), "{events:?}");
    drop(stream);
    server.recorder.cancelled(1).await;
}

#[tokio::test]
async fn an_error_event_keeps_the_text() {
    let server = FakeLmStudio::start().await;
    server.fault(Some(Fault::ErrorEvent));
    let events = collect(&backend(&server), request(MODEL, "Hi")).await;
    assert_eq!(text(&events, Channel::Answer), "It ");
    assert_eq!(failure(&events).1.lines().next(), Some("mac stopped acme/small: The model has crashed"));
}

#[tokio::test]
async fn it_does_not_go_on_with_an_answer() {
    let server = FakeLmStudio::start().await;
    let backend = backend(&server);
    let mut begun = request(MODEL, "Hi");
    begun.messages.push(Message::new(Role::Assistant, "It is"));
    let (kind, message) = failure(&collect(&backend, begun).await);
    assert_eq!(kind, GenErrorKind::Refused);
    assert!(message.starts_with("mac is LM Studio: an answer can't be continued there"), "{message}");
    assert_eq!(server.recorder.sent(CHAT).len(), 0, "nothing was sent");
    assert!(backend.can_continue().is_err_and(|why| why.starts_with("mac is LM Studio: ")));
}
