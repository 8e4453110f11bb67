//! How long guesses are and whether they are made at all: from what they brought. Pure.

use super::{LONGEST, MOST_SEQUENCES};

/// Length of the first guess.
const FIRST_LENGTH: usize = 3;
/// Plain rounds measured before the first guess.
pub const FIRST_ROUNDS: u32 = 3;
/// A guess that was right and brought less than this of the plain speed is not tried longer.
const HOPELESS: f64 = 0.8;
/// Rounds without guesses after one that did not pay; doubled each time in a row.
const FIRST_PAUSE: u32 = 32;
/// The longest pause.
const LONGEST_PAUSE: u32 = 2048;

/// How long guesses are, from what they brought so far.
#[derive(Clone, Debug)]
pub struct Pace {
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
    /// The gain guesses begin with.
    credit: f64,
    /// How much of the averaged gain is still due to that, above 1.
    credit_left: f64,
    /// How much of the averaged gain one round is.
    weight: f64,
}

impl Pace {
    fn new(credit: f64, weight: f64) -> Self {
        Self {
            plain: [0.0; MOST_SEQUENCES],
            rounds: 0,
            length: FIRST_LENGTH,
            gain: credit,
            pause: 0,
            next_pause: FIRST_PAUSE,
            is_proven: false,
            credit,
            credit_left: credit - 1.0,
            weight,
        }
    }

    /// For guesses from the context: where they fail, the text does not repeat itself any more.
    #[must_use]
    pub fn of_context() -> Self {
        Self::new(1.0, 0.5)
    }

    /// For guesses of a draft model, which come in every round: a few bad ones are no sign yet.
    #[must_use]
    pub fn of_model() -> Self {
        Self::new(1.15, 0.2)
    }

    /// What holds for the next job as well: whether guessing pays, but not how long a plain round takes, which
    /// depends on the length of the context.
    #[must_use]
    pub fn for_another_job(&self) -> Self {
        Self { plain: [0.0; MOST_SEQUENCES], rounds: 0, ..self.clone() }
    }

    /// Whether guessing has paid lately.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.is_proven
    }

    fn plain(&self, sequences: usize) -> Option<f64> {
        let plain = self.plain.get(sequences.checked_sub(1)?)?;
        (*plain > 0.0).then_some(*plain)
    }

    /// How long a guess shall be; 0 while it does not pay or is not known to.
    #[must_use]
    pub fn length(&self, sequences: usize) -> usize {
        let may = self.pause == 0 && self.rounds >= FIRST_ROUNDS && self.plain(sequences).is_some();
        if may { (self.length / sequences.max(1)).max(1) } else { 0 }
    }

    /// A round without any guess took this long.
    pub fn record_plain(&mut self, seconds: f64, sequences: usize) {
        self.rounds = self.rounds.saturating_add(1);
        self.pass();
        if let Some(plain) = sequences.checked_sub(1).and_then(|i| self.plain.get_mut(i)) {
            *plain = if *plain > 0.0 { 0.8 * *plain + 0.2 * seconds } else { seconds };
        }
    }

    /// A round went by that had no guess of this kind.
    pub fn pass(&mut self) {
        self.pause = self.pause.saturating_sub(1);
    }

    /// A round took this long and evaluated `drafted` guessed tokens, of which `accepted` were right. None drafted
    /// is a guess that was worked for and not made.
    pub fn record_guess(&mut self, seconds: f64, sequences: usize, drafted: usize, accepted: usize) {
        let Some(plain) = self.plain(sequences) else { return };
        let gain = (accepted + 1) as f64 * plain / seconds.max(1e-9);
        self.gain = (1.0 - self.weight) * self.gain + self.weight * gain;
        self.credit_left *= 1.0 - self.weight;
        let is_right = drafted > 0 && accepted == drafted;
        if is_right {
            self.length = (self.length * 2).min(LONGEST);
        } else if accepted * 2 < drafted {
            self.length = accepted.max(FIRST_LENGTH);
        }
        if self.gain - self.credit_left > 1.1 {
            self.is_proven = true;
            self.next_pause = FIRST_PAUSE;
        }
        // As long as all of it is right, a longer guess may pay where a short one nearly does.
        let is_final = !is_right || gain < HOPELESS || drafted >= LONGEST / sequences.max(1);
        if self.gain < 1.0 && is_final {
            self.pause = self.next_pause;
            self.next_pause = (self.next_pause * 2).min(LONGEST_PAUSE);
            self.length = FIRST_LENGTH;
            self.gain = self.credit;
            self.credit_left = self.credit - 1.0;
            self.is_proven = false;
        }
    }
}
