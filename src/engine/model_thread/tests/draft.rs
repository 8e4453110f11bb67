//! The large fixture model with the built-in one guessing for it: they have one vocabulary, and some answers alike.

use super::*;
use crate::engine::draft::LONGEST;
use crate::engine::draft::model::DraftStart;
use pretty_assertions::assert_eq;

fn large() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/fixture-large.gguf")
}

fn rig(context: u32, slots: u32, cache: Cache, with_draft: bool) -> Rig {
    let mut rig = Rig::new(context, slots, cache);
    rig.start.path = large();
    rig.start.key = Some(Arc::new(model_key(&large(), 1, context, KV_TYPES).unwrap()));
    rig.start.draft = with_draft.then(|| DraftStart {
        path: model_path(),
        storage: Storage::Mapped,
        offload: Offload::All,
        options: rig.start.options,
        window: None,
        share: 0.25,
    });
    rig
}

/// An answer of at most `max_tokens` that may end by itself.
fn asked(prompt: Vec<TokenId>, max_tokens: u32, sender: UnboundedSender<JobEvent>) -> Job {
    Job { draft: LONGEST, ignore_eos: false, ..job(prompt, max_tokens, sender) }
}

#[test]
fn a_draft_model_changes_nothing_but_the_number_of_rounds() {
    let alone = rig(2048, 2, nowhere(), false).begin();
    let with = rig(2048, 2, nowhere(), true).begin();
    // After three rounds to compare with it is asked, and knows what the context does not.
    let start = |sender| asked(question("Write a binary search in Rust"), 8, sender);
    let (without, timings) = (alone.answer(start).1, with.answer(start).1);
    assert_eq!(without.draft_n, 0, "nothing repeats so early");
    assert!(timings.draft_n_accepted > 0, "{timings:?}");
    for (text, temperature, penalty) in [
        ("Write a binary search in Rust", 0.0, 1.0),
        ("Write a Cargo manifest", 0.0, 1.1),
        ("Reverse a string in Rust", 1.0, 1.0),
        ("What is the capital of France?", 0.0, 1.0),
        ("Something nobody knows", 0.0, 1.0),
    ] {
        let make = |sender| {
            let mut job = asked(question(text), 150, sender);
            job.sampling.temperature = temperature;
            job.sampling.repeat_penalty = penalty;
            job
        };
        let (plain, without) = alone.answer(make);
        let (same, timings) = with.answer(make);
        assert_eq!(same, plain, "{text}");
        assert_eq!(timings.predicted_n, without.predicted_n, "{text}");
        assert!(timings.draft_n_accepted <= timings.draft_n);
    }
}

#[test]
fn guesses_of_a_draft_model_stop_at_the_limits_of_the_job() {
    let with = rig(256, 1, nowhere(), true).begin();
    let alone = rig(256, 1, nowhere(), false).begin();
    let prompt = question("Count from 1 to 50");
    for max_tokens in [1, 2, 4, 5, 6, 8, 13] {
        let (_, timings) = with.answer(|sender| asked(prompt.clone(), max_tokens, sender));
        assert_eq!(timings.predicted_n, max_tokens);
    }
    // Up to the end of the context.
    let endless = |sender| Job { ignore_eos: true, ..asked(prompt.clone(), 1000, sender) };
    let (to_the_end, plain) = (with.answer(endless), alone.answer(endless));
    assert_eq!((to_the_end.0, to_the_end.1.predicted_n), (plain.0, plain.1.predicted_n));
    // Who wants no guesses has none.
    let (_, timings) = with.answer(|sender| Job { draft: 0, ..asked(prompt.clone(), 40, sender) });
    assert_eq!((timings.draft_n, timings.draft_n_accepted), (0, 0));
}

#[test]
fn a_draft_model_follows_conversations_from_slot_to_slot() {
    let folder = tempfile::tempdir().unwrap();
    let cache = |name: &str| Cache::new(folder.path().join(name), Limits { memory: 1 << 30, disk: 1 << 30 });
    let with = rig(1024, 1, cache("with"), true).begin();
    let alone = rig(1024, 1, cache("alone"), false).begin();
    let (first, second) = (
        [text(1, 200), question("Write a binary search in Rust")].concat(),
        [text(2, 300), question("Write quicksort in Python")].concat(),
    );
    // Another conversation in the same slot, back from memory, an earlier place of it, and all of it again.
    let again = [text(1, 200), question("Select all users older than 30 in SQL")].concat();
    for (turn, prompt) in [&first, &second, &first, &again, &first].into_iter().enumerate() {
        let make = |sender| asked(prompt.clone(), 120, sender);
        let (plain, without) = alone.answer(make);
        let (same, timings) = with.answer(make);
        assert_eq!(same, plain, "turn {turn}");
        assert_eq!(timings.cache_n, without.cache_n, "turn {turn}");
    }
}

#[test]
fn two_answers_at_once_share_a_draft_model() {
    let with = rig(2048, 2, nowhere(), true).begin();
    let alone = rig(2048, 2, nowhere(), false).begin();
    let prompts = ["Count from 1 to 50", "Write a binary search in Rust"].map(question);
    let run = |thread: &Running| {
        let mut all: Vec<_> = prompts
            .iter()
            .map(|prompt| {
                let (sender, events) = unbounded_channel();
                thread.give(asked(prompt.clone(), 120, sender));
                events
            })
            .collect();
        all.iter_mut().map(|events| answer(events).0).collect::<Vec<_>>()
    };
    assert_eq!(run(&with), run(&alone));
    // A third one makes it too many, and is answered all the same.
    let (sender, mut third) = unbounded_channel();
    with.give(asked(prompts[0].clone(), 60, sender));
    assert_eq!(run(&with), run(&alone));
    assert_eq!(answer(&mut third).1.predicted_n, 60);
}

#[test]
fn a_draft_model_that_is_none_is_a_failed_load() {
    let mut rig = rig(256, 1, nowhere(), true);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "GGUF").unwrap();
    rig.start.draft.as_mut().unwrap().path = file.path().to_path_buf();
    let mut said = None;
    run(rig.start, |_| true, |model| said = model.err());
    assert!(said.clone().unwrap().starts_with("its draft model: "), "{said:?}");
}
