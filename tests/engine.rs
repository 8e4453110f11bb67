//! The engine process from outside: its HTTP routes on a real socket, with the fixture models.
//!
//! The fixture models answer known prompts word for word, so whole answers are compared: a wrong
//! template, a broken cache or a lost token shows at once.
#![cfg(feature = "local")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

#[path = "support/engine.rs"]
mod support;

use serde_json::{Value, json};
use support::{Engine, answers};

fn ask(engine: &Engine, model: &str, system: Option<&str>, turns: &[&str]) -> Value {
    let mut messages = Vec::new();
    if let Some(system) = system {
        messages.push(json!({"role": "system", "content": system}));
    }
    for (i, text) in turns.iter().enumerate() {
        messages.push(json!({"role": if i % 2 == 0 { "user" } else { "assistant" }, "content": text}));
    }
    engine.chat(&json!({"model": model, "temperature": 0, "messages": messages}))
}

fn text(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("no text in {answer}"))
}

#[test]
fn every_known_prompt_is_answered_word_for_word() {
    let engine = Engine::start();
    let known = answers();
    for (name, model) in [("builtin", "builtin".to_owned()), ("large", support::large())] {
        for pair in known[name]["pairs"].as_array().unwrap() {
            let answer = ask(&engine, &model, pair["system"].as_str(), &[pair["prompt"].as_str().unwrap()]);
            assert_eq!(text(&answer), pair["answer"].as_str().unwrap(), "{name}: {}", pair["prompt"]);
            assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        }
        for dialogue in known[name]["dialogues"].as_array().unwrap() {
            let (first, second) = (&dialogue[0], &dialogue[1]);
            let turns = [&first["prompt"], &first["answer"], &second["prompt"]].map(|v| v.as_str().unwrap());
            assert_eq!(text(&ask(&engine, &model, None, &turns)), second["answer"].as_str().unwrap());
        }
    }
}

#[test]
fn a_second_turn_evaluates_only_what_is_new() {
    let engine = Engine::start();
    let first = ask(&engine, "builtin", None, &["Count from 1 to 50"]);
    let counted = text(&first).to_owned();
    let produced = first["timings"]["predicted_n"].as_u64().unwrap();
    let prompt = first["timings"]["prompt_n"].as_u64().unwrap();
    assert_eq!(first["timings"]["cache_n"], 0);
    let second = ask(&engine, "builtin", None, &["Count from 1 to 50", &counted, "Thank you"]);
    assert_eq!(text(&second), "You are welcome!");
    // Everything evaluated so far but the token that ended the first answer, which was never evaluated.
    assert_eq!(second["timings"]["cache_n"].as_u64().unwrap(), prompt + produced - 1);
    assert_eq!(second["usage"]["prompt_tokens_details"]["cached_tokens"], second["timings"]["cache_n"]);
    // Another conversation, then back: each keeps its own slot.
    ask(&engine, "builtin", None, &["List the planets"]);
    let third = ask(
        &engine,
        "builtin",
        None,
        &["Count from 1 to 50", &counted, "Thank you", "You are welcome!", "Hello"],
    );
    assert_eq!(text(&third), "Hello! How can I help you today?");
    assert!(third["timings"]["cache_n"].as_u64().unwrap() > prompt + produced, "{}", third["timings"]);
    // Without the cache the answer is the same.
    let body = json!({"model": "builtin", "temperature": 0, "cache_prompt": false,
        "messages": [{"role": "user", "content": "Count from 1 to 50"}]});
    let uncached = engine.chat(&body);
    assert_eq!(uncached["timings"]["cache_n"], 0);
    assert_eq!(text(&uncached), counted);
}

#[test]
fn a_stream_is_llama_servers() {
    let engine = Engine::start();
    let mut stream = engine.stream(&json!({
        "model": "builtin", "temperature": 0, "stream": true, "return_progress": true,
        "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "Show me some emoji"}],
    }));
    let mut answer = String::new();
    let mut finish = None;
    let mut last = Value::Null;
    let mut progress = Vec::new();
    for chunk in stream.by_ref() {
        if let Some(p) = chunk.get("prompt_progress") {
            progress.push((p["processed"].as_u64().unwrap(), p["total"].as_u64().unwrap()));
        }
        if let Some(text) = chunk["choices"][0]["delta"]["content"].as_str() {
            assert!(!text.contains('\u{FFFD}'), "a broken character left the engine: {text:?}");
            answer.push_str(text);
        }
        finish = chunk["choices"][0]["finish_reason"].as_str().map(str::to_owned).or(finish);
        last = chunk;
    }
    assert!(stream.is_done, "[DONE] ends the stream");
    assert_eq!(answer, "Here you go: 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 é");
    assert_eq!(finish.as_deref(), Some("stop"));
    assert_eq!(last["choices"], json!([]));
    assert!(last["usage"]["completion_tokens"].as_u64().unwrap() > 5);
    assert!(last["timings"]["predicted_per_second"].as_f64().unwrap() > 0.0);
    let (done, total) = *progress.last().unwrap();
    assert_eq!(done, total);
    assert!(progress.is_sorted());
}

#[test]
fn limits_and_constraints_hold() {
    let engine = Engine::start();
    let base = |extra: Value| {
        let mut body = json!({"model": "builtin", "temperature": 0,
            "messages": [{"role": "user", "content": "Count from 1 to 50"}]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        engine.chat(&body)
    };
    let capped = base(json!({"max_tokens": 4}));
    assert_eq!(capped["choices"][0]["finish_reason"], "length");
    assert_eq!(capped["usage"]["completion_tokens"], 4);

    let prefilled = base(json!({"max_tokens": 0}));
    assert_eq!((text(&prefilled), &prefilled["usage"]["completion_tokens"]), ("", &json!(0)));
    assert!(prefilled["timings"]["cache_n"].as_u64().unwrap() > 0, "the same prompt was there");

    let stopped = base(json!({"stop": ["5 6"]}));
    assert_eq!(text(&stopped), "1 2 3 4 ");
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");

    let endless = base(json!({"ignore_eos": true, "max_tokens": 300}));
    assert_eq!(endless["usage"]["completion_tokens"], 300);

    let grammar = base(json!({"grammar": "root ::= \"yes\" | \"no\""}));
    assert!(["yes", "no"].contains(&text(&grammar)), "{}", text(&grammar));

    let schema = base(
        json!({"max_tokens": 200, "response_format": {"type": "json_schema", "json_schema": {"schema": {
            "type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false,
        }}}}),
    );
    if schema["choices"][0]["finish_reason"] == "stop" {
        let value: Value = serde_json::from_str(text(&schema)).unwrap();
        assert!(value["n"].is_i64(), "{value}");
    } else {
        assert!(text(&schema).trim_start().starts_with('{'), "{}", text(&schema));
    }

    let seeded = |seed: u32| {
        let a = engine.chat(
            &json!({"model": "builtin", "temperature": 2.0, "seed": seed, "max_tokens": 24, "top_k": 0, "cache_prompt": false,
            "top_p": 1.0, "min_p": 0.0, "messages": [{"role": "user", "content": "zebra"}]}),
        );
        text(&a).to_owned()
    };
    assert_eq!(seeded(7), seeded(7));
    assert_ne!(seeded(7), seeded(8));

    let continued = engine.chat(&json!({"model": "builtin", "temperature": 0, "messages": [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "The capital of France"},
    ]}));
    assert_eq!(text(&continued), " is Paris.");
}

#[test]
fn text_of_the_user_never_speaks_special_tokens() {
    let engine = Engine::start();
    let count = |content: &str| {
        let body = json!({"model": "builtin", "temperature": 0, "max_tokens": 0, "cache_prompt": false,
            "messages": [{"role": "user", "content": content}]});
        engine.chat(&body)["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    // Parsed as a control token it would be one token; as text it is several.
    assert!(count("a<|im_end|>b") >= count("ab") + 4);
}

#[test]
fn errors_have_a_status_a_message_and_a_next_step() {
    let engine = Engine::start();
    let cases: [(&str, &str, u16, &str); 9] = [
        ("/models/unload", r#"{"model":"builtin"}"#, 400, "not loaded"),
        ("/v1/chat/completions", "{", 400, "JSON"),
        ("/v1/chat/completions", "[]", 400, "object"),
        ("/v1/chat/completions", r#"{"messages":[]}"#, 400, "messages"),
        (
            "/v1/chat/completions",
            r#"{"messages":[{"role":"user","content":"x"}],"temperature":"hot"}"#,
            400,
            "temperature",
        ),
        (
            "/v1/chat/completions",
            r#"{"model":"nowhere","messages":[{"role":"user","content":"x"}]}"#,
            404,
            "nowhere",
        ),
        (
            "/v1/chat/completions",
            r#"{"model":"builtin","messages":[{"role":"user","content":"x"}],"grammar":"root ::= ("}"#,
            400,
            "grammar",
        ),
        ("/models/load", r#"{"model":5}"#, 400, "model"),
        ("/nowhere", "{}", 404, "route"),
    ];
    for (route, body, status, word) in cases {
        let (got, answer) = engine.post(route, body.as_bytes());
        let message = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!((got, message.contains(word)), (status, true), "{route} {body}: {answer}");
        assert!(message.lines().count() <= 2, "{message}");
    }
    let (status, _) = engine.post("/v1/chat/completions", &vec![b' '; 33 << 20]);
    assert_eq!(status, 413);

    let long = "word ".repeat(20_000);
    let body = json!({"model": "builtin", "messages": [{"role": "user", "content": long}]});
    let (status, answer) = engine.post("/v1/chat/completions", body.to_string().as_bytes());
    assert_eq!(status, 400);
    assert_eq!(answer["error"]["type"], "exceed_context_size_error");
    let (prompt, context) =
        (answer["error"]["n_prompt_tokens"].as_u64().unwrap(), answer["error"]["n_ctx"].as_u64().unwrap());
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(
        prompt > context && message.contains(&prompt.to_string()) && message.contains(&context.to_string())
    );
}

#[test]
fn a_closed_connection_cancels_and_leaves_nothing_wrong() {
    let engine = Engine::start();
    let endless = json!({"model": "builtin", "temperature": 0, "stream": true, "ignore_eos": true, "max_tokens": 100_000,
        "messages": [{"role": "user", "content": "Count from 1 to 50"}]});
    let mut stream = engine.stream(&endless);
    assert!(stream.any(|chunk| chunk["choices"][0]["delta"]["content"].is_string()));
    drop(stream);
    support::wait_until("it is counted as cancelled", || {
        engine.get_text("/metrics").contains("requests_cancelled_total{model=\"builtin\"} 1")
    });
    support::wait_until("the slot is free", || engine.get("/engine/status")["models"][0]["slots_used"] == 0);
    assert_eq!(text(&ask(&engine, "builtin", None, &["Hello"])), "Hello! How can I help you today?");
}

#[test]
fn several_at_once_answer_as_if_alone() {
    let engine = Engine::start();
    let known = answers();
    let pairs: Vec<(String, String)> = known["builtin"]["pairs"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|p| p["system"].is_null())
        .map(|p| (p["prompt"].as_str().unwrap().to_owned(), p["answer"].as_str().unwrap().to_owned()))
        .take(24)
        .collect();
    std::thread::scope(|scope| {
        for lane in 0..6 {
            let (engine, pairs) = (&engine, &pairs);
            scope.spawn(move || {
                for (prompt, answer) in pairs.iter().skip(lane * 4).take(4) {
                    assert_eq!(text(&ask(engine, "builtin", None, &[prompt])), answer);
                }
            });
        }
    });
}

#[test]
fn models_are_listed_loaded_and_unloaded() {
    let engine = Engine::start();
    let status_of = |id: &str| {
        let list = engine.get("/v1/models");
        let model = list["data"].as_array().unwrap().iter().find(|m| m["id"] == id).cloned();
        model.map(|m| m["status"]["value"].as_str().unwrap().to_owned())
    };
    assert_eq!(status_of("builtin").as_deref(), Some("unloaded"));
    assert_eq!(engine.post("/models/load", br#"{"model":"builtin"}"#).0, 200);
    support::wait_until("it is loaded", || status_of("builtin").as_deref() == Some("loaded"));
    let props = engine.get("/props?model=builtin");
    assert!(props["chat_template"].as_str().unwrap().contains("im_start"), "{props}");
    assert_eq!(engine.get("/props")["role"], "router");
    let status = engine.get("/engine/status");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(status["devices"].as_array().unwrap().iter().any(|d| d["name"] == "CPU"), "{status}");
    assert!(status["models"][0]["bytes"]["weights"].as_u64().unwrap() > 1_000_000);
    assert_eq!(engine.post("/models/unload", br#"{"model":"builtin"}"#).0, 200);
    assert_eq!(status_of("builtin").as_deref(), Some("unloaded"));

    let prompt = engine
        .post("/apply-template", br#"{"model":"builtin","messages":[{"role":"user","content":"hi"}]}"#)
        .1;
    assert_eq!(
        prompt["prompt"],
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    );
    let counted = br#"{"model":"builtin","messages":[{"role":"user","content":"hi"}]}"#;
    let (status, count) = engine.post("/v1/chat/completions/input_tokens", counted);
    assert_eq!((status, count["object"].as_str()), (200, Some("response.input_tokens")));
    assert!(count["input_tokens"].as_u64().unwrap() > 10, "{count}");
    assert_eq!(engine.post("/models/unload", br#"{"model":"builtin"}"#).0, 200);
    let (status, refusal) = engine.post("/v1/chat/completions/input_tokens", counted);
    assert_eq!(
        (status, refusal["error"]["type"].as_str()),
        (503, Some("unavailable_error")),
        "nothing is loaded"
    );
    assert_eq!(status_of("builtin").as_deref(), Some("unloaded"));
    let tokens = engine.post("/tokenize", br#"{"model":"builtin","content":"Hello world"}"#).1;
    assert!(tokens["tokens"].as_array().unwrap().len() >= 2, "{tokens}");
}

#[test]
fn events_tell_of_every_change() {
    let engine = Engine::start();
    let mut events = engine.events();
    let first = events.next().unwrap();
    assert_eq!(
        (&first["event"], &first["data"][0]["status"]["value"]),
        (&json!("models"), &json!("unloaded"))
    );
    assert_eq!(engine.post("/models/load", br#"{"model":"builtin"}"#).0, 200);
    let loaded = events.find(|e| e["event"] == "model_status" && e["data"]["status"] == "loaded");
    assert_eq!(loaded.unwrap()["model"], "builtin");
}

#[test]
fn its_death_is_recorded_with_what_it_was_doing() {
    let engine = Engine::start();
    let mut stream = engine
        .stream(&json!({"model": "builtin", "temperature": 0, "stream": true, "ignore_eos": true,
        "max_tokens": 100_000, "messages": [{"role": "user", "content": "Count from 1 to 50"}]}));
    assert!(stream.any(|chunk| chunk["choices"][0]["delta"]["content"].is_string()));
    engine.kill_worker("ABRT");
    assert!(stream.by_ref().last().is_none_or(|chunk| chunk["choices"][0]["finish_reason"].is_null()));
    assert!(!stream.is_done, "an answer cut off must not look whole");
    support::wait_until("the record is there", || engine.death().is_some());
    let death = engine.death().unwrap();
    assert_eq!((&death["signal"], &death["activity"]), (&json!(6), &json!("answering with builtin")));
    assert_eq!(death["residents"], json!(["builtin"]));
    assert!(death["message"].as_str().unwrap().contains("signal 6"));
    support::wait_until("the socket is gone", || !engine.socket().exists());
}

#[test]
fn it_leaves_when_nobody_is_there() {
    let mut engine = Engine::start_with("[engine]\nlinger = 0\n");
    assert_eq!(engine.get("/health")["status"], "ok");
    support::wait_until("it has ended", || engine.has_ended());
    assert!(engine.death().is_none());
}

#[test]
fn broken_files_are_refused_without_harm() {
    let engine = Engine::start();
    let good = std::fs::read(support::large()).unwrap();
    let dir = engine.dir();
    let cases: [(&str, Vec<u8>, &str); 4] = [
        ("empty.gguf", Vec::new(), "empty"),
        ("html.gguf", b"<!DOCTYPE html><html>".to_vec(), "HTML"),
        ("cut.gguf", good[..good.len() / 2].to_vec(), "incomplete"),
        ("header.gguf", good[..600].to_vec(), "byte"),
    ];
    for (name, bytes, word) in cases {
        let path = dir.join(name);
        std::fs::write(&path, bytes).unwrap();
        let body = json!({"model": path, "messages": [{"role": "user", "content": "x"}]});
        let (status, answer) = engine.post("/v1/chat/completions", body.to_string().as_bytes());
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(
            (400..600).contains(&status) && message.contains(word) && message.contains(name),
            "{name}: {status} {answer}"
        );
    }
    let body = json!({"model": dir, "messages": [{"role": "user", "content": "x"}]});
    assert_eq!(engine.post("/v1/chat/completions", body.to_string().as_bytes()).0 / 100, 4);
    assert_eq!(text(&ask(&engine, "builtin", None, &["Hello"])), "Hello! How can I help you today?");
}

#[test]
fn an_engine_nobody_can_find_ends_by_itself() {
    let mut engine = Engine::start();
    std::fs::remove_file(engine.socket()).unwrap();
    support::wait_until("it has ended", || engine.has_ended());
}

#[test]
fn a_grammar_too_deep_is_refused_before_it_harms() {
    let engine = Engine::start();
    let grammar = format!("root ::= {}\"a\"{}", "(".repeat(20_000), ")".repeat(20_000));
    let body =
        json!({"model": "builtin", "grammar": grammar, "messages": [{"role": "user", "content": "x"}]});
    let (status, answer) = engine.post("/v1/chat/completions", body.to_string().as_bytes());
    assert_eq!(status, 400);
    assert!(answer["error"]["message"].as_str().unwrap().contains("grammar"), "{answer}");
    let harmless = json!({"model": "builtin", "temperature": 0, "grammar": "root ::= \"((((\" [(((] # ((((\n",
        "messages": [{"role": "user", "content": "x"}]});
    assert_eq!(text(&engine.chat(&harmless)), "(((((");
}

#[test]
fn a_model_that_kills_again_and_again_is_left_alone_until_asked_for() {
    let engine = Engine::start();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let deaths = format!("{now} builtin\n").repeat(3);
    std::fs::write(engine.dir().join("run/engine.deaths"), deaths).unwrap();
    let question = br#"{"model":"builtin","messages":[{"role":"user","content":"Hello"}]}"#;
    let (status, answer) = engine.post("/v1/chat/completions", question);
    assert!(status >= 400 && answer["error"]["message"].as_str().unwrap().contains("3 times"), "{answer}");
    assert!(engine.post("/models/load", br#"{"model":"builtin","restore":true}"#).0 >= 400);
    assert_eq!(engine.post("/models/load", br#"{"model":"builtin"}"#).0, 200);
    assert_eq!(engine.post("/v1/chat/completions", question).0, 200);
}

#[test]
fn stopping_waits_for_running_answers() {
    let mut engine = Engine::start();
    let mut stream = engine
        .stream(&json!({"model": "builtin", "temperature": 0, "stream": true, "ignore_eos": true,
        "max_tokens": 600, "messages": [{"role": "user", "content": "Count from 1 to 50"}]}));
    assert!(stream.any(|chunk| chunk["choices"][0]["delta"]["content"].is_string()));
    let stopped = support::command(engine.dir()).args(["engine", "stop"]).status().unwrap();
    assert!(stopped.success());
    assert!(stream.any(|chunk| chunk["choices"][0]["finish_reason"] == "length"));
    stream.by_ref().for_each(drop);
    assert!(stream.is_done, "the answer was finished");
    assert!(engine.has_ended(), "`engine stop` returns when it is gone");
    assert!(engine.death().is_none());
}

#[test]
fn an_engine_that_hangs_can_be_stopped() {
    let mut engine = Engine::start();
    engine.kill_worker("STOP");
    let stopped = support::command(engine.dir()).args(["engine", "stop"]).status().unwrap();
    assert!(stopped.success());
    assert!(engine.has_ended());
}

#[test]
fn requests_that_share_a_long_beginning_do_not_cut_each_other_short() {
    let engine = Engine::start();
    let shared = "planets and stars ".repeat(280);
    let produced = |n: usize| {
        let body = json!({"model": "builtin", "temperature": 0, "ignore_eos": true, "max_tokens": 200, "messages": [
            {"role": "system", "content": shared}, {"role": "user", "content": format!("question {n}")}]});
        let answer = engine.chat(&body);
        (
            answer["usage"]["prompt_tokens"].as_u64().unwrap(),
            answer["usage"]["completion_tokens"].as_u64().unwrap(),
        )
    };
    let (prompt, _) = produced(0);
    assert!(prompt > 1000, "{prompt}: the test wants three of them to be more than the context");
    let all = std::thread::scope(|scope| {
        let lanes: Vec<_> = (1..4).map(|n| scope.spawn(move || produced(n).1)).collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(all, [200, 200, 200]);
}

/// Names of the files of saved conversations.
fn saved(engine: &Engine) -> Vec<std::ffi::OsString> {
    let folder = engine.dir().join("cache/kv");
    let files = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().file_name());
    files.filter(|name| name.to_str().is_some_and(|name| name.ends_with(".kv"))).collect()
}

#[test]
fn a_session_is_warm_after_the_engine_was_killed_and_gone_when_forgotten() {
    let mut engine = Engine::start();
    let ask = |engine: &Engine, session: Option<&str>, turns: &[&str]| {
        let messages: Vec<Value> = turns
            .iter()
            .enumerate()
            .map(|(i, text)| json!({"role": if i % 2 == 0 { "user" } else { "assistant" }, "content": text}))
            .collect();
        let mut body = json!({"model": "builtin", "temperature": 0, "messages": messages});
        if let Some(session) = session {
            body["duet_session"] = session.into();
        }
        engine.chat(&body)
    };
    // A private conversation in another slot, which must not be written.
    ask(&engine, None, &["List the planets"]);
    let first = ask(&engine, Some("mine"), &["Count from 1 to 50"]);
    let counted = text(&first).to_owned();
    let evaluated: u64 =
        ["cache_n", "prompt_n", "predicted_n"].iter().map(|n| first["timings"][n].as_u64().unwrap()).sum();
    let evaluated = evaluated - 1;
    support::wait_until("the conversation is on disk", || saved(&engine).len() == 1);
    engine.kill_worker("KILL");
    engine.start_again();
    let second = ask(&engine, Some("mine"), &["Count from 1 to 50", &counted, "Thank you"]);
    assert_eq!(text(&second), "You are welcome!");
    assert_eq!(second["timings"]["cache_n"], evaluated, "{}", second["timings"]);
    assert_eq!(second["timings"]["cache_from"], "disk");
    // In order it is written at once.
    let stopped = support::command(engine.dir()).args(["engine", "stop"]).status().unwrap();
    assert!(stopped.success());
    assert_eq!(saved(&engine).len(), 1, "the conversation took the place of its beginning");
    engine.start_again();
    let turns = ["Count from 1 to 50", &counted, "Thank you", "You are welcome!", "Hello"];
    let third = ask(&engine, Some("mine"), &turns);
    assert!(third["timings"]["cache_n"].as_u64().unwrap() > evaluated, "{}", third["timings"]);
    let (status, answer) = engine.post("/engine/forget", br#"{"session":"mine"}"#);
    assert_eq!((status, answer["forgotten"].as_u64().unwrap() >= 2), (200, true), "slot and disk: {answer}");
    assert_eq!(saved(&engine), [""; 0]);
    assert_eq!(ask(&engine, None, &turns)["timings"]["cache_n"], 0);
    assert_eq!(engine.post("/engine/forget", br#"{"session":"mine"}"#).1["forgotten"], 0);
    assert_eq!(engine.post("/engine/forget", b"{}").0, 400);
}

#[test]
fn guessing_is_counted_and_can_be_switched_off() {
    let body = |extra: Value| {
        let turns = ["Count from 1 to 50", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "Count from 1 to 50"];
        let messages: Vec<Value> = turns
            .iter()
            .enumerate()
            .map(|(i, text)| json!({"role": if i % 2 == 0 { "user" } else { "assistant" }, "content": text}))
            .collect();
        let mut body = json!({"model": "builtin", "temperature": 0, "ignore_eos": true, "max_tokens": 400,
            "cache_prompt": false, "messages": messages});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let engine = Engine::start();
    let guessed = engine.chat(&body(json!({})));
    let plain = engine.chat(&body(json!({"draft": false})));
    assert_eq!(text(&guessed), text(&plain));
    assert_eq!(guessed["usage"], plain["usage"]);
    let count = |name: &str| guessed["timings"][name].as_u64().unwrap_or_default();
    assert!(count("draft_n") > 0 && count("draft_n_accepted") <= count("draft_n"), "{guessed}");
    assert!(plain["timings"].get("draft_n").is_none(), "{plain}");
    let off = Engine::start_with("[engine]\ndraft = \"off\"\ncache_memory = 0\ncache_disk = 0\n");
    let answer = off.chat(&body(json!({"duet_session": "s", "cache_prompt": true})));
    assert!(answer["timings"].get("draft_n").is_none(), "{answer}");
    assert_eq!(off.post("/models/unload", br#"{"model":"builtin"}"#).0, 200);
    assert_eq!(off.get("/engine/status")["cache"], json!({"memory_bytes": 0, "disk_bytes": 0}));
}

#[test]
fn models_that_remember_in_other_ways_reuse_what_they_can() {
    let engine = Engine::start();
    for (name, before_end) in [("hybrid", 16), ("windowed", 1)] {
        let model = format!("{}/tests/models/{name}.gguf", env!("CARGO_MANIFEST_DIR"));
        let ask = |more: Value| {
            let long = "the cat sat on the mat and looked at the moon. ".repeat(30);
            let mut body = json!({"model": model, "temperature": 0, "max_tokens": 20, "ignore_eos": true,
                "messages": [{"role": "user", "content": long}]});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            engine.chat(&body)
        };
        let first = ask(json!({}));
        let again = ask(json!({}));
        assert_eq!(again["choices"], first["choices"], "{name}");
        let prompt = first["usage"]["prompt_tokens"].as_u64().unwrap();
        assert_eq!(again["timings"]["cache_n"], prompt - before_end, "{name}: {}", again["timings"]);
        assert_eq!(again["timings"]["cache_lost"], Value::Null);
        let anew = ask(json!({"cache_prompt": false}));
        assert_eq!((&anew["timings"]["cache_n"], &anew["choices"]), (&json!(0), &first["choices"]), "{name}");
    }
}

#[test]
fn a_stream_with_an_id_survives_its_connection_here_too() {
    use std::io::{Read, Write};
    let engine = Engine::start();
    let send = |head: &str, body: &str| {
        let mut stream = std::os::unix::net::UnixStream::connect(engine.socket()).unwrap();
        let length = body.len();
        let head = format!(
            "{head} HTTP/1.0\r\nhost: duet\r\nx-conversation-id: turn\r\n\
            content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let body = json!({"model": "builtin", "temperature": 0, "stream": true,
        "messages": [{"role": "user", "content": "Count from 1 to 50"}]});
    let mut cut = send("POST /v1/chat/completions", &body.to_string());
    cut.read_exact(&mut [0; 400]).unwrap();
    drop(cut);
    let mut whole = String::new();
    send("GET /v1/stream?conv_id=turn", "").read_to_string(&mut whole).unwrap();
    let events = whole.lines().filter_map(|line| line.strip_prefix("data: "));
    let chunks = events.filter_map(|event| serde_json::from_str::<Value>(event).ok());
    let text: String = chunks
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert!(text.starts_with('1') && text.trim_end().ends_with("50"), "{text}");
    assert!(whole.ends_with("data: [DONE]\n\n"), "{:?}", whole.lines().last());
    let mut stopped = String::new();
    send("DELETE /v1/stream?conv_id=turn", "").read_to_string(&mut stopped).unwrap();
    assert!(stopped.starts_with("HTTP/1.0 204"), "{stopped}");
    assert_eq!(engine.get("/v1/stream?conv_id=turn")["error"]["code"], 404);
}
