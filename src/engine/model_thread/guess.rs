//! What is guessed for decoding jobs before a round: by their context, else by the draft model.

use super::super::draft::model::Wanted;
use super::super::draft::{MOST_SEQUENCES, Round, Source};
use super::super::job::TokenId;
use super::super::llama;
use super::super::slot::Running;
use super::ModelThread;
use std::time::{Duration, Instant};

/// Guesses of one round for one job.
#[derive(Debug, Default)]
pub struct Guess {
    /// The tokens; they go right behind the next one.
    pub tokens: Vec<TokenId>,
    /// Who made them, or was asked and made none.
    pub source: Option<Source>,
}

impl ModelThread<'_> {
    /// Guesses where few decode and nobody prefills.
    pub(super) fn guess(&mut self) {
        self.guessing = Duration::ZERO;
        let (mut decoding, mut prefilling) = (0_usize, 0_usize);
        for running in self.slots.iter_mut().filter_map(|slot| slot.running.as_mut()) {
            running.guess = Guess::default();
            if running.next.is_some() {
                decoding += 1;
            } else {
                prefilling += 1;
            }
        }
        if prefilling > 0 || decoding == 0 || decoding > MOST_SEQUENCES {
            return;
        }
        // Guesses never push a conversation out.
        let spare = self.capacity.saturating_sub(self.cells() + decoding) / decoding;
        for running in self.slots.iter_mut().filter_map(|slot| slot.running.as_mut()) {
            let room = spare.min(left(running).saturating_sub(1));
            let Some(drafter) = running.drafter.as_mut().filter(|_| running.next.is_some()) else { continue };
            let mut tokens = drafter.draft(room, decoding);
            // What stands for an image is no token.
            let count = tokens.iter().take_while(|id| **id >= 0).count();
            tokens.truncate(count);
            let source = (!tokens.is_empty()).then_some(Source::Context);
            running.guess = Guess { tokens, source };
        }
        self.ask_draft_model(spare, decoding);
    }

    /// Lets the draft model guess for those whose context says nothing.
    fn ask_draft_model(&mut self, spare: usize, decoding: usize) {
        if self.draft.is_none() {
            return;
        }
        let most = |running: &Running| {
            let room = spare.min(left(running).saturating_sub(1));
            let drafter = running.drafter.as_ref().filter(|_| running.guess.source.is_none());
            drafter.map_or(0, |drafter| drafter.length_of_model(room, decoding))
        };
        let is_wanted = |running: &Running| running.next.is_some() && most(running) > 0;
        if !self.slots.iter().filter_map(|slot| slot.running.as_ref()).any(is_wanted) {
            return;
        }
        self.take_turn();
        let began = Instant::now();
        let Some(draft) = &mut self.draft else { return };
        let wanted: Vec<Wanted<'_>> = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(sequence, slot)| {
                let running = slot.running.as_ref()?;
                let (next, most) = (running.next?, most(running));
                (most > 0).then(|| Wanted { sequence, known: &slot.tokens, next, most, left: left(running) })
            })
            .collect();
        let asked: Vec<usize> = wanted.iter().map(|want| want.sequence).collect();
        match draft.guess(&wanted) {
            Ok(guesses) => {
                for (sequence, guess) in asked.into_iter().zip(guesses) {
                    let running = self.slots.get_mut(sequence).and_then(|slot| slot.running.as_mut());
                    if let (Some(running), Some(mut tokens)) = (running, guess) {
                        // Its vocabulary may be padded to another length.
                        let count = tokens.iter().take_while(|id| llama::is_token(self.model, **id)).count();
                        tokens.truncate(count);
                        running.guess = Guess { tokens, source: Some(Source::Model) };
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the draft model fails and is not asked any more");
                self.draft = None;
            }
        }
        self.guessing = began.elapsed();
    }

    /// After a round of `decoding` jobs and nothing else: what it took is compared with rounds without guesses.
    pub(super) fn measure_guesses(&mut self, began: Instant, decoding: usize) {
        let seconds = (began.elapsed() + self.guessing).as_secs_f64();
        let all = || self.slots.iter().filter_map(|slot| slot.running.as_ref());
        let is_plain = self.guessing.is_zero() && all().all(|running| running.guess.source.is_none());
        for running in self.slots.iter_mut().filter_map(|slot| slot.running.as_mut()) {
            let Some(drafter) = &mut running.drafter else { continue };
            let round = match running.guess.source {
                Some(source) => {
                    Round::Guessed { source, drafted: running.guess.tokens.len(), accepted: running.checked }
                }
                None if is_plain => Round::Plain,
                None => Round::Mixed,
            };
            drafter.record(seconds, decoding, round);
            if let (Some(draft), Some(pace)) = (&mut self.draft, drafter.pace_of_model()) {
                draft.pace.clone_from(pace);
            }
        }
    }

    /// Deletes what the draft model holds of conversations that have left their slot.
    pub(super) fn trim_draft_model(&mut self) {
        if let Some(draft) = &mut self.draft {
            for (sequence, slot) in self.slots.iter().enumerate().filter(|(_, s)| s.running.is_none()) {
                draft.trim(sequence, slot.tokens.len());
            }
        }
    }
}

/// Tokens an answer can still have.
fn left(running: &Running) -> usize {
    let left = |max: u32| usize::try_from(max.saturating_sub(running.produced)).unwrap_or(usize::MAX);
    running.job.max_tokens.map_or(usize::MAX, left)
}
