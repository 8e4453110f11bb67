//! Duet: a terminal chat client for local language models that uses two machines as one.
//!
//! # Layers
//!
//! Imports point downwards only; `tests/architecture.rs` reads the `use` lines and fails on an upward one.
//!
//! | layer | modules | what they may name |
//! |---|---|---|
//! | L6 | `main`, [`cli`] | everything |
//! | L5 | [`runtime`] | event loop, terminal, effect runner |
//! | L4 | [`ui`] | state to buffer: ratatui types only |
//! | L3 | [`app`] | model, messages, update: no tokio, no ratatui, no clock, no IO |
//! | L2 | [`backend`], [`engine`], [`store`] | the world; `engine` is imported by `cli` alone |
//! | L1 | [`router`], [`config`], [`keymap`], [`theme`], [`markdown`], [`prompts`], [`command`] | pure |
//! | L0 | [`chat`], [`text`], [`error`], [`paths`], [`logging`] | plain data, text functions, places |
//!
//! # Glossary
//!
//! One word per thing, in code and on the screen.
//!
//! - **backend**: something that answers: the engine of this machine, or a server elsewhere.
//! - **engine**: the process that loads models and runs llama.cpp (`tui engine`).
//! - **tunnel**: a connection through SSH to a backend that listens nowhere else. **Paired**: known by the **fingerprint** of its key.
//! - **model**: a file of weights with a tokenizer and a chat template; **resident** when loaded.
//! - **residency**: which models are resident together. A **pinned** one stays; an idle one may be sent away (**evicted**).
//!   **Budget**: what models may hold on a device. **Footprint**: what one holds on each. **Verdict**: whether it fits.
//! - **slot**: one sequence of a resident model's KV cache.
//! - **session**: a saved conversation. **Turn**: one user message and its answers.
//! - **lane**: one answer of a turn (a split turn has two). **Attempt**: one try at a lane.
//! - **target**: the backend and model the next turn goes to. **Decision**: what the router chose, and why.
//! - **prefill**: evaluating the prompt. **Decode**: producing tokens one by one.
//! - **time to first token**: from Enter to the first token of any kind.
//! - **context**: how many tokens a sequence may hold. **Quantisation**: how weights are packed.
//! - **receipt**: the one line of measurements under an answer.
//! - **block**: one top-level piece of Markdown. **Notice**: one line that tells the person something.
//! - **command**: a named action; keys, slash commands and menus all lead to one. **Effect**: what the app asks the runtime to do.

pub mod app;
pub mod backend;
pub mod chat;
pub mod cli;
pub mod command;
pub mod config;
#[cfg(feature = "local")]
pub mod engine;
pub mod error;
pub mod keymap;
pub mod logging;
pub mod markdown;
pub mod paths;
pub mod prompts;
pub mod router;
pub mod runtime;
pub mod store;
pub mod text;
pub mod theme;
pub mod ui;

/// The program's version, which the engine and its clients compare.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
