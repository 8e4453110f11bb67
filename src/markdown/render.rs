//! One block of Markdown text to styled lines of a given width.
//!
//! Every line break of the source is kept: models break lines where they mean it. HTML and LaTeX stay text.
//! Tables are in `table`; code blocks are drawn by the interface, which numbers them.

mod table;

use super::block::dedent;
use super::wrap::{Styled, wrap};
use crate::text::shown;
use crate::theme::{Role, Theme};
use pulldown_cmark::{CodeBlockKind, CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use std::ops::Range;
use table::Table;
use unicode_width::UnicodeWidthStr;

/// Quotes and lists inside one another beyond this are drawn flat.
const MAX_DEPTH: usize = 32;

/// Cells left for text however deep the nesting.
const MIN_TEXT: usize = 12;

/// The lines of one block, at most `width` cells wide (at least 8). `indent` is the block's own.
#[must_use]
pub fn render(source: &str, indent: usize, width: usize, theme: &Theme) -> Vec<Line<'static>> {
    let source = dedent(source, indent);
    let margin = indent.min(width / 3);
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_MATH;
    let parser = Parser::new_ext(&source, options);
    let definitions: Vec<Range<usize>> =
        parser.reference_definitions().iter().map(|(_, definition)| definition.span.clone()).collect();
    let mut page = Page {
        source: &source,
        theme,
        width: width.max(8),
        lines: Vec::new(),
        text: Styled::default(),
        styles: vec![theme.style(Role::Text)],
        boxes: Vec::new(),
        depth: 0,
        first: None,
        links: Vec::new(),
        table: None,
        code: None,
        raw_upto: 0,
        seen: 0,
        gap_at: 0,
    };
    if margin > 0 {
        page.boxes.push(Span::raw(" ".repeat(margin)));
    }
    for (event, range) in parser.into_offset_iter() {
        page.event(event, range);
    }
    page.flush();
    page.definitions(definitions);
    page.lines
}

/// The same for a block that begins with `|` and still grows: while the rule below its head has not come, or
/// not whole, it is drawn as the table that it is about to be.
#[must_use]
pub fn render_open_table(source: &str, indent: usize, width: usize, theme: &Theme) -> Vec<Line<'static>> {
    let rest = || render(source, indent, width, theme);
    let mut rows = source.lines();
    let (head, rule, body) = (rows.next().unwrap_or_default(), rows.next(), rows.next());
    let is_rule = |rule: &str| rule.chars().all(|c| matches!(c, '|' | '-' | ':' | ' '));
    let columns = columns(head);
    if body.is_some() || columns == 0 || !rule.is_none_or(is_rule) {
        return rest();
    }
    let mut cells: Vec<&str> =
        rule.unwrap_or_default().split('|').filter(|cell| cell.contains('-')).collect();
    if cells.len() > columns {
        return rest();
    }
    cells.resize(columns, "---");
    let mut lines = render(&format!("{head}\n|{}|", cells.join("|")), indent, width, theme);
    if lines.len() < 2 || lines.first().is_some_and(|line| line.to_string().trim_start().starts_with('|')) {
        // Wider than the page: its source is shown, and that has no invented rule.
        return rest();
    }
    if rule.is_none() {
        lines.pop();
    }
    lines
}

/// Cells of a table's head as the parser counts them; 0 while nothing is in it.
fn columns(head: &str) -> usize {
    let head = head.trim().trim_start_matches('|').trim();
    let head = head.strip_suffix('|').filter(|head| !head.ends_with('\\')).unwrap_or(head);
    if head.is_empty() {
        return 0;
    }
    1 + head.replace("\\|", "").matches('|').count()
}

/// What is being built.
struct Page<'a> {
    source: &'a str,
    theme: &'a Theme,
    width: usize,
    lines: Vec<Line<'static>>,
    /// The line in the making.
    text: Styled,
    styles: Vec<Style>,
    /// Prefixes of the quotes and items around, outermost first.
    boxes: Vec<Span<'static>>,
    /// Quotes and items around, those drawn flat included.
    depth: usize,
    /// The marker of an item whose first line is still to come.
    first: Option<Span<'static>>,
    links: Vec<(String, usize)>,
    table: Option<Table>,
    code: Option<String>,
    /// Events that begin before this are part of something already drawn as it is.
    raw_upto: usize,
    /// End of the last text event, to find backslashes the parser took away.
    seen: usize,
    /// How many lines there were after the last blank one was added.
    gap_at: usize,
}

impl Page<'_> {
    fn event(&mut self, event: Event<'_>, range: Range<usize>) {
        if range.start < self.raw_upto {
            return;
        }
        match event {
            Event::Start(tag) => self.start(tag, range),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => self.text(&text, range),
            Event::Code(text) => {
                self.push("`", self.theme.style(Role::Dim));
                let style = self.style().patch(self.theme.style(Role::Code));
                self.push(&clean(&text), style);
                self.push("`", self.theme.style(Role::Dim));
            }
            Event::InlineMath(_) | Event::DisplayMath(_) => {
                let style = self.style().patch(self.theme.style(Role::Code));
                self.raw(range, style);
            }
            Event::Html(_) | Event::InlineHtml(_) | Event::FootnoteReference(_) => {
                let style = self.style();
                self.raw(range, style);
            }
            Event::SoftBreak | Event::HardBreak => {
                if self.table.is_none() {
                    self.flush();
                } else {
                    self.push(" ", Style::new());
                }
            }
            Event::Rule => {
                self.gap(range.start);
                let width = self.room().min(40);
                self.push(&"─".repeat(width), self.theme.style(Role::Dim));
                self.flush();
            }
            Event::TaskListMarker(is_done) => {
                let (mark, role) = if is_done { ("☑ ", Role::Good) } else { ("☐ ", Role::Dim) };
                self.push(mark, self.theme.style(role));
            }
        }
    }

    fn start(&mut self, tag: Tag<'_>, range: Range<usize>) {
        match tag {
            Tag::Paragraph | Tag::HtmlBlock | Tag::List(_) => self.gap(range.start),
            Tag::Heading { level, .. } => {
                self.gap(range.start);
                let style = self.theme.style(Role::Heading);
                let is_top = matches!(level, HeadingLevel::H1);
                self.styles.push(if is_top { style.add_modifier(Modifier::UNDERLINED) } else { style });
            }
            Tag::BlockQuote(_) => {
                self.gap(range.start);
                self.open_box(Span::styled("│ ", self.theme.style(Role::Dim)));
                let style = self.style().patch(self.theme.style(Role::Dim));
                self.styles.push(style);
            }
            Tag::Item => {
                self.gap(range.start);
                let marker = self.marker(range.start);
                let cells = marker.width();
                if self.has_room(cells) {
                    // An item directly inside an item's first line keeps both markers.
                    if let Some(outer) = self.first.take() {
                        self.text.push(&outer.content, outer.style);
                        self.flush_with(Some(Span::raw("")));
                    }
                    self.first = Some(Span::styled(marker, self.theme.style(Role::Accent)));
                    self.boxes.push(Span::raw(" ".repeat(cells)));
                } else {
                    self.text.push(&marker, self.theme.style(Role::Accent));
                    self.boxes.push(Span::raw(""));
                }
                self.depth += 1;
            }
            Tag::CodeBlock(kind) => {
                self.gap(range.start);
                self.code = Some(String::new());
                if let CodeBlockKind::Fenced(info) = kind
                    && !info.is_empty()
                {
                    self.push(&clean(&info), self.theme.style(Role::Dim));
                    self.flush();
                }
            }
            Tag::Table(alignments) => {
                self.gap(range.start);
                self.flush();
                self.table = Some(Table::new(alignments, range));
            }
            Tag::Emphasis => self.modify(Modifier::ITALIC),
            Tag::Strong | Tag::TableHead => self.modify(Modifier::BOLD),
            Tag::Strikethrough => self.modify(Modifier::CROSSED_OUT),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                self.links.push((clean(&dest_url), self.text.text().len()));
                let style = self.style().patch(self.theme.style(Role::Link));
                self.styles.push(style);
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph | TagEnd::HtmlBlock => self.flush(),
            TagEnd::Heading(_) => {
                self.flush();
                self.styles.pop();
            }
            TagEnd::BlockQuote(_) => {
                self.flush();
                self.boxes.pop();
                self.depth -= 1;
                self.styles.pop();
            }
            TagEnd::Item => {
                self.flush();
                if self.first.is_some() {
                    self.flush_with(None);
                }
                self.boxes.pop();
                self.depth -= 1;
            }
            TagEnd::CodeBlock => self.end_code(),
            TagEnd::Table => self.end_table(),
            TagEnd::TableHead => {
                self.styles.pop();
                if let Some(table) = &mut self.table {
                    table.end_row();
                }
            }
            TagEnd::TableRow => {
                if let Some(table) = &mut self.table {
                    table.end_row();
                }
            }
            TagEnd::TableCell => {
                if let Some(table) = &mut self.table {
                    table.push(std::mem::take(&mut self.text));
                }
            }
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough => {
                self.styles.pop();
            }
            TagEnd::Link | TagEnd::Image => {
                self.styles.pop();
                let Some((target, from)) = self.links.pop() else { return };
                let text = self.text.text().get(from..).unwrap_or_default();
                let is_same = text == target || target.strip_prefix("mailto:") == Some(text);
                if !is_same && !target.is_empty() {
                    self.push(&format!(" ({target})"), self.theme.style(Role::Dim));
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &CowStr<'_>, range: Range<usize>) {
        if let Some(code) = &mut self.code {
            code.push_str(text);
            return;
        }
        let style = self.style();
        // The parser takes the backslash off `\(` and `\[`: they are LaTeX more often than not.
        let is_escaped = range.start > 0
            && self.seen < range.start
            && self.source.as_bytes().get(range.start - 1) == Some(&b'\\')
            && text.starts_with(['(', ')', '[', ']', '{', '}', ',', ';', ':', '!', '\\']);
        if is_escaped {
            self.push("\\", style);
        }
        self.seen = range.end;
        let text = match text {
            CowStr::Borrowed(text) => std::borrow::Cow::Borrowed(*text),
            // Made by the parser, from an entity: that may be anything.
            CowStr::Boxed(_) | CowStr::Inlined(_) => std::borrow::Cow::Owned(clean(text)),
        };
        for (at, line) in text.split('\n').enumerate() {
            if at > 0 {
                self.flush();
            }
            self.push(line, style);
        }
    }

    /// A part of the source as it is.
    fn raw(&mut self, range: Range<usize>, style: Style) {
        let source = self.source.get(range).unwrap_or_default();
        for (at, line) in source.lines().enumerate() {
            if at > 0 {
                self.flush();
            }
            self.push(line, style);
        }
        if source.ends_with('\n') {
            self.flush();
        }
    }

    fn push(&mut self, text: &str, style: Style) {
        self.text.push(text, style);
    }

    fn style(&self) -> Style {
        self.styles.last().copied().unwrap_or_default()
    }

    fn modify(&mut self, modifier: Modifier) {
        self.styles.push(self.style().add_modifier(modifier));
    }

    /// Cells for text inside the boxes around.
    fn room(&self) -> usize {
        self.width.saturating_sub(self.boxes.iter().map(|span| span.content.width()).sum()).max(2)
    }

    fn has_room(&self, cells: usize) -> bool {
        self.depth < MAX_DEPTH && self.room() >= cells + MIN_TEXT.min(self.width / 2)
    }

    fn open_box(&mut self, prefix: Span<'static>) {
        let prefix = if self.has_room(prefix.content.width()) { prefix } else { Span::raw("") };
        self.boxes.push(prefix);
        self.depth += 1;
    }

    /// The marker of the item at this place, as the source numbers it.
    fn marker(&self, at: usize) -> String {
        let rest = self.source.get(at..).unwrap_or_default();
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        if digits.is_empty() { "• ".to_owned() } else { format!("{digits}. ") }
    }

    /// Ends the line in the making.
    fn flush(&mut self) {
        if !self.text.is_empty() {
            let first = self.first.take();
            self.flush_with(first);
        }
    }

    fn flush_with(&mut self, first: Option<Span<'static>>) {
        let first = first.or_else(|| self.first.take());
        let mut begin = self.boxes.clone();
        if let Some(marker) = first
            && let Some(last) = begin.last_mut()
        {
            *last = marker;
        }
        wrap(&self.text, self.width, &begin, &self.boxes, &mut self.lines);
        self.text.clear();
    }

    /// A blank line before what begins at `at`, where the source has one.
    fn gap(&mut self, at: usize) {
        self.flush();
        let before = self.source.as_bytes().get(..at).unwrap_or_default();
        let blank = before.iter().rev().take_while(|b| matches!(b, b' ' | b'\t' | b'>' | b'\r' | b'\n'));
        if self.lines.len() == self.gap_at || blank.filter(|b| **b == b'\n').count() < 2 {
            return;
        }
        let mut spans = self.boxes.clone();
        while spans.last().is_some_and(|span| span.content.trim().is_empty()) {
            spans.pop();
        }
        if let Some(last) = spans.last_mut() {
            last.content = last.content.trim_end().to_owned().into();
        }
        self.lines.push(Line::from(spans));
        self.gap_at = self.lines.len();
    }

    fn end_code(&mut self) {
        let code = self.code.take().unwrap_or_default();
        let style = self.theme.style(Role::Code);
        for line in code.strip_suffix('\n').unwrap_or(&code).split('\n') {
            self.push("  ", style);
            self.push(&clean(line), style);
            self.flush();
        }
    }

    fn end_table(&mut self) {
        let Some(table) = self.table.take() else { return };
        let range = table.range.clone();
        self.raw_upto = self.raw_upto.max(range.end);
        match table.lines(self.room(), self.theme.style(Role::Dim)) {
            Some(lines) => {
                for mut line in lines {
                    let mut spans = self.boxes.clone();
                    if let (Some(marker), Some(last)) = (self.first.take(), spans.last_mut()) {
                        *last = marker;
                    }
                    spans.append(&mut line.spans);
                    self.lines.push(Line::from(spans));
                }
            }
            None => {
                let style = self.theme.style(Role::Text);
                self.raw(range, style);
                self.flush();
            }
        }
    }

    /// Link definitions, which the parser swallows: they are shown, for their text may be all there is.
    fn definitions(&mut self, mut definitions: Vec<Range<usize>>) {
        definitions.sort_by_key(|range| range.start);
        for range in definitions {
            let style = self.theme.style(Role::Dim);
            self.raw(range, style);
            self.flush();
        }
    }
}

/// Text the parser made from entities, fit to be shown.
fn clean(text: &str) -> String {
    shown(text).to_string()
}

#[cfg(test)]
#[path = "render/tests.rs"]
mod tests;
