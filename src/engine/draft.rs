//! Guesses at the next tokens: from what the context says after the same words earlier (prompt lookup), and from a
//! second, smaller model where one is configured ([`model`]).
//!
//! A guess is evaluated together with the token that is due, so that what is right of it costs less than a
//! round each. Whether that pays depends on the text and on the device: both are measured ([`pace`]), and guessing
//! stops by itself where it does not. What is chosen never depends on a guess, only how soon. Pure but for [`model`].

pub mod model;
pub mod pace;

use super::job::TokenId;
use pace::Pace;
use std::collections::HashMap;

/// Tokens that must be the same for a place to be found.
const GRAM: usize = 3;
/// Places looked at, the latest first.
const PLACES: usize = 8;
/// How far back two places are compared.
const LONGEST_MATCH: usize = 32;
/// Tokens that must be the same before guessing has paid once.
const UNPROVEN_MATCH: usize = 4;
/// Length of the longest guess.
pub const LONGEST: usize = 32;
/// Length of the longest guess of a draft model, which evaluates one token after the other for it.
const LONGEST_OF_MODEL: usize = 16;
/// Sequences decoded at once up to which guesses are made: with more, the batch is full enough.
pub const MOST_SEQUENCES: usize = 2;

/// Who made a guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The context.
    Context,
    /// The draft model.
    Model,
}

/// What a round was for a job, as far as guesses are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// Nothing was guessed for anybody in it.
    Plain,
    /// Nothing was guessed for this job, but there was work for guesses: its time can't be compared.
    Mixed,
    /// This was guessed; the draft model may have been asked and have had nothing to say.
    Guessed {
        /// By whom.
        source: Source,
        /// Tokens guessed.
        drafted: usize,
        /// How many of them were right.
        accepted: usize,
    },
}

/// Guesses for one job.
#[derive(Debug)]
pub struct Drafter {
    lookup: Lookup,
    pace: Pace,
    model: Option<Pace>,
    most: usize,
}

impl Drafter {
    /// Guesses of at most `most` tokens for a job with this prompt. `model` is what is known of the draft model's
    /// guesses; none where there is no draft model.
    #[must_use]
    pub fn new(prompt: &[TokenId], most: usize, model: Option<&Pace>) -> Self {
        let lookup = Lookup { tokens: prompt.to_vec(), ..Lookup::default() };
        let model = model.map(Pace::for_another_job);
        Self { lookup, pace: Pace::of_context(), model, most: most.min(LONGEST) }
    }

    /// A token was chosen.
    pub fn push(&mut self, token: TokenId) {
        self.lookup.push(token);
    }

    /// What may come next by the context, at most `room` tokens, while `sequences` are decoded; mostly nothing.
    pub fn draft(&mut self, room: usize, sequences: usize) -> Vec<TokenId> {
        let length = self.pace.length(sequences).min(self.most).min(room);
        if length == 0 {
            return Vec::new();
        }
        self.lookup.guess(length, if self.pace.is_proven() { GRAM } else { UNPROVEN_MATCH })
    }

    /// How many tokens the draft model shall guess, under the same terms; 0 where that does not pay.
    #[must_use]
    pub fn length_of_model(&self, room: usize, sequences: usize) -> usize {
        let length = self.model.as_ref().map_or(0, |pace| pace.length(sequences));
        length.min(LONGEST_OF_MODEL).min(self.most).min(room)
    }

    /// A round took this long, guessing included.
    pub fn record(&mut self, seconds: f64, sequences: usize, round: Round) {
        match round {
            Round::Plain => {
                for pace in std::iter::once(&mut self.pace).chain(&mut self.model) {
                    pace.record_plain(seconds, sequences);
                }
            }
            Round::Mixed => {}
            Round::Guessed { source: Source::Context, drafted, accepted } => {
                self.pace.record_guess(seconds, sequences, drafted, accepted);
                self.model.iter_mut().for_each(Pace::pass);
            }
            Round::Guessed { source: Source::Model, drafted, accepted } => {
                self.pace.pass();
                if let Some(pace) = &mut self.model {
                    pace.record_guess(seconds, sequences, drafted, accepted);
                }
            }
        }
    }

    /// What is known of the draft model's guesses by now.
    #[must_use]
    pub fn pace_of_model(&self) -> Option<&Pace> {
        self.model.as_ref()
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
        let mut drafter = Drafter::new(prompt, LONGEST, None);
        let (mut at, mut seconds, mut all) = (0, 0.0, 0);
        while at < text.len() {
            let draft = drafter.draft(text.len() - at - 1, 1);
            let accepted = draft.iter().zip(&text[at..]).take_while(|(a, b)| a == b).count();
            let time = cost(1 + draft.len(), more);
            for token in &text[at..=at + accepted] {
                drafter.push(*token);
            }
            let guessed = Round::Guessed { source: Source::Context, drafted: draft.len(), accepted };
            drafter.record(time, 1, if draft.is_empty() { Round::Plain } else { guessed });
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

    /// Decodes prose with a draft model that is right in `right` of ten tokens and takes `each` of a plain round
    /// for one. Returns time over plain time, tokens drafted, and what was learnt.
    fn decode_with_model(before: &Pace, right: usize, each: f64, more: f64) -> (f64, usize, Pace) {
        let text = prose(right as u64, 3000);
        let mut drafter = Drafter::new(&[], LONGEST, Some(before));
        let (mut at, mut seconds, mut all) = (0, 0.0, 0);
        while at < text.len() {
            assert_eq!(drafter.draft(9, 1), [0; 0], "nothing repeats");
            let drafted = drafter.length_of_model(text.len() - at - 1, 1);
            let accepted = (at..at + drafted).take_while(|i| i * 7 % 10 < right).count();
            let time = cost(1 + drafted, more) + drafted as f64 * each * cost(1, 0.0);
            text[at..=at + accepted].iter().for_each(|token| drafter.push(*token));
            let guessed = Round::Guessed { source: Source::Model, drafted, accepted };
            drafter.record(time, 1, if drafted == 0 { Round::Plain } else { guessed });
            at += accepted + 1;
            seconds += time;
            all += drafted;
        }
        let learnt = drafter.pace_of_model().cloned().unwrap_or_else(Pace::of_model);
        (seconds / (text.len() as f64 * cost(1, more)), all, learnt)
    }

    #[test]
    fn a_draft_model_is_used_where_it_pays_and_left_where_it_does_not() {
        let (time, drafted, _) = decode_with_model(&Pace::of_model(), 9, 0.1, 0.1);
        assert!(time < 0.7, "{time} of the plain time");
        assert!(drafted > 1000, "{drafted}");
        for (right, each, more) in [(9, 1.0, 0.1), (1, 0.2, 0.1), (0, 0.05, 0.05), (9, 0.1, 1.6)] {
            let (time, drafted, _) = decode_with_model(&Pace::of_model(), right, each, more);
            assert!(drafted > 0, "it was tried");
            assert!(time < 1.03, "{time} of the plain time with {right}, {each}, {more}");
        }
    }

    #[test]
    fn what_is_known_of_a_draft_model_goes_from_job_to_job() {
        let (_, first, learnt) = decode_with_model(&Pace::of_model(), 1, 0.5, 0.1);
        let (_, second, _) = decode_with_model(&learnt, 1, 0.5, 0.1);
        assert!(second < first, "{second} after {first}");
        let drafter = Drafter::new(&[], LONGEST, Some(&learnt));
        assert_eq!(drafter.length_of_model(9, 1), 0, "but each measures its own plain rounds");
    }

    #[test]
    fn rounds_of_one_source_are_no_measure_for_the_other() {
        let mut drafter = Drafter::new(&[1, 2, 3, 4, 5, 1, 2, 3, 4], LONGEST, Some(&Pace::of_model()));
        for round in [Round::Mixed, Round::Guessed { source: Source::Model, drafted: 2, accepted: 2 }] {
            for _ in 0..10 {
                drafter.record(0.01, 1, round);
            }
            assert_eq!((drafter.draft(10, 1), drafter.length_of_model(10, 1)), (vec![], 0), "{round:?}");
        }
        for _ in 0..pace::FIRST_ROUNDS {
            drafter.record(0.01, 1, Round::Plain);
        }
        assert_eq!((drafter.draft(10, 1).len(), drafter.length_of_model(2, 1)), (3, 2));
        assert_eq!(Drafter::new(&[], LONGEST, None).length_of_model(9, 1), 0, "without a model");
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
        let mut drafter = Drafter::new(&[1, 2, 3, 4, 5, 1, 2, 3, 4], LONGEST, None);
        assert_eq!(drafter.draft(10, 1), [0; 0]);
        for _ in 0..pace::FIRST_ROUNDS {
            drafter.record(0.01, 1, Round::Plain);
        }
        assert_eq!(drafter.draft(10, 1), [5, 1, 2]);
        assert_eq!(drafter.draft(1, 1), [5]);
        assert_eq!(drafter.draft(10, 2), [0; 0], "two at once are another measure");
        assert_eq!(Drafter::new(&[1], 0, None).draft(10, 1), [0; 0]);
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
