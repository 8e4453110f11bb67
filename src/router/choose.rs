//! Who of those that can answer gets the turn: the configured split by size, then cost.

use super::candidates::Candidate;
use super::cost::predict;
use super::decision::{Prediction, Rejected};
use super::facts::{Facts, Health};
use super::words::{float, seconds, weights, whole};
use crate::config::Policy;

/// The machine of the turn before stays unless another one is better by more than this, in milliseconds, and in parts of what
/// it takes.
const STAY_MS: f64 = 1_500.0;
const STAY_SHARE: f64 = 0.2;
/// How much worse a machine may be, in milliseconds, to get a turn so that it is measured.
const EXPLORE_MS: f64 = 1_000.0;
/// Turns after which a speed needs no more trying out.
const KNOWN_AFTER: u32 = 3;

/// The one that was chosen.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    pub(super) candidate: Candidate<'a>,
    pub(super) predicted: Option<Prediction>,
    /// What decided, where it was not that there was only one, or that it came first.
    pub(super) rule: Option<(String, String)>,
    /// The others.
    pub(super) rejected: Vec<Rejected>,
}

/// How a choice among several is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// By size, then by what they cost.
    Cost,
    /// The first one: whoever wrote the list wants it so.
    Order,
    /// By size, then the first one: they are different models, which nobody asked for by name.
    Default,
}

/// Chooses among candidates that can all answer, in order of preference. None: there are none.
pub(super) fn choose<'a>(candidates: Vec<Candidate<'a>>, facts: &Facts, by: By) -> Option<Choice<'a>> {
    let priced = candidates.into_iter().map(|candidate| {
        let prediction = predict(&candidate, facts);
        (candidate, prediction)
    });
    if by == By::Order {
        return first(priced.collect());
    }
    let sides: Vec<_> = priced.map(|(c, p)| (side(facts, &c), c, p)).collect();
    // The split says something where one of them is on the side it belongs to.
    let is_split = sides.iter().any(|(side, ..)| matches!(side, Side::Right(_)));
    let (mut field, mut rejected) = (Vec::new(), Vec::new());
    for (side, candidate, prediction) in sides {
        match side {
            Side::Wrong(why) if is_split => rejected.push(beaten(&candidate, prediction, why)),
            side => field.push((side, candidate, prediction)),
        }
    }
    let rule = match field.as_slice() {
        [(Side::Right(rule), ..)] => Some(rule.clone()),
        [(Side::Right(rule), ..), ..] if by == By::Default => Some(rule.clone()),
        _ => None,
    };
    let rest = field.into_iter().map(|(_, candidate, prediction)| (candidate, prediction)).collect();
    let mut choice = match by {
        By::Cost => cheapest(rest, facts),
        By::Order | By::Default => first(rest),
    }?;
    choice.rule = rule.or(choice.rule);
    choice.rejected.extend(rejected);
    if by == By::Default {
        choice.rejected.iter_mut().for_each(|other| other.could_answer = false);
    }
    Some(choice)
}

fn beaten(candidate: &Candidate<'_>, predicted: Option<Prediction>, why: String) -> Rejected {
    Rejected { predicted, could_answer: true, ..candidate.rejected(why) }
}

/// Where the split by size wants a model.
enum Side {
    /// It says nothing about it.
    None,
    /// Where it is: the rule and the reason.
    Right((String, String)),
    /// Elsewhere: why.
    Wrong(String),
}

fn side(facts: &Facts, candidate: &Candidate<'_>) -> Side {
    let rules = &facts.rules;
    if rules.small.is_none() && rules.large.is_none() {
        return Side::None;
    }
    let Some(parameters) = candidate.parameters() else { return Side::None };
    let limit = rules.large_from * 1e9;
    let is_large = float(parameters) >= limit;
    let (word, side, sign) =
        if is_large { ("large", &rules.large, "≥") } else { ("small", &rules.small, "<") };
    match side {
        None => Side::None,
        Some(side) if *side == candidate.backend.name => Side::Right((
            format!("{word}-to-{side}"),
            format!("{} {sign} {}", weights(parameters), weights(whole(limit))),
        )),
        Some(side) => Side::Wrong(format!("{word} models go to {side}")),
    }
}

type Priced<'a> = (Candidate<'a>, Option<Prediction>);

/// The first of them, or none.
fn first(candidates: Vec<Priced<'_>>) -> Option<Choice<'_>> {
    take(candidates, 0, |chosen, _| format!("{} comes first", chosen.backend.name))
}

/// Takes one and rejects the others.
fn take<'a>(
    mut candidates: Vec<Priced<'a>>,
    at: usize,
    why: impl Fn(&Candidate<'a>, Option<&Prediction>) -> String,
) -> Option<Choice<'a>> {
    if at >= candidates.len() {
        return None;
    }
    let (candidate, predicted) = candidates.remove(at);
    let others =
        candidates.iter().map(|(other, price)| beaten(other, *price, why(&candidate, price.as_ref())));
    let rejected = others.collect();
    Some(Choice { candidate, predicted, rule: None, rejected })
}

/// The one that costs least; the one of the turn before as long as that is not much worse.
fn cheapest<'a>(mut candidates: Vec<Priced<'a>>, facts: &Facts) -> Option<Choice<'a>> {
    let previous = candidates.iter().position(|(candidate, _)| candidate.is_previous(facts));
    let prices: Option<Vec<Prediction>> = candidates.iter().map(|(_, price)| *price).collect();
    let prices = prices.filter(|prices| prices.len() > 1);
    let Some(mut prices) = prices else {
        // Of one of them nothing is known: it goes on where it was, or to the first.
        let at = previous.unwrap_or(0);
        let why = if previous.is_some() { "answered before" } else { "comes first" };
        return take(candidates, at, |chosen, _| format!("{} {why}", chosen.backend.name));
    };
    // Best first, the earlier one of two alike. The stable sort keeps the order of preference.
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    let score = |at: &usize| prices.get(*at).map_or(f64::INFINITY, |price| price.score_ms);
    order.sort_by(|a, b| score(a).total_cmp(&score(b)));
    let mut slots: Vec<Option<Priced<'a>>> = candidates.drain(..).map(Some).collect();
    candidates = order.iter().filter_map(|at| slots.get_mut(*at)?.take()).collect();
    prices.sort_by(|a, b| a.score_ms.total_cmp(&b.score_ms));
    let previous = previous.and_then(|at| order.iter().position(|sorted| *sorted == at));

    let best = *prices.first()?;
    let policy = policy(facts.rules.policy);
    if let Some(at) = previous.filter(|at| *at > 0) {
        let stay = prices.get(at)?.score_ms;
        let gain = stay - best.score_ms;
        if gain <= STAY_MS.max(STAY_SHARE * stay) {
            let better = candidates.first().map(|(better, _)| better.backend.name.clone())?;
            let reason = format!("as before; {better} would be only {} better", seconds(gain));
            let mut choice = take(candidates, at, |_, price| compared(price, stay))?;
            choice.rule = Some(("session".to_owned(), reason));
            return Some(choice);
        }
    }
    let next = prices.get(1).map_or(0.0, |second| second.score_ms - best.score_ms);
    let second = candidates.get(1).map(|(second, _)| second.backend.name.clone())?;
    if previous == Some(0) {
        let mut choice = take(candidates, 0, |_, price| compared(price, best.score_ms))?;
        choice.rule =
            Some(("session".to_owned(), format!("as before, and {} better than {second}", seconds(next))));
        return Some(choice);
    }
    if previous.is_none()
        && let Some(at) = worth_trying(&candidates, &prices)
    {
        let samples = prices.get(at).map_or(0, |price| price.samples);
        let score = prices.get(at)?.score_ms;
        let reason = match samples {
            0 => "to measure it: its speed is a guess so far".to_owned(),
            1 => "to measure it: its speed is known from 1 turn".to_owned(),
            n => format!("to measure it: its speed is known from {n} turns"),
        };
        let mut choice = take(candidates, at, |_, price| compared(price, score))?;
        choice.rule = Some(("explore".to_owned(), reason));
        return Some(choice);
    }
    let reason = format!("{policy}: {} better than {second}", seconds(next));
    let mut choice = take(candidates, 0, |_, price| compared(price, best.score_ms))?;
    choice.rule = Some(("cost".to_owned(), reason));
    Some(choice)
}

/// How a price compares with the chosen one's.
fn compared(price: Option<&Prediction>, chosen: f64) -> String {
    match price.map(|price| price.score_ms - chosen) {
        Some(more) if more >= 0.0 => format!("{} worse", seconds(more)),
        Some(less) => format!("{} better", seconds(-less)),
        None => "not comparable".to_owned(),
    }
}

/// The least measured one, when both it and the best are idle, it is hardly worse, and it was not tried today.
fn worth_trying(candidates: &[Priced<'_>], prices: &[Prediction]) -> Option<usize> {
    let (best, best_price) = (candidates.first()?, prices.first()?);
    let is_idle = |candidate: &Candidate<'_>| {
        let backend = candidate.backend;
        let is_up = matches!(backend.health, Health::Ready | Health::Unknown);
        is_up && backend.queue_ms.is_none_or(|ms| ms <= 0.0) && backend.failed_s.is_none()
    };
    if !is_idle(&best.0) {
        return None;
    }
    let all = candidates.iter().zip(prices).enumerate().skip(1);
    let worth = all.filter(|(_, ((candidate, _), price))| {
        price.samples < best_price.samples
            && price.samples < KNOWN_AFTER
            && price.score_ms - best_price.score_ms < EXPLORE_MS
            && is_idle(candidate)
            && candidate.model.is_some_and(|model| !model.is_explored_today)
    });
    worth.min_by_key(|(_, (_, price))| price.samples).map(|(at, _)| at)
}

const fn policy(policy: Policy) -> &'static str {
    match policy {
        Policy::Snappy => "snappy",
        Policy::Balanced => "balanced",
        Policy::Finish => "finish",
        Policy::Quiet => "quiet",
        Policy::Saver => "saver",
    }
}
