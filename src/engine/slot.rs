//! One sequence of a resident model: what its KV cache holds and the job that runs in it.

use super::cache::Place;
use super::detok::TextStream;
use super::draft::Drafter;
use super::job::{Job, JobEvent, JobTimings, TokenId};
use super::model_thread::Guess;
use super::sampler::Sampler;
use super::think::Piece;
use crate::chat::{CacheLost, Channel, Finish, GenErrorKind};
use std::sync::Arc;
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
    /// The session what is in the cache belongs to.
    pub session: Option<Arc<str>>,
    /// How many of the tokens are on disk.
    pub saved: usize,
    /// The job in it.
    pub running: Option<Running>,
    /// Larger is later.
    pub last_used: u64,
}

/// What of a job's prompt was there before it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reused {
    /// Tokens.
    pub tokens: usize,
    /// Where they came from; none when there are none.
    pub place: Option<Place>,
    /// Why tokens that were known could not be used.
    pub lost: Option<CacheLost>,
}

/// A job that has a slot.
#[derive(Debug)]
pub struct Running {
    /// The job.
    pub job: Job,
    /// What of the prompt was there already.
    pub reused: Reused,
    /// Chooses tokens.
    pub sampler: Sampler,
    /// The token to evaluate next; none while the prompt is being evaluated.
    pub next: Option<TokenId>,
    /// Guesses of what comes after it.
    pub drafter: Option<Drafter>,
    /// The guesses in the current batch.
    pub guess: Guess,
    /// Guesses so far, and how many were right.
    pub guesses: (u32, u32),
    /// How many guesses of the last batch were right.
    pub checked: usize,
    /// Where its first logits are in the current batch.
    pub logits_at: Option<i32>,
    /// Prompt tokens in the current batch.
    pub in_batch: usize,
    /// When prefill began.
    pub started: Instant,
    /// When the prompt was evaluated.
    pub prefilled: Option<Instant>,
    /// Tokens produced.
    pub produced: u32,
    /// Time at the gate while the prompt was evaluated, and after it.
    waited: (Duration, Duration),
    text: TextStream,
    /// Text that waits to be sent.
    held: Vec<Piece>,
    last_sent: Option<Instant>,
}

impl Running {
    /// A job whose work began at `started`, with the beginning of its prompt in the slot.
    #[must_use]
    pub fn new(job: Job, reused: Reused, sampler: Sampler, started: Instant) -> Self {
        let text = TextStream::new(job.stop.clone(), job.think.clone());
        Self {
            reused,
            sampler,
            next: None,
            drafter: None,
            guess: Guess::default(),
            guesses: (0, 0),
            checked: 0,
            in_batch: 0,
            logits_at: None,
            started,
            prefilled: None,
            produced: 0,
            waited: (Duration::ZERO, Duration::ZERO),
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

    /// Other models had the device for this long.
    pub fn wait(&mut self, time: Duration) {
        if self.prefilled.is_some() {
            self.waited.1 += time;
        } else {
            self.waited.0 += time;
        }
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
            cached: count(self.reused.tokens),
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
        let evaluated = self.job.prompt.len().saturating_sub(self.reused.tokens);
        let (in_prefill, in_decode) = self.waited;
        JobTimings {
            queue_ms: ms(self.started.duration_since(self.job.arrived) + in_prefill + in_decode),
            cache_n: u32::try_from(self.reused.tokens).unwrap_or(u32::MAX),
            cache_from: self.reused.place,
            cache_lost: self.reused.lost,
            prompt_n: u32::try_from(evaluated).unwrap_or(u32::MAX),
            prompt_ms: ms(prefilled.duration_since(self.started).saturating_sub(in_prefill)),
            predicted_n: self.produced,
            predicted_ms: ms(prefilled.elapsed().saturating_sub(in_decode)),
            draft_n: self.guesses.0,
            draft_n_accepted: self.guesses.1,
            energy_j: None,
        }
    }
}
