//! What the engine's supervisor wrote down when the engine died.

use super::Engine;
use serde::Deserialize;
use std::fs::File;
use std::io::Read as _;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// For the report of a death to be written.
const REPORT: Duration = Duration::from_secs(5);
/// Bytes of such a report.
const MAX_REPORT: u64 = 256 * 1024;

/// How an engine died, as its supervisor wrote it down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(in crate::backend) struct Death {
    /// One or two lines for people.
    pub(in crate::backend) message: String,
    /// Ids of the models that were resident.
    pub(in crate::backend) residents: Vec<String>,
    /// When, milliseconds since the epoch.
    at_ms: u64,
}

impl Engine {
    /// The report of a death at or after this time; waits a little for it to be written.
    pub(in crate::backend) async fn death_since(&self, since_ms: u64) -> Option<Death> {
        let deadline = Instant::now() + REPORT;
        loop {
            if let Some(death) = self.last_death().filter(|death| death.at_ms >= since_ms) {
                return Some(death);
            }
            if Instant::now() >= deadline {
                return None;
            }
            sleep(Duration::from_millis(25)).await;
        }
    }

    fn last_death(&self) -> Option<Death> {
        let file = File::open(self.paths.runtime.join("engine.death.json")).ok()?;
        let mut death: Death = serde_json::from_reader(file.take(MAX_REPORT)).ok()?;
        if death.message.trim().is_empty() {
            death.message = "the engine ended and left no word\nsend the question again".to_owned();
        }
        Some(death)
    }
}
