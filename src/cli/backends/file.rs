//! Changing the configuration file: the rest of it stays as it is, and what would not be read again is not
//! written.

use super::Context;
use crate::config::address::Wrong;
use crate::config::{BackendConfig, edit, file};
use crate::error::{AppError, Exit};
use crate::paths::{create_private, replace_file};

/// Writes a backend into it; `before` is how it stands there now.
pub(super) fn put(
    context: &Context<'_>,
    before: Option<&BackendConfig>,
    after: &BackendConfig,
) -> Result<(), AppError> {
    let text = read(context)?;
    let text = edit::put_backend(&text, before, after).map_err(|why| wrong(context, &why))?;
    write(context, &text)
}

/// Takes one out.
pub(super) fn remove(context: &Context<'_>, name: &str) -> Result<(), AppError> {
    let text = read(context)?;
    match edit::remove_backend(&text, name).map_err(|why| wrong(context, &why))? {
        Some(text) => write(context, &text),
        None => Err(AppError::new(Exit::Usage, format!("{}: no backend `{name}`", context.file.display()))
            .hint("`tui config path` prints which file is read")),
    }
}

fn wrong(context: &Context<'_>, why: &Wrong) -> AppError {
    AppError::new(Exit::Usage, format!("{}: {}", context.file.display(), why.what)).hint(why.next.clone())
}

fn read(context: &Context<'_>) -> Result<String, AppError> {
    match std::fs::read_to_string(&context.file) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(AppError::new(Exit::Error, format!("{}: {error}", context.file.display()))
            .hint("see who may read it")),
    }
}

fn write(context: &Context<'_>, text: &str) -> Result<(), AppError> {
    // Other parts may name what was changed.
    file::read(text, &context.file)?;
    let folder = context.file.parent().filter(|folder| !folder.exists());
    folder.map_or(Ok(()), create_private).and_then(|()| replace_file(&context.file, text.as_bytes())).map_err(
        |error| {
            AppError::new(Exit::Error, format!("{} can't be written: {error}", context.file.display()))
                .hint("see who may write there")
        },
    )
}
