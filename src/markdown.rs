//! Markdown as models write it, rendered while it streams.
//!
//! [`block`] splits source into top-level blocks as it grows and knows nothing of ratatui (the one part
//! `app` may use); the rest turns blocks into styled lines.

pub mod block;
