//! The engine: the process that loads models and runs llama.cpp.

pub mod builtin;
pub mod catalogue;
pub mod count;
pub mod detok;
pub mod gguf;
pub mod memory;
pub mod request;
pub mod stop;
pub mod template;
pub mod think;
