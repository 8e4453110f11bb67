//! Tests of Ollama's dialect, on recorded and hostile transcripts.

use super::*;
use crate::backend::fault::Origin;
use crate::backend::ndjson::LineDecoder;
use crate::chat::{Channel, GenErrorKind, Message, Role};
use pretty_assertions::assert_eq;
use proptest::prelude::*;

fn request() -> GenRequest {
    GenRequest {
        model: "llama3.2".to_owned(),
        messages: vec![Message::new(Role::User, "Hi")],
        sampling: Sampling::default(),
        max_tokens: None,
        stop: Vec::new(),
        schema: None,
        session: None,
        is_ahead: false,
    }
}

/// An answer with thinking, as it comes since the server tells how much was cached.
const RECORDED: &str = concat!(
    r#"{"model":"llama3.2:latest","created_at":"2026-08-04T08:52:19.385406455-07:00","message":{"role":"assistant","content":"","thinking":"Hm."},"done":false}"#,
    "\n",
    r#"{"model":"llama3.2:latest","message":{"role":"assistant","content":"Grüße "},"done":false}"#,
    "\n",
    r#"{"model":"llama3.2:latest","message":{"role":"assistant","content":"aus 東京 😀","images":null},"done":false}"#,
    "\n",
    r#"{"model":"llama3.2:latest","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":4883583458,"load_duration":1334875,"prompt_eval_count":260,"prompt_eval_cached_count":200,"prompt_eval_duration":342546000,"eval_count":282,"eval_duration":4535599000}"#,
    "\n",
);

fn decode_split(bytes: &[u8], size: usize, was_cold: bool) -> Vec<GenEvent> {
    let (mut lines, mut out) = (LineDecoder::default(), Vec::new());
    let mut decoder = Decoder::new("mac", Origin::Foreign, &request()).heeding_the_model(true);
    let mut push = |found: &mut Vec<String>| {
        for line in found.drain(..) {
            decoder.line(&line, was_cold, &mut out);
        }
    };
    let mut found = Vec::new();
    for chunk in bytes.chunks(size.max(1)) {
        lines.push(chunk, &mut found).expect("small");
        push(&mut found);
    }
    lines.finish(&mut found);
    push(&mut found);
    decoder.end(&StreamEnd::Closed, &mut out);
    out
}

fn decode(text: &str) -> Vec<GenEvent> {
    decode_split(text.as_bytes(), usize::MAX, false)
}

fn delta(channel: Channel, text: &str) -> GenEvent {
    GenEvent::Delta { channel, text: text.to_owned() }
}

fn failure(events: &[GenEvent]) -> (GenErrorKind, &str) {
    match events.last() {
        Some(GenEvent::Failed(error)) => (error.kind, error.message.lines().next().unwrap_or_default()),
        other => panic!("no failure but {other:?}"),
    }
}

#[test]
fn requests() {
    assert_eq!(
        chat_request(&request(), None),
        json!({"model": "llama3.2", "messages": [{"role": "user", "content": "Hi"}], "stream": true,
            "truncate": false, "shift": false, "options": {}})
    );
    let full = GenRequest {
        sampling: Sampling {
            temperature: Some(0.5),
            top_k: Some(40),
            repeat_penalty: Some(1.5),
            seed: Some(7),
            ..Sampling::default()
        },
        max_tokens: Some(30),
        stop: vec!["\n".to_owned()],
        schema: Some(json!({"type": "object"})),
        ..request()
    };
    assert_eq!(
        chat_request(&full, Some(8192)),
        json!({"model": "llama3.2", "messages": [{"role": "user", "content": "Hi"}], "stream": true,
            "truncate": false, "shift": false, "format": {"type": "object"},
            "options": {"temperature": 0.5, "top_k": 40, "repeat_penalty": 1.5, "seed": 7, "num_ctx": 8192,
                "num_predict": 30, "stop": ["\n"]}})
    );
}

#[test]
fn a_recorded_answer_cut_at_every_byte() {
    let timings = ServerTimings {
        load_ms: Some(1.334_875),
        cache_n: Some(200),
        prompt_n: Some(60),
        prompt_ms: Some(342.546),
        predicted_n: Some(282),
        predicted_ms: Some(4535.599),
        ..ServerTimings::default()
    };
    let usage = Usage { prompt_tokens: Some(260), cached_tokens: Some(200), output_tokens: Some(282) };
    let expected = [
        delta(Channel::Thinking, "Hm."),
        delta(Channel::Answer, "Grüße "),
        delta(Channel::Answer, "aus 東京 😀"),
        GenEvent::Usage(usage),
        GenEvent::Done { finish: Finish::Stop, timings: Some(timings) },
    ];
    assert_eq!(decode(RECORDED), expected);
    for size in [1, 2, 3, 7, 64] {
        assert_eq!(decode_split(RECORDED.as_bytes(), size, false), expected, "in pieces of {size}");
    }
    for cut in 0..RECORDED.len() {
        let events = decode_split(&RECORDED.as_bytes()[..cut], usize::MAX, false);
        let is_done = matches!(events.last(), Some(GenEvent::Done { .. }));
        assert_eq!(is_done, cut >= RECORDED.len() - 1, "cut at {cut}");
    }
}

/// The count has the cached tokens in it and the duration has not: dividing them would flatter every warm turn.
#[test]
fn cached_tokens_do_not_make_it_fast() {
    let end = |cached: &str| {
        format!(
            r#"{{"done":true,"done_reason":"stop","prompt_eval_count":8000,{cached}"prompt_eval_duration":50000000,"eval_count":3,"eval_duration":60000000}}"#
        )
    };
    let evaluated =
        |text: &str, was_cold: bool| match decode_split(text.as_bytes(), usize::MAX, was_cold).last() {
            Some(GenEvent::Done { timings: Some(timings), .. }) => timings.prompt_n,
            other => panic!("{other:?}"),
        };
    assert_eq!(evaluated(&end(""), false), None, "how much was cached is not told");
    assert_eq!(evaluated(&end(""), true), Some(8000), "a model that was loaded for it has no cache");
    assert_eq!(evaluated(&end(r#""prompt_eval_cached_count":7900,"#), false), Some(100));
    assert_eq!(evaluated(&end(r#""prompt_eval_cached_count":9000,"#), false), Some(0));
}

#[test]
fn an_error_line_under_200_fails_the_answer() {
    let half = r#"{"message":{"content":"half"},"done":false}"#;
    for (error, kind, words) in [
        (
            r#"{"error":"an error was encountered while running the model: CUDA error"}"#,
            GenErrorKind::Refused,
            "mac stopped llama3.2: an error was encountered while running the model: CUDA error",
        ),
        (r#"{"error":{"message":"boom"}}"#, GenErrorKind::Refused, "mac stopped llama3.2: boom"),
    ] {
        let events = decode(&format!("{half}\n{error}\n{half}\n"));
        assert_eq!(events.len(), 2);
        assert_eq!(
            (events.first(), failure(&events)),
            (Some(&delta(Channel::Answer, "half")), (kind, words))
        );
    }
    let cut = decode(&format!("{half}\n"));
    assert_eq!(
        failure(&cut),
        (GenErrorKind::Protocol, "the answer was stopped by the server after 1 token, without an end (mac)")
    );
}

#[test]
fn ends() {
    let end = |reason: &str| format!(r#"{{"message":{{"content":"x"}},"done":true{reason}}}"#);
    let finish = |text: &str| match decode(text).last() {
        Some(GenEvent::Done { finish, .. }) => *finish,
        other => panic!("{other:?}"),
    };
    assert_eq!(finish(&end(r#","done_reason":"length""#)), Finish::Length);
    assert_eq!(finish(&end(r#","done_reason":"load""#)), Finish::Stop);
    assert_eq!(finish(&end("")), Finish::Stop, "older ones give no reason");
    let after = format!("{}\n{}\n", end(""), r#"{"error":"late"}"#);
    assert_eq!(finish(&after), Finish::Stop, "what follows the end is nothing");
}

#[test]
fn thinking_in_tags_is_parted() {
    let pieces = ["<th", "ink>hm</thi", "nk>\n\nHello"];
    let lines: Vec<String> =
        pieces.iter().map(|text| json!({"message": {"content": text}, "done": false}).to_string()).collect();
    let events = decode(&format!("{}\n{}\n", lines.join("\n"), r#"{"done":true}"#));
    assert_eq!(events[..2], [delta(Channel::Thinking, "hm"), delta(Channel::Answer, "Hello")]);
}

#[test]
fn nonsense_is_skipped_until_there_is_too_much() {
    let half = r#"{"message":{"content":"half"},"done":false}"#;
    for bad in
        ["{", "5", r#"{"message":5}"#, r#"{"message":{"content":7}}"#, "data: {}", "\0", &"[".repeat(9999)]
    {
        let events = decode(&format!("{bad}\n{bad}\n{half}\n{bad}\n{}\n", r#"{"done":true}"#));
        assert_eq!(events.first(), Some(&delta(Channel::Answer, "half")), "{bad:.20}");
        assert!(matches!(events.last(), Some(GenEvent::Done { .. })), "{bad:.20}");
        let events = decode(&format!("{half}\n{bad}\n{bad}\n{bad}\n{half}\n"));
        assert_eq!(
            failure(&events),
            (GenErrorKind::Protocol, "mac sent 3 events in a row that make no sense")
        );
    }
    let numbers =
        r#"{"done":true,"prompt_eval_count":-1,"eval_count":1e30,"eval_duration":-5,"load_duration":0.5}"#;
    let events = decode(numbers);
    assert_eq!(
        events,
        [
            GenEvent::Usage(Usage::default()),
            GenEvent::Done { finish: Finish::Stop, timings: Some(ServerTimings::default()) }
        ]
    );
}

#[test]
fn what_leaves_the_house_is_said_once() {
    let line = r#"{"model":"gpt-oss:120b","remote_model":"gpt-oss:120b","remote_host":"https://ollama.com:443","message":{"content":"x"},"done":false}"#;
    let events = decode(&format!("{line}\n{line}\n"));
    let notes: Vec<_> = events.iter().filter(|event| matches!(event, GenEvent::Note(_))).collect();
    assert_eq!(notes, [&GenEvent::Note(Note::PassedOn { to: "https://ollama.com:443".to_owned() })]);
    let other = r#"{"model":"qwen3:8b","message":{"content":"x"},"done":false}"#;
    let note = Note::OtherModel { asked: "llama3.2".to_owned(), answers: "qwen3:8b".to_owned() };
    assert_eq!(decode(other).first(), Some(&GenEvent::Note(note)));
}

#[test]
fn names() {
    assert!(is_named("llama3.2:latest", "llama3.2"));
    assert!(is_named("llama3.2:latest", "Llama3.2:latest"));
    assert!(is_named("llama3.2:3b", "llama3.2:3b"));
    assert!(!is_named("llama3.2:3b", "llama3.2"));
    assert!(!is_named("llama3.2:latest", "llama3.2:3b"));
}

proptest! {
    #[test]
    fn exactly_one_terminal_event_and_nothing_after(
        lines in prop::collection::vec(prop::sample::select(vec![
            r#"{"message":{"content":"x"},"done":false}"#, r#"{"done":true}"#, r#"{"error":"x"}"#, "{", "null", "",
            r#"{"message":{"thinking":"y"}}"#, r#"{"message":{"content":"<think>"}}"#, r#"{"done":"true"}"#, "[]",
        ]), 0..12),
    ) {
        let events = decode(&lines.join("\n"));
        let terminal = |event: &GenEvent| matches!(event, GenEvent::Done { .. } | GenEvent::Failed(_));
        prop_assert_eq!(events.iter().filter(|e| terminal(e)).count(), 1);
        prop_assert!(events.last().is_some_and(terminal));
    }
}
