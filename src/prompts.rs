//! System prompts: Markdown files with a one-line description, in the binary and in the user's folder.

use std::path::Path;

/// One system prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Its name: the file's stem.
    pub name: String,
    /// One line about it.
    pub about: String,
    /// The prompt itself.
    pub text: String,
}

/// All prompts by name; a user's file replaces a built-in one of the same name. Problems are one-line warnings.
#[must_use]
pub fn all(_user_dir: Option<&Path>) -> (Vec<Prompt>, Vec<String>) {
    (Vec::new(), Vec::new())
}
