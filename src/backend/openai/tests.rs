//! Tests of the OpenAI dialect.

use super::*;
use crate::backend::decode::StreamEnd;
use crate::backend::sse::{SseDecoder, SseItem};
use crate::chat::{CachePlace, Channel, GenErrorKind, Message, Note};
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
        is_ahead: false,
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
    for kind in BackendKind::ALL {
        let body = chat_request(&of_session, kind);
        let told = body.get("duet_session").and_then(Value::as_str);
        assert_eq!(told, (kind == BackendKind::Duet).then_some("6921f3a0-9c41d2e7"), "{kind:?}");
    }
    assert_eq!(chat_request(&request(), BackendKind::Duet).get("duet_session"), None);
}

#[test]
fn requests() {
    assert_eq!(
        chat_request(&request(), BackendKind::Openai),
        json!({"model": "small", "messages": [{"role": "user", "content": "Hi"}], "stream": true, "stream_options": {"include_usage": true}})
    );
    assert_eq!(
        chat_request(&full(), BackendKind::LlamaServer),
        json!({
            "model": "small", "messages": [{"role": "user", "content": "Hi"}], "stream": true, "stream_options": {"include_usage": true},
            "temperature": 0.5, "top_k": -1, "repeat_penalty": 1.5, "seed": 7, "max_tokens": 30, "stop": ["\n"],
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": {"type": "object"}}},
            "return_progress": true, "cache_prompt": true,
        })
    );
}

fn full() -> GenRequest {
    GenRequest {
        sampling: Sampling {
            temperature: Some(0.5),
            top_k: Some(-1),
            repeat_penalty: Some(1.5),
            seed: Some(7),
            ..Sampling::default()
        },
        max_tokens: Some(30),
        stop: vec!["\n".to_owned()],
        schema: Some(json!({"type": "object"})),
        ..request()
    }
}

/// Names of the fields a kind of server is sent.
fn names(kind: BackendKind) -> Vec<String> {
    chat_request(&full(), kind).as_object().expect("an object").keys().cloned().collect()
}

#[test]
fn only_those_who_know_them_get_additions() {
    for kind in BackendKind::ALL {
        let names = names(kind);
        let knows = matches!(kind, BackendKind::Duet | BackendKind::LlamaServer | BackendKind::LlamaSwap);
        for addition in ["return_progress", "cache_prompt"] {
            assert_eq!(names.iter().any(|name| name == addition), knows, "{kind:?}");
        }
    }
    // trtllm-serve refuses a request with a field it does not know.
    let known = [
        "model",
        "messages",
        "stream",
        "stream_options",
        "temperature",
        "top_k",
        "seed",
        "repetition_penalty",
        "max_tokens",
        "stop",
        "response_format",
    ];
    assert!(names(BackendKind::TensorrtLlm).iter().all(|name| known.contains(&name.as_str())));
}

#[test]
fn mlx_is_told_what_others_choose_well() {
    let body = chat_request(&request(), BackendKind::Mlx);
    assert_eq!(body["max_tokens"], MAX_PIECES, "its own limit is 512");
    assert_eq!(
        body["temperature"].as_f64().map(|t| (t * 10.0).round()),
        Some(7.0),
        "left alone it is greedy"
    );
    assert_eq!(body["stream_options"], json!({"include_usage": true}), "without it, it breaks off");
    let body = chat_request(&full(), BackendKind::Mlx);
    assert_eq!((&body["top_k"], &body["repetition_penalty"]), (&json!(0), &json!(1.5)));
    assert_eq!((&body["max_tokens"], body.get("repeat_penalty")), (&json!(30), None));
    let of_folder = GenRequest { model: "/models/qwen".to_owned(), ..request() };
    assert_eq!(chat_request(&of_folder, BackendKind::Mlx)["model"], "default_model");
    assert_eq!(chat_request(&of_folder, BackendKind::Vllm)["model"], "/models/qwen");
}

#[test]
fn those_who_continue_are_told_to() {
    let mut begun = request();
    begun.messages.push(Message::new(Role::Assistant, "It is"));
    for kind in BackendKind::ALL {
        let body = chat_request(&begun, kind);
        let told = (body.get("continue_final_message").cloned(), body.get("add_generation_prompt").cloned());
        let is_told = matches!(kind, BackendKind::LlamaServer | BackendKind::LlamaSwap | BackendKind::Vllm);
        let expected = is_told.then_some((json!(true), json!(false)));
        assert_eq!(told, expected.map_or((None, None), |(a, b)| (Some(a), Some(b))), "{kind:?}");
    }
    assert_eq!(chat_request(&request(), BackendKind::Vllm).get("continue_final_message"), None);
}

/// Everything a transcript becomes, in pieces of this size.
fn transcript(bytes: &[u8], size: usize) -> Vec<GenEvent> {
    let (mut sse, mut out) = (SseDecoder::default(), Vec::new());
    let mut decoder = Decoder::new("mac", Origin::Foreign, &request()).heeding_the_model(true);
    let mut items = Vec::new();
    for chunk in bytes.chunks(size.max(1)) {
        sse.push(chunk, &mut items).expect("small");
    }
    sse.finish(&mut items);
    for item in items {
        match item {
            SseItem::Event { name, data } => decoder.event(&name, &data, &mut out),
            SseItem::Comment(text) => decoder.comment(&text, &mut out),
        }
    }
    decoder.end(&StreamEnd::Closed, &mut out);
    out
}

/// As `mlx_lm.server` 0.32 streams: comments while it prefills, thinking as `reasoning`, the counts in a chunk of
/// another kind.
const MLX: &str = concat!(
    ": keepalive 0/40\n\n",
    ": keepalive 40/40\n\n",
    "data: {\"id\": \"chatcmpl-1\", \"system_fingerprint\": \"0.32.2-0.32.4-Linux\", \"object\": \"chat.completion.chunk\", \"model\": \"small\", \"created\": 1, \"choices\": [{\"index\": 0, \"finish_reason\": null, \"delta\": {\"role\": \"assistant\", \"reasoning\": \"Hm.\"}}]}\n\n",
    "data: {\"id\": \"chatcmpl-1\", \"object\": \"chat.completion.chunk\", \"model\": \"small\", \"choices\": [{\"index\": 0, \"finish_reason\": null, \"delta\": {\"role\": \"assistant\", \"content\": \"It is \\u6771\\u4eac \\ud83d\\ude00\"}}]}\n\n",
    "data: {\"id\": \"chatcmpl-1\", \"object\": \"chat.completion.chunk\", \"model\": \"small\", \"choices\": [{\"index\": 0, \"finish_reason\": \"stop\", \"delta\": {\"role\": \"assistant\"}}]}\n\n",
    "data: {\"id\": \"chatcmpl-1\", \"object\": \"chat.completion\", \"model\": \"small\", \"choices\": [], \"usage\": {\"prompt_tokens\": 40, \"completion_tokens\": 7, \"total_tokens\": 47, \"prompt_tokens_details\": {\"cached_tokens\": 30}}}\n\n",
    "data: [DONE]\n\n",
);

/// As vLLM streams when it was started to tell its metrics.
const VLLM: &str = concat!(
    "data: {\"id\":\"chatcmpl-2\",\"object\":\"chat.completion.chunk\",\"model\":\"small\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"chatcmpl-2\",\"model\":\"small\",\"choices\":[{\"index\":0,\"delta\":{\"reasoning\":\"Hm.\",\"reasoning_content\":\"Hm.\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"chatcmpl-2\",\"model\":\"small\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"It is\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"chatcmpl-2\",\"model\":\"small\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"length\",\"stop_reason\":null}]}\n\n",
    "data: {\"id\":\"chatcmpl-2\",\"model\":\"small\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"total_tokens\":11,\"completion_tokens\":2,\"prompt_tokens_details\":null},\"metrics\":{\"time_to_first_token_ms\":40.0,\"generation_time_ms\":25.0,\"queue_time_ms\":3.0}}\n\n",
    "data: [DONE]\n\n",
);

/// As LM Studio streams by its OpenAI routes, with a model that leaves its thinking in the text.
const LM_STUDIO: &str = concat!(
    "data: {\"id\":\"chatcmpl-3\",\"object\":\"chat.completion.chunk\",\"model\":\"small@q4\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"<think>\"},\"finish_reason\":null}]}\r\n\r\n",
    "data: {\"id\":\"chatcmpl-3\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hm.</think>\\n\\nIt is\"},\"finish_reason\":null}]}\r\n\r\n",
    "data: {\"id\":\"chatcmpl-3\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\r\n\r\n",
    "data: {\"id\":\"chatcmpl-3\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4,\"total_tokens\":13}}\r\n\r\n",
    "data: [DONE]\r\n\r\n",
);

#[test]
fn recorded_transcripts_cut_at_every_byte() {
    let usage = |prompt, cached, output| {
        GenEvent::Usage(Usage {
            prompt_tokens: Some(prompt),
            cached_tokens: cached,
            output_tokens: Some(output),
        })
    };
    let prefill = |done| GenEvent::Prefill { done, total: 40, cached: 0 };
    let vllm = ServerTimings {
        queue_ms: Some(3.0),
        predicted_ms: Some(25.0),
        predicted_n: Some(2),
        ..ServerTimings::default()
    };
    let cases = [
        (
            MLX,
            vec![
                prefill(0),
                prefill(40),
                thinking("Hm."),
                answer("It is 東京 😀"),
                usage(40, Some(30), 7),
                done(Finish::Stop),
            ],
        ),
        (
            VLLM,
            vec![
                thinking("Hm."),
                answer("It is"),
                usage(9, None, 2),
                GenEvent::Done { finish: Finish::Length, timings: Some(vllm) },
            ],
        ),
        (LM_STUDIO, vec![thinking("Hm."), answer("It is"), usage(9, None, 4), done(Finish::Stop)]),
    ];
    for (text, expected) in cases {
        assert_eq!(transcript(text.as_bytes(), usize::MAX), expected);
        for size in [1, 2, 3, 7, 64] {
            assert_eq!(transcript(text.as_bytes(), size), expected, "in pieces of {size}");
        }
        let finish =
            text.find("\"finish_reason\": \"stop\"").or_else(|| text.find("\"finish_reason\":\"stop\""));
        let finish = finish.or_else(|| text.find("\"finish_reason\":\"length\"")).expect("it ends");
        for cut in 0..text.len() {
            let events = transcript(&text.as_bytes()[..cut], usize::MAX);
            let is_terminal = |event: &GenEvent| matches!(event, GenEvent::Done { .. } | GenEvent::Failed(_));
            assert_eq!(events.iter().filter(|event| is_terminal(event)).count(), 1, "cut at {cut}");
            let is_done = matches!(events.last(), Some(GenEvent::Done { .. }));
            assert!(!is_done || cut > finish, "complete without its finish reason, cut at {cut}");
        }
    }
}

/// The five ways servers have of failing in the middle: none of them is an answer.
#[test]
fn errors_in_the_middle_in_five_styles() {
    let half = r#"data: {"choices":[{"delta":{"content":"half"}}]}"#;
    let empty = r#"data: {"id":"x","choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}"#;
    let error = r#"data: {"error":{"message":"boom","code":500}}"#;
    for (style, rest, kind) in [
        ("an error, then the end (llama-server)", format!("{error}\n\n"), GenErrorKind::Refused),
        ("an error, then [DONE] (vLLM)", format!("{error}\n\ndata: [DONE]\n\n"), GenErrorKind::Refused),
        ("an event named so (LM Studio)", "event: error\ndata: boom\n\n".to_owned(), GenErrorKind::Refused),
        ("swallowed: an empty chunk (Ollama's other route)", format!("{empty}\n\n"), GenErrorKind::Protocol),
        ("the bare end (mlx_lm)", String::new(), GenErrorKind::Protocol),
        ("[DONE] alone", "data: [DONE]\n\n".to_owned(), GenErrorKind::Protocol),
    ] {
        let got = transcript(format!("{half}\n\n{rest}").as_bytes(), usize::MAX);
        assert_eq!(got.len(), 2, "{style}: {got:?}");
        assert_eq!((got.first(), failure(&got).0), (Some(&answer("half")), kind), "{style}");
    }
}

#[test]
fn another_model_answers() {
    let of = |model: &str| {
        let text = format!("data: {}\n\n", json!({"model": model, "choices": [{"delta": {"content": "x"}}]}));
        transcript(format!("{text}{text}").as_bytes(), usize::MAX)
    };
    let note = Note::OtherModel { asked: "small".to_owned(), answers: "qwen".to_owned() };
    assert_eq!(of("qwen")[..3], [GenEvent::Note(note), answer("x"), answer("x")]);
    assert_eq!(of("org/small-2026-01-01")[..2], [answer("x"), answer("x")]);
    assert_eq!(of("")[..2], [answer("x"), answer("x")]);
}

/// llama-server gives one token where none was asked for.
#[test]
fn a_prefill_has_no_text() {
    let (mut decoder, mut out) =
        (Decoder::new("mac", Origin::Foreign, &GenRequest { max_tokens: Some(0), ..request() }), Vec::new());
    for data in [HELLO, r#"{"choices":[{"delta":{"content":"<th"}}]}"#, STOP] {
        decoder.event("", data, &mut out);
    }
    decoder.end(&StreamEnd::Closed, &mut out);
    assert_eq!(out, [done(Finish::Stop)]);
}

#[test]
fn comments_that_tell_nothing() {
    for text in [": keepalive", ": keepalive x/y", ":", ": keepalive 1/99999999999", ": ping"] {
        let got = transcript(format!("{text}\n\n").as_bytes(), usize::MAX);
        assert_eq!(got.len(), 1, "{text}: {got:?}");
    }
    let late = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n: keepalive 1/2\n\n";
    assert_eq!(transcript(late.as_bytes(), usize::MAX).len(), 2, "progress after text is none");
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
fn a_server_that_counts_along_says_how_far_it_came() {
    let text = r#"{"choices":[{"index":0,"delta":{"content":"one two"}}],"duet":{"tokens":8}}"#;
    let (mut decoder, mut out) = (Decoder::new("mac", Origin::Foreign, &request()), Vec::new());
    decoder.event("", text, &mut out);
    decoder.end(&StreamEnd::Broken("reset".to_owned()), &mut out);
    let Some(GenEvent::Failed(error)) = out.last() else { panic!("{out:?}") };
    assert!(error.message.starts_with("the connection to mac broke after 8 tokens: reset"), "{error:?}");
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
