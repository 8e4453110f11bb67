//! `tui serve` from outside, over real sockets: who is let in, what is taken from whom, and how it ends.
#![cfg(feature = "local")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

#[path = "support/pty.rs"]
mod pty;
#[path = "support/serve.rs"]
mod support;

#[path = "serve/client.rs"]
mod client;
#[path = "serve/ends.rs"]
mod ends;
#[path = "serve/strangers.rs"]
mod strangers;
#[path = "serve/streams.rs"]
mod streams;
#[path = "serve/tls.rs"]
mod tls;
#[path = "serve/work.rs"]
mod work;
