//! What is known of a model before it answers.

use serde::{Deserialize, Serialize};

/// One model of one backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// What to send as `model`.
    pub id: String,
    /// Whether it is loaded.
    pub state: ModelState,
    /// Number of weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<u64>,
    /// Size of the file in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Quantisation, as `q4_k_m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantisation: Option<String>,
    /// Context in force when resident, else the one it was trained with; in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<u32>,
    /// Weights that take part in one token, of a mixture of experts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_parameters: Option<u64>,
    /// Bytes of KV cache for each token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_bytes_per_token: Option<u64>,
    /// The foreign host its server passes prompts on to: then it isn't local at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosted_by: Option<String>,
    /// Whether it is the model inside the binary.
    #[serde(default)]
    pub is_builtin: bool,
}

/// Where a model is in its life.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "value")]
pub enum ModelState {
    /// On disk only.
    Unloaded,
    /// On its way.
    Loading {
        /// 0 to 1.
        fraction: f32,
    },
    /// Resident.
    Loaded,
    /// The last load failed, for this reason.
    Failed {
        /// One line.
        reason: String,
    },
    /// The server doesn't say.
    #[default]
    Unknown,
}
