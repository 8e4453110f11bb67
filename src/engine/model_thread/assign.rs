//! Slots for jobs: what of a prompt is there already, where it comes from, and what becomes of the
//! conversation that has to leave for it.

use super::super::cache::{LEAST_TOKENS, Match, Place, State};
use super::super::draft::Drafter;
use super::super::job::{Job, JobEvent};
use super::super::llama;
use super::super::prefix::{self, SlotFacts};
use super::super::rewind::rewind;
use super::super::sampler::Sampler;
use super::super::slot::{Reused, Running};
use super::{ModelThread, Waiting, seq_id};
use crate::chat::{CacheLost, GenErrorKind};
use std::sync::Arc;
use std::time::Instant;

/// A conversation continued from its middle is kept as it was when this many tokens are cut off.
const LEAST_BRANCH: usize = 256;
/// An idle conversation is written again when it has grown by this many tokens.
const LEAST_GROWTH: usize = 16;

/// Where a conversation is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Where there is room.
    Elsewhere,
    /// On disk; the slot keeps it too.
    OnDisk,
    /// In memory and on disk.
    Everywhere,
}

/// What is known outside of the slots.
enum Stored {
    Nothing,
    /// It is being read.
    NotYet,
    Found(Match, Arc<State>),
}

impl ModelThread<'_> {
    /// Gives waiting jobs idle slots, first come first served, and tells the rest how many are ahead.
    pub(super) fn assign(&mut self) {
        while let Some(mut waiting) = self.queue.pop_front() {
            let choice = prefix::choose(&self.facts(), &waiting.job.prompt, waiting.job.cache_prompt)
                .map(|choice| prefix::Choice { reused: waiting.job.whole(choice.reused), ..choice });
            // A newcomer must not take the cells that running answers have.
            let taken: usize =
                self.slots.iter().filter(|s| s.running.is_some()).map(|s| s.tokens.len()).sum();
            let has_room = taken == 0 || taken + waiting.job.prompt.len() < self.capacity;
            let started = Instant::now();
            let stored = match choice {
                Some(choice) if has_room => Some((choice, self.stored(&mut waiting, choice.reused))),
                _ => None,
            };
            match stored {
                None | Some((_, Stored::NotYet)) => {
                    self.queue.push_front(waiting);
                    break;
                }
                Some((choice, Stored::Nothing)) => self.begin(waiting.job, choice, None, started),
                Some((choice, Stored::Found(what, state))) => {
                    self.begin(waiting.job, choice, Some((what, state)), started);
                }
            }
        }
        let running = self.slots.iter().filter(|s| s.running.is_some()).count();
        for (i, waiting) in self.queue.iter_mut().enumerate() {
            let ahead = u32::try_from(running + i).unwrap_or(u32::MAX);
            if waiting.told != Some(ahead) {
                waiting.told = Some(ahead);
                let _ = waiting.job.events.send(JobEvent::Queued { ahead });
            }
        }
    }

    fn facts(&self) -> Vec<SlotFacts<'_>> {
        self.slots
            .iter()
            .map(|s| SlotFacts { tokens: &s.tokens, is_busy: s.running.is_some(), last_used: s.last_used })
            .collect()
    }

    /// A state that spares more than `already` tokens. While others run it is read from disk beside them.
    fn stored(&self, waiting: &mut Waiting, already: usize) -> Stored {
        let Some(key) = self.key.as_ref().filter(|_| waiting.job.cache_prompt) else {
            return Stored::Nothing;
        };
        let is_alone = self.slots.iter().all(|s| s.running.is_none());
        if let Some(fetch) = waiting.fetch.take() {
            let state = match fetch.poll() {
                Ok(state) => state,
                Err(_) if is_alone => fetch.wait(),
                Err(_) => {
                    waiting.fetch = Some(fetch);
                    return Stored::NotYet;
                }
            };
            return state.map_or(Stored::Nothing, |state| Stored::Found(fetch.what().clone(), state));
        }
        let Some(found) = self.cache.find(key, &waiting.job.prompt, already) else { return Stored::Nothing };
        if found.place == Place::Disk && !is_alone {
            waiting.fetch = Some(self.cache.fetch(found, key));
            return Stored::NotYet;
        }
        match self.cache.get(&found, key) {
            Some(state) => Stored::Found(found, state),
            None => Stored::Nothing,
        }
    }

    /// Starts a job whose beginning was looked for since `started`: reading it is part of its prefill.
    fn begin(
        &mut self,
        job: Job,
        choice: prefix::Choice,
        stored: Option<(Match, Arc<State>)>,
        started: Instant,
    ) {
        let banned = if job.ignore_eos { self.end_tokens.clone() } else { Vec::new() };
        let mut sampler = match Sampler::new(self.model, &job.sampling, banned) {
            Ok(sampler) => sampler,
            Err(error) => {
                let message = format!("{error}. Correct the grammar or the schema");
                let _ = job.events.send(JobEvent::Failed { kind: GenErrorKind::Refused, message });
                return;
            }
        };
        sampler.accept_prompt(&job.prompt);
        let known = stored.as_ref().map_or(choice.reused, |(what, _)| what.reused);
        let (index, mut reused) = match stored {
            Some((what, state)) => {
                let keep = job.whole(what.reused);
                self.restore(choice, &what, &state, keep, job.prompt.len())
            }
            None => (choice.slot, self.keep_prefix(choice)),
        };
        // That a new conversation does not begin with another one's greeting is no loss.
        reused.lost = reused.lost.filter(|_| known >= LEAST_TOKENS);
        self.clock += 1;
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.last_used = self.clock;
        slot.is_kept = job.cache_prompt;
        slot.session.clone_from(&job.session);
        let of_model = self.draft.as_mut().map(|draft| {
            draft.doubt(index);
            &draft.pace
        });
        let drafter = (job.draft > 0 && self.memory.can_guess() && job.max_tokens != Some(0))
            .then(|| Drafter::new(&job.prompt, job.draft, of_model));
        let mut running = Running::new(job, reused, sampler, started);
        running.drafter = drafter;
        running.send_progress(reused.tokens);
        slot.running = Some(running);
    }

    /// Makes the chosen slot hold exactly the reused prefix; says how much that really is.
    fn keep_prefix(&mut self, choice: prefix::Choice) -> Reused {
        let Some((seq, held)) = self.slots.get(choice.slot).map(|s| (s.seq, s.tokens.len())) else {
            return Reused::default();
        };
        let is_own = choice.source == choice.slot;
        let loss = if is_own { held.saturating_sub(choice.reused) } else { held };
        // Within its own conversation what is cut off is mostly an answer that was asked for again.
        if loss >= LEAST_BRANCH || (loss >= LEAST_TOKENS && choice.reused * 2 < held) || !is_own {
            self.save(choice.slot, Keep::Elsewhere);
        }
        if is_own {
            return self.take_back(choice.slot, choice.reused, Place::Slot);
        }
        let _ = self.context.clear_kv_cache_seq(Some(seq_id(seq)), None, None);
        let Some(source) = self.slots.get(choice.source) else { return Reused::default() };
        let (source_seq, source_tokens) = (source.seq, source.tokens.clone());
        let reused = u32::try_from(choice.reused).unwrap_or(0);
        // Windowed layers may have forgotten what a shorter sequence would need.
        let first = self.first_position(source_seq);
        let copied = rewind(self.memory, source_tokens.len(), first, choice.reused).and_then(|()| {
            let is_copied = self.memory.can_lend()
                && self.context.copy_kv_cache_seq(source_seq, seq, Some(0), Some(reused)).is_ok();
            if is_copied { Ok(()) } else { Err(CacheLost::Recurrent) }
        });
        let Some(slot) = self.slots.get_mut(choice.slot) else { return Reused::default() };
        slot.saved = 0;
        match copied {
            Ok(()) => {
                slot.tokens = source_tokens;
                slot.tokens.truncate(choice.reused);
                Reused { tokens: choice.reused, place: Some(Place::Slot), lost: None }
            }
            Err(why) => {
                slot.tokens.clear();
                Reused { lost: Some(why), ..Reused::default() }
            }
        }
    }

    /// Takes back what a slot holds after its first `keep` tokens. Where the model can't, all of it goes.
    pub(super) fn take_back(&mut self, index: usize, keep: usize, place: Place) -> Reused {
        let Some((seq, held)) = self.slots.get(index).map(|s| (s.seq, s.tokens.len())) else {
            return Reused::default();
        };
        let from = u32::try_from(keep).unwrap_or(0);
        let kept = rewind(self.memory, held, self.first_position(seq), keep).and_then(|()| {
            let is_done = keep == 0
                || keep == held
                || matches!(self.context.clear_kv_cache_seq(Some(seq_id(seq)), Some(from), None), Ok(true));
            if is_done { Ok(keep) } else { Err(CacheLost::Other) }
        });
        let kept = kept.or_else(|why| self.back_to_checkpoint(index, keep).ok_or(why));
        let keep = kept.unwrap_or(0);
        if keep == 0 {
            let _ = self.context.clear_kv_cache_seq(Some(seq_id(seq)), None, None);
        }
        if let Some(slot) = self.slots.get_mut(index) {
            slot.tokens.truncate(keep);
            slot.saved = slot.saved.min(keep);
        }
        Reused { tokens: keep, place: (keep > 0).then_some(place), lost: kept.err() }
    }

    /// The earliest position a sequence still has in every layer.
    fn first_position(&self, seq: i32) -> usize {
        usize::try_from(self.context.kv_cache_seq_pos_min(seq)).unwrap_or(0)
    }

    /// Puts a stored conversation into an idle slot and takes back all but the first `keep` tokens.
    fn restore(
        &mut self,
        choice: prefix::Choice,
        what: &Match,
        state: &State,
        keep: usize,
        prompt: usize,
    ) -> (usize, Reused) {
        // An empty slot costs nothing; else the one that was chosen.
        let empty = self.slots.iter().position(|s| s.running.is_none() && s.tokens.is_empty());
        let index = empty.unwrap_or(choice.slot);
        self.save(index, Keep::Elsewhere);
        let Some(seq) = self.slots.get(index).map(|s| s.seq) else { return (index, Reused::default()) };
        let _ = self.context.clear_kv_cache_seq(Some(seq_id(seq)), None, None);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.tokens.clear();
            slot.saved = 0;
        }
        let needed = state.tokens.len().max(prompt) + 1;
        while self.cells() + needed > self.capacity && self.forget_an_idle_conversation() {}
        if self.cells() + state.tokens.len() > self.capacity {
            return (index, Reused::default());
        }
        if !llama::restore_sequence(&mut self.context, seq, &state.bytes) {
            tracing::warn!(place = what.place.name(), "llama.cpp does not take a saved conversation");
            self.cache.discard(what);
            return (index, Reused::default());
        }
        if let Some(slot) = self.slots.get_mut(index) {
            slot.tokens.clone_from(&state.tokens);
            slot.saved = if what.place == Place::Disk { state.tokens.len() } else { 0 };
        }
        (index, self.take_back(index, keep, what.place))
    }

    /// Cells in use, those that sequences share counted for each.
    pub(super) fn cells(&self) -> usize {
        self.slots.iter().map(|s| s.tokens.len()).sum()
    }

    /// Whether an idle slot holds more of a session than the disk does.
    pub(super) fn is_unwritten(&self, index: usize) -> bool {
        self.slots.get(index).is_some_and(|slot| {
            slot.running.is_none()
                && slot.is_kept
                && slot.session.is_some()
                && slot.tokens.len() >= LEAST_TOKENS.max(slot.saved + LEAST_GROWTH)
                && self.key.is_some()
                && self.cache.keeps_on_disk()
        })
    }

    /// Writes what idle slots hold of sessions.
    pub(super) fn write_all(&mut self) {
        for index in 0..self.slots.len() {
            if self.is_unwritten(index) {
                self.save(index, Keep::OnDisk);
            }
        }
    }

    /// Keeps what an idle slot holds, where there is a place for it.
    pub(super) fn save(&mut self, index: usize, keep: Keep) {
        let Some(key) = self.key.as_ref() else { return };
        let Some(slot) = self.slots.get_mut(index) else { return };
        let has_place =
            self.cache.keeps_in_memory() || (slot.session.is_some() && self.cache.keeps_on_disk());
        let is_worth = slot.is_kept && slot.running.is_none() && slot.tokens.len() >= LEAST_TOKENS;
        if !has_place || !is_worth {
            return;
        }
        let Some(bytes) = llama::sequence_state(&self.context, slot.seq) else { return };
        let state = State {
            model: Arc::clone(key),
            tokens: slot.tokens.clone(),
            session: slot.session.clone(),
            bytes,
        };
        if keep != Keep::Elsewhere {
            slot.saved = slot.tokens.len();
        }
        match keep {
            Keep::Elsewhere => self.cache.keep(state),
            Keep::OnDisk => self.cache.write(state),
            Keep::Everywhere => self.cache.keep_and_write(state),
        }
    }
}
