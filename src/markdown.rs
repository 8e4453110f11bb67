//! Markdown as models write it, rendered while it streams.
//!
//! [`block`] splits source into top-level blocks as it grows and knows nothing of ratatui (the one part
//! `app` may use); the rest turns blocks into styled lines: [`render`] for text, [`highlight`] for code,
//! [`mod@wrap`] for both.

pub mod block;
pub mod highlight;
pub mod render;
pub mod wrap;
