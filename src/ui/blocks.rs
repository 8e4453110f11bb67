//! The blocks of one text as rows: which row each begins at, and the lines of those that are looked at.
//! Finished blocks are measured once; only the open one is measured again.

use super::code::{Code, CodeMemo, header};
use super::page::Page;
use crate::app::turn::Prose;
use crate::markdown::block::{Block, BlockKind};
use crate::markdown::render::{render, render_open_table};
use crate::theme::{Role, Theme};
use ratatui::text::Line;
use std::collections::HashMap;
use std::ops::Range;

/// Blocks at the end whose lines are kept while they are measured: they are looked at next.
const KEPT: usize = 64;

/// How blocks are drawn.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) page: &'a Page,
    pub(super) theme: &'a Theme,
    pub(super) voice: Voice,
}

/// Whose text it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    /// An answer; its code blocks are numbered from here.
    Answer { first_code: usize },
    /// Thinking: dim, and its code has no numbers.
    Thinking,
}

/// What is known of the blocks of one text.
#[derive(Debug, Default)]
pub(super) struct BlockSet {
    /// First row of each block, and the row past its last.
    rows: Vec<(usize, usize)>,
    /// How many blocks from the start are finished, and the last of those.
    closed: usize,
    last_closed: Option<Block>,
    bodies: HashMap<usize, Body>,
}

#[derive(Debug)]
enum Body {
    Lines { upto: usize, is_open: bool, lines: Vec<Line<'static>> },
    Code(Box<CodeMemo>),
}

impl BlockSet {
    /// Takes in what was appended; rows of the whole.
    pub(super) fn update(&mut self, prose: &Prose, look: Look<'_>) -> usize {
        let blocks = prose.blocks().all();
        let known = self.closed.checked_sub(1).and_then(|last| blocks.get(last));
        if self.closed > 0 && known != self.last_closed.as_ref() {
            *self = Self::default();
        }
        self.rows.truncate(self.closed);
        for (at, block) in blocks.iter().enumerate().skip(self.closed) {
            let start = match at.checked_sub(1) {
                None => 0,
                Some(before) => {
                    let above = self.rows.get(before).map_or(0, |rows| rows.1);
                    above + gap(blocks.get(before), block, prose.shown(), look.page)
                }
            };
            let height = self.height(at, block, prose.shown(), look);
            if at + KEPT < blocks.len() {
                self.bodies.remove(&at);
            }
            self.rows.push((start, start + height));
            if !block.is_open && self.closed == at {
                self.closed = at + 1;
                self.last_closed = Some(block.clone());
            }
        }
        self.total()
    }

    /// Rows of the whole, as of the last update.
    pub(super) fn total(&self) -> usize {
        self.rows.last().map_or(0, |rows| rows.1)
    }

    /// The block a row belongs to (or the one before a gap), and its rows.
    pub(super) fn block_at(&self, row: usize) -> Option<(usize, Range<usize>)> {
        let at = self.rows.partition_point(|rows| rows.0 <= row).checked_sub(1)?;
        self.rows.get(at).map(|(start, end)| (at, *start..*end))
    }

    /// The rows of a block.
    pub(super) fn rows_of(&self, at: usize) -> Option<Range<usize>> {
        self.rows.get(at).map(|(start, end)| *start..*end)
    }

    /// Calls `put` with each line of these rows that is not blank space between blocks.
    pub(super) fn draw(
        &mut self,
        prose: &Prose,
        part: Range<usize>,
        look: Look<'_>,
        mut put: impl FnMut(usize, &Line<'static>),
    ) {
        let first = self.rows.partition_point(|rows| rows.1 <= part.start);
        let blocks = prose.blocks().all();
        for (at, block) in blocks.iter().enumerate().skip(first) {
            let Some((start, end)) = self.rows.get(at).copied() else { break };
            if start >= part.end {
                break;
            }
            self.height(at, block, prose.shown(), look);
            let rows = part.start.max(start) - start..part.end.min(end) - start;
            match self.bodies.get_mut(&at) {
                Some(Body::Lines { lines, .. }) => {
                    for (row, line) in lines.iter().enumerate().take(rows.end).skip(rows.start) {
                        put(start + row, line);
                    }
                }
                Some(Body::Code(memo)) => {
                    let Some(code) = code(block, prose.shown()) else { continue };
                    if rows.start == 0 {
                        let opening =
                            prose.shown().get(block.range.clone()).and_then(|text| text.lines().next());
                        put(start, &head(block, opening.unwrap_or_default(), code, look));
                    }
                    let body = rows.start.max(1) - 1..rows.end.max(1) - 1;
                    for (row, line) in memo.draw(code, body.clone(), look.page, look.theme).iter().enumerate()
                    {
                        let row = start + 1 + body.start + row;
                        if look.voice == Voice::Thinking {
                            put(row, &dim(line.clone(), look.theme));
                        } else {
                            put(row, line);
                        }
                    }
                }
                None => {}
            }
        }
    }

    /// Forgets the lines of blocks outside these rows.
    pub(super) fn forget_outside(&mut self, part: &Range<usize>) {
        let (rows, closed) = (&self.rows, self.closed);
        self.bodies.retain(|at, _| {
            *at >= closed || rows.get(*at).is_some_and(|(start, end)| *end > part.start && *start < part.end)
        });
    }

    /// Rows of a block; its body is there afterwards.
    fn height(&mut self, at: usize, block: &Block, source: &str, look: Look<'_>) -> usize {
        match &block.kind {
            BlockKind::Code { .. } => {
                let Some(code) = code(block, source) else { return 0 };
                let body = self.bodies.entry(at).or_insert_with(|| Body::Code(Box::default()));
                if !matches!(body, Body::Code(_)) {
                    *body = Body::Code(Box::default());
                }
                let Body::Code(memo) = body else { return 0 };
                1 + memo.update(code, look.page)
            }
            BlockKind::Text => {
                if let Some(Body::Lines { upto, is_open, lines }) = self.bodies.get(&at)
                    && (*upto, *is_open) == (block.range.end, block.is_open)
                {
                    return lines.len();
                }
                let text = source.get(block.range.clone()).unwrap_or_default();
                // A table may be wider than prose is let be.
                let width = if text.starts_with('|') { look.page.wide } else { look.page.prose };
                let mut lines = if block.is_open && text.starts_with('|') {
                    render_open_table(text, block.indent, width, look.theme)
                } else {
                    render(text, block.indent, width, look.theme)
                };
                if look.voice == Voice::Thinking {
                    lines = lines.into_iter().map(|line| dim(line, look.theme)).collect();
                }
                let rows = lines.len();
                let (upto, is_open) = (block.range.end, block.is_open);
                self.bodies.insert(at, Body::Lines { upto, is_open, lines });
                rows
            }
        }
    }
}

fn code<'a>(block: &'a Block, source: &'a str) -> Option<Code<'a>> {
    let BlockKind::Code { body, info, .. } = &block.kind else { return None };
    let body = source.get(body.clone())?;
    Some(Code { body, info, indent: block.indent, is_open: block.is_open })
}

fn head(block: &Block, opening: &str, code: Code<'_>, look: Look<'_>) -> Line<'static> {
    match (look.voice, &block.kind) {
        (Voice::Answer { first_code }, BlockKind::Code { index, .. }) => {
            header(first_code + index, opening, code, look.page, look.theme)
        }
        _ => Line::styled(format!("[{}]", code.info), look.theme.style(Role::Dim)),
    }
}

fn dim(mut line: Line<'static>, theme: &Theme) -> Line<'static> {
    let style = theme.style(Role::Dim);
    for span in &mut line.spans {
        span.style = style.add_modifier(span.style.add_modifier);
    }
    line
}

/// Blank rows between two blocks: as in the source, and always around code and before headings.
fn gap(above: Option<&Block>, block: &Block, source: &str, page: &Page) -> usize {
    let is_code = |block: &Block| matches!(block.kind, BlockKind::Code { .. });
    let text = source.get(block.range.clone()).unwrap_or_default();
    let is_apart =
        block.follows_blank || is_code(block) || above.is_some_and(is_code) || text.starts_with('#');
    if is_apart { page.gap } else { 0 }
}
