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

/// Where a reused beginning of a prompt came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CachePlace {
    /// The KV cache itself.
    Slot,
    /// A state kept in memory.
    Memory,
    /// A state kept on disk.
    Disk,
}

impl CachePlace {
    /// Its name in `timings`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Slot => "slot",
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }
}

/// Why a known beginning of a prompt had to be evaluated again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "&'static str")]
pub enum CacheLost {
    /// The model's state moves on with every token and can't be taken back.
    Recurrent,
    /// Layers with a sliding window no longer have what lies before it.
    Window,
    /// The model's memory did not do it, or another server did not say why in these words.
    Other,
}

impl CacheLost {
    /// The reason in a few words: that of `timings` and of the receipt.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Recurrent => "a recurrent state can't go back",
            Self::Window => "the sliding window has moved on",
            Self::Other => "the model can't go back",
        }
    }

    /// The reason these words give.
    #[must_use]
    pub fn of_words(words: &str) -> Self {
        [Self::Recurrent, Self::Window].into_iter().find(|why| why.words() == words).unwrap_or(Self::Other)
    }
}

impl From<String> for CacheLost {
    fn from(words: String) -> Self {
        Self::of_words(&words)
    }
}

impl From<CacheLost> for &'static str {
    fn from(why: CacheLost) -> Self {
        why.words()
    }
}

/// What the server's clock says, in milliseconds (llama-server's `timings`, plus ours).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerTimings {
    /// Waiting for a slot, and for other models at the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<f64>,
    /// Loading the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_ms: Option<f64>,
    /// Prompt tokens taken from the KV cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_n: Option<u32>,
    /// Where those came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_from: Option<CachePlace>,
    /// Why tokens that were known had to be evaluated again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_lost: Option<CacheLost>,
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
    /// Tokens guessed ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft_n: Option<u32>,
    /// How many of them were right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft_n_accepted: Option<u32>,
    /// Energy the machine took for the answer, in joules, where it has meters and nothing else was answered meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_j: Option<f64>,
}

/// New tokens of a prompt from which a prefill has a speed.
const MIN_PREFILL: u32 = 64;

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

    /// Prefill speed in tokens per second, from the server's clock; absent under 64 new tokens, which say more of the
    /// way than of the speed.
    #[must_use]
    pub fn prefill_tokens_per_s(&self) -> Option<f64> {
        let server = self.server?;
        let (n, ms) = (server.prompt_n?, server.prompt_ms?);
        (n >= MIN_PREFILL && ms > 0.0).then(|| f64::from(n) / ms * 1000.0)
    }

    /// Time between sending and the server's headers: network and connection.
    #[must_use]
    pub fn network_ms(&self) -> Option<f64> {
        Some((self.headers_ms? - self.sent_ms?).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_new_tokens_have_no_speed() {
        let speed = |prompt_n, prompt_ms| {
            let server = Some(ServerTimings { prompt_n, prompt_ms, ..ServerTimings::default() });
            Metrics { server, ..Metrics::default() }.prefill_tokens_per_s()
        };
        assert_eq!(speed(Some(63), Some(1.0)), None);
        assert_eq!(speed(Some(64), Some(32.0)), Some(2000.0));
        assert_eq!(
            (speed(None, Some(32.0)), speed(Some(640), None), speed(Some(640), Some(0.0))),
            (None, None, None)
        );
    }
}
