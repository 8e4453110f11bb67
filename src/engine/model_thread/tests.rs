//! A model's thread with the built-in model, over its channels. What is compared are counts and texts, never times.

use super::super::cache::{Limits, Place, model_key};
use super::super::job::{self, Commands, JobTimings, SamplerSpec};
use super::super::llama::{KV_TYPES, Purpose};
use super::super::think::{Tags, ThinkSplitter};
use super::*;
use crate::chat::Finish;
use pretty_assertions::assert_eq;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

mod draft;
mod memory;

const PATIENCE: Duration = Duration::from_secs(60);

pub(in crate::engine) fn llama() -> Llama {
    Llama::for_tests()
}

fn model_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/builtin.gguf")
}

fn nowhere() -> Cache {
    Cache::new(PathBuf::new(), Limits { memory: 0, disk: 0 })
}

/// A thread that has not begun: jobs given to it before are all there in its first round.
struct Rig {
    start: Start,
    commands: Commands,
}

struct Running {
    commands: Commands,
    thread: Option<JoinHandle<()>>,
}

impl Rig {
    fn new(context: u32, slots: u32, cache: Cache) -> Self {
        let (commands, inbox) = job::commands();
        let start = Start {
            llama: llama(),
            path: model_path(),
            storage: Storage::Mapped,
            offload: Offload::All,
            options: LoadOptions { context, slots, threads: 1, purpose: Purpose::Text },
            window: None,
            queue_limit: 4,
            inbox,
            stats: Arc::new(Stats::default()),
            key: Some(Arc::new(model_key(&model_path(), 1, context, KV_TYPES).unwrap())),
            cache,
            gate: Gate::new(1),
            draft: None,
        };
        Self { start, commands }
    }

    fn give(&self, job: Job) {
        self.commands.send(Command::Generate(Box::new(job))).unwrap();
    }

    fn begin(self) -> Running {
        let Self { start, commands } = self;
        let thread = std::thread::spawn(move || run(start, |_| true, |model| drop(model.unwrap())));
        Running { commands, thread: Some(thread) }
    }
}

impl Running {
    fn give(&self, job: Job) {
        self.commands.send(Command::Generate(Box::new(job))).unwrap();
    }

    fn answer(&self, job: impl FnOnce(UnboundedSender<JobEvent>) -> Job) -> (String, JobTimings) {
        let (sender, mut events) = unbounded_channel();
        self.give(job(sender));
        answer(&mut events)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Unload);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A thread that does nothing by itself: its rounds are made by the test.
fn by_hand(rig: Rig, test: impl FnOnce(&mut ModelThread<'_>, &Commands, &Inbox)) {
    let Rig { start, commands } = rig;
    let load = start.llama.load(&start.path, start.storage, &start.offload, start.options, |_| true);
    let model = load.unwrap();
    let context = start.llama.context(&model, start.options).unwrap();
    let (mut thread, inbox) = ModelThread::new(start, &model, context, None);
    test(&mut thread, &commands, &inbox);
}

fn next(events: &mut UnboundedReceiver<JobEvent>) -> JobEvent {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match events.try_recv() {
            Ok(event) => return event,
            Err(_) => assert!(Instant::now() < deadline, "nothing came"),
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// The whole text of a job, and what was measured.
fn answer(events: &mut UnboundedReceiver<JobEvent>) -> (String, JobTimings) {
    let mut all = String::new();
    loop {
        match next(events) {
            JobEvent::Text { text, .. } => all.push_str(&text),
            JobEvent::Done { timings, .. } => return (all, timings),
            JobEvent::Failed { message, .. } => panic!("{message}"),
            JobEvent::Queued { .. } | JobEvent::Prefill { .. } => {}
        }
    }
}

fn tokens(text: &str) -> Vec<TokenId> {
    tokenize(text, false)
}

/// A question as the fixture models' template puts it.
fn question(text: &str) -> Vec<TokenId> {
    tokenize(&format!("<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"), true)
}

fn tokenize(text: &str, parse_special: bool) -> Vec<TokenId> {
    static MODEL: OnceLock<llama_cpp_2::model::LlamaModel> = OnceLock::new();
    let options = LoadOptions { context: 256, slots: 1, threads: 1, purpose: Purpose::Text };
    let load = || llama().load(&model_path(), Storage::Mapped, &Offload::All, options, |_| true).unwrap();
    let model = MODEL.get_or_init(load);
    model.vocab().tokenize(text.as_bytes(), false, parse_special).iter().map(|token| token.0).collect()
}

/// At least `count` tokens of text that is different for each `number`.
fn text(number: usize, count: usize) -> Vec<TokenId> {
    let words = ["planets", "rivers", "songs", "colours", "numbers", "cities", "birds", "trees"];
    let mut all = Vec::new();
    let mut i = number * 31;
    while all.len() < count {
        let (a, b) = (words[i % words.len()], words[(i / 8 + number) % words.len()]);
        all.extend(tokens(&format!("{number} {a} and {i} {b}. ")));
        i += 1;
    }
    all
}

fn job(prompt: Vec<TokenId>, max_tokens: u32, events: UnboundedSender<JobEvent>) -> Job {
    Job {
        prompt,
        #[cfg(feature = "mtmd")]
        images: Vec::new(),
        max_tokens: Some(max_tokens),
        sampling: SamplerSpec {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 7,
            logit_bias: Vec::new(),
            grammar: None,
        },
        stop: Vec::new(),
        ignore_eos: true,
        cache_prompt: true,
        session: None,
        draft: 0,
        think: ThinkSplitter::in_answer(Tags::default()),
        arrived: Instant::now(),
        events,
    }
}

#[test]
fn a_long_prompt_holds_a_running_answer_for_one_chunk_at_most() {
    // Both speak over one channel, so that the order of what happens is seen.
    let (sender, mut events) = unbounded_channel();
    let (short, long) = (text(1, 20), text(2, 4000));
    let long_length = long.len() as u32;
    let rig = Rig::new(8192, 2, nowhere());
    rig.give(job(short, 4, sender.clone()));
    rig.give(job(long, 1, sender));
    let _thread = rig.begin();
    // One token of the short one's four in each round, the first in the round that reads its prompt.
    let (mut chunks, mut last) = (0, 0);
    loop {
        match next(&mut events) {
            JobEvent::Prefill { done, total, .. } if total == long_length => {
                chunks += u32::from(done > 0);
                last = done;
            }
            JobEvent::Done { timings, .. } => {
                assert_eq!(timings.predicted_n, 4);
                break;
            }
            _ => {}
        }
    }
    assert!((3..=4).contains(&chunks), "{chunks} chunks while four tokens were decoded");
    assert!(last < long_length, "the prompt was long enough to see something");
}

#[test]
fn prompts_share_the_chunk_so_that_a_short_one_is_not_behind_a_long_one() {
    let (sender, mut events) = unbounded_channel();
    let (long, short) = (text(1, 3000), text(2, 100));
    let (long_length, short_length) = (long.len() as u32, short.len() as u32);
    let rig = Rig::new(8192, 2, nowhere());
    rig.give(job(long, 0, sender.clone()));
    rig.give(job(short, 0, sender));
    let _thread = rig.begin();
    let mut order = Vec::new();
    while order.len() < 2 {
        if let JobEvent::Prefill { done, total, .. } = next(&mut events)
            && done == total
        {
            order.push(total);
        }
    }
    assert_eq!(order, [short_length, long_length]);
}

#[test]
fn chunks_are_sized_by_time() {
    by_hand(Rig::new(2048, 1, nowhere()), |thread, _, _| {
        let mut sizes = |rate: f64| {
            thread.prefill_rate = rate;
            [200, 1000].map(|ms| thread.chunk(Duration::from_millis(ms)))
        };
        assert_eq!(sizes(0.0), [64, 64], "not measured yet");
        assert_eq!(sizes(330.0), [64, 320]);
        assert_eq!(sizes(500.0), [128, 512], "the nearest step");
        assert_eq!(sizes(1e6), [512, 512], "what one batch holds");
        assert_eq!(sizes(1.0), [32, 32], "no smaller than is worth it");
    });
}

#[test]
fn a_prompt_that_is_alone_gets_larger_chunks() {
    let gate = Gate::new(1);
    let mut rig = Rig::new(4096, 2, nowhere());
    rig.start.gate = gate.clone();
    by_hand(rig, |thread, _, _| {
        let (sender, _events) = unbounded_channel();
        let round = |thread: &mut ModelThread<'_>| {
            thread.prefill_rate = 320.0;
            let before = thread.cells();
            thread.assign();
            thread.step();
            thread.cells() - before
        };
        thread.enqueue(job(text(1, 1500), 1, sender.clone()));
        assert_eq!(round(thread), 320);
        // Somebody waits for the device.
        std::thread::scope(|scope| {
            scope.spawn(|| drop(gate.enter()));
            while gate.waiting() == 0 {
                std::thread::yield_now();
            }
            assert_eq!(round(thread), 64);
            thread.turn.end();
        });
        assert_eq!(round(thread), 320);
        // Somebody else has a prompt, or an answer that goes on.
        thread.enqueue(job(text(2, 40), 50, sender));
        assert_eq!(round(thread), 64, "shared");
        while thread.slots.iter().filter_map(|s| s.running.as_ref()).all(|r| r.next.is_none()) {
            assert!(round(thread) > 0);
        }
        assert_eq!(round(thread), 64 + 1);
    });
}

#[test]
fn a_cancelled_prompt_ends_in_the_middle_of_its_batch() {
    by_hand(Rig::new(2048, 1, nowhere()), |thread, _, _| {
        // Not measured, and slow: both may take longer than a cancel may wait.
        for rate in [0.0, 1.0] {
            let (sender, events) = unbounded_channel();
            thread.prefill_rate = rate;
            thread.enqueue(job(text(1, 600), 1, sender));
            thread.assign();
            thread.step();
            let done = thread.cells();
            assert!(done > 0, "somebody waits for it");
            thread.prefill_rate = rate;
            drop(events);
            thread.step();
            assert_eq!(thread.cells(), done, "nothing of the second batch counts");
            assert_eq!(thread.context.kv_cache_seq_pos_max(0), i32::try_from(done).unwrap() - 1);
            thread.drop_cancelled();
            assert!(thread.slots[0].running.is_none());
            // What was evaluated before can be used by the next one.
            let (sender, mut events) = unbounded_channel();
            thread.enqueue(job(text(1, 600), 1, sender));
            thread.assign();
            while thread.slots[0].running.is_some() {
                thread.step();
            }
            assert_eq!(answer(&mut events).1.cache_n as usize, done);
            thread.slots[0].is_kept = false;
            thread.clear_unwanted();
        }
    });
}

#[test]
fn a_prompt_that_is_alone_gives_way_to_who_comes() {
    let (long, short) = (text(1, 700), text(2, 50));
    let plain = Rig::new(2048, 2, nowhere()).begin().answer(|sender| job(long.clone(), 20, sender)).0;
    by_hand(Rig::new(2048, 2, nowhere()), |thread, commands, inbox| {
        let (sender, mut events) = unbounded_channel();
        thread.enqueue(job(long, 20, sender));
        thread.assign();
        // So slow that the newcomer would wait for minutes.
        thread.prefill_rate = 1.0;
        let (sender, mut other) = unbounded_channel();
        commands.send(Command::Generate(Box::new(job(short, 5, sender)))).unwrap();
        thread.step();
        assert_eq!(thread.cells(), 0, "the batch was ended");
        let Ok(Command::Generate(newcomer)) = inbox.try_recv() else { panic!("it still waits") };
        thread.enqueue(*newcomer);
        thread.assign();
        thread.step();
        assert!(thread.slots.iter().all(|slot| slot.tokens.len() == 16), "they share the next one");
        while thread.slots.iter().any(|slot| slot.running.is_some()) {
            thread.step();
        }
        assert_eq!(answer(&mut other).1.predicted_n, 5);
        let (text, timings) = answer(&mut events);
        assert_eq!((text, timings.predicted_n), (plain, 20), "word for word");
    });
}

#[test]
fn the_queue_has_a_bound_and_slots_do_not_count() {
    let rig = Rig::new(2048, 1, nowhere());
    let mut all: Vec<_> = (0..6)
        .map(|n| {
            let (sender, events) = unbounded_channel();
            rig.give(job(text(n, 10), 2, sender));
            events
        })
        .collect();
    let _thread = rig.begin();
    for events in all.iter_mut().take(5) {
        assert_eq!(answer(events).1.predicted_n, 2);
    }
    match next(&mut all[5]) {
        JobEvent::Failed { kind: GenErrorKind::Refused, message } => assert!(message.contains("4 requests")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn guessing_changes_nothing_but_the_number_of_rounds() {
    let thread = Rig::new(4096, 2, nowhere()).begin();
    let passage = text(3, 120);
    let known = [passage.as_slice(), &tokens("\nOnce more:\n"), passage.get(..40).unwrap()].concat();
    let copy =
        "planets, rivers, songs, colours, numbers, cities, birds, trees, moons, stars, seas; ".repeat(3);
    let copied = tokens(&format!("{copy}\nOnce more:\n"));
    let grammar = format!("root ::= \"{copy}\"");
    let cases: [(&str, Vec<TokenId>, f32, Option<String>); 5] = [
        ("greedy", known.clone(), 0.0, None),
        ("sampled", known, 1.0, None),
        ("nothing to guess", text(9, 50), 0.0, None),
        ("greedy in a form", copied.clone(), 0.0, Some(grammar.clone())),
        ("sampled in a form", copied, 1.5, Some(grammar)),
    ];
    let mut guessed = 0;
    for (name, prompt, temperature, grammar) in cases {
        for penalty in [1.0, 1.2] {
            let run = |draft: usize| {
                let make = |sender| {
                    let mut job = job(prompt.clone(), 500, sender);
                    job.sampling.temperature = temperature;
                    job.sampling.repeat_penalty = penalty;
                    job.sampling.grammar.clone_from(&grammar);
                    job.ignore_eos = grammar.is_none();
                    job.cache_prompt = false;
                    job.draft = draft;
                    job
                };
                thread.answer(make)
            };
            let (plain, without) = run(0);
            let (text, with) = run(32);
            assert_eq!(text, plain, "{name}, {penalty}");
            assert_eq!(with.predicted_n, without.predicted_n, "{name}, {penalty}");
            assert_eq!((without.draft_n, without.draft_n_accepted), (0, 0));
            assert!(with.draft_n_accepted <= with.draft_n);
            if grammar.is_some() && temperature == 0.0 && penalty == 1.0 {
                assert_eq!(text, copy, "{name}");
            }
            guessed += with.draft_n_accepted;
        }
    }
    assert!(guessed > 0, "something was guessed right");
}

#[test]
fn guesses_stop_at_the_limits_of_the_job() {
    let thread = Rig::new(256, 1, nowhere()).begin();
    let prompt = tokens(&"one two three four ".repeat(8));
    for max_tokens in [1, 2, 3, 5, 8, 13] {
        let make = |sender| Job { draft: 32, ..job(prompt.clone(), max_tokens, sender) };
        let (_, timings) = thread.answer(make);
        assert_eq!(timings.predicted_n, max_tokens);
    }
    // Up to the end of the context, and what was evaluated there can be used again.
    let plain = thread.answer(|sender| Job { cache_prompt: false, ..job(prompt.clone(), 1000, sender) });
    let guessed =
        thread.answer(|sender| Job { draft: 32, cache_prompt: false, ..job(prompt.clone(), 1000, sender) });
    assert_eq!((&guessed.0, guessed.1.predicted_n), (&plain.0, plain.1.predicted_n));
    // The cache after guesses is what it is without them.
    let turn = |draft| {
        let first = thread.answer(|sender| Job { draft, ..job(prompt.clone(), 40, sender) });
        let longer = [prompt.as_slice(), &tokens(&first.0)].concat();
        (first.0, thread.answer(|sender| Job { draft, ..job(longer, 40, sender) }).0)
    };
    assert_eq!(turn(32), turn(0));
}

#[test]
fn a_conversation_that_had_to_leave_its_slot_comes_back_from_memory() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().join("kv"), Limits { memory: 1 << 30, disk: 1 << 30 });
    let thread = Rig::new(2048, 1, cache.clone()).begin();
    let mine = text(1, 600);
    let cold = thread.answer(|sender| job(mine.clone(), 30, sender));
    assert_eq!((cold.1.cache_n, cold.1.cache_from), (0, None));
    let _ = thread.answer(|sender| job(text(2, 600), 30, sender));
    let warm = thread.answer(|sender| job(mine.clone(), 30, sender));
    assert_eq!((warm.1.cache_n as usize, warm.1.cache_from), (mine.len() - 1, Some(Place::Memory)));
    assert_eq!(warm.0, cold.0, "word for word");
    let again = thread.answer(|sender| job(mine.clone(), 30, sender));
    assert_eq!((again.1.cache_n as usize, again.1.cache_from), (mine.len() - 1, Some(Place::Slot)));
    drop(thread);
    cache.flush(PATIENCE);
    assert_eq!(cache.used().1, 0, "without a session nothing goes to disk");
}

#[test]
fn the_next_engine_prefills_only_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let new_cache = |memory| Cache::new(folder.path().join("kv"), Limits { memory, disk: 1 << 30 });
    let session: Option<Arc<str>> = Some(Arc::from("6921f3a0"));
    let of_session =
        |prompt: &[TokenId], sender| Job { session: session.clone(), ..job(prompt.to_vec(), 20, sender) };
    let cache = new_cache(1 << 30);
    let thread = Rig::new(8192, 2, cache.clone()).begin();
    let yesterday = text(1, 7000);
    let (said, _) = thread.answer(|sender| of_session(&yesterday, sender));
    drop(thread);
    cache.flush(PATIENCE);

    let today = [yesterday.as_slice(), &tokens(&said), &text(5, 40)].concat();
    let thread = Rig::new(8192, 2, new_cache(0)).begin();
    let (warm, timings) = thread.answer(|sender| of_session(&today, sender));
    assert_eq!(timings.cache_from, Some(Place::Disk));
    assert!(timings.cache_n as usize >= yesterday.len(), "{timings:?}");
    assert!((timings.prompt_n as usize) < today.len() - yesterday.len() + 1, "{timings:?}");
    let (cold, timings) = thread.answer(|sender| Job { cache_prompt: false, ..of_session(&today, sender) });
    assert_eq!(timings.cache_n, 0);
    assert_eq!(warm, cold, "word for word");
    drop(thread);

    // Another context is another key; a damaged file is not used. Both are computed anew.
    let thread = Rig::new(7936, 2, new_cache(0)).begin();
    assert_eq!(thread.answer(|sender| of_session(&today, sender)).1.cache_n, 0);
    drop(thread);
    for entry in std::fs::read_dir(folder.path().join("kv")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        std::fs::write(&path, bytes).unwrap();
    }
    let thread = Rig::new(8192, 2, new_cache(0)).begin();
    let (anew, timings) = thread.answer(|sender| of_session(&today, sender));
    assert_eq!((timings.cache_n, anew), (0, warm));
}

/// The state is whole by its checksums, but llama.cpp does not take it.
#[test]
fn a_state_that_does_not_fit_is_deleted_and_computed_anew() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().join("kv"), Limits { memory: 1 << 30, disk: 0 });
    let rig = Rig::new(2048, 1, cache.clone());
    let prompt = text(1, 300);
    let key = rig.start.key.clone().unwrap();
    for bytes in [Vec::new(), vec![0; 1000], vec![0xff; 100_000]] {
        let state = super::super::cache::State {
            model: Arc::clone(&key),
            tokens: prompt.clone(),
            session: None,
            bytes,
        };
        cache.keep(state);
    }
    let thread = rig.begin();
    let (kept_out, timings) = thread.answer(|sender| job(prompt.clone(), 20, sender));
    assert_eq!(timings.cache_n, 0);
    let (cold, _) = thread.answer(|sender| Job { cache_prompt: false, ..job(prompt.clone(), 20, sender) });
    assert_eq!(kept_out, cold);
}

#[test]
fn a_saved_conversation_is_read_beside_a_running_answer() {
    let folder = tempfile::tempdir().unwrap();
    let cache = |memory| Cache::new(folder.path().join("kv"), Limits { memory, disk: 1 << 30 });
    let of_session =
        |prompt: &[TokenId], sender| Job { session: Some(Arc::from("s")), ..job(prompt.to_vec(), 8, sender) };
    let mine = text(1, 1000);
    let writer = cache(0);
    let thread = Rig::new(8192, 2, writer.clone()).begin();
    let (cold, _) = thread.answer(|sender| of_session(&mine, sender));
    drop(thread);
    writer.flush(PATIENCE);
    let thread = Rig::new(8192, 2, cache(0)).begin();
    let (sender, mut other) = unbounded_channel();
    thread.give(job(text(2, 20), 5000, sender));
    while !matches!(next(&mut other), JobEvent::Text { .. }) {}
    let (warm, timings) = thread.answer(|sender| of_session(&mine, sender));
    assert_eq!((timings.cache_n as usize, timings.cache_from), (mine.len() - 1, Some(Place::Disk)));
    assert_eq!(warm, cold);
    assert!(!other.is_closed(), "the other one goes on");
}

#[test]
fn a_forgotten_session_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().join("kv"), Limits { memory: 1 << 30, disk: 1 << 30 });
    let thread = Rig::new(2048, 2, cache.clone()).begin();
    let mine = text(1, 300);
    let of_session = |sender| Job { session: Some(Arc::from("mine")), ..job(mine.clone(), 4, sender) };
    let _ = thread.answer(of_session);
    let forget = |name: &str| {
        let (done, answer) = mpsc::channel();
        thread.commands.send(Command::Forget { session: Arc::from(name), done }).unwrap();
        answer.recv_timeout(PATIENCE).unwrap()
    };
    assert_eq!((forget("other"), forget("mine"), forget("mine")), (0, 1, 0));
    assert_eq!(thread.answer(|sender| job(mine.clone(), 4, sender)).1.cache_n, 0);
    // In the middle of an answer it is forgotten when that is done.
    let (sender, mut events) = unbounded_channel();
    thread.give(Job { session: Some(Arc::from("mine")), ..job(text(7, 300), 400, sender) });
    while !matches!(next(&mut events), JobEvent::Text { .. }) {}
    assert_eq!(forget("mine"), 1);
    assert_eq!(answer(&mut events).1.predicted_n, 400);
    drop(thread);
    cache.flush(PATIENCE);
    assert_eq!(cache.used().1, 0);
    assert_eq!(cache.forget("mine"), 0);
}

#[test]
fn two_models_take_turns_and_say_so() {
    let gate = Gate::new(1);
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let mut rig = Rig::new(4096, 1, nowhere());
            rig.start.gate = gate.clone();
            rig.begin()
        })
        .collect();
    let mut all: Vec<_> = threads
        .iter()
        .map(|thread| {
            let (sender, events) = unbounded_channel();
            thread.give(job(text(1, 20), 3000, sender));
            events
        })
        .collect();
    // While both decode, each waits for the other, and the wait is told apart from its own time.
    let mut first = [f64::MAX; 2];
    let mut has_waited = [false; 2];
    let deadline = Instant::now() + PATIENCE;
    while has_waited != [true; 2] {
        assert!(Instant::now() < deadline, "nobody waited");
        for (i, events) in all.iter_mut().enumerate() {
            match events.try_recv() {
                Ok(JobEvent::Text { timings, .. }) => {
                    has_waited[i] |= timings.queue_ms > first[i];
                    first[i] = first[i].min(timings.queue_ms);
                }
                Ok(JobEvent::Done { finish, .. }) => {
                    assert!(finish != Finish::Length, "no wait in 3000 tokens");
                }
                Ok(_) => {}
                Err(_) => std::thread::yield_now(),
            }
        }
    }
}
