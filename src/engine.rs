//! The engine: the process that loads models and runs llama.cpp.

pub mod builtin;
pub mod catalogue;
pub mod gguf;
pub mod memory;
pub mod template;
pub mod think;
