//! What a resident model has done so far: counters its thread writes and `/metrics` reads.

use super::job::{Embedded, JobTimings};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counters of one resident model, for `/metrics` and `/engine/status`.
#[derive(Debug, Default)]
pub struct Stats {
    busy: AtomicUsize,
    queued: AtomicUsize,
    cells: AtomicUsize,
    prompt_tokens: AtomicU64,
    output_tokens: AtomicU64,
    prompt_us: AtomicU64,
    output_us: AtomicU64,
    cancelled: AtomicU64,
    finished: AtomicU64,
    /// Speeds of the last answer, in thousandths of a token per second; 0 is unknown.
    last_prefill: AtomicU64,
    last_decode: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counters {
    /// Slots with a job.
    pub busy: usize,
    /// Jobs without a slot.
    pub queued: usize,
    /// Tokens in the KV cache.
    pub cells: usize,
    /// Prompt tokens evaluated.
    pub prompt_tokens: u64,
    /// Tokens produced.
    pub output_tokens: u64,
    /// Seconds of prefill.
    pub prompt_seconds: f64,
    /// Seconds of decode.
    pub output_seconds: f64,
    /// Jobs cancelled.
    pub cancelled: u64,
    /// Jobs ended.
    pub finished: u64,
    /// Prefill speed of the last answer with at least 64 new prompt tokens, tokens per second.
    pub prefill_rate: Option<f64>,
    /// Decode speed of the last answer of at least 8 tokens, tokens per second.
    pub decode_rate: Option<f64>,
}

impl Stats {
    /// Prompt tokens were evaluated.
    pub fn add_prompt(&self, tokens: usize) {
        self.prompt_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    /// A job was cancelled.
    pub fn add_cancelled(&self) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }

    /// A job ended with these measurements.
    pub fn add_finished(&self, timings: &JobTimings) {
        let us = |ms: f64| (ms * 1000.0) as u64;
        let rate = |n: u32, ms: f64| (f64::from(n) / ms.max(1e-3) * 1e6) as u64;
        self.finished.fetch_add(1, Ordering::Relaxed);
        self.output_tokens.fetch_add(u64::from(timings.predicted_n), Ordering::Relaxed);
        self.prompt_us.fetch_add(us(timings.prompt_ms), Ordering::Relaxed);
        self.output_us.fetch_add(us(timings.predicted_ms), Ordering::Relaxed);
        // Short runs measure noise.
        if timings.prompt_n >= 64 {
            self.last_prefill.store(rate(timings.prompt_n, timings.prompt_ms), Ordering::Relaxed);
        }
        if timings.predicted_n >= 8 {
            self.last_decode.store(rate(timings.predicted_n, timings.predicted_ms), Ordering::Relaxed);
        }
    }

    /// A request for embeddings ended; its tokens are counted as they are evaluated.
    pub fn add_embedded(&self, embedded: &Embedded) {
        self.finished.fetch_add(1, Ordering::Relaxed);
        self.prompt_us.fetch_add((embedded.ms * 1000.0) as u64, Ordering::Relaxed);
        if embedded.tokens >= 64 {
            let rate = embedded.tokens as f64 / embedded.ms.max(1e-3) * 1e6;
            self.last_prefill.store(rate as u64, Ordering::Relaxed);
        }
    }

    /// What the model's thread looks like after a round.
    pub fn publish(&self, busy: usize, queued: usize, cells: usize) {
        self.busy.store(busy, Ordering::Relaxed);
        self.queued.store(queued, Ordering::Relaxed);
        self.cells.store(cells, Ordering::Relaxed);
    }

    /// The counters now.
    #[must_use]
    pub fn read(&self) -> Counters {
        let seconds = |us: &AtomicU64| us.load(Ordering::Relaxed) as f64 / 1e6;
        let rate = |milli: &AtomicU64| match milli.load(Ordering::Relaxed) {
            0 => None,
            n => Some(n as f64 / 1000.0),
        };
        Counters {
            busy: self.busy.load(Ordering::Relaxed),
            queued: self.queued.load(Ordering::Relaxed),
            cells: self.cells.load(Ordering::Relaxed),
            prompt_tokens: self.prompt_tokens.load(Ordering::Relaxed),
            output_tokens: self.output_tokens.load(Ordering::Relaxed),
            prompt_seconds: seconds(&self.prompt_us),
            output_seconds: seconds(&self.output_us),
            cancelled: self.cancelled.load(Ordering::Relaxed),
            finished: self.finished.load(Ordering::Relaxed),
            prefill_rate: rate(&self.last_prefill),
            decode_rate: rate(&self.last_decode),
        }
    }
}
