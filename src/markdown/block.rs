//! Splits growing Markdown source into top-level blocks. Finished blocks never change; only the last,
//! open one can grow. No ratatui types here.

use std::ops::Range;

/// The blocks of a growing text. Ranges index the text given to [`Blocks::update`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    blocks: Vec<Block>,
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

impl Blocks {
    /// Takes in what was appended to `source` since the last call. `source` must only ever grow.
    pub fn update(&mut self, source: &str) {
        self.blocks = vec![Block { range: 0..source.len(), kind: BlockKind::Text, is_open: true }];
    }

    /// The text has ended: the open block is closed, an unclosed fence counts as a block.
    pub fn finish(&mut self, _source: &str) {
        for block in &mut self.blocks {
            block.is_open = false;
        }
    }

    /// All blocks in order, the open one last.
    #[must_use]
    pub fn all(&self) -> &[Block] {
        &self.blocks
    }

    /// How many fenced code blocks there are.
    #[must_use]
    pub fn code_count(&self) -> usize {
        self.blocks.iter().filter(|b| matches!(b.kind, BlockKind::Code { .. })).count()
    }
}

/// The code of the fenced block at `index` (from 0), as written; for copying from the original text.
#[must_use]
pub fn code_at(source: &str, index: usize) -> Option<String> {
    let mut blocks = Blocks::default();
    blocks.update(source);
    blocks.finish(source);
    blocks.all().iter().find_map(|block| match &block.kind {
        BlockKind::Code { body, index: at, .. } if *at == index => {
            source.get(body.clone()).map(str::to_owned)
        }
        BlockKind::Code { .. } | BlockKind::Text => None,
    })
}
