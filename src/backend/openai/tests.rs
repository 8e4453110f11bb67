//! Tests of the OpenAI dialect.

use super::*;
use crate::chat::{CachePlace, Message, Role, Sampling};
use pretty_assertions::assert_eq;
use proptest::prelude::*;

fn request() -> GenRequest {
    GenRequest {
        model: "small".to_owned(),
        messages: vec![Message::new(Role::User, "Hi")],
        sampling: Sampling::default(),
        max_tokens: None,
        stop: Vec::new(),
        schema: None,
        session: None,
    }
}

fn answer(text: &str) -> GenEvent {
    GenEvent::Delta { channel: Channel::Answer, text: text.to_owned() }
}

fn thinking(text: &str) -> GenEvent {
    GenEvent::Delta { channel: Channel::Thinking, text: text.to_owned() }
}

fn done(finish: Finish) -> GenEvent {
    GenEvent::Done { finish, timings: None }
}

fn decode(events: &[&str]) -> Vec<GenEvent> {
    let (mut decoder, mut out) = (Decoder::new("mac", Origin::Foreign, &request()), Vec::new());
    for data in events {
        decoder.event("", data, &mut out);
    }
    decoder.end(&StreamEnd::Closed, &mut out);
    out
}

/// The kind and first line of the failure at the end of `events`.
fn failure(events: &[GenEvent]) -> (GenErrorKind, &str) {
    match events.last() {
        Some(GenEvent::Failed(error)) => (error.kind, error.message.lines().next().unwrap_or_default()),
        other => panic!("no failure but {other:?}"),
    }
}

const HELLO: &str = r#"{"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}"#;
const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

#[test]
fn the_session_is_for_our_engine_only() {
    let of_session = GenRequest { session: Some("6921f3a0-9c41d2e7".to_owned()), ..request() };
    assert_eq!(chat_request(&of_session, Additions::Duet)["duet_session"], "6921f3a0-9c41d2e7");
    for (request, additions) in
        [(&of_session, Additions::LlamaServer), (&of_session, Additions::None), (&request(), Additions::Duet)]
    {
        assert_eq!(chat_request(request, additions).get("duet_session"), None, "{additions:?}");
    }
}

#[test]
fn requests() {
    assert_eq!(
        chat_request(&request(), Additions::None),
        json!({"model": "small", "messages": [{"role": "user", "content": "Hi"}], "stream": true, "stream_options": {"include_usage": true}})
    );
    let full = GenRequest {
        sampling: Sampling { temperature: Some(0.5), top_k: Some(40), seed: Some(7), ..Sampling::default() },
        max_tokens: Some(0),
        stop: vec!["\n".to_owned()],
        schema: Some(json!({"type": "object"})),
        ..request()
    };
    assert_eq!(
        chat_request(&full, Additions::LlamaServer),
        json!({
            "model": "small", "messages": [{"role": "user", "content": "Hi"}], "stream": true, "stream_options": {"include_usage": true},
            "temperature": 0.5, "top_k": 40, "seed": 7, "max_tokens": 0, "stop": ["\n"],
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": {"type": "object"}}},
            "return_progress": true, "cache_prompt": true,
        })
    );
}

#[test]
fn a_recorded_answer_of_our_engine() {
    let got = decode(&[
        r#"{"choices":[],"duet":{"queued":2}}"#,
        r#"{"choices":[],"duet":{"loading":0.5}}"#,
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":null},"finish_reason":null}],"prompt_progress":{"total":10,"cache":4,"processed":6,"time_ms":3}}"#,
        r#"{"choices":[{"index":0,"delta":{"reasoning_content":"hm"},"finish_reason":null}]}"#,
        HELLO,
        STOP,
        r#"{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}},"timings":{"cache_n":4,"prompt_n":6,"prompt_ms":3.5,"predicted_n":2,"predicted_ms":8,"queue_ms":1,"load_ms":20,"cache_from":"disk","cache_lost":"the sliding window has moved on","draft_n":40,"draft_n_accepted":34,"energy_j":41.5}}"#,
        "[DONE]",
        HELLO,
    ]);
    let timings = ServerTimings {
        queue_ms: Some(1.0),
        load_ms: Some(20.0),
        cache_n: Some(4),
        cache_from: Some(CachePlace::Disk),
        cache_lost: Some(CacheLost::Window),
        prompt_n: Some(6),
        prompt_ms: Some(3.5),
        predicted_n: Some(2),
        predicted_ms: Some(8.0),
        draft_n: Some(40),
        draft_n_accepted: Some(34),
        energy_j: Some(41.5),
    };
    assert_eq!(
        got,
        [
            GenEvent::Queued { ahead: 2 },
            GenEvent::Loading { fraction: 0.5 },
            GenEvent::Prefill { done: 6, total: 10, cached: 4 },
            thinking("hm"),
            answer("Hello"),
            GenEvent::Usage(Usage {
                prompt_tokens: Some(10),
                cached_tokens: Some(4),
                output_tokens: Some(2)
            }),
            GenEvent::Done { finish: Finish::Stop, timings: Some(timings) },
        ]
    );
}

#[test]
fn the_finish_reason_decides() {
    assert_eq!(decode(&[HELLO, STOP]), [answer("Hello"), done(Finish::Stop)]);
    assert_eq!(decode(&[HELLO, STOP, "[DONE]", "[DONE]"]), [answer("Hello"), done(Finish::Stop)]);
    assert_eq!(
        decode(&[HELLO, STOP, HELLO, STOP]),
        [answer("Hello"), done(Finish::Stop)],
        "later text is ignored"
    );
    let length = r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"length"}]}"#;
    assert_eq!(decode(&[length]), [answer("x"), done(Finish::Length)]);

    let cut = decode(&[HELLO, HELLO, "[DONE]"]);
    assert_eq!(cut.len(), 3);
    assert_eq!(
        failure(&cut),
        (GenErrorKind::Protocol, "the answer was stopped by the server after 2 tokens, without an end (mac)")
    );
    assert_eq!(
        failure(&decode(&[])),
        (GenErrorKind::Protocol, "the answer was stopped by the server after 0 tokens, without an end (mac)")
    );
}

#[test]
fn a_broken_connection_after_the_finish_reason_is_harmless() {
    let (mut decoder, mut out) = (Decoder::new("mac", Origin::Foreign, &request()), Vec::new());
    decoder.event("", STOP, &mut out);
    assert!(decoder.is_finished());
    decoder.end(&StreamEnd::Broken("reset".to_owned()), &mut out);
    assert_eq!(out, [done(Finish::Stop)]);
}

#[test]
fn errors_in_the_middle() {
    use GenErrorKind as K;
    let cases = [
        (
            r#"{"error":{"code":500,"message":"boom","type":"server_error"}}"#,
            K::Refused,
            "mac stopped small: boom",
        ),
        (r#"{"error":"boom"}"#, K::Refused, "mac stopped small: boom"),
        (
            r#"{"error":{"type":"out_of_memory_error","message":"needs 9 GB"}}"#,
            K::OutOfMemory,
            "mac has not enough memory for small: needs 9 GB",
        ),
        (
            r#"{"error":{"code":400,"type":"exceed_context_size_error","message":"x","n_prompt_tokens":9,"n_ctx":8}}"#,
            K::ContextFull,
            "the conversation takes 9 tokens, small on mac has room for 8",
        ),
        (
            r#"{"choices":[{"delta":{},"finish_reason":"abort"}]}"#,
            K::Refused,
            "mac stopped small: finish reason `abort`",
        ),
    ];
    for (event, kind, line) in cases {
        let got = decode(&[HELLO, event, STOP, "[DONE]"]);
        assert_eq!(got.len(), 2, "{event}");
        assert_eq!((got.first(), failure(&got)), (Some(&answer("Hello")), (kind, line)));
    }
    let (mut decoder, mut out) = (Decoder::new("mac", Origin::Foreign, &request()), Vec::new());
    decoder.event("error", "it broke", &mut out);
    assert_eq!(failure(&out), (K::Refused, "mac stopped small: it broke"));
    assert!(decoder.is_over());
}

#[test]
fn nonsense_is_skipped_until_there_is_too_much() {
    let deep = "[".repeat(10_000);
    let bad = [
        "{",
        "5",
        "{\"choices\":{}}",
        r#"{"choices":[{"delta":{"content":5}}]}"#,
        r#"{"choices":[7]}"#,
        &deep,
    ];
    for event in bad {
        assert_eq!(
            decode(&[event, event, HELLO, event, STOP]),
            [answer("Hello"), done(Finish::Stop)],
            "{event:.40}"
        );
        let got = decode(&[HELLO, event, event, event, STOP]);
        assert_eq!(
            failure(&got),
            (GenErrorKind::Protocol, "mac sent 3 events in a row that make no sense"),
            "{event:.40}"
        );
    }
    let fine = [
        r#"{}"#,
        r#"{"choices":null}"#,
        r#"{"choices":[]}"#,
        r#"{"choices":[{"delta":null}]}"#,
        r#"{"choices":[{}]}"#,
    ];
    assert_eq!(decode(&[&fine[..], &[HELLO, STOP]].concat()), [answer("Hello"), done(Finish::Stop)]);
}

#[test]
fn impossible_numbers_are_absent() {
    let got = decode(&[
        STOP,
        r#"{"usage":{"prompt_tokens":-1,"completion_tokens":1e30},"timings":{"prompt_ms":-5,"predicted_n":1.5,"cache_n":"x"}}"#,
    ]);
    assert_eq!(
        got,
        [
            GenEvent::Usage(Usage::default()),
            GenEvent::Done { finish: Finish::Stop, timings: Some(ServerTimings::default()) }
        ]
    );
}

#[test]
fn thinking_comes_in_several_spellings() {
    let vllm = r#"{"choices":[{"delta":{"reasoning":"hm"}}]}"#;
    assert_eq!(decode(&[vllm, HELLO, STOP]), [thinking("hm"), answer("Hello"), done(Finish::Stop)]);
    let inline = ["<th", "ink>hm</thi", "nk>\n\nHello"]
        .map(|text| json!({"choices": [{"delta": {"content": text}}]}).to_string());
    let events: Vec<&str> = inline.iter().map(String::as_str).chain([STOP]).collect();
    assert_eq!(decode(&events), [thinking("hm"), answer("Hello"), done(Finish::Stop)]);
    let held = r#"{"choices":[{"delta":{"content":"<thi"}}]}"#;
    assert_eq!(decode(&[held]).first(), Some(&answer("<thi")), "held text survives a cut");
}

#[test]
fn half_surrogates_cost_only_themselves() {
    let lone = r#"{"choices":[{"delta":{"content":"a\\\ud83d b\ud83d\ude00\udc00c"}}]}"#;
    assert_eq!(decode(&[lone, STOP]), [answer("a\\\u{fffd} b😀\u{fffd}c"), done(Finish::Stop)]);
    assert_eq!(whole_surrogates(r#"{"a":"\n\\ud83d"#), None);
    assert_eq!(whole_surrogates("\\日"), None);
}

#[test]
fn a_server_that_does_not_stream() {
    let whole = r#"{"choices":[{"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3}}"#;
    let usage = Usage { prompt_tokens: Some(3), ..Usage::default() };
    assert_eq!(decode(&[whole]), [answer("Hello"), GenEvent::Usage(usage), done(Finish::Stop)]);
}

#[test]
fn endless_answers_are_stopped_with_their_text() {
    let (mut decoder, mut out) = (Decoder::new("mac", Origin::Foreign, &request()), Vec::new());
    for _ in 0..MAX_PIECES + 10 {
        decoder.event("", HELLO, &mut out);
    }
    assert_eq!(out.len(), MAX_PIECES as usize + 2);
    assert_eq!(
        failure(&out),
        (GenErrorKind::Protocol, "small was stopped: its answer passed 32768 pieces of text")
    );

    let big = json!({"choices": [{"delta": {"content": "x".repeat(1 << 20)}}]}).to_string();
    let got = decode(&[&big, &big, &big, &big]);
    assert_eq!(got.len(), 4);
    assert_eq!(failure(&got), (GenErrorKind::Protocol, "small was stopped: its answer passed 2 MiB of text"));
}

proptest! {
    #[test]
    fn exactly_one_terminal_event_and_nothing_after(
        events in prop::collection::vec(prop::sample::select(vec![
            HELLO, STOP, "[DONE]", "{", "", r#"{"error":"x"}"#, r#"{"usage":{"completion_tokens":1}}"#,
            r#"{"choices":[{"delta":{"content":"<think>"}}]}"#, r#"{"prompt_progress":{"total":3,"processed":9}}"#, "null",
        ]), 0..12),
    ) {
        let got = decode(&events);
        let terminal = |event: &GenEvent| matches!(event, GenEvent::Done { .. } | GenEvent::Failed(_));
        prop_assert_eq!(got.iter().filter(|e| terminal(e)).count(), 1);
        prop_assert!(got.last().is_some_and(terminal));
    }
}
