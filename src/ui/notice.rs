//! The notice above the composer: wrapped, and where it is longer than its rows, cut so that the next step,
//! which stands last, stays.

use super::turn::Scene;
use crate::app::model::Level;
use crate::markdown::wrap::{Styled, wrap};
use crate::text::width::cut;
use crate::theme::Role;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

/// Rows a notice takes at most.
const MOST: usize = 4;

/// The notice on at most `rows` rows.
pub(super) fn lines(scene: Scene<'_>, rows: usize) -> Vec<Line<'static>> {
    let Some(notice) = &scene.model.notice else { return Vec::new() };
    let (mark, role) = match notice.level {
        Level::Info => ("· ", Role::Accent),
        Level::Warn => ("▲ ", Role::Warn),
        Level::Bad => ("✕ ", Role::Bad),
    };
    let width = scene.page.wide.saturating_sub(mark.width());
    let text = scene.theme.style(Role::Text);
    let line = |(at, row): (usize, String)| {
        let before = if at == 0 { Span::styled(mark, scene.theme.style(role)) } else { Span::raw("  ") };
        Line::from(vec![before, Span::styled(row, text)])
    };
    fitted(&notice.text, width, rows.min(MOST)).into_iter().enumerate().map(line).collect()
}

/// The text in at most `rows` rows of `width` cells. What is left out is the end of what comes before the
/// last part; in a single row, the end.
pub(super) fn fitted(text: &str, width: usize, rows: usize) -> Vec<String> {
    let parts: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let all: Vec<String> = parts.iter().flat_map(|part| wrapped(part, width)).collect();
    if all.len() <= rows {
        return all;
    }
    let step = match parts.as_slice() {
        [_, .., last] => Some(*last),
        // Lines were joined where there was to be one.
        [only] => only.rsplit_once(" · ").or_else(|| only.rsplit_once("; ")).map(|(_, last)| last),
        [] => None,
    };
    let step = step.map(|step| wrapped(step, width)).filter(|step| step.len() < rows).unwrap_or_default();
    let kept = rows.saturating_sub(step.len()).max(1);
    let mut out: Vec<String> = all.into_iter().take(kept).collect();
    if let Some(last) = out.last_mut() {
        let full = if last.width() < width { last.clone() } else { cut(&format!("{last}."), width) };
        *last = format!("{}…", full.trim_end_matches(['…', ' ', '.', ',', ';', ':', '·']));
    }
    out.extend(step);
    out
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut styled = Styled::default();
    styled.push(text.trim(), ratatui::style::Style::new());
    let mut lines = Vec::new();
    wrap(&styled, width, &[], &[], &mut lines);
    lines.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn the_next_step_is_never_cut_off() {
        let long = "mac: no answer for 6 s, 118 tokens kept and more words than fit\npress r to retry";
        assert_eq!(
            fitted(long, 80, 4),
            ["mac: no answer for 6 s, 118 tokens kept and more words than fit", "press r to retry"]
        );
        assert_eq!(fitted(long, 20, 3), ["mac: no answer for 6", "s, 118 tokens kept…", "press r to retry"]);
        let joined = long.replace('\n', " · ");
        assert_eq!(
            fitted(&joined, 20, 3),
            ["mac: no answer for 6", "s, 118 tokens kept…", "press r to retry"]
        );
        assert_eq!(fitted(long, 20, 1), ["mac: no answer for…"]);
        assert_eq!(fitted("mac answers", 20, 1), ["mac answers"]);
        assert_eq!(fitted("one two", 3, 1), ["on…"]);
        assert_eq!(fitted("", 20, 4), Vec::<String>::new());
    }

    #[test]
    fn no_row_is_too_wide_and_none_too_many() {
        let text = "日本語の長い通知 with words · and anotherverylongwordwithoutanyblank; step 日本";
        for width in 4..60 {
            for rows in 1..5 {
                let out = fitted(text, width, rows);
                assert!(
                    out.len() <= rows && out.iter().all(|row| row.width() <= width),
                    "{width} {rows} {out:?}"
                );
            }
        }
    }
}
