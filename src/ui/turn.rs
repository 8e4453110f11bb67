//! One turn as sections of rows: what the person said, earlier attempts, thinking, the answer, and the
//! lines under it. A memo of their heights is kept as long as the turn does not change.

use super::blocks::{BlockSet, Look, Voice};
use super::page::Page;
use super::{format, receipt, target};
use crate::app::Model;
use crate::app::turn::{Attempt, Lane, Phase, Turn};
use crate::app::{DiffLine, code_diffs};
use crate::chat::Channel;
use crate::markdown::wrap::{Styled, breaks, wrap};
use crate::text::{shown, shown_line, width::cut};
use crate::theme::{Role, Theme};
use ratatui::text::{Line, Span};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

/// Turns at the end whose lines are kept when they are measured.
const NEAR_END: usize = 8;

/// Rows from which a message of the person is folded, and how many of them are shown then. It is kept and
/// sent whole.
const LONG_MESSAGE: usize = 40;
const FOLDED_TO: usize = 12;

/// The frame a turn is drawn in.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) model: &'a Model,
    pub(super) page: &'a Page,
    pub(super) theme: &'a Theme,
}

/// What is known of one turn's rows.
#[derive(Debug, Default)]
pub(super) struct TurnMemo {
    /// What the turn was when it was measured; 0 while it may change without notice.
    stamp: u64,
    user: UserMemo,
    /// One for each attempt that is shown whole.
    lanes: Vec<LaneMemo>,
    sections: Vec<Section>,
    rows: usize,
}

#[derive(Debug, Default)]
struct UserMemo {
    key: Option<(i64, usize)>,
    rows: usize,
    /// Rows left out of a long message.
    folded: usize,
    lines: Option<Vec<Line<'static>>>,
}

#[derive(Debug, Default)]
struct LaneMemo {
    /// Names the attempt the blocks belong to.
    key: u64,
    thinking: BlockSet,
    answer: BlockSet,
}

#[derive(Debug)]
struct Section {
    start: usize,
    rows: usize,
    kind: SectionKind,
}

#[derive(Debug)]
enum SectionKind {
    User,
    Lines(Vec<Line<'static>>),
    Thinking(usize),
    Answer(usize),
}

/// A place in a turn that means the same at another width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    section: usize,
    block: Option<usize>,
    row: usize,
    of: usize,
}

/// One line to draw: the row inside the turn, what it is, the line.
#[derive(Clone, Copy)]
pub(super) enum Drawn<'a> {
    /// A line of what the person said.
    User(&'a Line<'static>),
    /// Any other.
    Other(&'a Line<'static>),
    /// The last line of text that is still coming.
    Growing(&'a Line<'static>),
}

impl TurnMemo {
    /// Measures the turn anew where it changed; its rows, with the gap before it.
    pub(super) fn update(&mut self, at: usize, turn: &Turn, scene: Scene<'_>) -> usize {
        let is_last = at + 1 == scene.model.turns.len();
        let stamp = stamp(turn, is_last, scene);
        if stamp != 0 && stamp == self.stamp {
            return self.rows;
        }
        self.stamp = stamp;
        let page = scene.page;
        let mut stack = Stack { sections: Vec::new(), rows: if at == 0 { 0 } else { page.gap } };
        let rows = self.user.update(turn, page);
        stack.push(rows, SectionKind::User);
        let shown = shown_attempts(turn);
        self.lanes.resize_with(shown.len(), LaneMemo::default);
        for (at, lane) in turn.lanes.iter().enumerate().filter(|(_, lane)| is_folded(turn, lane)) {
            stack.rows += page.gap;
            stack.lines(vec![folded_answer(at + 1, lane, scene)]);
        }
        for (number, ((lane, attempt), memo)) in shown.iter().zip(&mut self.lanes).enumerate() {
            let (lane, attempt) = (*lane, *attempt);
            let key = key(attempt);
            if memo.key != key {
                *memo = LaneMemo { key, ..LaneMemo::default() };
            }
            stack.rows += page.gap;
            if attempt.story.continues.is_some() {
                let host = shown_line(&attempt.decision.backend, 24);
                let text = format!("↪ continued on {} · {}", &*host, target::name(&attempt.decision.model));
                stack.lines(vec![Line::styled(cut(&text, page.wide), scene.theme.style(Role::Warn))]);
            } else {
                let number =
                    turn.lanes.iter().position(|known| known.id == lane.id).filter(|_| turn.lanes.len() > 1);
                stack.lines(number.map(|at| answer_head(at + 1, lane, scene)).into_iter().collect());
                let earlier = earlier(lane, scene);
                stack.lines(earlier);
            }
            if !attempt.thinking.is_empty() {
                stack.lines(vec![thinking(attempt, scene)]);
                if attempt.thinking_open {
                    let rows = memo.thinking.update(&attempt.thinking, look(Voice::Thinking, scene));
                    stack.push(rows, SectionKind::Thinking(number));
                }
                if !attempt.answer.is_empty() {
                    stack.rows += page.gap;
                }
            }
            let rows = memo.answer.update(&attempt.answer, look(voice(attempt), scene));
            stack.push(rows, SectionKind::Answer(number));
            let is_newest = is_last && number + 1 == shown.len();
            stack.lines(tail(turn, attempt, is_newest, scene));
        }
        let compared = compared(turn, is_last, scene);
        if !compared.is_empty() {
            stack.rows += page.gap;
            stack.lines(compared);
        }
        self.sections = stack.sections;
        self.rows = stack.rows;
        if stamp != 0 && at + NEAR_END < scene.model.turns.len() {
            // Measured, but not what is looked at first: a long session is not held as lines all at once.
            self.forget_outside(&(0..0));
        }
        self.rows
    }

    /// Rows as of the last update.
    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    /// Calls `put` with the row and the line for each row of `part` that is not blank.
    pub(super) fn draw(
        &mut self,
        turn: &Turn,
        part: Range<usize>,
        scene: Scene<'_>,
        mut put: impl FnMut(usize, Drawn<'_>),
    ) {
        for section in &self.sections {
            let rows = part.start.max(section.start)..part.end.min(section.start + section.rows);
            if rows.is_empty() {
                continue;
            }
            let inner = rows.start - section.start..rows.end - section.start;
            match &section.kind {
                SectionKind::User => {
                    for (row, line) in self.user.lines(turn, scene).iter().enumerate() {
                        if inner.contains(&row) {
                            put(section.start + row, Drawn::User(line));
                        }
                    }
                }
                SectionKind::Lines(lines) => {
                    for (row, line) in lines.iter().enumerate().take(inner.end).skip(inner.start) {
                        put(section.start + row, Drawn::Other(line));
                    }
                }
                SectionKind::Thinking(lane) | SectionKind::Answer(lane) => {
                    let Some((_, attempt)) = shown_attempts(turn).get(*lane).copied() else { continue };
                    let Some(memo) = self.lanes.get_mut(*lane) else { continue };
                    let is_answer = matches!(section.kind, SectionKind::Answer(_));
                    let (set, prose, voice, channel) = if is_answer {
                        (&mut memo.answer, &attempt.answer, voice(attempt), Channel::Answer)
                    } else {
                        (&mut memo.thinking, &attempt.thinking, Voice::Thinking, Channel::Thinking)
                    };
                    let grows = attempt.phase == Phase::Streaming(channel);
                    let last = section.rows - 1;
                    set.draw(prose, inner, look(voice, scene), |row, line| {
                        let drawn =
                            if grows && row == last { Drawn::Growing(line) } else { Drawn::Other(line) };
                        put(section.start + row, drawn);
                    });
                }
            }
        }
    }

    /// Forgets lines outside these rows; heights stay.
    pub(super) fn forget_outside(&mut self, part: &Range<usize>) {
        for section in &self.sections {
            let clip = |row: usize| row.clamp(section.start, section.start + section.rows) - section.start;
            let inner = clip(part.start)..clip(part.end);
            match section.kind {
                SectionKind::User if inner.is_empty() => self.user.lines = None,
                SectionKind::Thinking(lane) | SectionKind::Answer(lane) => {
                    let is_answer = matches!(section.kind, SectionKind::Answer(_));
                    if let Some(memo) = self.lanes.get_mut(lane) {
                        let set = if is_answer { &mut memo.answer } else { &mut memo.thinking };
                        set.forget_outside(&inner);
                    }
                }
                SectionKind::User | SectionKind::Lines(_) => {}
            }
        }
    }

    /// What a row shows, in terms that survive another width.
    pub(super) fn place(&self, row: usize) -> Place {
        let section = self.sections.partition_point(|section| section.start <= row).saturating_sub(1);
        let Some(found) = self.sections.get(section) else {
            return Place { section: 0, block: None, row: 0, of: 1 };
        };
        let inner = row.saturating_sub(found.start);
        match self.set(&found.kind).and_then(|set| set.block_at(inner)) {
            Some((block, rows)) => {
                Place { section, block: Some(block), row: inner.saturating_sub(rows.start), of: rows.len() }
            }
            None => Place { section, block: None, row: inner, of: found.rows },
        }
    }

    /// The row that shows a place.
    pub(super) fn row_of(&self, place: Place) -> usize {
        let Some(section) = self.sections.get(place.section) else { return 0 };
        let rows =
            place.block.and_then(|block| self.set(&section.kind)?.rows_of(block)).unwrap_or(0..section.rows);
        let inside = (place.row * rows.len()).checked_div(place.of.max(1)).unwrap_or(0);
        section.start + rows.start + inside.min(rows.len().saturating_sub(1))
    }

    fn set(&self, kind: &SectionKind) -> Option<&BlockSet> {
        match kind {
            SectionKind::Thinking(lane) => self.lanes.get(*lane).map(|memo| &memo.thinking),
            SectionKind::Answer(lane) => self.lanes.get(*lane).map(|memo| &memo.answer),
            SectionKind::User | SectionKind::Lines(_) => None,
        }
    }
}

struct Stack {
    sections: Vec<Section>,
    rows: usize,
}

impl Stack {
    fn push(&mut self, rows: usize, kind: SectionKind) {
        self.sections.push(Section { start: self.rows, rows, kind });
        self.rows += rows;
    }

    fn lines(&mut self, lines: Vec<Line<'static>>) {
        self.push(lines.len(), SectionKind::Lines(lines));
    }
}

impl UserMemo {
    fn update(&mut self, turn: &Turn, page: &Page) -> usize {
        let key = Some((turn.created_ms, turn.user_shown.len()));
        if self.key != key {
            let rows = |line: &str| {
                let mut text = Styled::default();
                text.push(line, ratatui::style::Style::new());
                breaks(text.text(), page.prose).len()
            };
            let all: usize = turn.user_shown.trim_end().split('\n').map(rows).sum();
            let folded = if all > LONG_MESSAGE { all - FOLDED_TO } else { 0 };
            let rows = if folded > 0 { FOLDED_TO + 1 } else { all };
            *self = Self { key, rows, folded, lines: None };
        }
        self.rows
    }

    fn lines(&mut self, turn: &Turn, scene: Scene<'_>) -> &[Line<'static>] {
        let folded = self.folded;
        self.lines.get_or_insert_with(|| {
            let mut lines = Vec::new();
            let mut text = Styled::default();
            for line in turn.user_shown.trim_end().split('\n') {
                text.clear();
                text.push(line, scene.theme.style(Role::Text));
                wrap(&text, scene.page.prose, &[], &[], &mut lines);
                if folded > 0 && lines.len() >= FOLDED_TO {
                    lines.truncate(FOLDED_TO);
                    let more = format!("… {folded} more lines");
                    lines.push(Line::styled(more, scene.theme.style(Role::Dim)));
                    break;
                }
            }
            lines
        })
    }
}

fn look<'a>(voice: Voice, scene: Scene<'a>) -> Look<'a> {
    Look { page: scene.page, theme: scene.theme, voice }
}

const fn voice(attempt: &Attempt) -> Voice {
    Voice::Answer { first_code: attempt.first_code }
}

/// Names an attempt and what about it changes how its blocks look.
fn key(attempt: &Attempt) -> u64 {
    let mut hasher = DefaultHasher::new();
    (attempt.key, attempt.entered_at, attempt.first_code).hash(&mut hasher);
    hasher.finish().max(1)
}

/// Changes whenever the rows of the turn might; 0 for a turn that moves with time.
fn stamp(turn: &Turn, is_last: bool, scene: Scene<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (turn.id, turn.created_ms, turn.user_shown.len(), is_last, turn.lanes.len(), turn.kept).hash(&mut hasher);
    let routing = &scene.model.routing;
    let offered =
        routing.offer.as_ref().filter(|_| is_last).map(|offer| (offer.key, &offer.decision.backend));
    (offered, routing.wait.as_ref().filter(|_| is_last).map(|wait| &wait.backend)).hash(&mut hasher);
    for lane in &turn.lanes {
        let Some(attempt) = lane.current() else { continue };
        if !attempt.phase.is_terminal() {
            return 0;
        }
        std::mem::discriminant(&attempt.phase).hash(&mut hasher);
        if let Phase::Interrupted(error) = &attempt.phase {
            error.message.hash(&mut hasher);
        }
        (key(attempt), lane.attempts.len(), attempt.thinking_open).hash(&mut hasher);
        (attempt.answer.shown().len(), attempt.thinking.shown().len()).hash(&mut hasher);
        (attempt.metrics.first_token_ms.map(f64::to_bits), attempt.metrics.total_ms.map(f64::to_bits))
            .hash(&mut hasher);
        attempt.metrics.usage.output_tokens.hash(&mut hasher);
        (attempt.story.continues, &attempt.story.cache_lost, &attempt.story.fallback_from).hash(&mut hasher);
        attempt.metrics.server.is_some().hash(&mut hasher);
        (target::quantisation(scene.model, attempt), target::role(scene.model, &attempt.decision.backend))
            .hash(&mut hasher);
    }
    hasher.finish().max(1)
}

/// The attempts of a turn that are shown whole: of each lane the current one, after those it goes on from; of several
/// answers, once one is chosen, that one alone.
fn shown_attempts(turn: &Turn) -> Vec<(&Lane, &Attempt)> {
    let lanes = turn.lanes.iter().filter(|lane| !is_folded(turn, lane));
    lanes.flat_map(|lane| lane.parts().into_iter().map(move |attempt| (lane, attempt))).collect()
}

/// Whether a lane is one that was not chosen.
fn is_folded(turn: &Turn, lane: &Lane) -> bool {
    turn.kept.is_some_and(|kept| kept != lane.id)
}

/// What heads each of several answers.
fn answer_head(number: usize, lane: &Lane, scene: Scene<'_>) -> Line<'static> {
    let host = lane.current().map_or_else(String::new, |a| shown_line(&a.decision.backend, 24).to_string());
    Line::styled(format!("answer {number} · {host}"), scene.theme.style(Role::Heading))
}

/// The line that stands for an answer that was not chosen.
fn folded_answer(number: usize, lane: &Lane, scene: Scene<'_>) -> Line<'static> {
    let mut text = format!("▸ answer {number}, not kept");
    if let Some(attempt) = lane.current() {
        let host = shown_line(&attempt.decision.backend, 24);
        text.push_str(&format!(" · {} · {}", &*host, target::name(&attempt.decision.model)));
        if let Some(tokens) = attempt.metrics.usage.output_tokens {
            text.push_str(&format!(" · {} tok", format::tokens(tokens)));
        }
    }
    Line::styled(cut(&text, scene.page.wide), scene.theme.style(Role::Dim))
}

/// Lines of a difference that are shown at most.
const DIFF_LINES: usize = 60;

/// Under two answers: how their code differs, and the keys that keep one.
fn compared(turn: &Turn, is_last: bool, scene: Scene<'_>) -> Vec<Line<'static>> {
    let style = |role| scene.theme.style(role);
    let [first, .., second] = turn.lanes.as_slice() else { return Vec::new() };
    if !turn.is_undecided() || !second.counts() {
        return Vec::new();
    }
    let diff = code_diffs(first, second);
    let width = scene.page.wide;
    let line = |line: &DiffLine| {
        let (mark, text, role) = match line {
            DiffLine::Head(text) => ("", text, Role::Heading),
            DiffLine::Same(text) => ("  ", text, Role::Dim),
            DiffLine::Gone(text) => ("- ", text, Role::Bad),
            DiffLine::New(text) => ("+ ", text, Role::Good),
        };
        Line::styled(format!("{mark}{}", cut(&shown_line(text, width), width.saturating_sub(2))), style(role))
    };
    let mut lines: Vec<Line<'static>> = diff.iter().take(DIFF_LINES).map(line).collect();
    if diff.len() > DIFF_LINES {
        lines.push(Line::styled(format!("… {} more lines", diff.len() - DIFF_LINES), style(Role::Dim)));
    }
    if is_last {
        let mut keys = vec![("1", "keep the first"), ("2", "keep the second")];
        if turn.lanes.len() > 2 {
            keys = vec![("/keep", "and a number chooses one")];
        }
        lines.push(super::composer::hints(&keys, scene.theme));
    }
    lines
}

/// Attempts before the ones that are shown, a dim line each.
fn earlier(lane: &Lane, scene: Scene<'_>) -> Vec<Line<'static>> {
    let shown: Vec<_> = lane.parts().iter().map(|part| part.key).collect();
    let line = |(at, attempt): (usize, &Attempt)| {
        let how = match &attempt.phase {
            Phase::Interrupted(error) => format!("▲ {}", &*shown_line(&error.message, 200)),
            Phase::Stopped => "■ stopped".to_owned(),
            _ => "replaced".to_owned(),
        };
        let host = shown_line(&attempt.decision.backend, 24);
        let name = target::name(&attempt.decision.model);
        let tokens = match attempt.metrics.usage.output_tokens {
            Some(tokens) if tokens > 0 => format!(" after {} tok", format::tokens(tokens)),
            _ => String::new(),
        };
        let text = format!("try {} · {} · {name} · {how}{tokens}", at + 1, &*host);
        Line::styled(cut(&text, scene.page.wide), scene.theme.style(Role::Dim))
    };
    lane.attempts.iter().enumerate().filter(|(_, attempt)| !shown.contains(&attempt.key)).map(line).collect()
}

/// The line that stands for the thinking, or heads it when it is unfolded.
fn thinking(attempt: &Attempt, scene: Scene<'_>) -> Line<'static> {
    let mark = if attempt.thinking_open { "▾" } else { "▸" };
    let metrics = &attempt.metrics;
    let is_running = attempt.phase == Phase::Streaming(Channel::Thinking);
    let first = metrics.first_token_ms;
    let mut text = if is_running {
        let elapsed = scene.model.now.saturating_sub(attempt.entered_at).as_secs_f64() * 1000.0;
        first.map_or_else(
            || format!("{mark} thinking"),
            |first| format!("{mark} thinking {}", format::seconds(elapsed - first)),
        )
    } else {
        let until = metrics.first_answer_ms.or(metrics.last_token_ms);
        match (first, until) {
            (Some(first), Some(until)) => format!("{mark} thought {}", format::seconds(until - first)),
            _ => format!("{mark} thought"),
        }
    };
    // Without an answer every token was thinking; with one, nobody says how many were.
    if attempt.answer.is_empty()
        && let Some(tokens) = metrics.usage.output_tokens
    {
        text.push_str(&format!(" · {} tok", format::tokens(tokens)));
    }
    Line::styled(text, scene.theme.style(Role::Dim))
}

/// The keys for what can be done about a failed attempt.
fn next_steps(turn: &Turn, attempt: &Attempt, scene: Scene<'_>) -> Vec<Line<'static>> {
    let style = |role| scene.theme.style(role);
    let routing = &scene.model.routing;
    let mut keys: Vec<(&str, String)> = Vec::new();
    if let Some(wait) = routing.wait.as_ref().filter(|wait| wait.turn == turn.id) {
        let host = shown_line(&wait.backend, 24);
        keys.push(("esc", format!("stop waiting for {}", &*host)));
        keys.push(("r", "retry".to_owned()));
    } else if let Some(offer) = routing.offer.as_ref().filter(|o| o.key == attempt.key && !o.is_cut) {
        let (host, name) = (shown_line(&offer.decision.backend, 24), target::name(&offer.decision.model));
        keys.push(("enter", format!("run on {} · {name}", &*host)));
        keys.push(("w", "wait".to_owned()));
        keys.push(("r", "retry".to_owned()));
        keys.push(("esc", "keep draft".to_owned()));
    } else {
        keys.push(("r", "retry".to_owned()));
        if !attempt.answer.is_empty() {
            let offer = routing.offer.as_ref().filter(|offer| offer.key == attempt.key);
            let on = offer.map(|offer| format!(" on {}", &*shown_line(&offer.decision.backend, 24)));
            let kept = if scene.page.wide >= 60 { " · what came is kept" } else { "" };
            keys.push(("c", format!("continue{}{kept}", on.unwrap_or_default())));
        }
    }
    let mut spans = vec![Span::raw("  ")];
    for (at, (key, what)) in keys.into_iter().enumerate() {
        if at > 0 {
            spans.push(Span::styled(" · ", style(Role::Dim)));
        }
        spans.push(Span::styled(key, style(Role::Accent)));
        spans.push(Span::styled(format!(" {what}"), style(Role::Dim)));
    }
    let mut lines = Vec::new();
    let mut text = Styled::default();
    for span in &spans {
        text.push(&span.content, span.style);
    }
    wrap(&text, scene.page.wide, &[], &[Span::raw("  ")], &mut lines);
    lines
}

/// The lines under an answer: trouble and the next step, then the receipt.
fn tail(turn: &Turn, attempt: &Attempt, is_last: bool, scene: Scene<'_>) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Phase::Interrupted(error) = &attempt.phase {
        let message = shown(&error.message);
        let mut text = Styled::default();
        let mark = Span::styled("▲ ", scene.theme.style(Role::Bad));
        for (at, line) in message.lines().filter(|line| !line.trim().is_empty()).take(4).enumerate() {
            text.clear();
            text.push(line, scene.theme.style(Role::Text));
            let first = if at == 0 { mark.clone() } else { Span::raw("  ") };
            wrap(&text, scene.page.wide, &[first], &[Span::raw("  ")], &mut lines);
        }
        if is_last {
            lines.extend(next_steps(turn, attempt, scene));
        }
    }
    lines.push(receipt::line(scene.model, attempt, scene.page.wide, scene.theme));
    lines
}
