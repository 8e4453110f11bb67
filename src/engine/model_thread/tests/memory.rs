//! Models that remember in other ways than by keys and values of all tokens: one with sliding windows, and one with a
//! state that can't be taken back. Their weights are random.

use super::*;
use crate::chat::CacheLost;
use pretty_assertions::assert_eq;

fn rig(name: &str, window: Option<u64>, slots: u32, memory: u64) -> Rig {
    let mut rig = Rig::new(2048, slots, Cache::new(PathBuf::new(), Limits { memory, disk: 0 }));
    rig.start.path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/models/{name}.gguf"));
    rig.start.key = Some(Arc::new(model_key(&rig.start.path, 1, 2048, KV_TYPES).unwrap()));
    rig.start.window = window;
    rig
}

/// An answer of so many tokens, and the same computed anew.
fn both(thread: &Running, prompt: &[TokenId], max_tokens: u32) -> ((String, JobTimings), String) {
    let warm = thread.answer(|sender| job(prompt.to_vec(), max_tokens, sender));
    let cold =
        thread.answer(|sender| Job { cache_prompt: false, ..job(prompt.to_vec(), max_tokens, sender) });
    assert_eq!(cold.1.cache_n, 0);
    (warm, cold.0)
}

#[test]
fn a_model_with_a_state_goes_on_from_a_checkpoint() {
    let thread = rig("hybrid", None, 2, 1 << 30).begin();
    let first = text(1, 700);
    let (said, timings) = thread.answer(|sender| job(first.clone(), 40, sender));
    assert_eq!((timings.cache_n, said.is_empty()), (0, false));
    // The next turn with the whole answer: nothing has to be taken back.
    let whole = [first.as_slice(), &text(2, 30)].concat();
    // And one without it, as after thinking: from a little before the end of the first prompt.
    let ((warm, timings), cold) = both(&thread, &whole, 40);
    assert_eq!((timings.cache_n as usize, timings.cache_lost), (first.len() - 16, None));
    assert_eq!((timings.cache_from, warm), (Some(Place::Slot), cold));
    // The same question again.
    let ((again, timings), cold) = both(&thread, &whole, 40);
    assert_eq!((timings.cache_n as usize, again), (whole.len() - 16, cold));
    // Another question after the same beginning goes back further, to the checkpoint of the first turn.
    let other = [first.as_slice(), &text(3, 50)].concat();
    let ((warm, timings), cold) = both(&thread, &other, 40);
    assert_eq!((timings.cache_n as usize, warm), (first.len() - 16, cold));
    // Before the first one there is nothing to go back to, and that is said.
    let ((warm, timings), cold) = both(&thread, &first[..400], 40);
    assert_eq!((timings.cache_n, timings.cache_lost, warm), (0, Some(CacheLost::Recurrent), cold));
}

#[test]
fn what_was_said_goes_on_without_a_checkpoint() {
    let thread = rig("hybrid", None, 1, 0).begin();
    let first = text(1, 300);
    let session = |prompt: &[TokenId], sender| job(prompt.to_vec(), 0, sender);
    let _ = thread.answer(|sender| session(&first, sender));
    let longer = [first.as_slice(), &text(2, 100)].concat();
    let (_, timings) = thread.answer(|sender| session(&longer, sender));
    assert_eq!((timings.cache_n as usize, timings.cache_lost), (first.len(), None));
    // No memory for checkpoints: what would have to be taken back is lost.
    let (_, timings) = thread.answer(|sender| session(&first, sender));
    assert_eq!((timings.cache_n, timings.cache_lost), (0, Some(CacheLost::Recurrent)));
}

#[test]
fn checkpoints_of_two_conversations_do_not_mix() {
    let thread = rig("hybrid", None, 3, 1 << 30).begin();
    let prompts = [text(1, 500), text(2, 600)];
    let start = |prompt: &Vec<TokenId>| {
        let (sender, events) = unbounded_channel();
        thread.give(job(prompt.clone(), 60, sender));
        events
    };
    let mut first: Vec<_> = prompts.iter().map(start).collect();
    let texts: Vec<_> = first.iter_mut().map(|events| answer(events).0).collect();
    for (prompt, said) in prompts.iter().zip(&texts) {
        let ((again, timings), cold) = both(&thread, prompt, 60);
        assert_eq!(timings.cache_n as usize, prompt.len() - 16);
        assert_eq!((&again, &cold), (said, said));
    }
    // A session that is forgotten leaves none.
    let of_session = |sender| Job { session: Some(Arc::from("mine")), ..job(text(5, 300), 4, sender) };
    let _ = thread.answer(of_session);
    let (done, forgotten) = mpsc::channel();
    thread.commands.send(Command::Forget { session: Arc::from("mine"), done }).unwrap();
    assert_eq!(forgotten.recv_timeout(PATIENCE), Ok(1));
    assert_eq!(thread.answer(|sender| job(text(5, 300), 4, sender)).1.cache_n, 0);
}

#[test]
fn a_model_with_windows_reuses_what_is_still_there() {
    let thread = rig("windowed", Some(32), 2, 1 << 30).begin();
    let first = text(1, 700);
    let _ = thread.answer(|sender| job(first.clone(), 40, sender));
    let next = [first.as_slice(), &text(2, 30)].concat();
    let ((warm, timings), cold) = both(&thread, &next, 40);
    assert_eq!((timings.cache_n as usize, timings.cache_lost), (first.len(), None));
    assert_eq!(warm, cold);
    let ((warm, timings), cold) = both(&thread, &first[..600], 40);
    assert_eq!((timings.cache_n as usize, warm), (599, cold));
}
