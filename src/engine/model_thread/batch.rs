//! Batches: what goes into one, and what happens when it does not fit.

use super::super::brake;
use super::super::cache::Place;
use super::super::fair;
use super::super::job::TokenId;
use super::super::llama::{self, BATCH};
use super::super::rewind::Memory;
use super::assign::Keep;
use super::{ModelThread, seq_id};
use crate::chat::{Finish, GenErrorKind};
use llama_cpp_2::DecodeError;
use llama_cpp_2::token::LlamaToken;
use std::time::{Duration, Instant};

/// How long one batch may take while somebody waits for it, and how long a cancel may wait.
const CHUNK_TIME: Duration = Duration::from_millis(200);
/// How long one batch of a prompt that is alone may take: it is ended for whoever comes, and begun again then.
const ALONE_TIME: Duration = Duration::from_secs(1);
/// Chunks are multiples of this.
const CHUNK_STEP: usize = 64;
/// Smallest chunk: below it the overhead of a batch outweighs what it computes.
const SMALLEST_CHUNK: usize = 32;

impl ModelThread<'_> {
    /// How many prompt tokens a batch of about this length may take.
    pub(super) fn chunk(&self, time: Duration) -> usize {
        if self.prefill_rate <= 0.0 {
            // Not measured yet: small enough for a slow machine, large enough to measure.
            return CHUNK_STEP;
        }
        let by_time = (self.prefill_rate * time.as_secs_f64()) as usize;
        // Matrices are worked on in blocks: an uneven chunk costs as much as the next even one.
        let nearest = (by_time + CHUNK_STEP / 2) / CHUNK_STEP * CHUNK_STEP;
        nearest.clamp(SMALLEST_CHUNK, BATCH as usize)
    }

    /// Whether one prompt is all there is to do, for this model and at the device.
    fn is_alone(&self) -> bool {
        let mut running = self.slots.iter().filter_map(|slot| slot.running.as_ref());
        let first = running.next().is_some_and(|running| running.prefilled.is_none());
        first && running.next().is_none() && self.queue.is_empty() && !self.turn.is_wanted()
    }

    /// One round: builds a batch, evaluates it, and lets the jobs go on.
    pub(super) fn step(&mut self) {
        #[cfg(feature = "mtmd")]
        self.look();
        self.batch.clear();
        self.rounds = self.rounds.wrapping_add(1);
        self.guess();
        self.take_checkpoints();
        let is_alone = self.can_stop && self.is_alone();
        let Some(decoding) = self.add_decoding() else { return self.end_of_defect() };
        let Some(prompt_tokens) = self.add_prefill(is_alone) else { return self.end_of_defect() };
        if self.batch.n_tokens() == 0 {
            return;
        }
        self.take_turn();
        let began = Instant::now();
        let evaluated = match self.reason_to_stop(prompt_tokens, is_alone, began) {
            Some(stop) => brake::with(stop, || self.context.decode(&mut self.batch)),
            None => self.context.decode(&mut self.batch),
        };
        match evaluated {
            Ok(()) => {
                if prompt_tokens >= SMALLEST_CHUNK {
                    // The wait for the result is part of it where devices work in the background.
                    self.context.synchronize();
                    let rate = prompt_tokens as f64 / began.elapsed().as_secs_f64().max(1e-6);
                    self.prefill_rate =
                        if self.prefill_rate > 0.0 { 0.5 * self.prefill_rate + 0.5 * rate } else { rate };
                }
                self.advance(began, if prompt_tokens == 0 { decoding } else { 0 });
            }
            Err(DecodeError::NoKvCacheSlot) => {
                if !self.forget_an_idle_conversation() {
                    self.end_the_longest();
                }
            }
            Err(error) if brake::was_stopped(&error) => self.take_back_batch(),
            Err(error) => {
                tracing::error!(%error, "decode failed");
                self.fail_all(
                    GenErrorKind::EngineDied,
                    &format!("llama.cpp could not evaluate a batch ({error}). Retry"),
                );
                self.context.clear_kv_cache();
                for slot in &mut self.slots {
                    slot.tokens.clear();
                    slot.saved = 0;
                }
            }
        }
    }

    /// When to end a batch that takes long: when nobody waits for any of it any more; and, where a prompt was alone, when
    /// somebody came who would have to wait for longer than a chunk takes. None where it is not worth asking.
    fn reason_to_stop(
        &self,
        prompt_tokens: usize,
        is_alone: bool,
        began: Instant,
    ) -> Option<impl Fn() -> bool + use<>> {
        let expected = match prompt_tokens {
            0 => return None,
            _ if self.prefill_rate <= 0.0 => None,
            tokens => Some(Duration::from_secs_f64(tokens as f64 / self.prefill_rate.max(1e-3))),
        };
        if !self.can_stop || expected.is_some_and(|expected| expected <= CHUNK_TIME) {
            return None;
        }
        let running = self.slots.iter().filter_map(|slot| slot.running.as_ref());
        let waiting: Vec<_> = running
            .filter(|running| running.next.is_some() || running.in_batch > 0)
            .map(|running| running.job.events.clone())
            .collect();
        // What can't be taken back without all that was before it is not begun again.
        let gives_way = expected.filter(|_| is_alone && self.memory == Memory::Whole);
        let (bell, gate) = (self.bell.clone(), self.turn.gate().clone());
        Some(move || {
            let is_cancelled = waiting.iter().all(tokio::sync::mpsc::UnboundedSender::is_closed);
            let is_late = |expected| began.elapsed() + CHUNK_TIME >= expected;
            is_cancelled
                || gives_way
                    .is_some_and(|expected| (bell.rings() || gate.waiting() > 0) && !is_late(expected))
        })
    }

    /// The batch was ended before it was done: nothing of it counts.
    fn take_back_batch(&mut self) {
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(index) else { continue };
            let Some(running) = &slot.running else { continue };
            let in_batch =
                if running.next.is_some() { 1 + running.guess.tokens.len() } else { running.in_batch };
            if in_batch > 0 {
                let keep = slot.tokens.len();
                // Cells were written for them: what they pushed out is lost.
                slot.tokens.resize(keep + in_batch, TokenId::default());
                let kept = self.take_back(index, keep, Place::Slot);
                if let Some(running) = self.slots.get_mut(index).and_then(|slot| slot.running.as_mut())
                    && kept.lost.is_some()
                {
                    running.reused = kept;
                }
            }
        }
    }

    /// Waits until this model may compute, and adds the wait to everybody's.
    pub(super) fn take_turn(&mut self) {
        // Threads that spin for the next round would take the cores from the other model.
        let waited = self.turn.take(llama::release_compute_threads);
        if !waited.is_zero() {
            for running in self.slots.iter_mut().filter_map(|slot| slot.running.as_mut()) {
                running.wait(waited);
            }
        }
    }

    /// The next token of every decoding job, and what is guessed to come after it. How many decode; none when the
    /// batch is too small for them.
    fn add_decoding(&mut self) -> Option<usize> {
        let mut decoding = 0;
        for slot in &mut self.slots {
            let Some(running) = &mut slot.running else { continue };
            running.logits_at = None;
            running.in_batch = 0;
            let Some(token) = running.next else { continue };
            decoding += 1;
            running.logits_at = Some(self.batch.n_tokens());
            for (i, token) in std::iter::once(&token).chain(&running.guess.tokens).enumerate() {
                let position = i32::try_from(slot.tokens.len() + i).unwrap_or(i32::MAX);
                self.batch.add(LlamaToken::new(*token), position, &[slot.seq], true).ok()?;
            }
        }
        Some(decoding)
    }

    /// A chunk of the prompts that are being evaluated, shared among them. How many tokens that is; none
    /// when the batch is too small for them.
    fn add_prefill(&mut self, is_alone: bool) -> Option<usize> {
        let room = (BATCH as usize).saturating_sub(usize::try_from(self.batch.n_tokens()).unwrap_or(0));
        let budget = self.chunk(if is_alone { ALONE_TIME } else { CHUNK_TIME }).min(room);
        let left: Vec<usize> = self
            .slots
            .iter()
            .map(|slot| match &slot.running {
                Some(running) if running.next.is_none() && running.prefilled.is_none() => {
                    let next = running.job.next_image(slot.tokens.len());
                    next.min(self.until_checkpoint(slot, running)).saturating_sub(slot.tokens.len())
                }
                _ => 0,
            })
            .collect();
        let shares = fair::share(budget, &left, self.rounds);
        for (slot, take) in self.slots.iter_mut().zip(&shares).filter(|(_, take)| **take > 0) {
            let Some(running) = &mut slot.running else { continue };
            let done = slot.tokens.len();
            // Without output tokens no logits are needed.
            let wants_logits = running.job.max_tokens != Some(0);
            for (i, token) in running.job.prompt.iter().enumerate().skip(done).take(*take) {
                let is_last = i + 1 == running.job.prompt.len();
                let at = self.batch.n_tokens();
                let position = i32::try_from(i).unwrap_or(i32::MAX);
                let has_logits = is_last && wants_logits;
                self.batch.add(LlamaToken::new(*token), position, &[slot.seq], has_logits).ok()?;
                if has_logits {
                    running.logits_at = Some(at);
                }
            }
            running.in_batch = *take;
        }
        Some(shares.iter().sum())
    }

    /// Evaluates one image that a prompt has come to, if there is one.
    #[cfg(feature = "mtmd")]
    fn look(&mut self) {
        let cells_of_next = |slot: &super::Slot| {
            let images = &slot.running.as_ref()?.job.images;
            images.iter().find(|image| image.at == slot.tokens.len()).map(|image| image.len)
        };
        let next =
            self.slots.iter().enumerate().find_map(|(index, slot)| Some((index, cells_of_next(slot)?)));
        let Some((index, cells)) = next else { return };
        self.take_turn();
        // An image is evaluated whole or not at all.
        while self.cells() + cells > self.capacity && self.forget_an_idle_conversation() {}
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Some(running) = &mut slot.running else { return };
        let at = slot.tokens.len();
        let Some(image) = running.job.images.iter().find(|image| image.at == at) else { return };
        let evaluated = image.evaluate(&mut self.context, slot.seq);
        let tokens = running.job.prompt.get(at..at + image.len).unwrap_or_default();
        match evaluated {
            Ok(()) => {
                slot.tokens.extend_from_slice(tokens);
                self.stats.add_prompt(tokens.len());
                running.send_progress(slot.tokens.len());
            }
            Err(message) => {
                let _ = self.context.clear_kv_cache_seq(Some(seq_id(slot.seq)), None, None);
                slot.tokens.clear();
                slot.saved = 0;
                if let Some(running) = slot.running.take() {
                    running.fail(GenErrorKind::Model, message);
                }
            }
        }
    }

    fn end_of_defect(&mut self) {
        self.fail_all(GenErrorKind::EngineDied, "a batch was built too large; this is a defect. Retry");
    }

    /// The KV cache is full: the idle conversation unused for longest leaves it. The batch is built anew then.
    pub(super) fn forget_an_idle_conversation(&mut self) -> bool {
        let victim = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, s)| s.running.is_none() && !s.tokens.is_empty())
            .min_by_key(|(_, s)| s.last_used)
            .map(|(index, _)| index);
        let Some(index) = victim else { return false };
        self.save(index, Keep::Elsewhere);
        if let Some(slot) = self.slots.get_mut(index) {
            let _ = self.context.clear_kv_cache_seq(Some(seq_id(slot.seq)), None, None);
            slot.tokens.clear();
            slot.saved = 0;
        }
        true
    }

    /// The context is full of running answers: the longest one ends with what it has.
    fn end_the_longest(&mut self) {
        let longest = self.slots.iter_mut().filter(|s| s.running.is_some()).max_by_key(|s| s.tokens.len());
        let Some(slot) = longest else { return };
        let Some(running) = slot.running.take() else { return };
        if running.prefilled.is_some() {
            running.finish(Finish::Length);
        } else {
            let message = format!(
                "the prompt has {} tokens, and other running answers leave too little of the context of {}. Retry when they are done",
                running.job.prompt.len(),
                self.capacity
            );
            running.fail(GenErrorKind::ContextFull, message);
        }
    }
}
