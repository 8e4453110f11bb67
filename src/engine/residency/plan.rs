//! Whether a model can become resident, and which ones have to leave for it. Pure: numbers in, a decision out.
//!
//! Everything is counted per device, in the order of the budgets. Only idle models are sent away, one rather
//! than several, and first the one that was idle longest for what it costs to load again.

/// The least a reload is taken to cost, in milliseconds: below it scores would be noise.
const LEAST_RELOAD_MS: f64 = 1.0;

/// What a resident model is doing, as far as sending it away is concerned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Standing {
    /// It has this many answers on their way, or waiting for it.
    Running(usize),
    /// The person wants it to stay.
    Pinned,
    /// It was loaded or warmed a moment ago and not used since: somebody is about to.
    Warmed {
        /// Until it counts as idle, in seconds.
        left_s: f64,
    },
    /// It was told to leave and has not given its memory back yet.
    Leaving,
    /// Nobody uses it.
    Idle {
        /// Since when, in seconds.
        for_s: f64,
    },
}

/// A model that holds memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Holder {
    /// Its id.
    pub id: String,
    /// Bytes on each device.
    pub bytes: Vec<u64>,
    /// What it is doing.
    pub standing: Standing,
    /// How long its last load took, in milliseconds.
    pub load_ms: f64,
}

impl Holder {
    /// Seconds of idleness, when it may be sent away.
    fn idle_s(&self) -> Option<f64> {
        match self.standing {
            Standing::Idle { for_s } => Some(for_s),
            _ => None,
        }
    }

    /// How good a victim it is: idle time over the cost of loading it again.
    fn score(&self) -> f64 {
        self.idle_s().unwrap_or(0.0).max(0.0) / self.load_ms.max(LEAST_RELOAD_MS)
    }

    /// Bytes over all devices.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.bytes.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

/// What room there is for a need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// Enough, as things are.
    Free,
    /// Enough when these leave, in this order. Never empty.
    IfUnloaded(Vec<String>),
    /// Not enough, even when everything idle leaves.
    None,
}

/// What can be done about a newcomer.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It fits as things are.
    Fits,
    /// It fits when these leave.
    IfUnloaded(Vec<String>),
    /// It does not fit with the context asked for, but with this one, when these leave.
    SmallerContext {
        /// In tokens.
        context: u32,
        /// Ids of those that would have to leave; often none.
        unload: Vec<String>,
    },
    /// It fits with this many of its layers on the accelerators, when these leave.
    Partial {
        /// Layers on accelerators.
        gpu_layers: u32,
        /// How many times slower a token is than with all layers there, predicted.
        slowdown: f64,
        /// Ids of those that would have to leave; often none.
        unload: Vec<String>,
    },
    /// It does not fit.
    DoesNotFit,
}

/// Bytes of each budget that nobody holds.
#[must_use]
pub fn free(budgets: &[u64], holders: &[&Holder]) -> Vec<u64> {
    let held =
        |i: usize| holders.iter().filter_map(|h| h.bytes.get(i)).fold(0_u64, |sum, b| sum.saturating_add(*b));
    budgets.iter().enumerate().map(|(i, budget)| budget.saturating_sub(held(i))).collect()
}

/// Whether `need` fits into `budgets` beside these holders. A budget already overdrawn has no room for even
/// one byte, but does not stand in the way of a model that needs nothing of it.
fn fits(budgets: &[u64], holders: &[&Holder], need: &[u64]) -> bool {
    free(budgets, holders).iter().zip(need).all(|(free, need)| need <= free)
}

/// What room there is for `need` (bytes on each device) beside these holders.
#[must_use]
pub fn room(budgets: &[u64], holders: &[Holder], need: &[u64]) -> Room {
    let all: Vec<&Holder> = holders.iter().collect();
    if fits(budgets, &all, need) {
        return Room::Free;
    }
    let mut idle: Vec<&Holder> = holders.iter().filter(|h| h.idle_s().is_some()).collect();
    // The id decides between equals, so that the same question has the same answer.
    idle.sort_by(|a, b| b.score().total_cmp(&a.score()).then_with(|| a.id.cmp(&b.id)));
    let fits_without = |gone: &[&Holder]| {
        let rest: Vec<&Holder> =
            all.iter().copied().filter(|h| !gone.iter().any(|g| std::ptr::eq(*g, *h))).collect();
        fits(budgets, &rest, need)
    };
    if let Some(one) = idle.iter().find(|holder| fits_without(&[holder])) {
        return Room::IfUnloaded(vec![one.id.clone()]);
    }
    let mut gone: Vec<&Holder> = Vec::new();
    for holder in idle {
        gone.push(holder);
        if fits_without(&gone) {
            break;
        }
    }
    if !fits_without(&gone) {
        return Room::None;
    }
    // Those that turn out to be needless stay, the ones that would be missed most first.
    for i in (0..gone.len()).rev() {
        let mut fewer = gone.clone();
        fewer.remove(i);
        if fits_without(&fewer) {
            gone = fewer;
        }
    }
    Room::IfUnloaded(gone.into_iter().map(|h| h.id.clone()).collect())
}

/// A model that wants to become resident.
pub struct Newcomer<'a> {
    /// The context asked for, in tokens.
    pub context: u32,
    /// Bytes on each device with a context of this many tokens. Must not shrink as the context grows.
    pub need: &'a dyn Fn(u32) -> Vec<u64>,
    /// Bytes on each device with this many layers on the accelerators, with the context asked for.
    pub with_layers: Option<&'a dyn Fn(u32) -> Vec<u64>>,
    /// Layers the model has, its output included.
    pub layers: u32,
    /// How many times slower a token is with this many layers on the accelerators.
    pub slowdown: &'a dyn Fn(u32) -> f64,
}

/// Smallest context that is worth offering, in tokens, and the step between offers.
pub const SMALLEST_CONTEXT: u32 = 512;
const CONTEXT_STEP: u32 = 256;

/// What can be done about a newcomer, best first: as things are, with idle models sent away, partly on the
/// accelerators, with a smaller context.
#[must_use]
pub fn decide(budgets: &[u64], holders: &[Holder], newcomer: &Newcomer<'_>) -> Verdict {
    match room(budgets, holders, &(newcomer.need)(newcomer.context)) {
        Room::Free => return Verdict::Fits,
        Room::IfUnloaded(ids) => return Verdict::IfUnloaded(ids),
        Room::None => {}
    }
    if let Some(with_layers) = newcomer.with_layers {
        let fits = |layers: u32| room(budgets, holders, &with_layers(layers)) != Room::None;
        if let Some(gpu_layers) = largest(1, newcomer.layers.saturating_sub(1), fits) {
            let unload = unloaded(room(budgets, holders, &with_layers(gpu_layers)));
            return Verdict::Partial { gpu_layers, slowdown: (newcomer.slowdown)(gpu_layers), unload };
        }
    }
    let at = |steps: u32| (newcomer.need)(steps * CONTEXT_STEP);
    let fits = |steps: u32| room(budgets, holders, &at(steps)) != Room::None;
    // One step below what was asked for, which does not fit.
    let most = newcomer.context.saturating_sub(1) / CONTEXT_STEP;
    match largest(SMALLEST_CONTEXT / CONTEXT_STEP, most, fits) {
        Some(steps) => Verdict::SmallerContext {
            context: steps * CONTEXT_STEP,
            unload: unloaded(room(budgets, holders, &at(steps))),
        },
        None => Verdict::DoesNotFit,
    }
}

fn unloaded(room: Room) -> Vec<String> {
    match room {
        Room::IfUnloaded(ids) => ids,
        Room::Free | Room::None => Vec::new(),
    }
}

/// The largest number from `low` to `high` for which `holds`, which holds up to some number and not beyond it.
fn largest(low: u32, high: u32, holds: impl Fn(u32) -> bool) -> Option<u32> {
    if low > high || !holds(low) {
        return None;
    }
    let (mut low, mut high) = (low, high);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if holds(middle) { low = middle } else { high = middle - 1 }
    }
    Some(low)
}

#[cfg(test)]
mod tests;
