//! What an empty conversation shows: which model is there, what it is good for, how to begin.

use super::target;
use super::turn::Scene;
use crate::app::model::EngineView;
use crate::chat::ModelState;
use crate::markdown::wrap::{Styled, wrap};
use crate::router::Decision;
use crate::text::{Shown, shown_line};
use crate::theme::Role;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

/// Questions the built-in model has an answer to.
const EXAMPLES: [&str; 4] = [
    "What is the capital of France?",
    "Count from 1 to 50",
    "Write a binary search in Rust",
    "Show me some emoji",
];

/// Draws the welcome into the empty transcript.
pub(super) fn draw(scene: Scene<'_>, area: Rect, buf: &mut Buffer) {
    let lines = lines(scene);
    let page = scene.page;
    // A little above the middle where there is room for it.
    let free = usize::from(area.height).saturating_sub(lines.len());
    let top = area.y + u16::try_from(free / 3).unwrap_or(0);
    for (y, line) in (top..area.bottom()).zip(&lines) {
        buf.set_line(area.x + page.margin, y, line, area.width.saturating_sub(page.margin));
    }
}

fn lines(scene: Scene<'_>) -> Vec<Line<'static>> {
    let style = |role| scene.theme.style(role);
    let model = scene.model;
    let mut lines = vec![Line::from(vec![
        Span::styled("Duet", style(Role::Heading)),
        Span::styled(format!(" {}", crate::VERSION), style(Role::Dim)),
    ])];
    let gap = |lines: &mut Vec<Line<'static>>| lines.extend((0..scene.page.gap).map(|_| Line::default()));
    gap(&mut lines);
    let paragraph = |text: &str, role, lines: &mut Vec<Line<'static>>| {
        let mut styled = Styled::default();
        styled.push(text, style(role));
        wrap(&styled, scene.page.prose.min(76), &[], &[], lines);
    };
    let decision = target::next(model);
    let card = decision.as_ref().and_then(|decision| target::card(model, decision));
    if is_builtin(scene, decision.as_ref()) {
        paragraph(
            "This is the built-in model: 2 million parameters, a few dozen answers by heart, good for a look \
             around. Get a real one: put a GGUF file in ~/models, then /model.",
            Role::Text,
            &mut lines,
        );
        gap(&mut lines);
        lines.push(Line::styled("It can answer", style(Role::Dim)));
        for example in EXAMPLES {
            lines.push(Line::from(vec![
                Span::styled("  › ", style(Role::Accent)),
                Span::styled(example, style(Role::Text)),
            ]));
        }
    } else {
        let backend = decision.as_ref().and_then(|decision| target::backend(model, &decision.backend));
        let is_engine = backend.is_some_and(|backend| backend.is_engine);
        let is_down = is_engine && matches!(model.fleet.engine, EngineView::Down { .. });
        let trouble = backend.and_then(|backend| Some((&backend.name, backend.trouble.as_ref()?)));
        let named = decision.as_ref().filter(|decision| !decision.model.is_empty());
        let text = match (named, &model.fleet.engine) {
            (_, EngineView::Down { message, .. }) if is_engine => message.to_string(),
            _ if let Some((name, why)) = trouble => away(name, why),
            (Some(decision), _) => {
                let name = target::name(&decision.model);
                match card.map(|card| &card.state) {
                    Some(ModelState::Failed { reason }) => {
                        format!(
                            "{name} cannot be loaded: {} /model chooses another.",
                            &*crate::text::shown(reason)
                        )
                    }
                    Some(_) => format!("Ready with {name}."),
                    None => format!("{name} is next."),
                }
            }
            (None, EngineView::Starting | EngineView::Unknown) => "Looking for models.".to_owned(),
            (None, _) if !is_engine && backend.is_some() => "Looking for models.".to_owned(),
            (None, _) => "No model yet: put a GGUF file in ~/models, then /model.".to_owned(),
        };
        let (mark, indent) = if is_down || trouble.is_some() {
            (vec![Span::styled("▲ ", style(Role::Bad))], "  ")
        } else {
            (vec![], "")
        };
        for (at, line) in text.lines().enumerate() {
            let mut styled = Styled::default();
            styled.push(line, style(Role::Text));
            let rest = [Span::raw(indent)];
            let first = if at == 0 { mark.as_slice() } else { &rest };
            wrap(&styled, scene.page.prose.min(76), first, &rest, &mut lines);
        }
    }
    gap(&mut lines);
    lines.push(hint(scene));
    lines
}

/// Why a backend does not answer, and what to do about it.
fn away(name: &str, why: &Shown) -> String {
    let name = shown_line(name, 24);
    let why = why.trim_end_matches('.');
    let why = if why.starts_with(&*name) { why.to_owned() } else { format!("{}: {why}", &*name) };
    format!("{why}.\n/model asks again, or chooses another one.")
}

/// Whether the next turn goes to the built-in model; known by its name before the engine has told of it.
fn is_builtin(scene: Scene<'_>, decision: Option<&Decision>) -> bool {
    let Some(decision) = decision else { return false };
    match target::card(scene.model, decision) {
        Some(card) => card.is_builtin,
        None => {
            decision.model == crate::backend::BUILTIN
                && target::backend(scene.model, &decision.backend).is_some_and(|backend| backend.is_engine)
                && !matches!(scene.model.fleet.engine, EngineView::Down { .. })
        }
    }
}

fn hint(scene: Scene<'_>) -> Line<'static> {
    let style = |role| scene.theme.style(role);
    let key = |key: &'static str| Span::styled(key, style(Role::Accent));
    let text = |text: &'static str| Span::styled(text, style(Role::Dim));
    let whole =
        vec![text("Type a question, "), key("/"), text(" for commands, "), key("?"), text(" for help.")];
    let whole = Line::from(whole);
    if whole.width() <= scene.page.wide {
        return whole;
    }
    Line::from(vec![key("/"), text(" commands"), text(" · "), key("?"), text(" help")])
}
