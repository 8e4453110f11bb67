//! Checkpoints of models that can't take tokens back: taken while a prompt is evaluated, used when a conversation goes
//! on from an earlier place.

use super::super::cache::LEAST_TOKENS;
use super::super::checkpoint::mark;
use super::super::llama;
use super::super::rewind::Memory;
use super::super::slot::{Running, Slot};
use super::{ModelThread, seq_id};

impl ModelThread<'_> {
    /// Takes the checkpoints that are due now. A prompt stops there for a round.
    pub(super) fn take_checkpoints(&mut self) {
        if self.memory != Memory::Recurrent || self.checkpoints.is_off() {
            return;
        }
        for (sequence, slot) in self.slots.iter().enumerate() {
            let due = slot.running.as_ref().and_then(mark_of);
            if due == Some(slot.tokens.len())
                && !self.checkpoints.has(sequence, &slot.tokens)
                && let Some((state, bytes)) = llama::partial_state(&self.context, slot.seq)
            {
                self.checkpoints.keep(sequence, &slot.tokens, state, bytes);
            }
        }
    }

    /// How far a prompt may be evaluated before a checkpoint of it is due.
    pub(super) fn until_checkpoint(&self, slot: &Slot, running: &Running) -> usize {
        let waits = self.memory == Memory::Recurrent && !self.checkpoints.is_off();
        let mark = mark_of(running).filter(|mark| waits && slot.tokens.len() < *mark);
        mark.unwrap_or(usize::MAX)
    }

    /// Puts a slot that can't take tokens back at most `keep` tokens from its beginning. How many that are; none
    /// where there is no checkpoint to go back to.
    pub(super) fn back_to_checkpoint(&mut self, index: usize, keep: usize) -> Option<usize> {
        let slot = self.slots.get(index)?;
        let (len, state) = self.checkpoints.best(index, &slot.tokens, keep)?;
        let from = u32::try_from(len).ok()?;
        let is_back = llama::restore_partial(&mut self.context, slot.seq, state)
            && matches!(self.context.clear_kv_cache_seq(Some(seq_id(slot.seq)), Some(from), None), Ok(true));
        is_back.then_some(len)
    }

    /// Drops the checkpoints of conversations that have left their slot.
    pub(super) fn trim_checkpoints(&mut self) {
        for (sequence, slot) in self.slots.iter().enumerate().filter(|(_, s)| s.running.is_none()) {
            self.checkpoints.trim(sequence, slot.tokens.len());
        }
    }
}

/// Where the prompt that is being evaluated has its checkpoint, if it is worth one.
fn mark_of(running: &Running) -> Option<usize> {
    let is_prompt = running.next.is_none() && running.prefilled.is_none() && running.job.cache_prompt;
    let len = running.job.prompt.len();
    let at = running.job.whole(mark(running.reused.tokens, len));
    (is_prompt && at >= LEAST_TOKENS && at < len).then_some(at)
}
