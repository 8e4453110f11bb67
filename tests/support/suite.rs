//! What every backend must do, whatever is behind it. Takes a [`Backend`] and prompts, so that the same
//! checks run over the scripted fake and over the real engine.

#![allow(dead_code, reason = "each test uses its own part")]

use duet::backend::{Backend, LoadReason};
use duet::chat::{
    Channel, Finish, GenErrorKind, GenEvent, GenRequest, Message, ModelState, Note, Role, Sampling, Usage,
};
use futures_util::StreamExt;
use std::time::Duration;

/// How long one answer may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// What the checks need to know of the model behind a backend.
#[derive(Clone, Debug)]
pub(crate) struct Prompts {
    /// The model to ask.
    pub(crate) model: String,
    /// A question whose greedy answer has several tokens and ends by itself.
    pub(crate) question: String,
    /// A question whose answer is long enough to be cut after a few tokens.
    pub(crate) long: String,
    /// A model this backend does not have.
    pub(crate) missing_model: String,
    /// What it does about models.
    pub(crate) manner: Manner,
}

/// What a server does about models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It loads what it is told to, and refuses what it hasn't got.
    Loads,
    /// It loads what it is asked a question, and can't be told to; what it hasn't got it refuses.
    LoadsWhenAsked,
    /// It has one, which answers whatever it is called.
    AnswersAnyway,
}

/// A greedy request with one question.
pub(crate) fn request(model: &str, question: &str) -> GenRequest {
    GenRequest {
        model: model.to_owned(),
        messages: vec![Message::new(Role::User, question)],
        sampling: Sampling { temperature: Some(0.0), ..Sampling::default() },
        max_tokens: None,
        stop: Vec::new(),
        schema: None,
        session: None,
        is_ahead: false,
    }
}

/// All events of one answer.
pub(crate) async fn collect(backend: &Backend, request: GenRequest) -> Vec<GenEvent> {
    tokio::time::timeout(DEADLINE, backend.generate(request).collect()).await.expect("the answer ends")
}

/// The text of one channel.
pub(crate) fn text(events: &[GenEvent], wanted: Channel) -> String {
    let piece = |event: &GenEvent| match event {
        GenEvent::Delta { channel, text } if *channel == wanted => Some(text.clone()),
        _ => None,
    };
    events.iter().filter_map(piece).collect()
}

/// The kind and message of the failure that ends these events.
pub(crate) fn failure(events: &[GenEvent]) -> (GenErrorKind, String) {
    match events.last() {
        Some(GenEvent::Failed(error)) => (error.kind, error.message.clone()),
        other => panic!("no failure but {other:?} ends {events:?}"),
    }
}

/// Every rule about the order of events.
pub(crate) fn check_order(events: &[GenEvent]) {
    let is_terminal = |event: &GenEvent| matches!(event, GenEvent::Done { .. } | GenEvent::Failed(_));
    assert_eq!(events.iter().filter(|e| is_terminal(e)).count(), 1, "one terminal event: {events:?}");
    assert!(events.last().is_some_and(is_terminal), "nothing follows it: {events:?}");
    let first_text = events.iter().position(|e| matches!(e, GenEvent::Delta { .. })).unwrap_or(events.len());
    let accepted = events.iter().position(|e| *e == GenEvent::Accepted).unwrap_or(events.len());
    for (at, event) in events.iter().enumerate() {
        match event {
            GenEvent::Accepted => assert_eq!(at, accepted, "accepted once: {events:?}"),
            GenEvent::Queued { .. } | GenEvent::Loading { .. } | GenEvent::Prefill { .. } => {
                assert!(at < first_text, "no progress after text: {events:?}");
            }
            GenEvent::Delta { text, .. } => {
                assert!(!text.is_empty(), "no empty text: {events:?}");
                assert!(at > accepted, "no text before it was accepted: {events:?}");
            }
            GenEvent::Produced { .. }
            | GenEvent::Usage(_)
            | GenEvent::Note(_)
            | GenEvent::Done { .. }
            | GenEvent::Failed(_) => {}
        }
    }
    if matches!(events.last(), Some(GenEvent::Done { .. })) {
        assert!(accepted < events.len(), "accepted before it is complete: {events:?}");
    }
}

/// Runs all checks.
pub(crate) async fn suite(backend: &Backend, prompts: &Prompts) {
    lists_and_loads(backend, prompts).await;
    answers_completely(backend, prompts).await;
    stops_at_the_limit(backend, prompts).await;
    survives_a_dropped_stream(backend, prompts).await;
    names_a_missing_model(backend, prompts).await;
}

async fn lists_and_loads(backend: &Backend, prompts: &Prompts) {
    if prompts.manner != Manner::Loads {
        let models = backend.models().await.expect("a list");
        assert!(models.iter().any(|card| card.id == prompts.model), "the model is listed: {models:?}");
        if prompts.manner == Manner::LoadsWhenAsked {
            let error = backend.load(&prompts.model, LoadReason::Asked).await.expect_err("it can't be told");
            assert_eq!(error.kind, GenErrorKind::Refused, "{error}");
        }
        return;
    }
    backend.load(&prompts.model, LoadReason::Asked).await.expect("the model loads");
    backend.load(&prompts.model, LoadReason::Asked).await.expect("loading it again changes nothing");
    let models = backend.models().await.expect("a list");
    let card = models.iter().find(|card| card.id == prompts.model).expect("the model is listed");
    assert_eq!(card.state, ModelState::Loaded);
    let error = backend.load(&prompts.missing_model, LoadReason::Asked).await.expect_err("it is missing");
    assert_eq!(error.kind, GenErrorKind::Model, "{error}");
    assert!(error.message.lines().count() <= 2, "{error}");
}

async fn answers_completely(backend: &Backend, prompts: &Prompts) {
    let first = collect(backend, request(&prompts.model, &prompts.question)).await;
    check_order(&first);
    let Some(GenEvent::Done { finish: Finish::Stop, .. }) = first.last() else {
        panic!("not done: {first:?}")
    };
    let usages: Vec<&Usage> =
        first.iter().filter_map(|e| if let GenEvent::Usage(u) = e { Some(u) } else { None }).collect();
    let usage = usages.last().expect("usage before the end");
    assert!(
        usage.prompt_tokens.is_some_and(|n| n > 0) && usage.output_tokens.is_some_and(|n| n > 1),
        "{usage:?}"
    );
    let answer = text(&first, Channel::Answer);
    assert!(!answer.trim().is_empty());
    let second = collect(backend, request(&prompts.model, &prompts.question)).await;
    assert_eq!(text(&second, Channel::Answer), answer, "a greedy answer is the same again");
}

async fn stops_at_the_limit(backend: &Backend, prompts: &Prompts) {
    let limited = GenRequest { max_tokens: Some(2), ..request(&prompts.model, &prompts.long) };
    let events = collect(backend, limited).await;
    check_order(&events);
    assert!(matches!(events.last(), Some(GenEvent::Done { finish: Finish::Length, .. })), "{events:?}");
}

async fn survives_a_dropped_stream(backend: &Backend, prompts: &Prompts) {
    let mut stream = backend.generate(request(&prompts.model, &prompts.long));
    let until_text = async {
        while let Some(event) = stream.next().await {
            if matches!(event, GenEvent::Delta { .. }) {
                return;
            }
        }
        panic!("no text came");
    };
    tokio::time::timeout(DEADLINE, until_text).await.expect("text comes");
    drop(stream);
    let events = collect(backend, request(&prompts.model, &prompts.question)).await;
    assert!(matches!(events.last(), Some(GenEvent::Done { .. })), "{events:?}");
}

async fn names_a_missing_model(backend: &Backend, prompts: &Prompts) {
    let events = collect(backend, request(&prompts.missing_model, &prompts.question)).await;
    check_order(&events);
    if prompts.manner == Manner::AnswersAnyway {
        assert!(matches!(events.last(), Some(GenEvent::Done { .. })), "{events:?}");
        let is_said = |event: &GenEvent| matches!(event, GenEvent::Note(Note::OtherModel { asked, .. }) if *asked == prompts.missing_model);
        assert!(events.iter().any(is_said), "it is said that another model answers: {events:?}");
        return;
    }
    let (kind, message) = failure(&events);
    assert_eq!(kind, GenErrorKind::Model, "{message}");
    assert!(message.contains(&prompts.missing_model) && message.lines().count() <= 2, "{message}");
}
