//! Counters and clocks of one attempt. Two clocks are kept and never mixed: the client's and the server's.
//! What nobody reported is absent, not zero.

use serde::{Deserialize, Serialize};

/// Token counts, as the server reports them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub prompt_tokens: Option<u32>,
    /// Tokens of the prompt that came from the KV cache.
    pub cached_tokens: Option<u32>,
    /// Tokens produced.
    pub output_tokens: Option<u32>,
}

/// What the server's clock says, in milliseconds (llama-server's `timings`, plus ours).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerTimings {
    /// Waiting for a slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<f64>,
    /// Loading the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_ms: Option<f64>,
    /// Prompt tokens taken from the KV cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_n: Option<u32>,
    /// Prompt tokens evaluated now (the cached ones are not in it).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_n: Option<u32>,
    /// Time for those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_ms: Option<f64>,
    /// Tokens produced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted_n: Option<u32>,
    /// Time for those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted_ms: Option<f64>,
}

/// Everything measured about one attempt. Client times are milliseconds since Enter, on a monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// The request left.
    pub sent_ms: Option<f64>,
    /// The server's headers arrived.
    pub headers_ms: Option<f64>,
    /// The first token of any kind arrived.
    pub first_token_ms: Option<f64>,
    /// The first token of the answer proper arrived.
    pub first_answer_ms: Option<f64>,
    /// The last token arrived.
    pub last_token_ms: Option<f64>,
    /// The first frame with answer text was handed to the terminal.
    pub painted_ms: Option<f64>,
    /// The end.
    pub total_ms: Option<f64>,
    /// Token counts.
    pub usage: Usage,
    /// The server's clock.
    pub server: Option<ServerTimings>,
}

impl Metrics {
    /// Decode speed in tokens per second: the server's own where it reports one, else
    /// (n - 1) / (last - first) of the client's clock with the server's token count.
    #[must_use]
    pub fn decode_tokens_per_s(&self) -> Option<f64> {
        let server = self.server.unwrap_or_default();
        if let (Some(n), Some(ms)) = (server.predicted_n, server.predicted_ms)
            && n > 1
            && ms > 0.0
        {
            return Some(f64::from(n) / ms * 1000.0);
        }
        let n = self.usage.output_tokens?;
        let span = self.last_token_ms? - self.first_token_ms?;
        (n > 1 && span > 0.0).then(|| f64::from(n - 1) / span * 1000.0)
    }

    /// Prefill speed in tokens per second, from the server's clock; absent under 2 new tokens.
    #[must_use]
    pub fn prefill_tokens_per_s(&self) -> Option<f64> {
        let server = self.server?;
        let (n, ms) = (server.prompt_n?, server.prompt_ms?);
        (n > 1 && ms > 0.0).then(|| f64::from(n) / ms * 1000.0)
    }

    /// Time between sending and the server's headers: network and connection.
    #[must_use]
    pub fn network_ms(&self) -> Option<f64> {
        Some((self.headers_ms? - self.sent_ms?).max(0.0))
    }
}
