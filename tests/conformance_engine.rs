//! The conformance suite of the fake server, run over the real engine.

#![cfg(all(unix, feature = "local"))]
#![allow(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

#[path = "support/suite.rs"]
mod suite;

use duet::backend::Backend;
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
    suite::suite(&backend, &prompts).await;
    assert!(backend.stop().await.expect("it ends"), "it ran");
}
