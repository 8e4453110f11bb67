//! Prompt lookup: guesses at the next tokens from what the context says after the same words earlier.
//!
//! A guess is evaluated together with the token that is due, so that what is right of it costs less than a
//! round each. Whether that pays depends on the text and on the device: both are measured, and guessing
//! stops by itself where it does not. What is chosen never depends on a guess, only how soon. Pure.

use super::job::TokenId;
use std::collections::HashMap;

/// Tokens that must be the same for a place to be found.
const GRAM: usize = 3;
/// Places looked at, the latest first.
const PLACES: usize = 8;
/// How far back two places are compared.
const LONGEST_MATCH: usize = 32;
/// Tokens that must be the same before guessing has paid once.
const UNPROVEN_MATCH: usize = 4;
/// Length of the first guess.
const FIRST_LENGTH: usize = 3;
/// Length of the longest guess.
pub const LONGEST: usize = 32;
/// Plain rounds measured before the first guess.
const FIRST_ROUNDS: u32 = 3;
/// A guess that was right and brought less than this of the plain speed is not tried longer.
const HOPELESS: f64 = 0.8;
/// Rounds without guesses after one that did not pay; doubled each time in a row.
const FIRST_PAUSE: u32 = 32;
/// The longest pause.
const LONGEST_PAUSE: u32 = 2048;
/// Sequences decoded at once up to which guesses are made: with more, the batch is full enough.
pub const MOST_SEQUENCES: usize = 2;

/// Guesses for one job.
#[derive(Debug)]
pub struct Drafter {
    lookup: Lookup,
    pace: Pace,
    most: usize,
}

impl Drafter {
    /// Guesses of at most `most` tokens for a job with this prompt.
    #[must_use]
    pub fn new(prompt: &[TokenId], most: usize) -> Self {
        let lookup = Lookup { tokens: prompt.to_vec(), ..Lookup::default() };
        Self { lookup, pace: Pace::default(), most: most.min(LONGEST) }
    }

    /// A token was chosen.
    pub fn push(&mut self, token: TokenId) {
        self.lookup.push(token);
    }

    /// What may come next, at most `room` tokens, while `sequences` are decoded; mostly nothing.
    pub fn draft(&mut self, room: usize, sequences: usize) -> Vec<TokenId> {
        let length = self.pace.length(sequences).min(self.most).min(room);
        if length == 0 {
            return Vec::new();
        }
        self.lookup.guess(length, if self.pace.is_proven { GRAM } else { UNPROVEN_MATCH })
    }

    /// A round took this long and evaluated `drafted` guessed tokens, of which `accepted` were right.
    pub fn record(&mut self, seconds: f64, sequences: usize, drafted: usize, accepted: usize) {
        self.pace.record(seconds, sequences, drafted, accepted);
    }
}

/// Where each sequence of [`GRAM`] tokens occurred. Looked up when it is asked for: a short answer to a long
/// prompt never is.
#[derive(Debug, Default)]
struct Lookup {
    tokens: Vec<TokenId>,
    /// The place after the last occurrence.
    last: HashMap<[TokenId; GRAM], usize>,
    /// For each place up to the last one looked up, the one after the occurrence before; 0 is none.
    before: Vec<usize>,
}

impl Lookup {
    fn push(&mut self, token: TokenId) {
        self.tokens.push(token);
    }

    fn catch_up(&mut self) {
        for place in self.before.len() + 1..=self.tokens.len() {
            let gram = self.tokens.get(..place).and_then(|before| before.last_chunk::<GRAM>());
            let before = gram.and_then(|gram| self.last.insert(*gram, place)).unwrap_or(0);
            self.before.push(before);
        }
    }

    /// What followed the place that is most like this one; the latest of equals.
    fn guess(&mut self, length: usize, least_match: usize) -> Vec<TokenId> {
        self.catch_up();
        let now = self.tokens.len();
        let mut best = (0, 0);
        let mut place = self.before.last().copied().unwrap_or(0);
        for _ in 0..PLACES {
            if place == 0 {
                break;
            }
            let same = self.same_before(place, now);
            if same > best.0 {
                best = (same, place);
            }
            place = self.before.get(place - 1).copied().unwrap_or(0);
        }
        let (same, place) = best;
        if same < least_match || place == 0 {
            return Vec::new();
        }
        // A short match is trusted for a short guess. One that runs into this place goes on in a circle.
        let follow = self.tokens.get(place..).unwrap_or_default();
        follow.iter().cycle().take(length.min(4 * same)).copied().collect()
    }

    /// How many tokens before two places are the same.
    fn same_before(&self, a: usize, b: usize) -> usize {
        let ends = |at: usize| self.tokens.get(..at).unwrap_or_default().iter().rev();
        ends(a).zip(ends(b)).take(LONGEST_MATCH).take_while(|(x, y)| x == y).count()
    }
}

/// How long guesses are, from what they brought so far.
#[derive(Debug)]
struct Pace {
    /// Seconds of a plain round with one and with two sequences, averaged; 0 is not measured.
    plain: [f64; MOST_SEQUENCES],
    rounds: u32,
    length: usize,
    /// Tokens per time with guesses over without, averaged.
    gain: f64,
    /// Plain rounds until the next guess.
    pause: u32,
    next_pause: u32,
    is_proven: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            plain: [0.0; MOST_SEQUENCES],
            rounds: 0,
            length: FIRST_LENGTH,
            gain: 1.0,
            pause: 0,
            next_pause: FIRST_PAUSE,
            is_proven: false,
        }
    }
}

impl Pace {
    fn plain(&self, sequences: usize) -> Option<f64> {
        let plain = self.plain.get(sequences.checked_sub(1)?)?;
        (*plain > 0.0).then_some(*plain)
    }

    fn length(&self, sequences: usize) -> usize {
        let may = self.pause == 0 && self.rounds >= FIRST_ROUNDS && self.plain(sequences).is_some();
        if may { (self.length / sequences.max(1)).max(1) } else { 0 }
    }

    fn record(&mut self, seconds: f64, sequences: usize, drafted: usize, accepted: usize) {
        if drafted == 0 {
            self.rounds = self.rounds.saturating_add(1);
            self.pause = self.pause.saturating_sub(1);
            if let Some(plain) = sequences.checked_sub(1).and_then(|i| self.plain.get_mut(i)) {
                *plain = if *plain > 0.0 { 0.8 * *plain + 0.2 * seconds } else { seconds };
            }
            return;
        }
        let Some(plain) = self.plain(sequences) else { return };
        let gain = (accepted + 1) as f64 * plain / seconds.max(1e-9);
        self.gain = 0.5 * self.gain + 0.5 * gain;
        let is_right = accepted == drafted;
        if is_right {
            self.length = (self.length * 2).min(LONGEST);
        } else if accepted * 2 < drafted {
            self.length = accepted.max(FIRST_LENGTH);
        }
        if self.gain > 1.1 {
            self.is_proven = true;
            self.next_pause = FIRST_PAUSE;
        }
        // As long as all of it is right, a longer guess may pay where a short one nearly does.
        let is_final = !is_right || gain < HOPELESS || drafted >= LONGEST / sequences.max(1);
        if self.gain < 1.0 && is_final {
            self.pause = self.next_pause;
            self.next_pause = (self.next_pause * 2).min(LONGEST_PAUSE);
            self.length = FIRST_LENGTH;
            self.gain = 1.0;
            self.is_proven = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Seconds of a round with this many tokens on a device where each more costs `more` of the first.
    fn cost(tokens: usize, more: f64) -> f64 {
        0.01 * (1.0 + more * (tokens - 1) as f64)
    }

    /// Decodes `text` (known in advance) after `prompt`; returns time over plain time and tokens drafted.
    fn decode(prompt: &[TokenId], text: &[TokenId], more: f64) -> (f64, usize) {
        let mut drafter = Drafter::new(prompt, LONGEST);
        let (mut at, mut seconds, mut all) = (0, 0.0, 0);
        while at < text.len() {
            let draft = drafter.draft(text.len() - at - 1, 1);
            let accepted = draft.iter().zip(&text[at..]).take_while(|(a, b)| a == b).count();
            let time = cost(1 + draft.len(), more);
            for token in &text[at..=at + accepted] {
                drafter.push(*token);
            }
            drafter.record(time, 1, draft.len(), accepted);
            at += accepted + 1;
            seconds += time;
            all += draft.len();
        }
        (seconds / (text.len() as f64 * cost(1, more)), all)
    }

    /// Tokens that hardly repeat.
    fn prose(seed: u64, length: usize) -> Vec<TokenId> {
        let mut state = seed;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            TokenId::try_from((state >> 40) % 30_000).unwrap()
        })
        .take(length)
        .collect()
    }

    #[test]
    fn repeating_a_file_with_one_name_changed_is_much_faster() {
        let file = prose(1, 400);
        let mut text = file.clone();
        for i in (20..400).step_by(60) {
            text[i] = 99;
        }
        let (time, _) = decode(&file, &text, 0.15);
        assert!(time < 0.5, "{time} of the plain time");
    }

    #[test]
    fn where_more_tokens_cost_as_much_as_rounds_it_stops() {
        let file = prose(1, 2000);
        let (time, _) = decode(&file, &file, 1.0);
        assert!(time < 1.03, "{time} of the plain time");
    }

    #[test]
    fn where_more_tokens_cost_more_than_rounds_it_gives_up_soon() {
        let file = prose(1, 2000);
        let (time, drafted) = decode(&file, &file, 1.6);
        assert!(drafted > 0, "it was tried");
        assert!(time < 1.03, "{time} of the plain time");
    }

    #[test]
    fn misleading_repetition_costs_next_to_nothing() {
        // The same four words again and again, each time followed by something else.
        let text: Vec<TokenId> = prose(2, 300).into_iter().flat_map(|next| [1, 2, 3, 4, next]).collect();
        let (prompt, text) = text.split_at(500);
        let (time, drafted) = decode(prompt, text, 0.5);
        assert!(drafted > 0, "it was tried");
        assert!(time < 1.03, "{time} of the plain time");
    }

    #[test]
    fn prose_is_left_alone() {
        assert_eq!(decode(&prose(3, 1000), &prose(4, 1000), 0.5).1, 0);
    }

    #[test]
    fn the_longest_match_wins_and_a_circle_goes_on() {
        let mut lookup = Lookup::default();
        for token in [7, 1, 2, 3, 50, 8, 1, 2, 3, 60, 7, 1, 2, 3] {
            lookup.push(token);
        }
        assert_eq!(lookup.guess(2, 3), [50, 8], "four tokens match there, three at the later place");
        assert_eq!(lookup.guess(2, 5), [0; 0]);
        let mut circle = Lookup::default();
        for token in [1, 2, 1, 2, 1, 2, 1] {
            circle.push(token);
        }
        assert_eq!(circle.guess(5, 3), [2, 1, 2, 1, 2]);
    }

    #[test]
    fn nothing_is_guessed_before_there_is_a_measure() {
        let mut drafter = Drafter::new(&[1, 2, 3, 4, 5, 1, 2, 3, 4], LONGEST);
        assert_eq!(drafter.draft(10, 1), [0; 0]);
        for _ in 0..FIRST_ROUNDS {
            drafter.record(0.01, 1, 0, 0);
        }
        assert_eq!(drafter.draft(10, 1), [5, 1, 2]);
        assert_eq!(drafter.draft(1, 1), [5]);
        assert_eq!(drafter.draft(10, 2), [0; 0], "two at once are another measure");
        assert_eq!(Drafter::new(&[1], 0).draft(10, 1), [0; 0]);
    }

    proptest! {
        #[test]
        fn a_guess_is_what_followed_the_same_tokens(
            tokens in prop::collection::vec(0_i32..3, 0..60), length in 0_usize..8,
        ) {
            let mut lookup = Lookup::default();
            for token in &tokens {
                lookup.push(*token);
            }
            let guess = lookup.guess(length, GRAM);
            prop_assert!(guess.len() <= length);
            if !guess.is_empty() {
                let tail = &tokens[tokens.len() - GRAM..];
                let begins: Vec<TokenId> = tail.iter().chain(guess.first()).copied().collect();
                prop_assert!(tokens.windows(GRAM + 1).any(|w| w == begins));
            }
        }
    }
}
