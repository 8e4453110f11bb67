//! `[[backend]]`: servers elsewhere.

mod check;

use super::ByteSize;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A server elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendConfig {
    /// Its name, as in `--on NAME`.
    pub name: String,
    /// Where it is: `http://host:port`, `https://host:port`, `unix:///path/to.sock`, or `ssh://[user@]host[:port]` for
    /// an engine of ours that is started there. `/v1` at the end does no harm.
    pub url: String,
    /// Model to ask for when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What it is; found out by asking it where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<BackendKind>,
    /// Environment variable that holds its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
    /// File whose first line is its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Whether its key is in the system's keyring, put there by `tui backends add` or `pair`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub token_keyring: bool,
    /// SHA-256 of its TLS certificate's key, as `sha256:…`; `tui backends pair` puts it here. Only this one is accepted
    /// then; without it the system's certificate authorities decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Host to reach through SSH first: `url` is then an address as that host sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<String>,
    /// Memory models may hold there together, where the server does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// What the machine is, by a name of `tui estimate --machines`: speeds are guessed from it until they are measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<String>,
    /// Hardware address (`aa:bb:cc:dd:ee:ff`) that wakes it over the local network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake: Option<String>,
    /// Whether it makes noise: it is avoided under the policy `quiet` and in quiet hours.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub noisy: bool,
    /// Whether the way to it costs money by the byte: nothing is sent there before Enter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub metered: bool,
    /// Whether files behind the privacy fence may go there, because the machine is the person's own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
}

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendKind {
    /// An engine of ours: `tui serve`.
    Duet,
    /// llama.cpp's server, with one model or as a router.
    LlamaServer,
    /// Ollama, by its own protocol.
    Ollama,
    /// `mlx_lm.server`.
    Mlx,
    /// LM Studio.
    LmStudio,
    /// llama-swap.
    LlamaSwap,
    /// vLLM.
    Vllm,
    /// TensorRT-LLM's `trtllm-serve`.
    TensorrtLlm,
    /// Anything else with OpenAI's routes.
    Openai,
}

impl BackendKind {
    /// Its name, for people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Duet => "Duet",
            Self::LlamaServer => "llama-server",
            Self::Ollama => "Ollama",
            Self::Mlx => "mlx_lm.server",
            Self::LmStudio => "LM Studio",
            Self::LlamaSwap => "llama-swap",
            Self::Vllm => "vLLM",
            Self::TensorrtLlm => "TensorRT-LLM",
            Self::Openai => "OpenAI-compatible",
        }
    }
}
