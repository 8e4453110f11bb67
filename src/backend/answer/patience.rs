//! How long a backend may say nothing.

use crate::backend::dialect::ModelFacts;
use crate::chat::GenRequest;
use std::time::Duration;

/// Bytes a second a model is read from a slow disk with.
const SLOW_LOAD: f64 = 200e6;
/// Tokens a second a slow machine reads a prompt with.
const SLOW_PREFILL: f64 = 20.0;
/// Bytes of text in one token, or fewer.
const TOKEN: f64 = 3.0;
/// How much longer than guessed it may take.
const DOUBT: f64 = 3.0;
/// Whatever was guessed.
const LONGEST: Duration = Duration::from_secs(2 * 60 * 60);

/// How long a backend may say nothing at all. Any byte, also a comment, counts as life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backend) struct Patience {
    /// Before the first text: it may be loading a model, or reading a long prompt.
    pub(in crate::backend) first: Duration,
    /// Between two pieces of text.
    pub(in crate::backend) between: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { first: Duration::from_secs(300), between: Duration::from_secs(60) }
    }
}

impl Patience {
    /// For our own engine, which gives a sign of life every two seconds whatever it does.
    pub(in crate::backend) const fn with_engine() -> Self {
        Self { first: Duration::from_secs(20), between: Duration::from_secs(8) }
    }

    /// For this model and request: several servers are silent while they load and while they prefill, so the first
    /// byte may take three times what a slow machine would need for both. Never less than before.
    pub(in crate::backend) fn stretched(self, model: ModelFacts, request: &GenRequest) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a guess")]
        let (bytes, text) = (
            if model.is_resident { 0.0 } else { model.bytes.unwrap_or(0) as f64 },
            request.messages.iter().map(|message| message.content.len()).sum::<usize>() as f64,
        );
        let guess = bytes / SLOW_LOAD + text / TOKEN / SLOW_PREFILL;
        let first = Duration::try_from_secs_f64(DOUBT * guess + 10.0).unwrap_or(LONGEST).min(LONGEST);
        Self { first: self.first.max(first), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Role, Sampling};

    #[test]
    fn large_models_and_long_prompts_may_take_their_time() {
        let request = |bytes: usize| GenRequest {
            model: "a".to_owned(),
            messages: vec![Message::new(Role::User, "x".repeat(bytes))],
            sampling: Sampling::default(),
            max_tokens: None,
            stop: Vec::new(),
            schema: None,
            session: None,
            is_ahead: false,
        };
        let first = |bytes: Option<u64>, is_resident: bool, text: usize| {
            let facts = ModelFacts { bytes, is_resident };
            Patience::default().stretched(facts, &request(text)).first.as_secs()
        };
        assert_eq!(first(None, false, 100), 300, "nothing is known");
        assert_eq!(first(Some(40_000_000_000), true, 100), 300, "it is there already");
        assert_eq!(first(Some(40_000_000_000), false, 0), 610);
        assert!(first(None, true, 400_000) > 10_000 / 3, "a hundred thousand tokens");
        assert_eq!(first(Some(u64::MAX), false, 0), LONGEST.as_secs());
        assert_eq!(Patience::default().stretched(ModelFacts::default(), &request(1)).between.as_secs(), 60);
    }
}
