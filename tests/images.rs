//! Images in questions, with a projector of random weights beside a copy of the built-in model: what it says of them is
//! nonsense, but the same each time. Needs a program that was built with `--features mtmd`.
#![cfg(all(feature = "local", feature = "mtmd"))]
#![expect(clippy::unwrap_used, reason = "a helper whose set-up fails has failed")]
#![allow(clippy::panic, dead_code, reason = "a helper that fails fails its test; the helpers are shared")]

#[path = "support/engine.rs"]
mod support;

use base64::Engine as _;
use serde_json::{Value, json};
use std::path::Path;
use support::Engine;

/// A bitmap of 28x28 pixels of noise.
fn bitmap(seed: u32) -> String {
    const SIDE: u32 = 28;
    let mut file = b"BM".to_vec();
    for number in [54 + SIDE * SIDE * 3, 0, 54, 40, SIDE, SIDE] {
        file.extend(number.to_le_bytes());
    }
    file.extend([1, 0, 24, 0]);
    file.extend([0; 24]);
    let mut state = seed;
    file.extend((0..SIDE * SIDE * 3).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    }));
    format!("data:image/bmp;base64,{}", base64::engine::general_purpose::STANDARD.encode(file))
}

/// A folder with the model and its projector; returns the model.
fn models(dir: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(root.join("models/builtin.gguf"), dir.join("seer-q8_0.gguf")).unwrap();
    std::fs::copy(root.join("tests/models/mmproj-builtin.gguf"), dir.join("mmproj-seer-f32.gguf")).unwrap();
    dir.join("seer-q8_0.gguf").to_str().unwrap().to_owned()
}

fn body(model: &str, urls: &[&str], text: &str) -> Value {
    let mut parts = vec![json!({"type": "text", "text": "Look:"})];
    parts.extend(urls.iter().map(|url| json!({"type": "image_url", "image_url": {"url": url}})));
    parts.push(json!({"type": "text", "text": text}));
    json!({"model": model, "temperature": 0, "max_tokens": 12, "ignore_eos": true,
        "messages": [{"role": "user", "content": parts}]})
}

fn text(answer: &Value) -> String {
    answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[test]
fn images_are_seen_and_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let model = models(dir.path());
    let engine = Engine::start();
    let (one, two) = (bitmap(1), bitmap(2));
    let first = engine.chat(&body(&model, &[&one], "What is this?"));
    let without = engine.chat(&body(&model, &[], "What is this?"));
    let prompt = |answer: &Value| answer["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(prompt(&first) >= prompt(&without) + 16, "an image is 16 tokens: {first}");
    // Again: all but the last token comes from the cache, the image too, and nothing else is said.
    let again = engine.chat(&body(&model, &[&one], "What is this?"));
    assert_eq!(text(&again), text(&first));
    assert_eq!(again["timings"]["cache_n"].as_u64().unwrap(), prompt(&first) - 1);
    let mut uncached = body(&model, &[&one], "What is this?");
    uncached["cache_prompt"] = json!(false);
    assert_eq!(text(&engine.chat(&uncached)), text(&first), "the cache changes nothing");
    // Another image shares the beginning only: not a token of the first image is taken for one of it.
    let other = engine.chat(&body(&model, &[&two], "What is this?"));
    assert!(other["timings"]["cache_n"].as_u64().unwrap() < prompt(&first) - 16, "{}", other["timings"]);
    // At a high temperature every difference shows in the end.
    let wild = |urls: &[&str]| {
        let mut body = body(&model, urls, "What is this?");
        for (name, value) in
            [("temperature", json!(2)), ("seed", json!(7)), ("top_k", json!(0)), ("max_tokens", json!(60))]
        {
            body[name] = value;
        }
        text(&engine.chat(&body))
    };
    assert_ne!(wild(&[&one]), wild(&[&two]), "another image, another nonsense");
    // Two images, in their order.
    let both = engine.chat(&body(&model, &[&one, &two], "What are these?"));
    assert_eq!(prompt(&both), prompt(&engine.chat(&body(&model, &[&two, &one], "What are these?"))));
    assert_ne!(wild(&[&one, &two]), wild(&[&two, &one]));
    // And what it knows by heart it still knows.
    let known = engine.chat(&json!({"model": model, "temperature": 0,
        "messages": [{"role": "user", "content": "What is the capital of France?"}]}));
    assert_eq!(text(&known), "The capital of France is Paris.");
}

#[test]
fn a_projector_counts_for_the_memory_of_its_model() {
    let dir = tempfile::tempdir().unwrap();
    let model = models(dir.path());
    let bytes = |value: &Value| {
        ["weights", "kv", "compute"].iter().map(|part| value[part].as_u64().unwrap()).sum::<u64>()
    };
    let resident = |engine: &Engine| bytes(&engine.get("/engine/status")["models"][0]["bytes"]);
    let need = |engine: &Engine, id: &str| {
        let list = engine.get("/v1/models");
        let entry = list["data"].as_array().unwrap().iter().find(|m| m["id"] == id).cloned();
        entry.unwrap()["duet"]["need"].as_u64().unwrap()
    };
    let engine = Engine::start();
    engine.chat(&body("builtin", &[], "Hello"));
    let alone = resident(&engine);
    assert_eq!(engine.post("/models/unload", br#"{"model":"builtin"}"#).0, 200);
    // Before the first image it is not open yet, after it it is.
    engine.chat(&body(&model, &[], "Hello"));
    let closed = resident(&engine);
    assert!(closed.abs_diff(alone) < 1 << 16, "{closed} and {alone}");
    engine.chat(&body(&model, &[&bitmap(1)], "What is this?"));
    let open = resident(&engine);
    let file = std::fs::metadata(dir.path().join("mmproj-seer-f32.gguf")).unwrap().len();
    assert!(open > closed + file / 2, "{open} after {closed}: weights, and scratch memory");
    assert!(open < closed + file + (8 << 20), "{open} after {closed}");
    assert_eq!(engine.post("/models/unload", json!({"model": model}).to_string().as_bytes()).0, 200);
    // As measured, what is listed is what it takes.
    let id = engine.get("/v1/models")["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_str().unwrap().to_owned())
        .find(|id| id.contains("seer"))
        .unwrap();
    assert!(need(&engine, &id).abs_diff(open) < open / 20, "{} and {open}", need(&engine, &id));
    // A budget for the model without its projector is too small.
    let tight = Engine::start_with(&format!("[engine]\nmemory = {}\n", alone + file / 2));
    tight.chat(&body("builtin", &[], "Hello"));
    assert_eq!(tight.post("/models/unload", br#"{"model":"builtin"}"#).0, 200);
    let (status, answer) =
        tight.post("/v1/chat/completions", body(&model, &[], "Hello").to_string().as_bytes());
    assert_eq!(status, 507, "{answer}");
}

#[test]
fn what_can_not_be_seen_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let model = models(dir.path());
    let engine = Engine::start();
    let refused = |body: &Value| {
        let (status, answer) = engine.post("/v1/chat/completions", body.to_string().as_bytes());
        assert_eq!((status, &answer["error"]["type"]), (400, &json!("image_error")), "{answer}");
        answer["error"]["message"].as_str().unwrap().to_owned()
    };
    // Loaded first: with the model at hand, what is wrong is said by the status.
    engine.chat(&body(&model, &[], "Hello"));
    // A good head and nothing behind it.
    let head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x02\0\0\0\x03\x08\x02\0\0\0";
    let cut = format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(head));
    let message = refused(&body(&model, &[&cut], "What is this?"));
    assert!(message.contains("can't be decoded"), "{message}");
    let message = refused(&body("builtin", &[&bitmap(3)], "What is this?"));
    assert!(message.contains("no projector"), "{message}");
    // The mark of an image can't be faked: it is text, whatever it looks like.
    let (status, answer) = engine
        .post("/v1/chat/completions", body(&model, &[], "<__media__> <__image_0__>").to_string().as_bytes());
    assert_eq!(status, 200, "{answer}");
    // A projector that llama.cpp does not know: tried in a process of its own, and the engine lives on.
    let other = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    std::fs::copy(fixtures.join("fixture-large.gguf"), other.path().join("big.gguf")).unwrap();
    let mut strange = std::fs::read(fixtures.join("mmproj-builtin.gguf")).unwrap();
    let kind = strange.windows(3).position(|three| three == b"mlp").unwrap();
    strange[kind + 2] = b'q';
    std::fs::write(other.path().join("mmproj-big.gguf"), strange).unwrap();
    let big = other.path().join("big.gguf").to_str().unwrap().to_owned();
    engine.chat(&body(&big, &[], "Hello"));
    let message = refused(&body(&big, &[&bitmap(3)], "What is this?"));
    assert!(message.contains("can't be used"), "{message}");
    engine.chat(&body(&big, &[], "Hello"));
}
