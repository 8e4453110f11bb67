//! Saved records back to turns. Reads nothing itself: the records are given.

use super::model::{Saving, Session};
use super::story::{self, Hope, Story};
use super::turn::{Attempt, Lane, Phase, Prose, Turn};
use crate::chat::record::{AttemptRecord, Outcome, SessionRecord, TurnRecord};
use crate::chat::{Finish, GenError, GenErrorKind, GenKey, LaneId, Metrics, TurnId};
use crate::router::{Decision, Target};
use crate::text::{shown, shown_line};
use std::time::Duration;

/// Cells of a title.
pub(super) const TITLE_CELLS: usize = 60;

/// Where the last attempt of these turns went.
#[must_use]
pub fn target(turns: &[TurnRecord]) -> Target {
    let last = turns.iter().rev().flat_map(|turn| turn.attempts.iter().rev()).next();
    last.map_or_else(Target::default, |attempt| Target {
        backend: Some(attempt.backend.clone()),
        model: Some(attempt.model.clone()),
    })
}

/// The session of a record and its turns.
pub(super) fn session(record: &SessionRecord, turns: &[TurnRecord], saving: Saving) -> Session {
    Session {
        id: record.id.clone(),
        title: shown_line(&record.title, TITLE_CELLS),
        system: record.system.clone(),
        prompt_name: None,
        saving,
        is_opened: true,
        target: target(turns),
    }
}

/// The turns of a session, code blocks numbered through.
#[must_use]
pub fn turns(records: Vec<TurnRecord>) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::with_capacity(records.len());
    let mut first_code = 1;
    for record in records {
        let turn = turn(record, first_code);
        first_code += turn.code_count();
        turns.push(turn);
    }
    turns
}

fn turn(record: TurnRecord, first_code: usize) -> Turn {
    let mut lanes: Vec<Lane> = Vec::new();
    for saved in record.attempts {
        let (id, attempt) = (saved.key.lane, attempt(saved));
        match lanes.iter_mut().find(|lane| lane.id == id) {
            Some(lane) => lane.attempts.push(attempt),
            None => lanes.push(Lane { id, attempts: vec![attempt] }),
        }
    }
    if lanes.is_empty() {
        lanes.push(Lane { id: LaneId(0), attempts: vec![never_sent(record.id)] });
    }
    let mut next = first_code;
    for lane in &mut lanes {
        lane.settle();
        join(lane);
        number(lane, next);
        next += lane.code_count();
    }
    Turn {
        id: record.id,
        user_shown: shown(&record.user),
        user: record.user,
        created_ms: record.created_ms,
        lanes,
        kept: record.kept,
        fence: record.fence,
    }
}

/// Texts that go on from others begin as those ended.
fn join(lane: &mut Lane) {
    for at in 0..lane.attempts.len() {
        let Some(attempt) = lane.attempts.get(at) else { continue };
        let Some(before) = lane.before(attempt) else { continue };
        let mut prose = Prose::after(&before);
        prose.push(attempt.answer.raw());
        prose.finish();
        if let Some(attempt) = lane.attempts.get_mut(at) {
            attempt.answer = prose;
        }
    }
}

/// Numbers the code blocks of a lane's attempts: each attempt begins anew, but for one that goes on from another.
fn number(lane: &mut Lane, first: usize) {
    for attempt in &mut lane.attempts {
        attempt.first_code = first;
    }
    let parts: Vec<_> =
        lane.parts().iter().map(|part| (part.key, part.answer.own_codes(), part.answer.is_led())).collect();
    let mut next = first;
    for (key, codes, is_led) in parts {
        if let Some(attempt) = lane.attempts.iter_mut().find(|attempt| attempt.key == key) {
            attempt.first_code = next - usize::from(is_led);
        }
        next += codes;
    }
}

fn attempt(record: AttemptRecord) -> Attempt {
    let (decision, story) = story::from_json(&record.decision).unwrap_or_else(|| {
        let decision = Decision { rule: record.rule, reason: record.reason, ..Decision::default() };
        (decision, Story::default())
    });
    Attempt {
        key: record.key,
        // The columns are what other programs read: they count.
        decision: Decision { backend: record.backend, model: record.model, ..decision },
        story,
        hope: Hope::default(),
        quantisation: record.quantisation,
        phase: match record.outcome {
            Outcome::Stop => Phase::Done(Finish::Stop),
            Outcome::Length => Phase::Done(Finish::Length),
            Outcome::Stopped => Phase::Stopped,
            Outcome::Interrupted { error } => interrupted(error),
            Outcome::Open => interrupted("the program ended while it was answering".to_owned()),
        },
        answer: Prose::finished(&record.answer),
        thinking: Prose::finished(&record.thinking),
        thinking_open: false,
        first_code: 1,
        entered_at: Duration::ZERO,
        metrics: record.metrics,
    }
}

/// A turn whose first attempt did not reach the disk: it can be retried like any other.
fn never_sent(turn: TurnId) -> Attempt {
    Attempt {
        key: GenKey { turn, lane: LaneId(0), attempt: 0 },
        decision: Decision::default(),
        story: Story::default(),
        hope: Hope::default(),
        quantisation: None,
        phase: interrupted("the program ended before it was sent".to_owned()),
        answer: Prose::default(),
        thinking: Prose::default(),
        thinking_open: false,
        first_code: 1,
        entered_at: Duration::ZERO,
        metrics: Metrics::default(),
    }
}

fn interrupted(error: String) -> Phase {
    // The kind was not kept; nothing decides by it any more.
    Phase::Interrupted(GenError::new(GenErrorKind::Protocol, error))
}
