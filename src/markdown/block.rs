//! Splits growing Markdown source into top-level blocks. Finished blocks never change; only the last,
//! open one can grow. No ratatui types here.
//!
//! Only appended text is looked at. A line that has not ended yet counts as soon as nothing that may follow
//! can change what it is; until then it waits, unless there is no open block it could be mistaken for.

mod line;

use line::{Fence, Kind, Scanned};
use std::borrow::Cow;
use std::ops::Range;

/// Characters of a fence's info word that are kept.
const INFO_CHARS: usize = 24;

/// The blocks of a growing text. Ranges index the text given to [`Blocks::update`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    blocks: Vec<Block>,
    state: State,
    cursor: line::Cursor,
    /// How things stood before the line that has not ended yet was counted.
    before_tail: Option<Box<(usize, Option<Block>, State)>>,
    is_finished: bool,
}

/// One top-level block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its bytes in the source, trailing blank lines excluded.
    pub range: Range<usize>,
    /// What it is.
    pub kind: BlockKind,
    /// Whether it can still grow.
    pub is_open: bool,
    /// Columns its lines are indented by, as part of a list item that began in an earlier block.
    pub indent: usize,
    /// Whether blank lines separate it from the block before it.
    pub follows_blank: bool,
}

/// What a block is, as far as others must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// A fenced code block.
    Code {
        /// Bytes of the code alone, without the fences.
        body: Range<usize>,
        /// The word after the opening fence, at most 24 characters of it.
        info: String,
        /// Position among the text's fenced blocks, from 0.
        index: usize,
    },
    /// Anything else.
    Text,
}

/// Where the splitter is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    leaf: Leaf,
    /// Column at which the content of the open list item begins.
    item: Option<usize>,
    /// Whether the line before was blank.
    after_blank: bool,
    /// Fenced blocks so far.
    codes: usize,
}

/// The open block, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Leaf {
    #[default]
    None,
    Paragraph,
    Quote,
    Indented,
    /// Text of a list item; lines indented less than `base` are another block.
    Item {
        base: usize,
        inner: Option<Fence>,
    },
    Code(Fence),
}

impl Blocks {
    /// Takes in what was appended to `source` since the last call. `source` must only ever grow.
    pub fn update(&mut self, source: &str) {
        if self.is_finished {
            return;
        }
        self.drop_tail();
        while let Some(line) = self.cursor.next_line(source) {
            self.apply(&line);
        }
        let Some(line) = self.cursor.tail(source) else { return };
        let in_code = match self.state.leaf {
            Leaf::Code(fence) => Some(fence),
            Leaf::Item { inner, .. } => inner,
            _ => None,
        };
        if line.is_undecided(in_code) && self.blocks.last().is_some_and(|block| block.is_open) {
            return;
        }
        self.before_tail = Some(Box::new((self.blocks.len(), self.blocks.last().cloned(), self.state)));
        self.apply(&line);
    }

    /// The text has ended: the open block is closed, an unclosed fence counts as a block.
    pub fn finish(&mut self, source: &str) {
        if self.is_finished {
            return;
        }
        self.update(source);
        self.drop_tail();
        if let Some(line) = self.cursor.tail(source) {
            self.apply(&line.ended());
        }
        self.close();
        self.is_finished = true;
    }

    /// All blocks in order, the open one last.
    #[must_use]
    pub fn all(&self) -> &[Block] {
        &self.blocks
    }

    /// How many fenced code blocks there are.
    #[must_use]
    pub fn code_count(&self) -> usize {
        self.state.codes
    }

    fn drop_tail(&mut self) {
        let Some(before) = self.before_tail.take() else { return };
        let (len, last, state) = *before;
        self.blocks.truncate(len);
        if let (Some(slot), Some(last)) = (self.blocks.last_mut(), last) {
            *slot = last;
        }
        self.state = state;
    }

    fn apply(&mut self, line: &Scanned<'_>) {
        match self.state.leaf {
            Leaf::Code(fence) => return self.code_line(line, fence),
            Leaf::Item { base, inner: Some(fence) } => {
                if line.closes(fence) {
                    self.state.leaf = Leaf::Item { base, inner: None };
                }
                return self.extend(line);
            }
            _ => {}
        }
        if line.is_blank() {
            if !matches!(self.state.leaf, Leaf::Item { .. }) {
                self.close();
            }
            self.state.after_blank = true;
            return;
        }
        let kind = line.kind();
        if !self.item_line(line, kind) {
            self.top_line(line, kind);
        }
        self.state.after_blank = false;
    }

    /// A line inside a fence, or the one that closes it.
    fn code_line(&mut self, line: &Scanned<'_>, fence: Fence) {
        let closes = line.closes(fence);
        let Some(block) = self.blocks.last_mut() else { return };
        block.range.end = line.end;
        if closes {
            self.close();
            self.state.after_blank = false;
        } else if let BlockKind::Code { body, .. } = &mut block.kind {
            body.end = line.end;
        }
    }

    /// A line while a list item is open. False: the item has ended, and the line is none of it.
    fn item_line(&mut self, line: &Scanned<'_>, kind: Kind) -> bool {
        let Some(content) = self.state.item else { return false };
        if line.indent >= content {
            match (self.state.leaf, kind) {
                (_, Kind::Fence(fence)) => self.open_code(line, fence),
                (Leaf::Item { base, .. }, _) if line.indent >= base => self.extend(line),
                _ => self.open(line, line.indent, Leaf::Item { base: line.indent, inner: None }),
            }
            return true;
        }
        if matches!(self.state.leaf, Leaf::Item { .. }) && !self.state.after_blank && kind.is_paragraph_text()
        {
            self.extend(line);
            return true;
        }
        self.close();
        self.state.item = None;
        false
    }

    /// A line outside any list item.
    fn top_line(&mut self, line: &Scanned<'_>, kind: Kind) {
        match (self.state.leaf, kind) {
            (Leaf::Paragraph, Kind::Setext | Kind::Rule { is_setext: true }) => {
                self.extend(line);
                self.close();
                return;
            }
            (Leaf::Paragraph, _) if line.indent >= 4 || !kind.interrupts() => return self.extend(line),
            (Leaf::Indented, _) if line.indent >= 4 => return self.extend(line),
            (Leaf::Quote, Kind::Quote) => return self.extend(line),
            (Leaf::Quote, _) if kind.is_paragraph_text() => return self.extend(line),
            _ => {}
        }
        if line.indent >= 4 {
            return self.open(line, 0, Leaf::Indented);
        }
        match kind {
            Kind::Fence(fence) => self.open_code(line, fence),
            Kind::Quote => self.open(line, 0, Leaf::Quote),
            Kind::Heading | Kind::Rule { .. } => {
                self.open(line, 0, Leaf::Paragraph);
                if line.is_whole {
                    self.close();
                }
            }
            Kind::Item { content, inner, .. } => {
                self.open(line, line.indent, Leaf::Item { base: 0, inner });
                self.state.item = Some(content);
            }
            Kind::Setext | Kind::Text => self.open(line, 0, Leaf::Paragraph),
        }
    }

    fn open(&mut self, line: &Scanned<'_>, indent: usize, leaf: Leaf) {
        self.close();
        self.blocks.push(Block {
            range: line.start..line.end,
            kind: BlockKind::Text,
            is_open: true,
            indent,
            follows_blank: self.state.after_blank,
        });
        self.state.leaf = leaf;
    }

    fn open_code(&mut self, line: &Scanned<'_>, fence: Fence) {
        self.open(line, line.indent, Leaf::Code(fence));
        let index = self.state.codes;
        self.state.codes += 1;
        if let Some(block) = self.blocks.last_mut() {
            let info = line.info_word().chars().take(INFO_CHARS).collect();
            block.kind = BlockKind::Code { body: line.next..line.next, info, index };
        }
    }

    fn extend(&mut self, line: &Scanned<'_>) {
        if let Some(block) = self.blocks.last_mut() {
            block.range.end = line.end;
        }
    }

    fn close(&mut self) {
        if let Some(block) = self.blocks.last_mut() {
            block.is_open = false;
        }
        self.state.leaf = Leaf::None;
    }
}

/// The code of the fenced block at `index` (from 0), as written; for copying from the original text.
/// Only the indentation of the fence itself is taken off.
#[must_use]
pub fn code_at(source: &str, index: usize) -> Option<String> {
    let mut blocks = Blocks::default();
    blocks.update(source);
    blocks.finish(source);
    blocks.all().iter().find_map(|block| match &block.kind {
        BlockKind::Code { body, index: at, .. } if *at == index => {
            source.get(body.clone()).map(|code| dedent(code, block.indent).into_owned())
        }
        BlockKind::Code { .. } | BlockKind::Text => None,
    })
}

/// The text with up to `columns` columns of indentation taken off every line.
#[must_use]
pub fn dedent(text: &str, columns: usize) -> Cow<'_, str> {
    if columns == 0 {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        out.push_str(dedent_line(line, columns));
    }
    Cow::Owned(out)
}

/// One line with up to `columns` columns of indentation taken off.
#[must_use]
pub fn dedent_line(line: &str, columns: usize) -> &str {
    let mut column = 0;
    let mut rest = line;
    while column < columns {
        if let Some(next) = rest.strip_prefix(' ') {
            column += 1;
            rest = next;
        } else if let Some(next) = rest.strip_prefix('\t')
            && column / 4 * 4 + 4 <= columns
        {
            column = column / 4 * 4 + 4;
            rest = next;
        } else {
            break;
        }
    }
    rest
}

#[cfg(test)]
#[path = "block/tests.rs"]
mod tests;
