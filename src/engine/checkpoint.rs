//! Checkpoints of models that can't take tokens back: their state as it was a little before the end of a prompt, kept
//! in memory, so that the next turn goes on from there when it does not go on from the very end. Pure: what a state is
//! the caller knows.
//!
//! A checkpoint holds what can't be rewound only; the rest of its sequence must still be in the slot. So it counts only
//! as long as the slot begins with the tokens it stands for.

use super::job::TokenId;

/// This many tokens before the end of a prompt its checkpoint is taken: what a template puts there to ask for an answer is often
/// not there when the answer is history.
const BEFORE_END: usize = 16;
/// Checkpoints of one sequence, however small they are.
const MOST_OF_SEQUENCE: usize = 16;

/// Where in a prompt of `len` tokens, of which `reused` were there before, a checkpoint is taken.
#[must_use]
pub fn mark(reused: usize, len: usize) -> usize {
    len.saturating_sub(BEFORE_END).max(reused)
}

/// The checkpoints of all sequences of a model.
#[derive(Debug)]
pub struct Checkpoints<S> {
    all: Vec<Checkpoint<S>>,
    limit: u64,
    clock: u64,
}

#[derive(Debug)]
struct Checkpoint<S> {
    sequence: usize,
    tokens: Vec<TokenId>,
    state: S,
    bytes: u64,
    used: u64,
}

impl<S> Checkpoints<S> {
    /// None yet, and never more than `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { all: Vec::new(), limit, clock: 0 }
    }

    /// Whether any can be kept.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.limit == 0
    }

    /// Whether there is one of exactly these tokens.
    #[must_use]
    pub fn has(&self, sequence: usize, tokens: &[TokenId]) -> bool {
        self.all.iter().any(|c| c.sequence == sequence && c.tokens == tokens)
    }

    /// Keeps the state a sequence has after these tokens, which takes `bytes`. What the sequence went on with before,
    /// and what was used longest ago where there is no room, goes.
    pub fn keep(&mut self, sequence: usize, tokens: &[TokenId], state: S, bytes: u64) {
        let bytes = bytes.saturating_add(size_of_val(tokens) as u64);
        if bytes > self.limit || self.is_off() {
            return;
        }
        self.all.retain(|c| {
            c.sequence != sequence || (tokens.starts_with(&c.tokens) && c.tokens.len() < tokens.len())
        });
        let of_sequence = |all: &[Checkpoint<S>]| all.iter().filter(|c| c.sequence == sequence).count();
        while of_sequence(&self.all) >= MOST_OF_SEQUENCE {
            self.drop_oldest(|c| c.sequence == sequence);
        }
        while self.bytes() + bytes > self.limit {
            self.drop_oldest(|_| true);
        }
        self.clock += 1;
        self.all.push(Checkpoint { sequence, tokens: tokens.to_vec(), state, bytes, used: self.clock });
    }

    /// The state after most of the first `keep` tokens of what a sequence `held`, and after how many.
    pub fn best(&mut self, sequence: usize, held: &[TokenId], keep: usize) -> Option<(usize, &S)> {
        self.clock += 1;
        let clock = self.clock;
        let best = self
            .all
            .iter_mut()
            .filter(|c| c.sequence == sequence && c.tokens.len() <= keep && held.starts_with(&c.tokens))
            .max_by_key(|c| c.tokens.len())?;
        best.used = clock;
        Some((best.tokens.len(), &best.state))
    }

    /// An idle sequence holds only `len` tokens any more: nothing beyond them is kept of it.
    pub fn trim(&mut self, sequence: usize, len: usize) {
        self.all.retain(|c| c.sequence != sequence || c.tokens.len() <= len);
    }

    /// Bytes of all of them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.all.iter().map(|c| c.bytes).sum()
    }

    fn drop_oldest(&mut self, may: impl Fn(&Checkpoint<S>) -> bool) {
        let oldest = self.all.iter().enumerate().filter(|(_, c)| may(c)).min_by_key(|(_, c)| c.used);
        if let Some(at) = oldest.map(|(at, _)| at) {
            self.all.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn tokens(len: usize) -> Vec<TokenId> {
        (0..len).map(|n| TokenId::try_from(n).unwrap()).collect()
    }

    #[test]
    fn a_mark_lies_before_the_end_and_not_before_what_is_new() {
        assert_eq!((mark(0, 100), mark(90, 100), mark(0, 5)), (84, 90, 0));
    }

    #[test]
    fn the_longest_that_still_holds_is_taken() {
        let mut all = Checkpoints::new(1 << 20);
        for len in [10, 20, 30] {
            all.keep(0, &tokens(len), len, 100);
        }
        let held = tokens(40);
        assert_eq!(all.best(0, &held, 25), Some((20, &20)));
        assert_eq!(all.best(0, &held, 30), Some((30, &30)));
        assert_eq!(all.best(0, &held, 9), None);
        assert_eq!(all.best(1, &held, 30), None, "another sequence");
        let mut other = held.clone();
        other[15] = 99;
        assert_eq!(all.best(0, &other, 30), Some((10, &10)), "what follows was replaced");
        assert!(all.has(0, &tokens(20)) && !all.has(0, &tokens(21)) && !all.has(1, &tokens(20)));
        // The sequence went another way: what it would have come to is gone.
        all.keep(0, other.get(..25).unwrap(), 25, 100);
        assert_eq!(all.best(0, &held, 30), Some((10, &10)));
        all.trim(0, 10);
        assert_eq!(all.best(0, &other, 30), Some((10, &10)));
        all.trim(0, 0);
        assert_eq!(all.best(0, &held, 30), None);
        assert_eq!(all.bytes(), 0);
    }

    #[test]
    fn there_are_never_more_than_allowed() {
        let one = |len: usize| 1000 + 4 * len as u64;
        let mut all = Checkpoints::new(one(10) + one(20) + one(30));
        for (sequence, len) in [(0, 10), (1, 20), (2, 30)] {
            all.keep(sequence, &tokens(len), (), 1000);
        }
        assert!(all.best(0, &tokens(10), 10).is_some(), "used just now");
        all.keep(3, &tokens(20), (), 1000);
        let has = |all: &mut Checkpoints<()>, sequence| all.best(sequence, &tokens(40), 40).is_some();
        assert_eq!([0, 1, 2, 3].map(|sequence| has(&mut all, sequence)), [true, false, true, true]);
        all.keep(4, &tokens(10), (), 1 << 30);
        assert!(!has(&mut all, 4), "larger than all of the room");
        let mut many = Checkpoints::new(1 << 20);
        for len in 1..100 {
            many.keep(0, &tokens(len), (), 1);
        }
        assert_eq!(many.all.len(), MOST_OF_SEQUENCE);
        let mut none = Checkpoints::new(0);
        assert!(none.is_off());
        none.keep(0, &[], (), 0);
        none.keep(0, &tokens(1), (), 0);
        assert!(none.all.is_empty());
    }
}
