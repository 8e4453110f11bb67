//! The thread that owns one resident model: continuous batching over the slots of one unified KV cache.
//!
//! Each round takes in new jobs, drops cancelled ones, puts one token of every decoding job and a chunk of the
//! prefilling ones into a batch, and decodes it. A chunk is sized by time, so that a long prompt holds a
//! running answer, and a cancel waits, for about 200 ms at most; several prompts share it. A prompt that is alone
//! gets larger ones, which are ended when it is cancelled or somebody comes. The loop touches no async code; a panic
//! in it is an error for its jobs, never for the process.
//!
//! `assign` gives jobs their slots and decides what happens to what a slot held, `checkpoints` lets models go back that
//! can't take tokens back, `guess` looks ahead, `batch` builds and evaluates batches, `advance` makes tokens of their logits.

mod advance;
mod assign;
mod batch;
mod checkpoints;
mod guess;
#[cfg(test)]
pub(super) mod tests;

use super::cache::{Cache, Fetch, ModelKey};
use super::checkpoint::Checkpoints;
use super::draft::model::{DraftModel, DraftStart};
use super::gate::{Gate, SLICE, Turn};
use super::job::{Bell, Command, Inbox, Job, JobEvent, TokenId};
use super::llama::{self, BATCH, Llama, LoadOptions, Storage};
use super::residency::offload::Offload;
use super::rewind::Memory;
use super::slot::{Running, Slot};
use super::stats::Stats;
use crate::chat::{GenError, GenErrorKind};
use assign::Keep;
pub use guess::Guess;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::session::SeqState;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::Duration;

/// After this long without work, conversations that have a session are written to disk.
const IDLE: Duration = Duration::from_secs(5);

/// The checkpoints of a model take at most one part in this many of what all conversations may take in memory.
const CHECKPOINTS_PART: u64 = 4;

/// Everything a model thread starts with.
#[derive(Debug)]
pub struct Start {
    /// llama.cpp.
    pub llama: Llama,
    /// The file.
    pub path: PathBuf,
    /// How to read it.
    pub storage: Storage,
    /// Where its layers go.
    pub offload: Offload,
    /// Settings.
    pub options: LoadOptions,
    /// Tokens that layers with a sliding window look back.
    pub window: Option<u64>,
    /// Longest queue of jobs that have no slot.
    pub queue_limit: usize,
    /// What it is told.
    pub inbox: Inbox,
    /// Where its counters go.
    pub stats: Arc<Stats>,
    /// Where conversations go that leave their slot.
    pub cache: Cache,
    /// What they are kept under; none: nothing is kept.
    pub key: Option<Arc<ModelKey>>,
    /// Where it waits for its turn at the device.
    pub gate: Gate,
    /// A second model that guesses for this one.
    pub draft: Option<DraftStart>,
}

/// Runs until told to unload or all senders are gone. `progress` gets 0 to 1 while loading and may return
/// `false` to stop; `ready` gets the model or the reason why there is none.
pub fn run(
    start: Start,
    mut progress: impl FnMut(f32) -> bool + Clone + 'static,
    ready: impl FnOnce(Result<Arc<LlamaModel>, String>),
) {
    // First, so that the other one takes what is left of the accelerators.
    let second = start.draft.as_ref().map(|second| second.load(&start.llama, progress.clone()));
    let second = match second.transpose() {
        Ok(second) => second,
        Err(error) => return ready(Err(error)),
    };
    let draft = start.draft.as_ref().zip(second.as_ref());
    let draft = match draft.map(|(draft, model)| draft.open(&start.llama, model)).transpose() {
        Ok(draft) => draft,
        Err(error) => return ready(Err(error)),
    };
    let share = start.draft.as_ref().map_or(0.0, |draft| draft.share);
    let progress = move |fraction: f32| progress(share + (1.0 - share) * fraction);
    let loaded = start.llama.load(&start.path, start.storage, &start.offload, start.options, progress);
    let model = match loaded {
        Ok(model) => Arc::new(model),
        Err(error) => return ready(Err(error)),
    };
    let mut context = match start.llama.context(&model, start.options) {
        Ok(context) => context,
        Err(error) => return ready(Err(error)),
    };
    llama::warm_up(&model, &mut context);
    let path = start.path.clone();
    let (mut thread, inbox) = ModelThread::new(start, &model, context, draft);
    ready(Ok(Arc::clone(&model)));
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| thread.serve(&inbox)));
    if outcome.is_err() {
        tracing::error!(path = %path.display(), "model thread panicked");
        thread.fail_all(
            GenErrorKind::EngineDied,
            "the engine failed inside this model's thread; its log has more. Retry",
        );
    }
}

struct ModelThread<'m> {
    model: &'m LlamaModel,
    context: LlamaContext<'m>,
    batch: LlamaBatch<'static>,
    /// What the model can forget.
    memory: Memory,
    /// Where it can go back to when it can't forget.
    checkpoints: Checkpoints<SeqState>,
    slots: Vec<Slot>,
    queue: VecDeque<Waiting>,
    queue_limit: usize,
    stats: Arc<Stats>,
    cache: Cache,
    key: Option<Arc<ModelKey>>,
    /// Its turns at the device.
    turn: Turn,
    end_tokens: Vec<TokenId>,
    /// The model that guesses for this one.
    draft: Option<DraftModel<'m>>,
    /// How long it took for the current batch.
    guessing: Duration,
    /// Cells of the KV cache, shared by all slots.
    capacity: usize,
    clock: u64,
    /// Batches so far.
    rounds: usize,
    /// Tokens per second of the last large prefill batches; 0 until measured.
    prefill_rate: f64,
    /// Whether a batch can be ended before it is done.
    can_stop: bool,
    /// Rings when a command waits.
    bell: Bell,
    piece: Vec<u8>,
}

/// A job without a slot.
struct Waiting {
    job: Job,
    /// How many were ahead when it was last told.
    told: Option<u32>,
    /// Its conversation, being read from disk.
    fetch: Option<Fetch>,
}

impl<'m> ModelThread<'m> {
    fn new(
        start: Start,
        model: &'m LlamaModel,
        context: LlamaContext<'m>,
        draft: Option<DraftModel<'m>>,
    ) -> (Self, Inbox) {
        let slots = (0..start.options.slots.max(1))
            .map(|i| Slot {
                seq: i32::try_from(i).unwrap_or(0),
                tokens: Vec::new(),
                running: None,
                is_kept: true,
                session: None,
                saved: 0,
                last_used: 0,
            })
            .collect();
        let thread = Self {
            draft,
            guessing: Duration::ZERO,
            checkpoints: Checkpoints::new(start.cache.memory_limit() / CHECKPOINTS_PART),
            capacity: context.n_ctx() as usize,
            end_tokens: llama::end_tokens(model),
            batch: LlamaBatch::new(BATCH as usize, 1),
            memory: llama::memory_of(model, start.window),
            model,
            context,
            slots,
            queue: VecDeque::new(),
            queue_limit: start.queue_limit,
            stats: start.stats,
            cache: start.cache,
            key: start.key,
            turn: Turn::new(start.gate, SLICE),
            clock: 0,
            rounds: 0,
            prefill_rate: 0.0,
            can_stop: start.llama.is_on_cpu(&start.path),
            bell: start.inbox.bell(),
            piece: Vec::with_capacity(64),
        };
        (thread, start.inbox)
    }
}

impl ModelThread<'_> {
    fn serve(&mut self, commands: &Inbox) {
        loop {
            let is_computing = self.slots.iter().any(|s| s.running.is_some());
            if !is_computing {
                self.turn.end();
            }
            let is_idle = !is_computing && self.queue.is_empty();
            let mut command = if is_idle {
                match self.wait(commands) {
                    Some(command) => Some(command),
                    None => return self.keep_all(),
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
                    Some(Command::Forget { session, done }) => {
                        let _ = done.send(self.forget(&session));
                    }
                    Some(Command::Unload) => {
                        self.fail_all(GenErrorKind::Model, "the model was unloaded. Send again to load it");
                        return self.keep_all();
                    }
                    None => {}
                }
                match commands.try_recv() {
                    Ok(next) => command = Some(next),
                    Err(TryRecvError::Disconnected) if is_idle => return self.keep_all(),
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

    /// Waits for a command; none when nobody can send one any more. Wakes by itself once at most, to write
    /// what is not on disk yet.
    fn wait(&mut self, commands: &Inbox) -> Option<Command> {
        self.clear_unwanted();
        llama::release_compute_threads();
        if (0..self.slots.len()).any(|slot| self.is_unwritten(slot)) {
            match commands.recv_timeout(IDLE) {
                Ok(command) => return Some(command),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.write_all(),
            }
        }
        commands.recv().ok()
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
        } else if self.is_full() {
            let message = format!(
                "{} requests are waiting for this model already. Try again in a moment",
                self.queue_limit
            );
            let _ = job.events.send(JobEvent::Failed { kind: GenErrorKind::Refused, message });
        } else {
            self.queue.push_back(Waiting { job, told: None, fetch: None });
        }
    }

    /// Whether nobody more may wait. Those who have gone away make room.
    fn is_full(&mut self) -> bool {
        if self.queue.len() >= self.queue_limit + self.idle_slots() {
            self.drop_cancelled();
        }
        self.queue.len() >= self.queue_limit + self.idle_slots()
    }

    fn idle_slots(&self) -> usize {
        self.slots.iter().filter(|s| s.running.is_none()).count()
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
        self.trim_draft_model();
        self.trim_checkpoints();
    }

    /// Keeps nothing of a session: idle slots are emptied, running ones when they are done.
    fn forget(&mut self, session: &str) -> usize {
        let mut count = 0;
        for slot in self.slots.iter_mut().filter(|s| s.session.as_deref() == Some(session)) {
            slot.is_kept = false;
            slot.session = None;
            count += 1;
        }
        for waiting in self.queue.iter_mut().filter(|w| w.job.session.as_deref() == Some(session)) {
            waiting.job.session = None;
            waiting.job.cache_prompt = false;
            waiting.fetch = None;
        }
        self.clear_unwanted();
        count
    }

    /// The model goes: conversations that can be continued are kept elsewhere.
    fn keep_all(&mut self) {
        self.clear_unwanted();
        for slot in 0..self.slots.len() {
            self.save(slot, Keep::Everywhere);
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

fn seq_id(seq: i32) -> u32 {
    u32::try_from(seq).unwrap_or(0)
}
