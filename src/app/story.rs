//! What belongs to an attempt beside its decision and its text, and how both are kept.

use crate::router::Decision;
use serde::{Deserialize, Serialize};

/// What became of a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Story {
    /// The machine that should have answered, and failed before its first text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_from: Option<String>,
    /// The attempt of the same lane whose text this one goes on from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continues: Option<u32>,
    /// Why much of what was in the server's cache had to be read again, as far as it can be told from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_lost: Option<String>,
}

/// What a server was expected to have in its cache when an attempt was sent there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hope {
    /// Tokens of what was to be sent, as far as its cache has kept them before.
    pub tokens: u32,
    /// Tokens of what was to be sent that it was sent before.
    pub whole: u32,
    /// Why that is less than it was sent before.
    pub lost: Option<String>,
}

/// A decision and its story, as they are kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    decision: Decision,
    #[serde(flatten)]
    story: Story,
}

/// As it is kept with an attempt.
#[must_use]
pub fn to_json(decision: &Decision, story: &Story) -> String {
    let kept = Kept { decision: decision.clone(), story: story.clone() };
    serde_json::to_string(&kept).unwrap_or_default()
}

/// What was kept; none where an older version kept nothing.
#[must_use]
pub fn from_json(json: &str) -> Option<(Decision, Story)> {
    let kept: Kept = serde_json::from_str(json).ok()?;
    Some((kept.decision, kept.story))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::{Prediction, Rejected};
    use pretty_assertions::assert_eq;

    #[test]
    fn a_decision_comes_back_whole() {
        let prediction =
            Prediction { first_ms: 900.0, total_ms: 2400.5, is_guess: true, ..Prediction::default() };
        let decision = Decision {
            backend: "mac".to_owned(),
            model: "large".to_owned(),
            rule: "cost".to_owned(),
            reason: "sooner".to_owned(),
            rejected: vec![Rejected {
                backend: "local".to_owned(),
                model: Some("small".to_owned()),
                why: "does not fit".to_owned(),
                predicted: Some(prediction),
                ..Rejected::default()
            }],
            predicted: Some(prediction),
            alias: Some("deep".to_owned()),
            is_variant: true,
            ..Decision::default()
        };
        let story = Story {
            fallback_from: Some("cuda".to_owned()),
            continues: Some(2),
            cache_lost: Some("system prompt changed".to_owned()),
        };
        assert_eq!(from_json(&to_json(&decision, &story)), Some((decision.clone(), story)));
        let plain = to_json(&decision, &Story::default());
        assert!(!plain.contains("fallback"), "{plain}");
        assert_eq!(from_json(&plain), Some((decision, Story::default())));
        assert_eq!(from_json(""), None);
        assert_eq!(from_json("{\"rule\":"), None);
    }
}
