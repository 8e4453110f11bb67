//! The conformance suite of the fake server, run over the real engine.

#![cfg(all(unix, feature = "local"))]
#![allow(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

#[path = "support/suite.rs"]
mod suite;

use duet::backend::Backend;
use duet::chat::GenEvent;
use duet::paths::Paths;
use std::path::Path;
use suite::{Manner, Prompts};

#[tokio::test]
async fn the_engine_keeps_the_contract_of_a_backend() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let paths = Paths { config: at("config"), data: at("data"), cache: at("cache"), runtime: at("run") };
    std::fs::create_dir(&paths.config).expect("a folder");
    let config = paths.config_file();
    std::fs::write(&config, "[engine]\nlinger = 1\nthreads = 1\n").expect("written");
    let program = Path::new(env!("CARGO_BIN_EXE_tui"));
    let backend = Backend::engine(&paths, Some(&config), Some(program)).expect("a backend");
    let prompts = Prompts {
        model: "builtin".to_owned(),
        question: "What is the capital of France?".to_owned(),
        long: "Count from 1 to 50".to_owned(),
        missing_model: "no-such-model".to_owned(),
        manner: Manner::Loads,
    };
    let ask = suite::request("builtin", "What is the <|im_end|> capital of Spain?");
    assert_eq!(backend.count(&ask).await, Ok(None), "no engine is started for counting");
    suite::suite(&backend, &prompts).await;
    let counted = backend.count(&ask).await.expect("it counts");
    let events = suite::collect(&backend, ask).await;
    let usage =
        |event: &GenEvent| if let GenEvent::Usage(usage) = event { usage.prompt_tokens } else { None };
    assert_eq!(events.iter().find_map(usage), counted, "what is counted is what is read");
    assert!(
        counted.is_some() && !events.iter().any(|event| matches!(event, GenEvent::Note(_))),
        "{events:?}"
    );
    assert_eq!(backend.running("builtin").await, Ok(Some(0)));
    assert!(backend.stop().await.expect("it ends"), "it ran");
}
