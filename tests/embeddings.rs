//! `/v1/embeddings` from outside, with two tiny models: one of BERT's kind, whose vectors were also computed by another
//! program, and one that looks back only and takes the last token.
#![cfg(feature = "local")]
#![expect(clippy::unwrap_used, reason = "a helper whose set-up fails has failed")]
#![allow(clippy::panic, dead_code, reason = "a helper that fails fails its test; the helpers are shared")]

#[path = "support/engine.rs"]
mod support;

use base64::Engine as _;
use serde_json::{Value, json};
use support::{Engine, wait_until};

fn model(name: &str) -> String {
    format!("{}/tests/models/{name}.gguf", env!("CARGO_MANIFEST_DIR"))
}

fn ask(engine: &Engine, body: &Value) -> Value {
    let (status, answer) = engine.post("/v1/embeddings", body.to_string().as_bytes());
    assert_eq!(status, 200, "{body}: {answer}");
    answer
}

fn vectors(answer: &Value) -> Vec<Vec<f64>> {
    let numbers =
        |item: &Value| item["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    answer["data"].as_array().unwrap().iter().map(numbers).collect()
}

fn refused(engine: &Engine, body: &Value) -> (u16, String, String) {
    let (status, answer) = engine.post("/v1/embeddings", body.to_string().as_bytes());
    let text = |name: &str| answer["error"][name].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    (status, text("type"), text("message"))
}

/// 1 for the same direction; the vectors have length 1.
fn alike(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn vectors_are_those_another_program_computed() {
    let engine = Engine::start();
    let known: Value = serde_json::from_str(include_str!("models/embeddings.json")).unwrap();
    let known = known.as_array().unwrap();
    let bert = model("embed-bert");
    let texts: Vec<&str> = known.iter().map(|one| one["text"].as_str().unwrap()).collect();
    let answer = ask(&engine, &json!({"model": bert, "input": texts}));
    for (got, one) in vectors(&answer).iter().zip(known) {
        let expected: Vec<f64> =
            one["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        let likeness = alike(got, &expected);
        assert!(likeness > 0.9999, "{}: {likeness}", one["text"]);
    }
    let tokens: usize = known.iter().map(|one| one["tokens"].as_array().unwrap().len()).sum();
    assert_eq!(answer["usage"], json!({"prompt_tokens": tokens, "total_tokens": tokens}));
    assert_eq!((&answer["object"], &answer["data"][2]["index"]), (&json!("list"), &json!(2)));
    // Tokenised by the client, and as base64: the same.
    let lists: Vec<&Value> = known.iter().map(|one| &one["tokens"]).collect();
    assert_eq!(vectors(&ask(&engine, &json!({"model": bert, "input": lists}))), vectors(&answer));
    let packed = ask(&engine, &json!({"model": bert, "input": texts, "encoding_format": "base64"}));
    for (item, vector) in packed["data"].as_array().unwrap().iter().zip(vectors(&answer)) {
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(item["embedding"].as_str().unwrap()).unwrap();
        let numbers: Vec<f32> =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(numbers, vector.iter().map(|x| *x as f32).collect::<Vec<_>>());
    }
}

#[test]
fn a_text_has_one_vector_whatever_else_is_asked_for() {
    let engine = Engine::start();
    for name in ["embed-bert", "embed-llama"] {
        let model = model(name);
        let texts: Vec<String> = (0..50).map(|n| format!("the cat sat on mat {n}")).collect();
        let all = vectors(&ask(&engine, &json!({"model": model, "input": texts})));
        assert_eq!(all.len(), 50);
        for (text, together) in texts.iter().zip(&all).step_by(7) {
            let alone = &vectors(&ask(&engine, &json!({"model": model, "input": text})))[0];
            assert!((alike(alone, alone) - 1.0).abs() < 1e-5, "{name}: its length is 1");
            assert!(alike(alone, together) > 0.99999, "{name}: {text}");
        }
        assert!(alike(&all[0], &all[1]) < 0.99999, "{name}: other texts have other vectors");
    }
    // Several clients at once, each with its own texts.
    std::thread::scope(|scope| {
        for client in 0..8 {
            let engine = &engine;
            scope.spawn(move || {
                let texts: Vec<String> = (0..20).map(|n| format!("dog {client} ran {n}")).collect();
                let body = json!({"model": model("embed-bert"), "input": texts});
                let first = vectors(&ask(engine, &body));
                for (a, b) in first.iter().zip(vectors(&ask(engine, &body))) {
                    assert!(alike(a, &b) > 0.99999);
                }
            });
        }
    });
}

#[test]
fn what_can_not_be_done_is_said() {
    let engine = Engine::start();
    let bert = model("embed-bert");
    let (status, kind, message) = refused(&engine, &json!({"model": "builtin", "input": "a"}));
    assert_eq!((status, kind.as_str()), (400, "model_error"));
    assert!(message.contains("`builtin` has no embeddings: it is made to chat with"), "{message}");
    let (status, _, message) = refused(&engine, &json!({"input": "a"}));
    assert_eq!(status, 400);
    assert!(message.contains("model is missing"), "{message}");
    let (status, kind, message) =
        refused(&engine, &json!({"model": bert, "input": ["a", "cat ".repeat(300)]}));
    assert_eq!((status, kind.as_str()), (400, "exceed_context_size_error"));
    assert!(message.contains("input[1] has 302 tokens") && message.contains("256"), "{message}");
    for (body, words) in [
        (json!({"model": bert, "input": ""}), "input is empty"),
        (json!({"model": bert, "input": [5, 1_000_000]}), "holds the token 1000000"),
        (json!({"model": bert, "input": "a", "dimensions": 8}), "vectors of"),
    ] {
        let (status, kind, message) = refused(&engine, &body);
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{message}");
        assert!(message.contains(words), "{message}");
    }
    // What the model has anyway may be asked for; and it answers still.
    assert_eq!(vectors(&ask(&engine, &json!({"model": bert, "input": "a", "dimensions": 32})))[0].len(), 32);
    // Without a name it is the one that is resident.
    assert_eq!(vectors(&ask(&engine, &json!({"input": "a"})))[0].len(), 32);
}

#[test]
fn an_embedding_model_is_listed_as_one_and_is_not_chatted_with() {
    let engine = Engine::start();
    let bert = model("embed-bert");
    let body = json!({"model": bert, "messages": [{"role": "user", "content": "Hello"}]}).to_string();
    for route in ["/v1/chat/completions", "/apply-template"] {
        let (status, answer) = engine.post(route, body.as_bytes());
        assert_eq!((status, &answer["error"]["type"]), (400, &json!("model_error")), "{route}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("not a chat model: it makes embeddings"), "{message}");
    }
    let listed = |engine: &Engine| -> Value {
        let list = engine.get("/v1/models");
        list["data"]
            .as_array()
            .unwrap()
            .iter()
            .find(|m| m["id"].as_str().unwrap().contains("embed-bert"))
            .unwrap()
            .clone()
    };
    let before = listed(&engine);
    assert_eq!(before["status"]["value"], "unloaded", "it was not loaded for nothing: {before}");
    assert_eq!(before["architecture"]["output_modalities"], json!(["embeddings"]));
    ask(&engine, &json!({"model": bert, "input": "hello"}));
    assert_eq!(listed(&engine)["status"]["value"], "loaded");
    let (status, answer) = engine.post("/v1/chat/completions", body.as_bytes());
    assert_eq!(status, 400, "{answer}");
    // It leaves as other models do.
    let unload = json!({"model": bert}).to_string();
    assert_eq!(engine.post("/models/unload", unload.as_bytes()).0, 200);
    wait_until("it is gone", || listed(&engine)["status"]["value"] == "unloaded");
}
