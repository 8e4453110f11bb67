//! A second, smaller model with the same vocabulary that guesses for the first one: in its thread, on its turn at the
//! device, with a KV cache of its own that follows the other's.
//!
//! It is told nothing of prompts while they are evaluated, so that no first token waits for it. When a guess is wanted it
//! catches up with what the sequence holds by then, a chunk in each round, and takes back what it guessed wrong.

use super::pace::Pace;
use crate::engine::job::TokenId;
use crate::engine::llama::{self, BATCH, Llama, LoadOptions, Storage};
use crate::engine::residency::offload::Offload;
use crate::engine::rewind::{Memory, rewind};
use crate::engine::sampler;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A guess ends before a token that is less likely than this to the draft model: it is more likely wrong than right.
const LEAST_CONFIDENCE: f32 = 0.5;
/// How long a chunk may take with which it catches up: running answers wait for it.
const CHUNK_TIME: Duration = Duration::from_millis(100);
/// Size of a chunk before that was measured, and the smallest one.
const CHUNK: usize = 64;
/// It does not catch up with more than this many tokens for each token the answer can still have.
const WORTH: usize = 32;

/// The draft model of a resident model.
pub struct DraftModel<'m> {
    model: &'m LlamaModel,
    context: LlamaContext<'m>,
    batch: LlamaBatch<'static>,
    memory: Memory,
    end_tokens: Vec<TokenId>,
    sequences: Vec<Sequence>,
    /// Cells of its KV cache.
    capacity: usize,
    /// Tokens per second while it catches up; 0 until measured.
    rate: f64,
    /// Whether it pays, from job to job.
    pub pace: Pace,
}

/// What its KV cache holds of one of the other model's sequences.
#[derive(Debug, Default)]
struct Sequence {
    tokens: Vec<TokenId>,
    /// How many of them are known to be those of the other model's sequence.
    sure: usize,
}

/// A guess that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Index of the sequence.
    pub sequence: usize,
    /// What the other model's KV cache holds of it.
    pub known: &'a [TokenId],
    /// The token after that.
    pub next: TokenId,
    /// Most tokens to guess.
    pub most: usize,
    /// Tokens the answer can still have.
    pub left: usize,
}

impl Wanted<'_> {
    fn len(&self) -> usize {
        self.known.len() + 1
    }

    fn token(&self, at: usize) -> TokenId {
        self.known.get(at).copied().unwrap_or(self.next)
    }
}

/// What a draft model starts with.
#[derive(Debug)]
pub struct DraftStart {
    /// The file.
    pub path: PathBuf,
    /// How to read it.
    pub storage: Storage,
    /// Where its layers go.
    pub offload: Offload,
    /// Settings; it has as many sequences as the other model.
    pub options: LoadOptions,
    /// Tokens that layers with a sliding window look back.
    pub window: Option<u64>,
    /// Its part of the bytes of both models, 0 to 1.
    pub share: f32,
}

impl DraftStart {
    /// Loads it. `progress` is that of both models.
    ///
    /// # Errors
    /// What llama.cpp says.
    pub fn load(
        &self,
        llama: &Llama,
        mut progress: impl FnMut(f32) -> bool + 'static,
    ) -> Result<LlamaModel, String> {
        let share = self.share;
        llama
            .load(&self.path, self.storage, &self.offload, self.options, move |part| progress(share * part))
            .map_err(|error| format!("its draft model: {error}"))
    }

    /// Makes its context and touches its weights.
    ///
    /// # Errors
    /// When the memory can't be had.
    pub fn open<'m>(&self, llama: &Llama, model: &'m LlamaModel) -> Result<DraftModel<'m>, String> {
        let mut context =
            llama.context(model, self.options).map_err(|error| format!("its draft model: {error}"))?;
        llama::warm_up(model, &mut context);
        let sequences = self.options.slots.max(1) as usize;
        Ok(DraftModel {
            end_tokens: llama::end_tokens(model),
            batch: LlamaBatch::new(BATCH as usize, 1),
            memory: llama::memory_of(model, self.window),
            sequences: std::iter::repeat_with(Sequence::default).take(sequences).collect(),
            capacity: context.n_ctx() as usize,
            model,
            context,
            rate: 0.0,
            pace: Pace::of_model(),
        })
    }
}

impl DraftModel<'_> {
    /// Another conversation may be in the other model's sequence now: nothing held is known to be of it.
    pub fn doubt(&mut self, sequence: usize) {
        if let Some(held) = self.sequences.get_mut(sequence) {
            held.sure = 0;
        }
    }

    /// The other model's sequence holds `len` tokens and no job: what goes beyond them is deleted here too.
    pub fn trim(&mut self, sequence: usize, len: usize) {
        if self.sequences.get(sequence).is_some_and(|held| held.tokens.len() > len) {
            self.take_back(sequence, len);
        }
    }

    /// Guesses what comes next. For each wanted guess there is one, possibly an empty one; none where it is not worth
    /// while, or where there was only time to catch up.
    ///
    /// # Errors
    /// When llama.cpp can't evaluate it: then it is of no use any more.
    pub fn guess(&mut self, wanted: &[Wanted<'_>]) -> Result<Vec<Option<Vec<TokenId>>>, String> {
        let mut guesses: Vec<Option<Vec<TokenId>>> = vec![None; wanted.len()];
        let mut cells = 0;
        let mut served: Vec<(usize, &Wanted<'_>)> = Vec::with_capacity(wanted.len());
        for (index, want) in wanted.iter().enumerate() {
            let needed = want.len() + want.most;
            if want.most > 0 && cells + needed <= self.capacity && self.follow(want) {
                cells += needed;
                served.push((index, want));
            }
        }
        self.make_room(cells, &served);
        let mut ready: Vec<(usize, &Wanted<'_>, i32)> = Vec::with_capacity(served.len());
        let mut chunk = self.chunk();
        self.batch.clear();
        for (index, want) in served {
            let Some(held) = self.sequences.get_mut(want.sequence) else { continue };
            let from = held.tokens.len();
            let to = want.len().min(from + chunk);
            chunk -= to - from;
            let has_all = to == want.len() && to > from;
            for at in from..to {
                let token = want.token(at);
                add(&mut self.batch, token, at, want.sequence, has_all && at + 1 == to)?;
                held.tokens.push(token);
            }
            // They were compared as they came.
            held.sure = held.tokens.len();
            if has_all {
                ready.push((index, want, self.batch.n_tokens() - 1));
                if let Some(guess) = guesses.get_mut(index) {
                    *guess = Some(Vec::with_capacity(want.most));
                }
            }
        }
        self.evaluate()?;
        // One token of each in a round, until all have ended.
        while !ready.is_empty() {
            let mut next = Vec::with_capacity(ready.len());
            self.batch.clear();
            for (index, want, at) in ready {
                let Some(token) = self.choose(at) else { continue };
                let Some(guess) = guesses.get_mut(index).and_then(Option::as_mut) else { continue };
                guess.push(token);
                if guess.len() < want.most {
                    let Some(held) = self.sequences.get_mut(want.sequence) else { continue };
                    add(&mut self.batch, token, held.tokens.len(), want.sequence, true)?;
                    held.tokens.push(token);
                    next.push((index, want, self.batch.n_tokens() - 1));
                }
            }
            if !next.is_empty() {
                self.evaluate()?;
            }
            ready = next;
        }
        Ok(guesses)
    }

    /// Takes back what differs from the wanted sequence; `false` when it can't or need not be followed.
    fn follow(&mut self, want: &Wanted<'_>) -> bool {
        let Some(held) = self.sequences.get_mut(want.sequence) else { return false };
        let same = (held.sure..held.tokens.len().min(want.len()))
            .take_while(|at| held.tokens.get(*at) == Some(&want.token(*at)))
            .count();
        held.sure += same;
        // The last one is evaluated in any case, for its logits.
        let keep = held.sure.min(want.len() - 1);
        let is_token = |at: usize| (0..self.model.n_vocab()).contains(&want.token(at));
        if (want.len() - keep) / WORTH > want.left || !(keep..want.len()).all(is_token) {
            return false;
        }
        if held.tokens.len() > keep {
            self.take_back(want.sequence, keep);
        }
        true
    }

    /// Keeps the first `keep` tokens of a sequence, or none where the model can't go back so far.
    fn take_back(&mut self, sequence: usize, keep: usize) {
        let Some(held) = self.sequences.get_mut(sequence) else { return };
        let seq = u32::try_from(sequence).unwrap_or(u32::MAX);
        let first = self.context.kv_cache_seq_pos_min(i32::try_from(sequence).unwrap_or(i32::MAX));
        let first = usize::try_from(first).unwrap_or(0);
        let from = u32::try_from(keep).ok().filter(|from| *from > 0);
        let is_done = from.is_some()
            && rewind(self.memory, held.tokens.len(), first, keep).is_ok()
            && matches!(self.context.clear_kv_cache_seq(Some(seq), from, None), Ok(true));
        if !is_done {
            let _ = self.context.clear_kv_cache_seq(Some(seq), None, None);
        }
        held.tokens.truncate(if is_done { keep } else { 0 });
        held.sure = held.sure.min(held.tokens.len());
    }

    /// Deletes what other sequences hold when `cells` for the wanted ones leave them no room.
    fn make_room(&mut self, cells: usize, wanted: &[(usize, &Wanted<'_>)]) {
        let is_wanted = |sequence: usize| wanted.iter().any(|(_, want)| want.sequence == sequence);
        let others: usize = (0..self.sequences.len()).filter(|i| !is_wanted(*i)).map(|i| self.held(i)).sum();
        if others + cells > self.capacity {
            for sequence in (0..self.sequences.len()).filter(|i| !is_wanted(*i)) {
                self.trim(sequence, 0);
            }
        }
    }

    fn held(&self, sequence: usize) -> usize {
        self.sequences.get(sequence).map_or(0, |held| held.tokens.len())
    }

    fn chunk(&self) -> usize {
        let by_time = (self.rate * CHUNK_TIME.as_secs_f64()) as usize;
        by_time.clamp(CHUNK, BATCH as usize)
    }

    fn evaluate(&mut self) -> Result<(), String> {
        let tokens = self.batch.n_tokens();
        if tokens == 0 {
            return Ok(());
        }
        let began = Instant::now();
        self.context.decode(&mut self.batch).map_err(|e| e.to_string())?;
        if tokens >= 32 {
            self.context.synchronize();
            let rate = f64::from(tokens) / began.elapsed().as_secs_f64().max(1e-6);
            self.rate = if self.rate > 0.0 { 0.5 * self.rate + 0.5 * rate } else { rate };
        }
        Ok(())
    }

    /// The likeliest token, if it is likely enough and no end.
    fn choose(&self, at: i32) -> Option<TokenId> {
        let logits = self.context.get_logits_ith(at);
        let token = sampler::largest(logits)?;
        (!self.end_tokens.contains(&token) && is_likely(logits, token)).then_some(token)
    }
}

fn add(
    batch: &mut LlamaBatch<'static>,
    token: TokenId,
    at: usize,
    sequence: usize,
    wants_logits: bool,
) -> Result<(), String> {
    let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    batch
        .add(LlamaToken::new(token), number(at), &[number(sequence)], wants_logits)
        .map_err(|_| "a batch was built too large; this is a defect".to_owned())
}

/// Whether the probability of `token`, which has the largest logit, is at least [`LEAST_CONFIDENCE`].
fn is_likely(logits: &[f32], token: TokenId) -> bool {
    // Farther below the largest they can't add up to anything, whatever the vocabulary.
    const FAR: f32 = 20.0;
    let Some(top) = usize::try_from(token).ok().and_then(|at| logits.get(at)).copied() else { return false };
    let mut sum = 0.0_f32;
    for logit in logits.iter().filter(|logit| **logit > top - FAR) {
        sum += (logit - top).exp();
        if sum > 1.0 / LEAST_CONFIDENCE {
            return false;
        }
    }
    sum.is_finite() && sum > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::llama::Purpose;
    use pretty_assertions::assert_eq;

    /// The built-in model with room for `context` tokens.
    fn start(context: u32) -> DraftStart {
        DraftStart {
            path: std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/builtin.gguf"),
            storage: Storage::Mapped,
            offload: Offload::All,
            options: LoadOptions { context, slots: 2, threads: 1, purpose: Purpose::Text },
            window: None,
            share: 1.0,
        }
    }

    const QUESTION: &str =
        "<|im_start|>user\nWrite a binary search in Rust<|im_end|>\n<|im_start|>assistant\n";
    const ANSWER: &str = "```rust\nfn binary_search(items: &[i32], target: i32) -> Opti";

    /// The tokens of a question and of the beginning of its answer.
    fn conversation(model: &LlamaModel) -> Vec<TokenId> {
        let tokens = model.vocab().tokenize(format!("{QUESTION}{ANSWER}").as_bytes(), false, true);
        tokens.iter().map(|token| token.0).collect()
    }

    fn wanted(sequence: usize, tokens: &[TokenId], most: usize) -> Wanted<'_> {
        let (next, known) = tokens.split_last().unwrap();
        Wanted { sequence, known, next: *next, most, left: usize::MAX }
    }

    /// What is guessed in the end, however many chunks it takes.
    fn guess(draft: &mut DraftModel<'_>, want: Wanted<'_>) -> Vec<TokenId> {
        for _ in 0..20 {
            if let Some(guess) = draft.guess(&[want]).unwrap().remove(0) {
                return guess;
            }
        }
        panic!("never ready")
    }

    #[test]
    fn what_it_holds_follows_the_other_model() {
        let (llama, start) = (Llama::for_tests(), start(512));
        let model = start.load(&llama, |_| true).unwrap();
        let all = conversation(&model);
        let fresh = |tokens: &[TokenId], most| {
            guess(&mut start.open(&llama, &model).unwrap(), wanted(0, tokens, most))
        };
        let mut draft = start.open(&llama, &model).unwrap();
        // Forward, a wrong guess, back, another conversation in the same sequence, and the other sequence.
        let other: Vec<TokenId> = all.iter().rev().copied().collect();
        let steps: [(usize, Vec<TokenId>, bool); 7] = [
            (0, all[..20].to_vec(), false),
            (0, all[..24].to_vec(), false),
            (0, [&all[..24], &[all[0]], &all[24..30]].concat(), false),
            (0, all[..10].to_vec(), true),
            (0, other, true),
            (1, all.clone(), false),
            (0, all.clone(), true),
        ];
        for (turn, (sequence, tokens, is_another)) in steps.into_iter().enumerate() {
            if is_another {
                draft.doubt(sequence);
            }
            let said = guess(&mut draft, wanted(sequence, &tokens, 6));
            assert_eq!(said, fresh(&tokens, 6), "turn {turn}");
            let held = draft.sequences[sequence].tokens.len();
            assert!((tokens.len()..tokens.len() + 6).contains(&held), "{held} of {}", tokens.len());
            let first = i32::try_from(sequence).unwrap();
            assert_eq!(draft.context.kv_cache_seq_pos_max(first), i32::try_from(held).unwrap() - 1);
        }
        assert_eq!(fresh(&all, 6).len(), 6, "it knows the rest by heart");
        // The slot is cut, then emptied.
        draft.trim(0, 5);
        assert_eq!((draft.held(0), draft.context.kv_cache_seq_pos_max(0)), (5, 4));
        draft.trim(0, 0);
        assert_eq!((draft.held(0), draft.context.kv_cache_seq_pos_max(0)), (0, -1));
        assert_eq!(guess(&mut draft, wanted(0, &all, 6)), fresh(&all, 6));
    }

    #[test]
    fn it_catches_up_in_chunks_and_where_it_is_worth_it() {
        let (llama, start) = (Llama::for_tests(), start(512));
        let model = start.load(&llama, |_| true).unwrap();
        let mut draft = start.open(&llama, &model).unwrap();
        let long: Vec<TokenId> = conversation(&model).into_iter().cycle().take(300).collect();
        assert_eq!(draft.guess(&[wanted(0, &long, 4)]).unwrap(), [None], "a chunk of it at first");
        assert_eq!(draft.held(0), CHUNK);
        let all = guess(&mut draft, wanted(0, &long, 4));
        assert_eq!(draft.held(0), long.len() + all.len().max(1) - 1);
        draft.trim(0, 0);
        let short = Wanted { left: 8, ..wanted(0, &long, 4) };
        assert_eq!(draft.guess(&[short]).unwrap(), [None]);
        assert_eq!(draft.held(0), 0, "the answer is too short for that");
        // An image is no token, and nothing after it can be followed.
        let image = [&[-7], &long[..5]].concat();
        assert_eq!(draft.guess(&[wanted(0, &image, 4), wanted(1, &long[..5], 0)]).unwrap(), [None, None]);
    }

    #[test]
    fn conversations_that_do_not_fit_make_room_or_do_without() {
        let (llama, start) = (Llama::for_tests(), start(256));
        let model = start.load(&llama, |_| true).unwrap();
        let mut draft = start.open(&llama, &model).unwrap();
        let text: Vec<TokenId> = conversation(&model).into_iter().cycle().take(250).collect();
        let _ = guess(&mut draft, wanted(0, &text[..150], 4));
        let _ = guess(&mut draft, wanted(1, &text[..150], 4));
        assert_eq!(draft.held(0), 0, "the other one had to leave");
        assert_eq!(draft.guess(&[wanted(0, &text, 10)]).unwrap(), [None], "longer than its context");
        let both = draft.guess(&[wanted(0, &text[..150], 4), wanted(1, &text[..150], 4)]).unwrap();
        assert_eq!(both[1], None, "both do not fit");
    }

    #[test]
    fn a_likely_token_outweighs_all_others_together() {
        assert!(is_likely(&[5.0, 1.0, 1.0, 1.0], 0));
        assert!(!is_likely(&[5.0, 5.0, 5.0, 1.0], 0), "one of three");
        assert!(is_likely(&[1.0, 1.0], 0), "as likely as not");
        let mut many = vec![0.0; 1000];
        many[7] = 6.0;
        assert!(!is_likely(&many, 7), "many small ones count");
        many[7] = 12.0;
        assert!(is_likely(&many, 7));
        assert!(!is_likely(&[f32::NAN], 0) && !is_likely(&[], 0) && !is_likely(&[1.0], -1));
    }
}
