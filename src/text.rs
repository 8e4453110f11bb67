//! Text functions: sanitising, width, editing, UTF-8 across chunk borders. Pure.

pub mod edit;
pub(crate) mod format;
pub mod sanitize;
pub mod utf8;
pub mod width;

pub use edit::EditBuffer;
pub use sanitize::{ShowStream, Shown, shown, shown_line};
pub use utf8::Utf8Stream;
