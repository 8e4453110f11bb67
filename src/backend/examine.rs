//! Looking at a backend step by step, as `tui backends test` and the doctor show it: how far one comes, and what
//! stops one. Generates nothing and loads nothing.

use super::Backend;
use super::meter::Network;
use crate::chat::{GenError, GenErrorKind};
use crate::config::BackendKind;
use std::time::Instant;

/// Models that are named in a line.
const NAMED: usize = 3;

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What was looked at, one word.
    pub name: &'static str,
    /// What is well, in words; else what is not, with the next step.
    pub outcome: Result<String, GenError>,
}

/// How far one comes with a backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Examination {
    /// The steps in order; the last one has failed, or none has.
    pub steps: Vec<Step>,
    /// Ids of its models; none when it did not come to that.
    pub models: Option<Vec<String>>,
    /// What it is.
    pub kind: Option<BackendKind>,
    /// The network to it.
    pub network: Option<Network>,
}

impl Examination {
    /// What stopped it.
    #[must_use]
    pub fn error(&self) -> Option<&GenError> {
        self.steps.iter().find_map(|step| step.outcome.as_ref().err())
    }

    fn ok(&mut self, name: &'static str, text: impl Into<String>) {
        self.steps.push(Step { name, outcome: Ok(text.into()) });
    }

    fn failed(&mut self, name: &'static str, error: GenError) {
        self.steps.push(Step { name, outcome: Err(error) });
    }
}

impl Backend {
    /// Looks at a server elsewhere, and measures this many round trips. The engine of this machine is not started:
    /// when it does not run, nothing is wrong and there are no models.
    pub async fn examine(&self, round_trips: u32) -> Examination {
        let mut seen = Examination::default();
        if self.is_engine() {
            self.examine_engine(&mut seen).await;
        } else if self.reach(&mut seen).await && self.ask(&mut seen).await {
            self.measure_times(&mut seen, round_trips).await;
        }
        seen.kind = self.kind();
        seen.network = self.network();
        seen
    }

    async fn examine_engine(&self, seen: &mut Examination) {
        match self.status().await {
            Ok(None) => seen.ok("engine", "none runs; the next question starts it"),
            Ok(Some(status)) => {
                let version = status["version"].as_str().unwrap_or("unknown");
                seen.ok("engine", format!("version {version} runs"));
                self.ask(seen).await;
            }
            Err(error) => seen.failed("engine", error),
        }
    }

    /// The way to it, as far as nothing is asked.
    async fn reach(&self, seen: &mut Examination) -> bool {
        let http = &self.inner.http;
        if let Err(error) = http.check_key() {
            seen.failed("key", error);
            return false;
        }
        if let Some(tunnel) = http.tunnel_of() {
            let began = Instant::now();
            if let Err(error) = tunnel.ready().await {
                seen.failed("ssh", error);
                return false;
            }
            let there = tunnel.version().map(|version| format!(", tui {version} there")).unwrap_or_default();
            seen.ok("ssh", format!("{} open in {} ms{there}", tunnel.host(), began.elapsed().as_millis()));
            return true;
        }
        match http.addresses().await {
            Ok(all) => {
                let all: Vec<String> = all.iter().map(|address| address.ip().to_string()).collect();
                if !all.is_empty() && !all.iter().any(|ip| self.place().contains(ip.as_str())) {
                    seen.ok("name", all.join(", "));
                }
            }
            Err(error) => {
                seen.failed("name", error.error);
                return false;
            }
        }
        // Why there is none is told by what is asked next.
        if let Some(ms) = self.measure().await {
            seen.ok("connect", format!("{} in {ms:.1} ms", self.place()));
        }
        true
    }

    /// What it answers.
    async fn ask(&self, seen: &mut Examination) -> bool {
        let http = &self.inner.http;
        let answer = self.listing().await;
        let kind = answer.as_ref().err().map(|error| error.kind);
        if let Some(trust) = http.trust() {
            match (&answer, kind) {
                (Err(error), Some(GenErrorKind::Untrusted)) => seen.failed("tls", error.clone()),
                (_, Some(GenErrorKind::Unreachable)) => {}
                _ => seen.ok("tls", trust),
            }
        }
        match answer {
            Err(_) if kind == Some(GenErrorKind::Untrusted) => false,
            Err(error) if kind == Some(GenErrorKind::Auth) => {
                seen.failed("key", error);
                false
            }
            Err(error) if kind == Some(GenErrorKind::Unreachable) => {
                seen.failed("connect", error);
                false
            }
            Err(error) => {
                seen.failed("models", error);
                false
            }
            Ok(listing) => {
                if let Some(source) = http.key_source() {
                    seen.ok("key", format!("taken, from {source}"));
                }
                if let Some(kind) = self.kind().filter(|_| !self.is_engine()) {
                    seen.ok("server", kind.words());
                }
                let ids: Vec<String> = listing.cards.into_iter().map(|card| card.id).collect();
                let named = ids.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
                let more = if ids.len() > NAMED { ", …" } else { "" };
                seen.ok(
                    "models",
                    match ids.len() {
                        0 => "none".to_owned(),
                        count => format!("{count}: {named}{more}"),
                    },
                );
                seen.models = Some(ids);
                true
            }
        }
    }

    async fn measure_times(&self, seen: &mut Examination, count: u32) {
        for _ in 0..count {
            self.measure().await;
        }
        if let Some(net) = self.network() {
            let stalls = if net.stalls > 0 { format!(", {} stalls", net.stalls) } else { String::new() };
            seen.ok(
                "network",
                format!("{:.1} ms there and back, ±{:.1} ms{stalls}", net.rtt_ms, net.jitter_ms),
            );
        }
    }
}
