//! Which dialect a server speaks: how that is found out, and what is remembered of it.

mod known;
mod ladder;

pub(super) use known::{Known, ModelFacts};
pub(super) use ladder::is_loading;

use crate::config::BackendKind;

/// What a server has shown to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its kind.
    pub kind: BackendKind,
    /// Its version, where it says.
    pub version: Option<String>,
    /// Whether it can answer now.
    pub readiness: Readiness,
    /// Whether it is a llama-server that loads models as they are asked for.
    pub is_router: bool,
}

/// Whether a server that is there can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It is up and still loads its model.
    Loading,
    /// It has sent its model away; the next question loads it again.
    Asleep,
}

impl Identity {
    /// A server of this kind that is ready.
    pub(super) const fn of(kind: BackendKind) -> Self {
        Self { kind, version: None, readiness: Readiness::Ready, is_router: false }
    }
}
