//! Which slot serves a prompt, and how much of its KV cache can be kept. Pure.

use super::job::TokenId;

/// What the choice looks at in one slot.
#[derive(Clone, Copy, Debug)]
pub struct SlotFacts<'a> {
    /// Tokens in the slot's KV cache.
    pub tokens: &'a [TokenId],
    /// Whether a job runs in it.
    pub is_busy: bool,
    /// Larger is later.
    pub last_used: u64,
}

/// The slot to use and where its prefix comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Index of the slot.
    pub slot: usize,
    /// Index of the slot whose cache begins like the prompt; the slot itself when nothing is copied.
    pub source: usize,
    /// Tokens of the prompt that need not be evaluated.
    pub reused: usize,
}

/// Length of the longest common prefix.
#[must_use]
pub fn common_prefix(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// Chooses an idle slot for `prompt`; `None` when all are busy.
///
/// The cache with the longest common prefix is continued in place when at least half of it is used.
/// Otherwise (a shared system prompt, say) the prefix is copied to another slot, an empty one or the one
/// unused for longest, so that the longer conversation is not lost. At least one token is always left to
/// evaluate, because sampling needs its logits.
#[must_use]
pub fn choose(slots: &[SlotFacts<'_>], prompt: &[TokenId], cache_prompt: bool) -> Option<Choice> {
    let idle = || slots.iter().enumerate().filter(|(_, s)| !s.is_busy);
    let spare = |except: Option<usize>| {
        idle()
            .filter(|(i, _)| Some(*i) != except)
            .min_by_key(|(_, s)| (!s.tokens.is_empty(), s.last_used))
            .map(|(i, _)| i)
    };
    let limit = prompt.len().saturating_sub(1);
    let best = slots
        .iter()
        .enumerate()
        .map(|(i, s)| (i, if cache_prompt { common_prefix(s.tokens, prompt).min(limit) } else { 0 }))
        .filter(|(_, n)| *n > 0)
        .max_by_key(|(i, n)| (*n, slots.get(*i).is_some_and(|s| !s.is_busy), std::cmp::Reverse(*i)));
    let Some((source, reused)) = best else {
        return spare(None).map(|slot| Choice { slot, source: slot, reused: 0 });
    };
    let facts = slots.get(source)?;
    let continues = !facts.is_busy && reused * 2 >= facts.tokens.len();
    let slot = if continues { source } else { spare(Some(source)).or_else(|| spare(None))? };
    // Alone with a cache it must overwrite: the slot keeps its own prefix.
    Some(Choice { slot, source, reused })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slot(tokens: &[TokenId], is_busy: bool, last_used: u64) -> SlotFacts<'_> {
        SlotFacts { tokens, is_busy, last_used }
    }

    #[test]
    fn continues_the_conversation_in_place() {
        let slots = [slot(&[9, 9], false, 1), slot(&[1, 2, 3], false, 2)];
        assert_eq!(choose(&slots, &[1, 2, 3, 4], true), Some(Choice { slot: 1, source: 1, reused: 3 }));
    }

    #[test]
    fn same_prompt_again_leaves_one_token_to_evaluate() {
        let slots = [slot(&[1, 2, 3], false, 1)];
        assert_eq!(choose(&slots, &[1, 2, 3], true), Some(Choice { slot: 0, source: 0, reused: 2 }));
    }

    #[test]
    fn shared_beginning_is_copied_so_that_the_long_conversation_stays() {
        let slots = [slot(&[1, 2, 3, 4, 5, 6, 7], false, 5), slot(&[], false, 0), slot(&[8], false, 1)];
        assert_eq!(choose(&slots, &[1, 2, 9], true), Some(Choice { slot: 1, source: 0, reused: 2 }));
    }

    #[test]
    fn a_busy_slot_lends_its_prefix_only() {
        let slots = [slot(&[1, 2, 3], true, 5), slot(&[7], false, 1)];
        assert_eq!(choose(&slots, &[1, 2, 3, 4], true), Some(Choice { slot: 1, source: 0, reused: 3 }));
        assert_eq!(choose(&[slot(&[1], true, 0)], &[1, 2], true), None);
    }

    #[test]
    fn without_cache_nothing_is_reused() {
        let slots = [slot(&[1, 2, 3], false, 5), slot(&[], false, 9)];
        assert_eq!(choose(&slots, &[1, 2, 3, 4], false), Some(Choice { slot: 1, source: 1, reused: 0 }));
    }

    proptest! {
        #[test]
        fn never_a_busy_slot_and_never_too_much(
            caches in prop::collection::vec((prop::collection::vec(0_i32..3, 0..6), any::<bool>(), any::<u64>()), 1..5),
            prompt in prop::collection::vec(0_i32..3, 1..8),
        ) {
            let slots: Vec<_> = caches.iter().map(|(t, b, u)| slot(t, *b, *u)).collect();
            match choose(&slots, &prompt, true) {
                None => prop_assert!(slots.iter().all(|s| s.is_busy)),
                Some(choice) => {
                    prop_assert!(!slots[choice.slot].is_busy);
                    prop_assert!(choice.reused < prompt.len());
                    prop_assert!(slots[choice.source].tokens.starts_with(&prompt[..choice.reused]));
                }
            }
        }
    }
}
