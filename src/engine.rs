//! The engine: the process that loads models and answers over HTTP. Imported by `cli` alone.
//!
//! One small tokio runtime serves HTTP ([`http`]); one OS thread per resident model owns its model and
//! context ([`model_thread`]) and takes plain data over channels. [`host`] knows which models are
//! resident and loads them. The process runs under a [`supervisor`] that keeps its last words, because
//! ggml answers some failures with `abort()`.
//!
//! `llama_cpp_2` is named in this module only; its version is pinned exactly. What to look at when the
//! pin moves: [`llama`], [`model_thread`], [`sampler`].

pub mod activity;
#[cfg(feature = "portable")]
mod backends;
mod brake;
pub mod builtin;
pub mod cache;
pub mod catalogue;
pub mod checkpoint;
pub mod count;
pub mod detok;
pub mod draft;
pub mod embed_thread;
pub mod energy;
pub mod fair;
pub mod gate;
pub mod gguf;
pub mod host;
pub mod http;
pub mod inspect;
pub mod job;
pub mod llama;
pub mod memory;
pub mod model_thread;
pub mod pool;
pub mod prefix;
pub mod probe;
pub mod prompt;
pub mod request;
pub mod residency;
pub mod rewind;
pub mod sampler;
pub mod sandbox;
pub mod serve;
pub mod slot;
pub mod socket;
pub mod stats;
pub mod stop;
pub mod supervisor;
pub mod template;
pub mod think;
#[cfg(feature = "mtmd")]
pub mod vision;
pub mod worker;
