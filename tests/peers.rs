//! The contract of a backend over servers of others as they are: llama-server with one model and as a router, and
//! `mlx_lm.server`. `make peers` builds them; where they are not, this says so and does nothing.

#![cfg(unix)]
#![allow(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

#[path = "support/peer.rs"]
mod peer;
#[path = "support/suite.rs"]
mod suite;

use duet::backend::{Backend, Readiness};
use duet::chat::{Channel, Finish, GenEvent, GenRequest, Message, ModelState, Role, ServerTimings};
use duet::config::{BackendConfig, BackendKind};
use futures_util::StreamExt;
use peer::{Peer, builtin, peer};
use std::path::Path;
use std::time::Duration;
use suite::{Manner, Prompts, check_order, collect, request, suite, text};

const QUESTION: &str = "What is the capital of France?";
const ANSWER: &str = "The capital of France is Paris.";
/// Long enough to be cut in the middle.
const LONG: &str = "Count from 1 to 50";
/// For a server to start.
const START: Duration = Duration::from_secs(120);

/// Waits until it can answer.
async fn ready(peer: &mut Peer) -> Backend {
    let config = BackendConfig { name: "peer".to_owned(), url: peer.url.clone(), ..BackendConfig::default() };
    let backend = Backend::server(&config).expect("a good address");
    let ready = async {
        loop {
            assert!(!peer.has_ended(), "it ended: {}", peer.log());
            if backend.identify().await.is_ok_and(|identity| identity.readiness == Readiness::Ready) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(START, ready).await.expect("it gets ready");
    backend
}

fn prompts(model: &str, manner: Manner) -> Prompts {
    Prompts {
        model: model.to_owned(),
        question: QUESTION.to_owned(),
        long: LONG.to_owned(),
        missing_model: "no-such-model".to_owned(),
        manner,
    }
}

fn timings(events: &[GenEvent]) -> Option<ServerTimings> {
    match events.last() {
        Some(GenEvent::Done { timings, .. }) => *timings,
        other => panic!("{other:?}"),
    }
}

fn prompt_tokens(events: &[GenEvent]) -> Option<u32> {
    let usage =
        |event: &GenEvent| if let GenEvent::Usage(usage) = event { usage.prompt_tokens } else { None };
    events.iter().rev().find_map(usage)
}

/// Cancels a long answer and waits until the server is at rest.
async fn cancels(backend: &Backend, model: &str) {
    let mut stream = backend.generate(request(model, LONG));
    while !matches!(stream.next().await.expect("it goes on"), GenEvent::Delta { .. }) {}
    drop(stream);
    let rests = async {
        while backend.running(model).await.expect("it tells") != Some(0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(START, rests).await.expect("it stops");
}

#[tokio::test]
async fn llama_server_with_one_model() {
    let Some(program) = peer("bin/llama-server") else { return };
    let home = tempfile::tempdir().expect("a folder");
    let mut peer =
        Peer::start(&program, &["--model", &builtin(), "--threads", "1", "--parallel", "2"], home.path());
    let backend = ready(&mut peer).await;
    assert_eq!(backend.kind(), Some(BackendKind::LlamaServer));
    let card = backend.models().await.expect("a list").remove(0);
    assert_eq!((card.state, card.quantisation.as_deref()), (ModelState::Loaded, Some("q8_0")));
    assert!(card.parameters.is_some_and(|n| (1_900_000..2_300_000).contains(&n)), "{:?}", card.parameters);
    suite(&backend, &prompts(&card.id, Manner::AnswersAnyway)).await;

    // Counting agrees with what it reads, and a prompt can be prefilled without an answer.
    let ask = request(&card.id, "What is the capital of Spain?");
    let counted = backend.count(&ask).await.expect("it counts");
    let warmed = collect(&backend, GenRequest { max_tokens: Some(0), ..ask.clone() }).await;
    check_order(&warmed);
    assert_eq!(text(&warmed, Channel::Answer), "");
    let events = collect(&backend, ask).await;
    assert_eq!(prompt_tokens(&events), counted);
    let timings = timings(&events).expect("it tells its times");
    assert!(timings.cache_n.is_some_and(|cached| cached > 0), "the prefill before was of use: {timings:?}");
    assert_eq!(timings.cache_n.zip(timings.prompt_n).map(|(cached, new)| cached + new), counted);
    assert!(!events.iter().any(|event| matches!(event, GenEvent::Note(_))), "{events:?}");

    // A begun answer goes on.
    let mut begun = request(&card.id, QUESTION);
    begun.messages.push(Message::new(Role::Assistant, "The capital of"));
    let rest = text(&collect(&backend, begun).await, Channel::Answer);
    assert_eq!(format!("The capital of{rest}"), ANSWER);
    cancels(&backend, &card.id).await;
}

#[tokio::test]
async fn llama_server_as_a_router() {
    let Some(program) = peer("bin/llama-server") else { return };
    let home = tempfile::tempdir().expect("a folder");
    let models = home.path().join("models");
    std::fs::create_dir(&models).expect("a folder");
    std::os::unix::fs::symlink(builtin(), models.join("small.gguf")).expect("linked");
    let folder = models.display().to_string();
    let mut peer = Peer::start(&program, &["--models-dir", &folder, "--threads", "1"], home.path());
    let backend = ready(&mut peer).await;
    assert!(backend.identify().await.expect("it is there").is_router);
    let cards = backend.models().await.expect("a list");
    let card = cards.iter().find(|card| card.id.contains("small")).expect("it is listed");
    assert_eq!(card.state, ModelState::Unloaded);
    assert_eq!(backend.count(&request(&card.id, QUESTION)).await, Ok(None), "nothing is loaded for counting");
    assert_eq!(backend.running(&card.id).await, Ok(None));
    let again = backend.models().await.expect("a list");
    assert!(again.iter().all(|card| card.state == ModelState::Unloaded), "{again:?}");

    suite(&backend, &prompts(&card.id, Manner::Loads)).await;
    let events = collect(&backend, request(&card.id, QUESTION)).await;
    assert_eq!(text(&events, Channel::Answer), ANSWER);
    assert_eq!(backend.count(&request(&card.id, QUESTION)).await.expect("it counts"), prompt_tokens(&events));
    cancels(&backend, &card.id).await;
    assert!(backend.unload(&card.id).await.expect("it goes"));
    let gone = async {
        while backend.models().await.expect("a list").iter().any(|card| card.state == ModelState::Loaded) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(START, gone).await.expect("it is unloaded");
}

#[tokio::test]
async fn mlx_lm_server() {
    let (Some(python), Some(model)) = (peer("mlx/bin/python"), peer("mlx-model")) else { return };
    let home = tempfile::tempdir().expect("a folder");
    let folder = model.display().to_string();
    let mut peer = Peer::start(&python, &["-m", "mlx_lm", "server", "--model", &folder], home.path());
    let backend = ready(&mut peer).await;
    assert_eq!(backend.kind(), Some(BackendKind::Mlx));
    // Without Hugging Face's cache its list breaks off.
    let card = backend.models().await.expect("a list").remove(0);
    assert_eq!((card.id.as_str(), &card.state), ("default_model", &ModelState::Unknown));
    suite(&backend, &prompts(&card.id, Manner::LoadsWhenAsked)).await;

    // With it, the model it was started with is there by its folder, and is not loaded once more for that.
    std::fs::create_dir_all(home.path().join("hub")).expect("a folder");
    let card = backend.models().await.expect("a list").remove(0);
    assert_eq!(Path::new(&card.id).file_name(), model.file_name());
    let events = collect(&backend, request(&card.id, QUESTION)).await;
    check_order(&events);
    assert_eq!(text(&events, Channel::Answer), ANSWER);
    assert!(
        matches!(events.last(), Some(GenEvent::Done { finish: Finish::Stop, timings: None })),
        "{events:?}"
    );
    assert!(events.iter().any(|event| matches!(event, GenEvent::Prefill { .. })), "{events:?}");

    // Its own limit of 512 tokens and its greed are not ours.
    let unsaid = GenRequest { sampling: duet::chat::Sampling::default(), ..request(&card.id, QUESTION) };
    let events = collect(&backend, unsaid).await;
    assert!(matches!(events.last(), Some(GenEvent::Done { .. })), "{events:?}");
    assert_eq!(backend.count(&request(&card.id, QUESTION)).await, Ok(None));
    assert!(backend.can_continue().is_err());
}
