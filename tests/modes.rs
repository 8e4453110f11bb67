//! What an engine says of images and of a pool of machines that it can't have.
#![cfg(feature = "local")]
#![allow(clippy::panic, dead_code, reason = "a helper that fails fails its test; the helpers are shared")]

#[path = "support/engine.rs"]
mod support;

use serde_json::{Value, json};
use support::{Engine, command, large};

/// One red pixel.
const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";

fn with_image(url: &str) -> Value {
    json!({"model": "builtin", "messages": [{"role": "user", "content": [
        {"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}},
    ]}]})
}

#[test]
fn images_are_refused_with_the_reason() {
    let engine = Engine::start();
    let wrong = "invalid_request_error";
    let without = if cfg!(feature = "mtmd") { "no projector" } else { "--features mtmd" };
    for (url, kind, words) in [
        (format!("data:image/png;base64,{PIXEL}"), "image_error", without),
        ("http://example.org/cat.png".to_owned(), wrong, "fetches nothing from elsewhere"),
        ("data:image/png;base64,PGh0bWw+".to_owned(), wrong, "is no image"),
        (format!("data:image/png;base64,{}", PIXEL.get(..24).unwrap()), wrong, "cut off"),
    ] {
        let (status, answer) = engine.post("/v1/chat/completions", with_image(&url).to_string().as_bytes());
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert_eq!((status, &answer["error"]["type"]), (400, &json!(kind)), "{answer}");
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(
        engine.get("/v1/models")["data"][0]["status"]["value"],
        "unloaded",
        "nothing was loaded for that"
    );
}

#[test]
fn a_pool_nobody_answers_for_keeps_the_others() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!("[engine]\n[pool]\nmodel = \"{}\"\nservers = [\"127.0.0.1:{port}\"]\n", large());
    let engine = Engine::start_with(&config);
    let ask = |model: &str| {
        let body =
            json!({"model": model, "temperature": 0, "messages": [{"role": "user", "content": "Hello"}]});
        engine.post("/v1/chat/completions", body.to_string().as_bytes())
    };
    let (status, answer) = ask(&large());
    assert_eq!(status, 500, "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    // A build with the backend has tried; one without says how to have it.
    assert!(message.contains("nothing of the pool answers") || message.contains("GGML_RPC=ON"), "{message}");
    assert_eq!(ask("builtin").0, 200, "models that are not in the pool stay as they are");
}

#[test]
fn memory_is_lent_to_this_machine_only() {
    let dir = tempfile::tempdir().unwrap();
    for address in ["0.0.0.0:50052", "192.168.1.5:50052", "mac.local:50052", "127.0.0.1"] {
        let output = command(dir.path()).args(["engine", "lend", "--listen", address]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("no address of this machine") && said.contains("ssh -N -L"), "{said}");
    }
    std::fs::create_dir(dir.path().join("config")).unwrap();
    let text = "[pool]\nmodel = \"m\"\nservers = [\"10.0.0.2:50052\"]\n";
    std::fs::write(dir.path().join("config/config.toml"), text).unwrap();
    let output = command(dir.path()).args(["config", "check"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("`pool.servers`") && said.contains("10.0.0.2:50052"), "{said}");
}
