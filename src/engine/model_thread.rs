//! The thread that owns one resident model: continuous batching over the slots of one unified KV cache.
//!
//! Each round takes in new jobs, drops cancelled ones, puts one token of every decoding job and a chunk
//! of every prefilling one into a batch, and decodes it. A chunk is sized by time, so that a long prompt
//! holds a running answer, and a cancel waits, for about 200 ms at most. The loop touches no
//! async code; a panic in it is an error for its jobs, never for the process.

use super::job::{Command, Job, JobEvent, TokenId};
use super::llama::{self, BATCH, Llama, LoadOptions, Storage};
use super::prefix::{self, SlotFacts};
use super::sampler::{SampleError, Sampler};
use super::slot::{Running, Slot};
use super::stats::Stats;
use crate::chat::{Finish, GenError, GenErrorKind};
use llama_cpp_2::DecodeError;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// How long one batch may take while somebody waits for it.
const CHUNK_TIME: Duration = Duration::from_millis(200);
/// Chunks are multiples of this.
const CHUNK_STEP: usize = 64;
/// Smallest chunk: below it the overhead of a batch outweighs what it computes.
const SMALLEST_CHUNK: usize = 32;

/// Everything a model thread starts with.
#[derive(Debug)]
pub struct Start {
    /// llama.cpp.
    pub llama: Llama,
    /// The file.
    pub path: PathBuf,
    /// How to read it.
    pub storage: Storage,
    /// Settings.
    pub options: LoadOptions,
    /// Longest queue of jobs that have no slot.
    pub queue_limit: usize,
    /// What it is told.
    pub commands: Receiver<Command>,
    /// Where its counters go.
    pub stats: Arc<Stats>,
}

/// Runs until told to unload or all senders are gone. `progress` gets 0 to 1 while loading and may return
/// `false` to stop; `ready` gets the model or the reason why there is none.
pub fn run(
    start: Start,
    progress: impl FnMut(f32) -> bool + 'static,
    ready: impl FnOnce(Result<Arc<LlamaModel>, String>),
) {
    let model = match start.llama.load(&start.path, start.storage, progress) {
        Ok(model) => Arc::new(model),
        Err(error) => return ready(Err(error)),
    };
    let mut context = match start.llama.context(&model, start.options) {
        Ok(context) => context,
        Err(error) => return ready(Err(error)),
    };
    warm_up(&model, &mut context);
    let slots = (0..start.options.slots.max(1))
        .map(|i| Slot {
            seq: i32::try_from(i).unwrap_or(0),
            tokens: Vec::new(),
            running: None,
            is_kept: true,
            last_used: 0,
        })
        .collect();
    let mut thread = ModelThread {
        capacity: context.n_ctx() as usize,
        end_tokens: llama::end_tokens(&model),
        batch: LlamaBatch::new(BATCH as usize, 1),
        model: &model,
        context,
        slots,
        queue: VecDeque::new(),
        queue_limit: start.queue_limit,
        stats: start.stats,
        clock: 0,
        prefill_rate: 0.0,
        piece: Vec::with_capacity(64),
    };
    ready(Ok(Arc::clone(&model)));
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| thread.serve(&start.commands)));
    if outcome.is_err() {
        tracing::error!(path = %start.path.display(), "model thread panicked");
        thread.fail_all(
            GenErrorKind::EngineDied,
            "the engine failed inside this model's thread; its log has more. Retry",
        );
    }
}

/// Evaluates one token, so that the cost of touching weights and buffers for the first time is part of
/// loading and not of the first answer.
fn warm_up(model: &LlamaModel, context: &mut LlamaContext<'_>) {
    let token = llama::any_token(model);
    let mut batch = LlamaBatch::new(1, 1);
    if batch.add(token, 0, &[0], true).is_ok() && context.decode(&mut batch).is_ok() {
        context.synchronize();
    }
    context.clear_kv_cache();
}

struct ModelThread<'m> {
    model: &'m LlamaModel,
    context: LlamaContext<'m>,
    batch: LlamaBatch<'static>,
    slots: Vec<Slot>,
    queue: VecDeque<Waiting>,
    queue_limit: usize,
    stats: Arc<Stats>,
    end_tokens: Vec<TokenId>,
    /// Cells of the KV cache, shared by all slots.
    capacity: usize,
    clock: u64,
    /// Tokens per second of the last large prefill batches; 0 until measured.
    prefill_rate: f64,
    piece: Vec<u8>,
}

impl ModelThread<'_> {
    fn serve(&mut self, commands: &Receiver<Command>) {
        loop {
            let is_idle = self.slots.iter().all(|s| s.running.is_none()) && self.queue.is_empty();
            let mut command = if is_idle {
                self.clear_unwanted();
                llama::release_compute_threads();
                match commands.recv() {
                    Ok(command) => Some(command),
                    Err(_) => return,
                }
            } else {
                None
            };
            loop {
                match command.take() {
                    Some(Command::Generate(job)) => self.enqueue(*job),
                    Some(Command::Embed(job)) => {
                        let message = "this model has no embeddings: it is made to chat with";
                        let _ = job.reply.send(Err(GenError::new(GenErrorKind::Model, message)));
                    }
                    Some(Command::Unload) => {
                        return self
                            .fail_all(GenErrorKind::Model, "the model was unloaded. Send again to load it");
                    }
                    None => {}
                }
                match commands.try_recv() {
                    Ok(next) => command = Some(next),
                    Err(TryRecvError::Disconnected) if is_idle => return,
                    // Without senders the running jobs are still finished.
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
            self.drop_cancelled();
            self.clear_unwanted();
            self.assign();
            self.step();
            self.publish();
        }
    }

    fn enqueue(&mut self, job: Job) {
        let needed = job.prompt.len();
        let is_good =
            |(index, id): (usize, &TokenId)| llama::is_token(self.model, *id) || job.is_image(index);
        if needed == 0 || !job.prompt.iter().enumerate().all(is_good) {
            // llama.cpp ends the process for a token that isn't one.
            let message = "the prompt is empty or holds a token the model does not have".to_owned();
            let _ = job.events.send(JobEvent::Failed { kind: GenErrorKind::Refused, message });
        } else if needed >= self.capacity {
            let message = format!(
                "the prompt has {needed} tokens, the context holds {}. Shorten it, or raise [engine] context",
                self.capacity
            );
            let _ = job.events.send(JobEvent::Failed { kind: GenErrorKind::ContextFull, message });
        } else if self.queue.len() >= self.queue_limit {
            let message = format!(
                "{} requests are waiting for this model already. Try again in a moment",
                self.queue.len()
            );
            let _ = job.events.send(JobEvent::Failed { kind: GenErrorKind::Refused, message });
        } else {
            self.queue.push_back(Waiting { job, told: None });
        }
    }

    fn drop_cancelled(&mut self) {
        for slot in &mut self.slots {
            if slot.running.as_ref().is_some_and(Running::is_cancelled) {
                slot.running = None;
                self.stats.add_cancelled();
            }
        }
        self.queue.retain(|waiting| !waiting.job.events.is_closed());
    }

    /// A request that wants no cache leaves none behind: every cell in use costs all sequences time.
    fn clear_unwanted(&mut self) {
        for slot in
            self.slots.iter_mut().filter(|s| s.running.is_none() && !s.is_kept && !s.tokens.is_empty())
        {
            let _ = self.context.clear_kv_cache_seq(Some(seq_id(slot.seq)), None, None);
            slot.tokens.clear();
        }
    }

    /// Gives waiting jobs idle slots, first come first served, and tells the rest how many are ahead.
    fn assign(&mut self) {
        while let Some(waiting) = self.queue.pop_front() {
            let facts: Vec<SlotFacts<'_>> = self
                .slots
                .iter()
                .map(|s| SlotFacts {
                    tokens: &s.tokens,
                    is_busy: s.running.is_some(),
                    last_used: s.last_used,
                })
                .collect();
            let Some(choice) = prefix::choose(&facts, &waiting.job.prompt, waiting.job.cache_prompt) else {
                self.queue.push_front(waiting);
                break;
            };
            // A newcomer must not take the cells that running answers have.
            let taken: usize =
                self.slots.iter().filter(|s| s.running.is_some()).map(|s| s.tokens.len()).sum();
            if taken > 0 && taken + waiting.job.prompt.len() >= self.capacity {
                self.queue.push_front(waiting);
                break;
            }
            self.begin(waiting.job, choice);
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

    fn begin(&mut self, job: Job, choice: prefix::Choice) {
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
        let choice = prefix::Choice { reused: job.whole(choice.reused), ..choice };
        let cached = self.keep_prefix(choice);
        self.clock += 1;
        let Some(slot) = self.slots.get_mut(choice.slot) else { return };
        slot.last_used = self.clock;
        slot.is_kept = job.cache_prompt;
        let running = Running::new(job, cached, sampler);
        running.send_progress(cached);
        slot.running = Some(running);
    }

    /// Makes the chosen slot hold exactly the reused prefix; returns how long it really is.
    fn keep_prefix(&mut self, choice: prefix::Choice) -> usize {
        let Some(seq) = self.slots.get(choice.slot).map(|s| s.seq) else { return 0 };
        let reused = u32::try_from(choice.reused).unwrap_or(0);
        let mut kept = 0;
        if choice.source == choice.slot {
            // Recurrent and hybrid models can't forget a part: then all goes.
            if choice.reused > 0
                && matches!(self.context.clear_kv_cache_seq(Some(seq_id(seq)), Some(reused), None), Ok(true))
            {
                kept = choice.reused;
            } else {
                let _ = self.context.clear_kv_cache_seq(Some(seq_id(seq)), None, None);
            }
        } else {
            let _ = self.context.clear_kv_cache_seq(Some(seq_id(seq)), None, None);
            let source = self.slots.get(choice.source).map_or(0, |s| s.seq);
            let can_copy = !self.model.is_recurrent() && !self.model.is_hybrid();
            if can_copy && self.context.copy_kv_cache_seq(source, seq, Some(0), Some(reused)).is_ok() {
                kept = choice.reused;
            }
        }
        let prefix =
            self.slots.get(choice.source).and_then(|s| s.tokens.get(..kept)).unwrap_or_default().to_vec();
        if let Some(slot) = self.slots.get_mut(choice.slot) {
            slot.tokens = prefix;
        }
        kept
    }

    /// How many prompt tokens one batch may take.
    fn chunk(&self) -> usize {
        if self.prefill_rate <= 0.0 {
            // Not measured yet: small enough for a slow machine, large enough to measure.
            return 64;
        }
        let by_time = (self.prefill_rate * CHUNK_TIME.as_secs_f64()) as usize;
        // Matrices are worked on in blocks: an uneven chunk costs as much as the next even one.
        (by_time.next_multiple_of(CHUNK_STEP)).clamp(SMALLEST_CHUNK, BATCH as usize)
    }

    /// Evaluates one image that a prompt has come to, if there is one.
    #[cfg(feature = "mtmd")]
    fn look(&mut self) {
        for slot in &mut self.slots {
            let Some(running) = &mut slot.running else { continue };
            let at = slot.tokens.len();
            let Some(image) = running.job.images.iter().find(|image| image.at == at) else { continue };
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
                    if let Some(running) = slot.running.take() {
                        running.fail(GenErrorKind::Model, message);
                    }
                }
            }
            return;
        }
    }

    fn step(&mut self) {
        #[cfg(feature = "mtmd")]
        self.look();
        self.batch.clear();
        let mut budget = self.chunk();
        let mut prompt_tokens = 0;
        let mut is_full = false;
        for slot in &mut self.slots {
            let Some(running) = &mut slot.running else { continue };
            running.logits_at = None;
            running.in_batch = 0;
            if let Some(token) = running.next {
                let position = i32::try_from(slot.tokens.len()).unwrap_or(i32::MAX);
                let at = self.batch.n_tokens();
                is_full |= self.batch.add(LlamaToken::new(token), position, &[slot.seq], true).is_err();
                running.logits_at = Some(at);
            }
        }
        for slot in &mut self.slots {
            let Some(running) = &mut slot.running else { continue };
            if running.next.is_some() || running.prefilled.is_some() {
                continue;
            }
            let room = (BATCH as usize).saturating_sub(usize::try_from(self.batch.n_tokens()).unwrap_or(0));
            let done = slot.tokens.len();
            let left = running.job.prompt.get(done..running.job.next_image(done)).unwrap_or_default();
            let take = left.len().min(budget).min(room);
            // Without output tokens no logits are needed.
            let wants_logits = running.job.max_tokens != Some(0);
            for (i, token) in left.iter().take(take).enumerate() {
                let position = i32::try_from(done + i).unwrap_or(i32::MAX);
                let is_last = done + i + 1 == running.job.prompt.len();
                let at = self.batch.n_tokens();
                is_full |= self
                    .batch
                    .add(LlamaToken::new(*token), position, &[slot.seq], is_last && wants_logits)
                    .is_err();
                if is_last && wants_logits {
                    running.logits_at = Some(at);
                }
            }
            running.in_batch = take;
            budget -= take;
            prompt_tokens += take;
        }
        if is_full {
            return self
                .fail_all(GenErrorKind::EngineDied, "a batch was built too large; this is a defect. Retry");
        }
        if self.batch.n_tokens() == 0 {
            return;
        }
        let began = Instant::now();
        match self.context.decode(&mut self.batch) {
            Ok(()) => {
                if prompt_tokens >= SMALLEST_CHUNK {
                    // The wait for the result is part of it where devices work in the background.
                    self.context.synchronize();
                    let rate = prompt_tokens as f64 / began.elapsed().as_secs_f64().max(1e-6);
                    self.prefill_rate =
                        if self.prefill_rate > 0.0 { 0.5 * self.prefill_rate + 0.5 * rate } else { rate };
                }
                self.advance();
            }
            Err(DecodeError::NoKvCacheSlot) => {
                if !self.forget_an_idle_conversation() {
                    self.end_the_longest();
                }
            }
            Err(error) => {
                tracing::error!(%error, "decode failed");
                self.fail_all(
                    GenErrorKind::EngineDied,
                    &format!("llama.cpp could not evaluate a batch ({error}). Retry"),
                );
                self.context.clear_kv_cache();
                for slot in &mut self.slots {
                    slot.tokens.clear();
                }
            }
        }
    }

    /// The KV cache is full: forgets the idle conversation unused for longest. The batch is built anew then.
    fn forget_an_idle_conversation(&mut self) -> bool {
        let victim = self
            .slots
            .iter_mut()
            .filter(|s| s.running.is_none() && !s.tokens.is_empty())
            .min_by_key(|s| s.last_used);
        let Some(slot) = victim else { return false };
        let _ = self.context.clear_kv_cache_seq(Some(seq_id(slot.seq)), None, None);
        slot.tokens.clear();
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

    /// The batch was evaluated: slots have grown, and those with logits choose their next token.
    fn advance(&mut self) {
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
            let outcome = if running.prefilled.is_some() && running.job.max_tokens == Some(0) {
                Next::Finish(Finish::Length)
            } else if let Some(at) = running.logits_at.take() {
                choose(self.model, &self.context, running, at, &self.end_tokens, &mut self.piece)
            } else {
                Next::Wait
            };
            let is_at_capacity = slot.tokens.len() + 1 >= self.capacity;
            match outcome {
                Next::Token(token) if !is_at_capacity => running.next = Some(token),
                Next::Wait => {}
                Next::Token(_) | Next::Finish(_) | Next::Fail(_) => {
                    let Some(running) = slot.running.take() else { continue };
                    self.stats.add_finished(&running.timings());
                    match outcome {
                        Next::Fail(message) => running.fail(GenErrorKind::Model, message),
                        Next::Finish(finish) => running.finish(finish),
                        Next::Token(_) | Next::Wait => running.finish(Finish::Length),
                    }
                }
            }
        }
    }

    fn publish(&self) {
        let busy = self.slots.iter().filter(|s| s.running.is_some()).count();
        let cells = self.slots.iter().map(|s| s.tokens.len()).sum();
        self.stats.publish(busy, self.queue.len(), cells);
    }

    fn fail_all(&mut self, kind: GenErrorKind, message: &str) {
        for slot in &mut self.slots {
            if let Some(running) = slot.running.take() {
                running.fail(kind, message);
            }
        }
        for Waiting { job, .. } in self.queue.drain(..) {
            let _ = job.events.send(JobEvent::Failed { kind, message: message.to_owned() });
        }
        self.publish();
    }
}

/// A job without a slot.
struct Waiting {
    job: Job,
    /// How many were ahead when it was last told.
    told: Option<u32>,
}

/// What a slot does after its batch.
enum Next {
    Token(TokenId),
    Finish(Finish),
    Fail(String),
    Wait,
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

fn seq_id(seq: i32) -> u32 {
    u32::try_from(seq).unwrap_or(0)
}
