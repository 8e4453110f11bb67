//! The thread that owns one resident embedding model: texts of all waiting requests are packed into batches, one
//! sequence each, and come back as vectors of length 1.
//!
//! A text is evaluated whole, in one batch: most of these models look at both sides of a word, and llama.cpp ends
//! the process for one that is cut. So the physical batch is as large as the longest text.

use super::gate::Gate;
use super::job::{Command, EmbedJob, Embedded, Inbox, JobEvent, TokenId};
use super::llama;
use super::model_thread::Start;
use super::stats::Stats;
use crate::chat::{GenError, GenErrorKind};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::Instant;

/// Texts in one batch, at most.
pub const SEQUENCES: u32 = 16;

/// Tokens the longest text may have: the context, and what the model knows positions for.
#[must_use]
pub fn longest(model: &LlamaModel, context: u32) -> usize {
    context.min(model.n_ctx_train()) as usize
}

/// Runs until told to unload or all senders are gone; as [`super::model_thread::run`].
pub fn run(
    start: Start,
    progress: impl FnMut(f32) -> bool + 'static,
    ready: impl FnOnce(Result<Arc<LlamaModel>, String>),
) {
    let model = match start.llama.load(&start.path, start.storage, &start.offload, start.options, progress) {
        Ok(model) => Arc::new(model),
        Err(error) => return ready(Err(error)),
    };
    let context = match start.llama.context(&model, start.options) {
        Ok(context) => context,
        Err(error) => return ready(Err(error)),
    };
    let longest = longest(&model, start.options.context);
    let mut thread = EmbedThread {
        model: &model,
        batch: LlamaBatch::new(longest, 1),
        context,
        longest,
        queue: VecDeque::new(),
        queue_limit: start.queue_limit,
        stats: start.stats,
        gate: start.gate,
    };
    // Touching weights and buffers for the first time is part of loading.
    if let Err(error) = thread.evaluate(&[&[llama::any_token(&model).0]]) {
        return ready(Err(error));
    }
    ready(Ok(Arc::clone(&model)));
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| thread.serve(&start.inbox)));
    if outcome.is_err() {
        tracing::error!(path = %start.path.display(), "embedding thread panicked");
        thread.fail_all(
            GenErrorKind::EngineDied,
            "the engine failed inside this model's thread; its log has more. Retry",
        );
    }
}

struct EmbedThread<'m> {
    model: &'m LlamaModel,
    context: LlamaContext<'m>,
    batch: LlamaBatch<'static>,
    /// Tokens of the longest text, and of a batch.
    longest: usize,
    queue: VecDeque<Waiting>,
    queue_limit: usize,
    stats: Arc<Stats>,
    /// Where it waits for its turn at the device.
    gate: Gate,
}

/// A request and how far it is.
struct Waiting {
    job: EmbedJob,
    vectors: Vec<Vec<f32>>,
    /// When its first batch began.
    began: Option<Instant>,
}

impl Waiting {
    /// The text that is `taken` texts after those that are done.
    fn next(&self, taken: usize) -> Option<&[TokenId]> {
        self.job.texts.get(self.vectors.len() + taken).map(Vec::as_slice)
    }
}

impl EmbedThread<'_> {
    fn serve(&mut self, commands: &Inbox) {
        loop {
            let mut command = if self.queue.is_empty() {
                self.stats.publish(0, 0, 0);
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
                    Some(Command::Embed(job)) => self.enqueue(*job),
                    Some(Command::Generate(job)) => {
                        let message = "this model makes embeddings and can't be chatted with".to_owned();
                        let _ = job.events.send(JobEvent::Failed { kind: GenErrorKind::Model, message });
                    }
                    Some(Command::Forget { done, .. }) => {
                        // Nothing of a text is kept.
                        let _ = done.send(0);
                    }
                    Some(Command::Unload) => {
                        return self
                            .fail_all(GenErrorKind::Model, "the model was unloaded. Send again to load it");
                    }
                    None => {}
                }
                match commands.try_recv() {
                    Ok(next) => command = Some(next),
                    // Without senders the waiting requests are still finished.
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
            let before = self.queue.len();
            self.queue.retain(|waiting| !waiting.job.reply.is_closed());
            for _ in self.queue.len()..before {
                self.stats.add_cancelled();
            }
            self.stats.publish(self.queue.len().min(1), self.queue.len().saturating_sub(1), 0);
            self.step();
        }
    }

    fn enqueue(&mut self, job: EmbedJob) {
        let is_good = |text: &Vec<TokenId>| {
            (1..=self.longest).contains(&text.len()) && text.iter().all(|id| llama::is_token(self.model, *id))
        };
        if job.texts.is_empty() || !job.texts.iter().all(is_good) {
            // llama.cpp ends the process for a token that isn't one, and for a text that does not fit.
            let message = "a text is empty, too long, or holds a token the model does not have";
            let _ = job.reply.send(Err(GenError::new(GenErrorKind::Refused, message)));
        } else if self.queue.len() >= self.queue_limit {
            let message = format!(
                "{} requests are waiting for this model already. Try again in a moment",
                self.queue.len()
            );
            let _ = job.reply.send(Err(GenError::new(GenErrorKind::Refused, message)));
        } else {
            let vectors = Vec::with_capacity(job.texts.len());
            self.queue.push_back(Waiting { job, vectors, began: None });
        }
    }

    /// One batch: a text of each request in turn, as long as there is room.
    fn step(&mut self) {
        let mut chosen: Vec<usize> = Vec::new();
        let mut taken = vec![0; self.queue.len()];
        let mut room = self.longest;
        let mut has_more = true;
        while has_more {
            has_more = false;
            for (index, waiting) in self.queue.iter().enumerate() {
                let Some(count) = taken.get_mut(index) else { continue };
                if let Some(text) = waiting.next(*count)
                    && text.len() <= room
                    && chosen.len() < SEQUENCES as usize
                {
                    room -= text.len();
                    *count += 1;
                    chosen.push(index);
                    has_more = true;
                }
            }
        }
        if chosen.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut order = vec![0; self.queue.len()];
        let mut texts: Vec<Vec<TokenId>> = Vec::with_capacity(chosen.len());
        for index in &chosen {
            let (Some(waiting), Some(at)) = (self.queue.get_mut(*index), order.get_mut(*index)) else {
                continue;
            };
            waiting.began.get_or_insert(now);
            texts.push(waiting.next(*at).unwrap_or_default().to_vec());
            *at += 1;
        }
        let texts: Vec<&[TokenId]> = texts.iter().map(Vec::as_slice).collect();
        let _turn = self.gate.enter();
        match self.evaluate(&texts) {
            Ok(vectors) => {
                for (index, vector) in chosen.iter().zip(vectors) {
                    if let Some(waiting) = self.queue.get_mut(*index) {
                        waiting.vectors.push(vector);
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "embedding failed");
                chosen.sort_unstable();
                chosen.dedup();
                for index in chosen.into_iter().rev() {
                    if let Some(waiting) = self.queue.remove(index) {
                        let error = GenError::new(GenErrorKind::EngineDied, format!("{error}. Retry"));
                        let _ = waiting.job.reply.send(Err(error));
                    }
                }
            }
        }
        self.finish();
        // Who had the first seat has the last one next time.
        if self.queue.len() > 1 {
            self.queue.rotate_left(1);
        }
    }

    /// Answers the requests whose texts are all done.
    fn finish(&mut self) {
        let (done, open) =
            std::mem::take(&mut self.queue).into_iter().partition(|waiting| waiting.next(0).is_none());
        self.queue = open;
        let done: VecDeque<Waiting> = done;
        for Waiting { job, vectors, began } in done {
            let began = began.unwrap_or(job.arrived);
            let tokens = job.texts.iter().map(Vec::len).sum();
            let embedded = Embedded {
                vectors,
                tokens,
                queue_ms: began.duration_since(job.arrived).as_secs_f64() * 1000.0,
                ms: began.elapsed().as_secs_f64() * 1000.0,
            };
            self.stats.add_embedded(&embedded);
            let _ = job.reply.send(Ok(embedded));
        }
    }

    /// The vectors of these texts, which fit into one batch.
    fn evaluate(&mut self, texts: &[&[TokenId]]) -> Result<Vec<Vec<f32>>, String> {
        self.batch.clear();
        for (sequence, text) in (0_i32..).zip(texts) {
            for (position, token) in (0_i32..).zip(*text) {
                self.batch
                    .add(LlamaToken::new(*token), position, &[sequence], true)
                    .map_err(|_| "a batch was built too large; this is a defect".to_owned())?;
            }
        }
        let evaluated = self.context.decode(&mut self.batch);
        let vectors =
            evaluated.map_err(|e| format!("llama.cpp could not evaluate a batch ({e})")).and_then(|()| {
                (0_i32..)
                    .zip(texts)
                    .map(|(sequence, _)| {
                        let vector = self.context.embeddings_seq_ith(sequence).map_err(|e| e.to_string())?;
                        normalised(vector)
                            .ok_or_else(|| "the model's weights give no finite numbers".to_owned())
                    })
                    .collect()
            });
        self.context.clear_kv_cache();
        self.stats.add_prompt(texts.iter().map(|text| text.len()).sum());
        vectors
    }

    fn fail_all(&mut self, kind: GenErrorKind, message: &str) {
        for waiting in self.queue.drain(..) {
            let _ = waiting.job.reply.send(Err(GenError::new(kind, message)));
        }
        self.stats.publish(0, 0, 0);
    }
}

/// The vector with length 1 (one of zeros stays so); none when a number of it is not finite.
fn normalised(vector: &[f32]) -> Option<Vec<f32>> {
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if !length.is_finite() {
        return None;
    }
    let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
    Some(vector.iter().map(|x| (f64::from(*x) * scale) as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn vectors_get_length_one() {
        assert_eq!(normalised(&[3.0, 0.0, -4.0]), Some(vec![0.6, 0.0, -0.8]));
        assert_eq!(normalised(&[0.0, 0.0]), Some(vec![0.0, 0.0]));
        assert_eq!(normalised(&[1e30, 1e30]).map(|v| v[0].is_finite()), Some(true));
        assert_eq!(normalised(&[1.0, f32::NAN]), None);
        assert_eq!(normalised(&[f32::INFINITY]), None);
    }
}
