//! Errors as the person sees them at the edge of the program, and exit codes.

use crate::chat::{GenError, GenErrorKind};
use std::fmt;
use std::process::ExitCode;

/// Exit codes (design of the command line: scripts may rely on them).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// An error of another kind.
    Error = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// The backend can't be reached or refused.
    Backend = 3,
    /// The model is missing or can't be loaded.
    Model = 4,
    /// The prompt does not fit the context.
    Context = 5,
    /// Timed out.
    Timeout = 124,
    /// Interrupted by the person.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<GenErrorKind> for Exit {
    fn from(kind: GenErrorKind) -> Self {
        match kind {
            GenErrorKind::Unreachable
            | GenErrorKind::Refused
            | GenErrorKind::Auth
            | GenErrorKind::Untrusted
            | GenErrorKind::Fenced => Self::Backend,
            GenErrorKind::Model | GenErrorKind::OutOfMemory => Self::Model,
            GenErrorKind::ContextFull => Self::Context,
            GenErrorKind::Timeout => Self::Timeout,
            GenErrorKind::Protocol | GenErrorKind::EngineDied => Self::Error,
        }
    }
}

/// What failed (with the thing named), the cause, and the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppError {
    /// The exit code it leads to.
    pub exit: Exit,
    /// The thing and the cause, one line.
    pub message: String,
    /// The next step, one line.
    pub hint: Option<String>,
}

impl AppError {
    /// An error with this exit code.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// Adds the next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for AppError {}

impl From<GenError> for AppError {
    fn from(error: GenError) -> Self {
        let exit = error.kind.into();
        match error.message.split_once('\n') {
            Some((message, hint)) => Self::new(exit, message).hint(hint),
            None => Self::new(exit, error.message),
        }
    }
}
