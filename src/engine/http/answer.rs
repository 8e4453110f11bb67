//! One answer on its way: waits for the model, follows the job, and turns both into events of a stream.

use super::super::energy::Span;
use super::super::host::{Counted, Host, Lease, Resident, State};
use super::super::job::{JobEvent, JobTimings};
use super::Failure;
use super::chat::{Prepared, prepare, submit};
use super::chunk::{self, Envelope};
use crate::chat::{Channel, Finish, GenError, GenErrorKind};
use crate::engine::request::ChatRequest;
use serde_json::json;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::Sleep;

/// A comment this often tells the client that the engine lives.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Room for what is written at once, mostly one piece of text.
const PIECE: usize = 512;

/// What was asked, and of whom.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) request: Arc<ChatRequest>,
    pub(super) id: String,
    pub(super) path: PathBuf,
    pub(super) arrived: Instant,
}

/// An answer on its way. Dropping it cancels the job.
pub(super) struct Answer {
    host: Host,
    /// For a graceful end, and to know when nothing is going on.
    counted: Option<Counted>,
    /// Keeps the model resident.
    _lease: Lease,
    question: Question,
    envelope: Envelope,
    phase: Phase,
    load_ms: f64,
    has_spoken: bool,
    /// The energy it takes, from when the job was given to the model.
    energy: Option<Span>,
}

enum Phase {
    Loading { changed: watch::Receiver<u64>, told: i32 },
    Running { resident: Arc<Resident>, events: UnboundedReceiver<JobEvent>, quiet: Quiet },
    Ended,
}

/// Tells when nothing came for a while. One timer serves the whole answer: it is not set anew for each token.
struct Quiet {
    since: tokio::time::Instant,
    timer: Pin<Box<Sleep>>,
}

impl Quiet {
    fn new() -> Self {
        let since = tokio::time::Instant::now();
        Self { since, timer: Box::pin(tokio::time::sleep_until(since + HEARTBEAT)) }
    }

    /// Something came, or was sent.
    fn end(&mut self) {
        self.since = tokio::time::Instant::now();
    }

    /// Returns when it has been quiet for [`HEARTBEAT`].
    async fn lasts(&mut self) {
        loop {
            self.timer.as_mut().await;
            let due = self.since + HEARTBEAT;
            if due <= tokio::time::Instant::now() {
                return;
            }
            self.timer.as_mut().reset(due);
        }
    }
}

/// What happened next.
pub(super) enum Step {
    Loading(f32),
    Job(JobEvent),
    Heartbeat,
    Failed(Failure),
}

impl Answer {
    pub(super) fn new(host: Host, question: Question, lease: Lease, number: u64) -> Self {
        let envelope = Envelope::new(&question.id, number);
        let changed = host.changed();
        let phase = Phase::Loading { changed, told: -1 };
        let counted = Some(host.count_answer());
        let (load_ms, has_spoken) = (0.0, false);
        Self { host, counted, _lease: lease, question, envelope, phase, load_ms, has_spoken, energy: None }
    }

    pub(super) fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// How long the request waited for its model.
    pub(super) fn load_ms(&self) -> f64 {
        self.load_ms
    }

    /// Starts with a job that runs already.
    pub(super) fn running(mut self, resident: Arc<Resident>, prepared: Prepared) -> Result<Self, Failure> {
        self.start(resident, prepared)?;
        Ok(self)
    }

    fn start(&mut self, resident: Arc<Resident>, prepared: Prepared) -> Result<(), Failure> {
        self.energy = self.host.measure();
        let events = submit(&self.host, &resident, prepared, &self.question)?;
        self.phase = Phase::Running { resident, events, quiet: Quiet::new() };
        Ok(())
    }

    /// The next thing that happens; `None` after the end.
    pub(super) async fn step(&mut self) -> Option<Step> {
        loop {
            match &mut self.phase {
                Phase::Ended => return None,
                Phase::Running { resident, events, quiet } => {
                    let event = tokio::select! {
                        biased;
                        event = events.recv() => Some(event),
                        () = quiet.lasts() => None,
                    };
                    quiet.end();
                    let step = match event {
                        None => return Some(Step::Heartbeat),
                        Some(Some(event)) => Step::Job(with_energy(event, self.energy.as_ref())),
                        Some(None) => {
                            self.host.forget(resident);
                            let message =
                                format!("the thread of `{}` ended. Send again to load it anew", resident.id);
                            Step::Failed(GenError::new(GenErrorKind::EngineDied, message).into())
                        }
                    };
                    let is_last = matches!(
                        step,
                        Step::Failed(_) | Step::Job(JobEvent::Done { .. } | JobEvent::Failed { .. })
                    );
                    if is_last {
                        self.phase = Phase::Ended;
                    }
                    return Some(step);
                }
                Phase::Loading { changed, told } => {
                    changed.mark_unchanged();
                    match self.host.state(&self.question.id) {
                        State::Loaded(resident) => {
                            self.load_ms = self.question.arrived.elapsed().as_secs_f64() * 1000.0;
                            let request = Arc::clone(&self.question.request);
                            let started =
                                match prepare(self.host.clone(), Arc::clone(&resident), request).await {
                                    Ok(prepared) => self.start(resident, prepared),
                                    Err(failure) => Err(failure),
                                };
                            if let Err(failure) = started {
                                self.phase = Phase::Ended;
                                return Some(Step::Failed(failure));
                            }
                        }
                        State::Failed(error) => {
                            self.phase = Phase::Ended;
                            return Some(Step::Failed(error.into()));
                        }
                        State::Unloaded => {
                            self.phase = Phase::Ended;
                            return Some(Step::Failed(self.given_up()));
                        }
                        State::Loading(progress) => {
                            let fraction = progress.fraction;
                            let percent = (fraction * 100.0) as i32;
                            if percent != *told {
                                *told = percent;
                                return Some(Step::Loading(fraction));
                            }
                            match tokio::time::timeout(HEARTBEAT, changed.changed()).await {
                                Err(_) => return Some(Step::Heartbeat),
                                Ok(Ok(())) => {}
                                Ok(Err(_)) => {
                                    self.phase = Phase::Ended;
                                    return None;
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// Why a model that was on its way is not there.
    fn given_up(&self) -> Failure {
        let id = &self.question.id;
        if self.question.request.generation.is_ahead {
            let message = format!(
                "`{id}` is not loaded ahead of a question: others would have to leave for it\nask the question to load it"
            );
            return GenError::new(GenErrorKind::OutOfMemory, message).into();
        }
        let message = format!("`{id}` was unloaded while it was being loaded. Send again");
        GenError::new(GenErrorKind::Model, message).into()
    }

    /// The next bytes of the event stream; `None` after the end.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(PIECE);
        // Steps that write nothing (progress nobody asked for) are passed over.
        while out.is_empty() {
            let step = self.step().await?;
            self.write(step, &mut out);
            // What is there already goes in the same write.
            while let Phase::Running { events, .. } = &mut self.phase
                && let Ok(event) = events.try_recv()
            {
                let is_last = matches!(event, JobEvent::Done { .. } | JobEvent::Failed { .. });
                let event = with_energy(event, self.energy.as_ref());
                self.write(Step::Job(event), &mut out);
                if is_last {
                    self.phase = Phase::Ended;
                }
            }
        }
        Some(out)
    }

    fn write(&mut self, step: Step, out: &mut Vec<u8>) {
        let request = Arc::clone(&self.question.request);
        match step {
            Step::Heartbeat => out.extend_from_slice(b":\n\n"),
            Step::Loading(fraction) => {
                chunk::event(
                    out,
                    &self.envelope.chunk(json!({"choices": [], "duet": {"loading": fraction}})),
                );
            }
            Step::Failed(failure) => chunk::event(out, &failure.body()),
            Step::Job(JobEvent::Queued { ahead }) => {
                chunk::event(out, &self.envelope.chunk(json!({"choices": [], "duet": {"queued": ahead}})));
            }
            Step::Job(JobEvent::Prefill { done, total, cached, ms }) => {
                if !request.return_progress {
                    // It moves: that is a sign of life for those who did not ask for numbers.
                    out.extend_from_slice(b":\n\n");
                } else {
                    let progress = json!({"total": total, "cache": cached, "processed": done, "time_ms": ms});
                    chunk::event(
                        out,
                        &self.envelope.chunk(json!({"choices": [], "prompt_progress": progress})),
                    );
                }
            }
            Step::Job(JobEvent::Text { channel, text, timings }) => {
                self.speak(out);
                let tokens = request.return_progress.then_some(timings.predicted_n);
                let measured = request.timings_per_token.then(|| chunk::timings(&timings, self.load_ms));
                self.envelope.write_text(out, (channel, &text), tokens, measured);
            }
            Step::Job(JobEvent::Done { finish, timings }) => {
                self.speak(out);
                self.write_end(finish, &timings, out);
            }
            Step::Job(JobEvent::Failed { kind, message }) => {
                chunk::event(out, &Failure::from(GenError::new(kind, message)).body());
            }
        }
    }

    fn speak(&mut self, out: &mut Vec<u8>) {
        if !self.has_spoken {
            self.has_spoken = true;
            chunk::event(out, &self.envelope.role());
        }
    }

    fn write_end(&self, finish: Finish, timings: &JobTimings, out: &mut Vec<u8>) {
        let measured = chunk::timings(timings, self.load_ms);
        let with_timings = |mut value: serde_json::Value| {
            if let Some(object) = value.as_object_mut() {
                object.insert("timings".to_owned(), measured.clone());
            }
            value
        };
        let end = self.envelope.finish(finish);
        if self.question.request.include_usage {
            chunk::event(out, &end);
            let usage = self.envelope.chunk(json!({"choices": [], "usage": chunk::usage(timings)}));
            chunk::event(out, &with_timings(usage));
        } else {
            chunk::event(out, &with_timings(end));
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        drop(self.counted.take());
        if self.host.answers() == 0 {
            self.host.record_activity();
        }
    }
}

/// The end of an answer, with what it took.
fn with_energy(event: JobEvent, energy: Option<&Span>) -> JobEvent {
    match event {
        JobEvent::Done { finish, timings } => {
            let energy_j = energy.and_then(Span::joules);
            JobEvent::Done { finish, timings: JobTimings { energy_j, ..timings } }
        }
        event => event,
    }
}

/// Text of both channels, gathered.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) answer: String,
    pub(super) thinking: String,
}

impl Gathered {
    pub(super) fn push(&mut self, channel: Channel, text: &str) {
        match channel {
            Channel::Answer => self.answer.push_str(text),
            Channel::Thinking => self.thinking.push_str(text),
        }
    }
}
