//! What a model thread is asked to do, and what it answers: plain data over channels.

use super::cache::Place;
use super::think::ThinkSplitter;
use crate::chat::{CacheLost, Channel, Finish, GenError, GenErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvError, RecvTimeoutError, SendError, Sender, TryRecvError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// A token id of the model's vocabulary.
pub type TokenId = i32;

/// One generation, tokenised.
#[derive(Debug)]
pub struct Job {
    /// The whole prompt.
    pub prompt: Vec<TokenId>,
    /// Upper bound on output tokens; 0 only prefills. Bounded by the context in any case.
    pub max_tokens: Option<u32>,
    /// Images of the prompt, in their order.
    #[cfg(feature = "mtmd")]
    pub images: Vec<super::vision::Seen>,
    /// How to choose tokens.
    pub sampling: SamplerSpec,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// Keep going past end-of-generation tokens (for measurements).
    pub ignore_eos: bool,
    /// Whether the KV cache of earlier requests may be used.
    pub cache_prompt: bool,
    /// The session it belongs to. Without one what is evaluated never goes to disk.
    pub session: Option<Arc<str>>,
    /// Most tokens guessed ahead at once; 0 guesses none.
    pub draft: usize,
    /// Tells thinking from answer, from where the prompt leaves off.
    pub think: ThinkSplitter,
    /// When the request arrived.
    pub arrived: Instant,
    /// Where the answer goes. A closed receiver cancels. Unbounded: what can be in it is bounded by the
    /// context, and a slow reader must never hold up other sequences of the batch.
    pub events: UnboundedSender<JobEvent>,
}

impl Job {
    /// Where the next image begins at or after `from`, else the end of the prompt.
    #[must_use]
    pub fn next_image(&self, from: usize) -> usize {
        #[cfg(feature = "mtmd")]
        if let Some(image) = self.images.iter().find(|image| image.at >= from) {
            return image.at;
        }
        self.prompt.len().max(from)
    }

    /// The most tokens up to `len` that hold no part of an image without the rest.
    #[must_use]
    pub fn whole(&self, len: usize) -> usize {
        #[cfg(feature = "mtmd")]
        if let Some(image) = self.images.iter().find(|image| image.at < len && len < image.at + image.len) {
            return image.at;
        }
        len
    }

    /// Whether this place of the prompt belongs to an image.
    #[must_use]
    pub fn is_image(&self, index: usize) -> bool {
        #[cfg(feature = "mtmd")]
        if self.images.iter().any(|image| (image.at..image.at + image.len).contains(&index)) {
            return true;
        }
        let _ = index;
        false
    }
}

/// Sampling settings with every gap filled.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerSpec {
    /// 0 or less is greedy.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: i32,
    /// 1 keeps all.
    pub top_p: f32,
    /// 0 keeps all.
    pub min_p: f32,
    /// 1 is off.
    pub repeat_penalty: f32,
    /// How many recent tokens penalties look at.
    pub repeat_last_n: i32,
    /// 0 is off.
    pub presence_penalty: f32,
    /// 0 is off.
    pub frequency_penalty: f32,
    /// Seed of the random numbers.
    pub seed: u32,
    /// Added to logits.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// A grammar in GBNF with the root rule `root`.
    pub grammar: Option<String>,
}

/// What a model thread says about a job. Ends with one `Done` or `Failed`.
#[derive(Clone, Debug, PartialEq)]
pub enum JobEvent {
    /// Waiting for a slot behind this many jobs.
    Queued {
        /// Jobs ahead.
        ahead: u32,
    },
    /// Part of the prompt is evaluated.
    Prefill {
        /// Tokens done, cached ones included.
        done: u32,
        /// Tokens of the prompt.
        total: u32,
        /// Tokens from the cache.
        cached: u32,
        /// Time so far.
        ms: f64,
    },
    /// Text, whole characters only.
    Text {
        /// Answer or thinking.
        channel: Channel,
        /// The text.
        text: String,
        /// Measurements so far.
        timings: JobTimings,
    },
    /// Complete.
    Done {
        /// Why it ended.
        finish: Finish,
        /// Measurements.
        timings: JobTimings,
    },
    /// Not complete.
    Failed {
        /// What kind.
        kind: GenErrorKind,
        /// One or two lines.
        message: String,
    },
}

/// What was measured of one job. Milliseconds on the engine's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct JobTimings {
    /// From arrival at the thread to the start of prefill, and waiting for other models at the device.
    pub queue_ms: f64,
    /// Prompt tokens that were not evaluated again.
    pub cache_n: u32,
    /// Where those came from.
    pub cache_from: Option<Place>,
    /// Why a known beginning of the prompt had to be evaluated again.
    pub cache_lost: Option<CacheLost>,
    /// Prompt tokens evaluated.
    pub prompt_n: u32,
    /// Time for those.
    pub prompt_ms: f64,
    /// Tokens produced, the one that ended the answer included.
    pub predicted_n: u32,
    /// Time for those.
    pub predicted_ms: f64,
    /// Tokens guessed ahead.
    pub draft_n: u32,
    /// How many of them were right.
    pub draft_n_accepted: u32,
    /// Energy the machine took meanwhile, in joules, where that can be told.
    pub energy_j: Option<f64>,
}

/// Texts to be turned into vectors.
#[derive(Debug)]
pub struct EmbedJob {
    /// The texts, tokenised; none of them empty.
    pub texts: Vec<Vec<TokenId>>,
    /// When the request arrived.
    pub arrived: Instant,
    /// Where the vectors go. A closed receiver cancels.
    pub reply: oneshot::Sender<Result<Embedded, GenError>>,
}

/// The vectors of one request, and what they took.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// One for each text, of length 1.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub tokens: usize,
    /// Milliseconds from arrival to the first batch.
    pub queue_ms: f64,
    /// Milliseconds from there to the last vector.
    pub ms: f64,
}

/// What a model thread can be told.
#[derive(Debug)]
pub enum Command {
    /// Generate.
    Generate(Box<Job>),
    /// Turn texts into vectors: for the thread of an embedding model.
    Embed(Box<EmbedJob>),
    /// End: running jobs fail, the memory is freed.
    Unload,
    /// Keep nothing of a session, and say in how many slots it was.
    Forget {
        /// The session.
        session: Arc<str>,
        /// Gets the number.
        done: Sender<usize>,
    },
}

/// A way to a model's thread: where to tell it things, and where it takes them from.
#[must_use]
pub fn commands() -> (Commands, Inbox) {
    let (sender, receiver) = mpsc::channel();
    let bell = Bell::default();
    (Commands { sender, bell: bell.clone() }, Inbox { receiver, bell })
}

/// Tells a model's thread things.
#[derive(Clone, Debug)]
pub struct Commands {
    sender: Sender<Command>,
    bell: Bell,
}

impl Commands {
    /// Tells it.
    ///
    /// # Errors
    /// When the thread has ended; gives the command back.
    pub fn send(&self, command: Command) -> Result<(), SendError<Command>> {
        // Before it is there: a bell that rings too early is answered by a look that finds nothing.
        self.bell.waiting.fetch_add(1, Ordering::AcqRel);
        self.sender.send(command)
    }
}

/// What a model's thread was told and has not taken yet.
#[derive(Debug)]
pub struct Inbox {
    receiver: Receiver<Command>,
    bell: Bell,
}

impl Inbox {
    /// Waits for the next one.
    ///
    /// # Errors
    /// When nobody can tell it anything any more.
    pub fn recv(&self) -> Result<Command, RecvError> {
        self.receiver.recv().inspect(|_| self.bell.answer())
    }

    /// The same for a bounded time.
    ///
    /// # Errors
    /// When nothing came, or nobody can tell it anything any more.
    pub fn recv_timeout(&self, time: Duration) -> Result<Command, RecvTimeoutError> {
        self.receiver.recv_timeout(time).inspect(|_| self.bell.answer())
    }

    /// The next one if it is there.
    ///
    /// # Errors
    /// When it isn't, or nobody can tell it anything any more.
    pub fn try_recv(&self) -> Result<Command, TryRecvError> {
        self.receiver.try_recv().inspect(|_| self.bell.answer())
    }

    /// Tells whether something waits in it.
    #[must_use]
    pub fn bell(&self) -> Bell {
        self.bell.clone()
    }
}

/// Tells whether something waits in an [`Inbox`], without taking it.
#[derive(Clone, Debug, Default)]
pub struct Bell {
    waiting: Arc<AtomicUsize>,
}

impl Bell {
    /// Whether something waits.
    #[must_use]
    pub fn rings(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    fn answer(&self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bell_rings_as_long_as_something_waits() {
        let (commands, inbox) = commands();
        let bell = inbox.bell();
        assert!(!bell.rings());
        for _ in 0..3 {
            commands.send(Command::Unload).unwrap();
        }
        assert!(bell.rings());
        assert!(inbox.recv().is_ok() && inbox.try_recv().is_ok() && bell.rings());
        assert!(inbox.recv_timeout(Duration::ZERO).is_ok() && !bell.rings());
        assert!(inbox.try_recv().is_err() && !bell.rings());
    }
}
