//! Names of sessions, turns, lanes and attempts.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A saved conversation. Sorts by creation time; a unique prefix is enough to resume it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub String);

impl SessionId {
    /// Makes an id from the wall clock (seconds since the epoch) and 32 random bits.
    ///
    /// Looks like `6921f3a0-9c41d2e7`: hexadecimal, so that it sorts by time and survives any shell.
    #[must_use]
    pub fn new(unix_seconds: u64, random: u32) -> Self {
        Self(format!("{unix_seconds:08x}-{random:08x}"))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of a turn within its session, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TurnId(pub u32);

/// The number of a lane within its turn, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LaneId(pub u8);

/// Names one attempt at one lane; every event of a generation carries it, so late ones are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GenKey {
    /// The turn.
    pub turn: TurnId,
    /// The lane of the turn.
    pub lane: LaneId,
    /// The attempt at the lane, from 1.
    pub attempt: u32,
}
