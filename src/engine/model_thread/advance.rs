//! After a batch: slots have grown, jobs choose their next tokens, guesses are checked.

use super::super::job::TokenId;
use super::super::sampler::SampleError;
use super::super::slot::Running;
use super::{ModelThread, seq_id};
use crate::chat::Finish;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use std::time::Instant;

/// What a slot does after its batch.
enum Next {
    Token(TokenId),
    Finish(Finish),
    Fail(String),
    Wait,
}

impl ModelThread<'_> {
    /// The batch begun at `began` was evaluated. `decoding` jobs were in it and nothing else; 0 when there
    /// was more, so that it can't be compared with other rounds.
    pub(super) fn advance(&mut self, began: Instant, decoding: usize) {
        for slot in &mut self.slots {
            let Some(running) = &mut slot.running else { continue };
            if let Some(token) = running.next.take() {
                slot.tokens.push(token);
            } else if running.in_batch > 0 {
                let from = slot.tokens.len();
                let evaluated = running.job.prompt.get(from..from + running.in_batch).unwrap_or_default();
                slot.tokens.extend_from_slice(evaluated);
                self.stats.add_prompt(running.in_batch);
                running.in_batch = 0;
                running.send_progress(slot.tokens.len());
                if slot.tokens.len() == running.job.prompt.len() {
                    running.prefilled = Some(Instant::now());
                }
            }
            let mut accepted = 0;
            let outcome = if running.prefilled.is_some() && running.job.max_tokens == Some(0) {
                Next::Finish(Finish::Length)
            } else if let Some(at) = running.logits_at.take() {
                // Each place is chosen for as if it came alone. While that gives the guess, the next place counts.
                let mut at = at;
                loop {
                    let next =
                        choose(self.model, &self.context, running, at, &self.end_tokens, &mut self.piece);
                    let Next::Token(token) = next else { break next };
                    if let Some(drafter) = &mut running.drafter {
                        drafter.push(token);
                    }
                    if running.guess.tokens.get(accepted) != Some(&token)
                        || slot.tokens.len() + 1 >= self.capacity
                    {
                        break next;
                    }
                    slot.tokens.push(token);
                    accepted += 1;
                    at += 1;
                }
            } else {
                Next::Wait
            };
            let drafted = running.guess.tokens.len();
            if accepted < drafted {
                let wrong = u32::try_from(slot.tokens.len()).unwrap_or(u32::MAX);
                let _ = self.context.clear_kv_cache_seq(Some(seq_id(slot.seq)), Some(wrong), None);
            }
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            running.guesses.0 = running.guesses.0.saturating_add(count(drafted));
            running.guesses.1 = running.guesses.1.saturating_add(count(accepted));
            running.checked = accepted;
            let is_at_capacity = slot.tokens.len() + 1 >= self.capacity;
            match outcome {
                Next::Token(token) if !is_at_capacity => running.next = Some(token),
                Next::Wait => {}
                Next::Token(_) | Next::Finish(_) | Next::Fail(_) => {
                    let Some(running) = slot.running.take() else { continue };
                    self.stats.add_finished(&running.timings());
                    match outcome {
                        Next::Fail(message) => running.fail(crate::chat::GenErrorKind::Model, message),
                        Next::Finish(finish) => running.finish(finish),
                        Next::Token(_) | Next::Wait => running.finish(Finish::Length),
                    }
                }
            }
        }
        if decoding > 0 {
            self.measure_guesses(began, decoding);
        }
    }
}

/// Chooses a job's next token and sends its text.
fn choose(
    model: &LlamaModel,
    context: &LlamaContext<'_>,
    running: &mut Running,
    at: i32,
    end_tokens: &[TokenId],
    piece: &mut Vec<u8>,
) -> Next {
    let token = match running.sampler.sample(context, at) {
        Ok(token) => token,
        Err(SampleError::GrammarStuck) => return Next::Finish(Finish::Stop),
        Err(error @ SampleError::NoFiniteLogits) => {
            return Next::Fail(format!("{error}: its weights may be damaged. Fetch the file again"));
        }
    };
    running.produced += 1;
    if end_tokens.contains(&token) && !running.job.ignore_eos {
        return Next::Finish(Finish::Stop);
    }
    piece.clear();
    model.vocab().token_to_piece_into(LlamaToken::new(token), piece, false, None);
    if running.take(piece) {
        return Next::Finish(Finish::Stop);
    }
    if running.job.max_tokens.is_some_and(|max| running.produced >= max) {
        return Next::Finish(Finish::Length);
    }
    Next::Token(token)
}
