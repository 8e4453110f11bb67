//! A numbered code block: a dim header, then the code, indented. Rows are counted as the code grows;
//! colours are made for the lines that are looked at.

use super::page::Page;
use crate::markdown::block::dedent_line;
use crate::markdown::highlight::Highlight;
use crate::markdown::wrap::{Styled, chunks};
use crate::theme::{Role, Theme};
use ratatui::text::{Line, Span};
use std::ops::Range;
use unicode_width::UnicodeWidthStr;

/// Stands before a row that continues a line of code.
const CONTINUED: &str = "↪ ";

/// What is known of one block's code.
#[derive(Debug, Default)]
pub(super) struct CodeMemo {
    /// Whole lines: where each begins and ends in the code, and its first row.
    lines: Vec<(usize, usize, usize)>,
    /// Bytes of whole lines, their breaks included.
    consumed: usize,
    /// Rows of whole lines.
    rows: usize,
    /// Rows of the last line, which may still grow.
    last_rows: usize,
    highlight: Option<Highlight>,
}

/// One block's code as it stands.
#[derive(Clone, Copy)]
pub(super) struct Code<'a> {
    /// The code.
    pub(super) body: &'a str,
    /// The fence's info word.
    pub(super) info: &'a str,
    /// Columns the fence is indented by.
    pub(super) indent: usize,
    /// Whether more may come.
    pub(super) is_open: bool,
}

impl CodeMemo {
    /// Takes in what was appended; the rows of the code so far.
    pub(super) fn update(&mut self, code: Code<'_>, page: &Page) -> usize {
        let width = width(code.indent, page);
        while let Some(rest) = code.body.get(self.consumed..)
            && let Some(len) = rest.find('\n')
        {
            let end = self.consumed + len;
            self.lines.push((self.consumed, end, self.rows));
            self.rows += rows(code.body.get(self.consumed..end).unwrap_or_default(), code.indent, width);
            self.consumed = end + 1;
        }
        let last = code.body.get(self.consumed..).unwrap_or_default();
        self.last_rows = if code.body.is_empty() { 0 } else { rows(last, code.indent, width) };
        self.rows + self.last_rows
    }

    /// The lines for these rows of the code.
    pub(super) fn draw(
        &mut self,
        code: Code<'_>,
        part: Range<usize>,
        page: &Page,
        theme: &Theme,
    ) -> Vec<Line<'static>> {
        if self.highlight.as_ref().is_none_or(Highlight::is_stale) {
            self.highlight = Some(Highlight::new(code.info));
        }
        let Some(highlight) = &mut self.highlight else { return Vec::new() };
        let width = width(code.indent, page);
        let margin = " ".repeat(indent(page) + shift(code.indent, page));
        let mut out = Vec::new();
        let mut at = self.lines.partition_point(|line| line.2 <= part.start).saturating_sub(1);
        while out.len() < part.len() && at <= self.lines.len() {
            let last = (self.consumed, code.body.len(), self.rows);
            let (start, end, first_row) = self.lines.get(at).copied().unwrap_or(last);
            let raw = |(start, end, _): (usize, usize, usize)| {
                dedent_line(code.body.get(start..end).unwrap_or_default(), code.indent)
            };
            while highlight.len() <= at
                && let Some(line) = self.lines.get(highlight.len())
            {
                highlight.feed(raw(*line));
            }
            let text = raw((start, end, first_row));
            let is_last = at == self.lines.len();
            if is_last && !code.is_open && highlight.len() == at {
                highlight.feed(text);
            }
            let peeked;
            let colours = if is_last && code.is_open {
                peeked = highlight.peek(text);
                peeked.as_slice()
            } else {
                highlight.line(at)
            };
            let styled = styled(text, colours, theme);
            let hang = hang(styled.text(), width);
            let rest = width - hang - CONTINUED.width();
            for (row, chunk) in chunks(styled.text(), width, rest).into_iter().enumerate() {
                if part.contains(&(first_row + row)) {
                    let mut spans = vec![Span::raw(margin.clone())];
                    if row > 0 {
                        spans.push(Span::raw(" ".repeat(hang)));
                        spans.push(Span::styled(CONTINUED, theme.style(Role::Dim)));
                    }
                    spans.extend(styled.part(chunk));
                    out.push(Line::from(spans));
                }
            }
            at += 1;
        }
        out
    }
}

/// The header: number, language, and the file the code names.
pub(super) fn header(
    number: usize,
    opening: &str,
    code: Code<'_>,
    page: &Page,
    theme: &Theme,
) -> Line<'static> {
    let margin = " ".repeat(shift(code.indent, page));
    let mut spans = vec![Span::raw(margin), Span::styled(format!("[{number}]"), theme.style(Role::Accent))];
    let word = code.info.split([',', ':', ';', '{']).find(|word| !word.is_empty()).unwrap_or_default();
    let language = word.trim_matches(['{', '.', '}']);
    if !language.is_empty() {
        spans.push(Span::styled(format!(" {language}"), theme.style(Role::Dim)));
    }
    if let Some(file) = file(opening, code.body) {
        let room = page.wide.saturating_sub(spans.iter().map(|s| s.content.width()).sum::<usize>() + 3);
        spans.push(Span::styled(
            format!(" · {}", crate::text::width::cut(file, room)),
            theme.style(Role::Dim),
        ));
    }
    Line::from(spans)
}

/// The file a block is about: named after the language, or in a comment on its first line.
fn file<'a>(opening: &'a str, body: &'a str) -> Option<&'a str> {
    let is_file = |word: &&str| {
        word.len() < 200
            && word.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '/' | '_' | '-'))
            && word.rsplit('/').next().is_some_and(|name| {
                name.split_once('.').is_some_and(|(_, ext)| ext.starts_with(|c: char| c.is_alphabetic()))
                    || word.contains('/') && !name.is_empty()
            })
    };
    let info = opening.trim_start().trim_start_matches(['`', '~']);
    let named = info.split([' ', '\t', ':', '=', '"', '\'', ',', '{', '}']).skip(1).find(is_file);
    named.or_else(|| {
        let line = body.lines().next().filter(|line| line.len() < 240)?.trim();
        let comment = ["//", "#", "--", ";", "/*", "<!--"].iter().find_map(|mark| line.strip_prefix(mark))?;
        let words = comment.trim().trim_end_matches("*/").trim_end_matches("-->").trim();
        let words =
            words.strip_prefix("File:").or_else(|| words.strip_prefix("file:")).unwrap_or(words).trim();
        Some(words).filter(is_file)
    })
}

/// Columns before code.
const fn indent(page: &Page) -> usize {
    if page.margin > 1 { 4 } else { 2 }
}

/// Columns a block inside a list is moved by.
fn shift(indent: usize, page: &Page) -> usize {
    indent.min(page.wide / 4)
}

fn width(shifted: usize, page: &Page) -> usize {
    page.wide.saturating_sub(indent(page) + shift(shifted, page)).max(8)
}

fn rows(line: &str, indent: usize, width: usize) -> usize {
    let line = dedent_line(line, indent);
    let rest = |text: &str| width - hang(text, width) - CONTINUED.width();
    if line.is_ascii() && !line.contains('\t') {
        let more = line.len().saturating_sub(width);
        return if more == 0 { 1 } else { 1 + more.div_ceil(rest(line)) };
    }
    let styled = styled(line, &[], None);
    chunks(styled.text(), width, rest(styled.text())).len()
}

/// Columns a row is indented by that continues a line: as the line itself, where there is room for it.
fn hang(line: &str, width: usize) -> usize {
    let indent = line.len() - line.trim_start_matches(' ').len();
    indent.min(width / 2).min(width.saturating_sub(CONTINUED.width() + 4))
}

fn styled<'a>(line: &str, colours: &[(usize, Role)], theme: impl Into<Option<&'a Theme>>) -> Styled {
    let theme = theme.into();
    let style = |role| theme.map(|theme| theme.style(role)).unwrap_or_default();
    let mut out = Styled::default();
    let mut at = 0;
    for (end, role) in colours {
        out.push(line.get(at..*end).unwrap_or_default(), style(*role));
        at = *end;
    }
    out.push(line.get(at..).unwrap_or_default(), style(Role::Text));
    out
}

#[cfg(test)]
mod tests {
    #![expect(clippy::string_slice, reason = "a wrong index fails the test")]

    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn a_block_names_its_file() {
        let cases = [
            ("```rust src/config.rs", "", Some("src/config.rs")),
            ("```rust:src/config.rs", "", Some("src/config.rs")),
            ("```js title=\"a/b.js\"", "", Some("a/b.js")),
            ("```rust", "// src/main.rs\nfn main() {}", Some("src/main.rs")),
            ("```py", "# app.py", Some("app.py")),
            ("```html", "<!-- index.html -->", Some("index.html")),
            ("```rust", "// say hello", None),
            ("```rust", "// 0.5", None),
            ("```rust,ignore", "let x = 1;", None),
            ("```", "#include <x.h>", None),
        ];
        for (opening, body, expected) in cases {
            assert_eq!(file(opening, body), expected, "{opening} {body}");
        }
    }

    #[test]
    fn a_wrapped_line_goes_on_at_its_own_indentation() {
        let body = "fn f() {\n    let name = some_function(argument, another);\n}";
        let (page, theme) = (Page::new(32), Theme::load("default", None).expect("theme").0);
        let code = Code { body, info: "text", indent: 0, is_open: false };
        let mut memo = CodeMemo::default();
        let rows = memo.update(code, &page);
        let lines: Vec<String> =
            memo.draw(code, 0..rows, &page, &theme).iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            ["  fn f() {", "      let name = some_function", "      ↪ (argument, another);", "  }"]
        );
    }

    #[test]
    fn growing_code_counts_the_same_rows_as_whole_code() {
        let body = "fn main() {\n\tlet x = 1;\n\n    日本語日本語日本語日本語日本語日本語日本語日本語\n}";
        let page = Page::new(40);
        let code = |len| Code { body: &body[..len], info: "rust", indent: 0, is_open: true };
        let mut grown = CodeMemo::default();
        for len in (0..=body.len()).filter(|len| body.is_char_boundary(*len)) {
            let rows = grown.update(code(len), &page);
            let mut fresh = CodeMemo::default();
            assert_eq!(rows, fresh.update(code(len), &page));
            let theme = Theme::load("default", None).expect("theme").0;
            let lines = grown.draw(code(len), 0..rows, &page, &theme);
            assert_eq!(lines.len(), rows);
            assert_eq!(lines, fresh.draw(code(len), 0..rows, &page, &theme));
        }
    }
}
