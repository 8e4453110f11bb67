//! One sequence of a resident model: what its KV cache holds and the job that runs in it.

use super::detok::TextStream;
use super::job::{Job, JobEvent, JobTimings, TokenId};
use super::sampler::Sampler;
use super::think::Piece;
use crate::chat::{Channel, Finish, GenErrorKind};
use std::time::{Duration, Instant};

/// Text is sent at most this often while tokens come quickly: every wake-up of the HTTP thread takes a
/// core from llama.cpp. The first token is never held.
const SEND_GAP: Duration = Duration::from_millis(30);

/// One sequence.
#[derive(Debug)]
pub struct Slot {
    /// Sequence id in the KV cache.
    pub seq: i32,
    /// Tokens whose keys and values are in the cache.
    pub tokens: Vec<TokenId>,
    /// Whether what is in the cache may be used again.
    pub is_kept: bool,
    /// The job in it.
    pub running: Option<Running>,
    /// Larger is later.
    pub last_used: u64,
}

/// A job that has a slot.
#[derive(Debug)]
pub struct Running {
    /// The job.
    pub job: Job,
    /// Prompt tokens from the cache.
    pub cached: usize,
    /// Chooses tokens.
    pub sampler: Sampler,
    /// The token to evaluate next; none while the prompt is being evaluated.
    pub next: Option<TokenId>,
    /// Where its logits are in the current batch.
    pub logits_at: Option<i32>,
    /// Prompt tokens in the current batch.
    pub in_batch: usize,
    /// When prefill began.
    pub started: Instant,
    /// When the prompt was evaluated.
    pub prefilled: Option<Instant>,
    /// Tokens produced.
    pub produced: u32,
    text: TextStream,
    /// Text that waits to be sent.
    held: Vec<Piece>,
    last_sent: Option<Instant>,
}

impl Running {
    /// A job that starts now with `cached` tokens of its prompt in the slot.
    #[must_use]
    pub fn new(job: Job, cached: usize, sampler: Sampler) -> Self {
        let text = TextStream::new(job.stop.clone(), job.think.clone());
        Self {
            cached,
            sampler,
            next: None,
            in_batch: 0,
            logits_at: None,
            started: Instant::now(),
            prefilled: None,
            produced: 0,
            text,
            held: Vec::new(),
            last_sent: None,
            job,
        }
    }

    /// Whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.job.events.is_closed()
    }

    /// Takes the bytes of a new token; `true` when a stop string was reached.
    pub fn take(&mut self, bytes: &[u8]) -> bool {
        let pieces = self.text.push(bytes);
        self.held.extend(pieces);
        let is_stopped = self.text.is_stopped();
        if is_stopped || self.last_sent.is_none_or(|at| at.elapsed() >= SEND_GAP) {
            self.send_held();
        }
        is_stopped
    }

    fn send_held(&mut self) {
        if self.held.is_empty() {
            return;
        }
        self.last_sent = Some(Instant::now());
        // Neighbours on the same channel go together.
        let mut pieces: Vec<(Channel, String)> = Vec::new();
        for Piece { channel, text } in self.held.drain(..) {
            match pieces.last_mut() {
                Some((last, joined)) if *last == channel => joined.push_str(&text),
                _ => pieces.push((channel, text)),
            }
        }
        for (channel, text) in pieces {
            let timings = self.timings();
            let _ = self.job.events.send(JobEvent::Text { channel, text, timings });
        }
    }

    /// Tells how far the prompt is.
    pub fn send_progress(&self, done: usize) {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let _ = self.job.events.send(JobEvent::Prefill {
            done: count(done),
            total: count(self.job.prompt.len()),
            cached: count(self.cached),
            ms: self.started.elapsed().as_secs_f64() * 1000.0,
        });
    }

    /// Ends the job well: what was held back is sent, then the measurements.
    pub fn finish(mut self, finish: Finish) {
        let rest = self.text.finish();
        self.held.extend(rest);
        self.send_held();
        let timings = self.timings();
        let _ = self.job.events.send(JobEvent::Done { finish, timings });
    }

    /// Ends the job badly; text held back is sent first.
    pub fn fail(mut self, kind: GenErrorKind, message: impl Into<String>) {
        self.send_held();
        let _ = self.job.events.send(JobEvent::Failed { kind, message: message.into() });
    }

    /// What was measured so far.
    #[must_use]
    pub fn timings(&self) -> JobTimings {
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        let prefilled = self.prefilled.unwrap_or_else(Instant::now);
        let evaluated = self.job.prompt.len().saturating_sub(self.cached);
        JobTimings {
            queue_ms: ms(self.started.duration_since(self.job.arrived)),
            cache_n: u32::try_from(self.cached).unwrap_or(u32::MAX),
            prompt_n: u32::try_from(evaluated).unwrap_or(u32::MAX),
            prompt_ms: ms(prefilled.duration_since(self.started)),
            predicted_n: self.produced,
            predicted_ms: ms(prefilled.elapsed()),
        }
    }
}
