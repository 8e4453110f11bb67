//! `tui sessions`: what was saved.

use super::args::{AskArgs, ListArgs, SessionsCommand};
use super::{out, report};
use crate::chat::record::{AttemptRecord, Outcome, SessionRecord};
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use crate::store::{self, SavedSession};
use crate::text::{shown, shown_line};
use serde_json::json;
use std::io::IsTerminal;

/// Does what was asked; without a command, lists.
///
/// # Errors
/// When the database can't be read, or there is no such session.
pub(super) fn run(
    command: Option<&SessionsCommand>,
    bare: ListArgs,
    paths: &Paths,
) -> Result<Exit, AppError> {
    let database = paths.database();
    match command {
        None => list(paths, bare)?,
        Some(SessionsCommand::List(args)) => list(paths, *args)?,
        Some(SessionsCommand::Show { id }) => {
            let id = store::find(&database, id).map_err(unreadable)?;
            let session = store::load(&database, &id).map_err(unreadable)?;
            let text = transcript(&session);
            // Into a pipe goes what was said; a terminal gets what may be shown of it.
            if std::io::stdout().is_terminal() { out::answer(&shown(&text)) } else { out::answer(&text) }
        }
    }
    Ok(Exit::Ok)
}

/// The error of a store that can't be read, or has no such session: two lines become message and hint.
pub(super) fn unreadable(message: String) -> AppError {
    match message.split_once('\n') {
        Some((message, hint)) => AppError::new(Exit::Usage, message).hint(hint),
        None => AppError::new(Exit::Error, message),
    }
}

/// The session to go on with, if one was asked for by `-c` or by name.
///
/// # Errors
/// Exit code 2: there is none, or none of that name.
pub(super) fn resumed(args: &AskArgs, paths: &Paths) -> Result<Option<SavedSession>, AppError> {
    let database = paths.database();
    let id = match &args.resume {
        Some(Some(wanted)) => store::find(&database, wanted).map_err(unreadable)?,
        None if args.go_on => store::latest(&database).map_err(unreadable)?.ok_or_else(|| {
            AppError::new(Exit::Usage, "there is no saved conversation to go on with")
                .hint("leave out -c to begin one")
        })?,
        _ => return Ok(None),
    };
    store::load(&database, &id).map(Some).map_err(unreadable)
}

fn list(paths: &Paths, args: ListArgs) -> Result<(), AppError> {
    // One is looked for even where none is wanted: it tells an empty list from an empty store.
    let mut sessions = store::list(&paths.database(), args.limit.max(1)).map_err(unreadable)?;
    if sessions.is_empty() {
        out::note("nothing has been saved yet");
    }
    sessions.truncate(args.limit);
    if args.json {
        for session in &sessions {
            let object = json!({
                "version": 1, "id": session.id, "created_ms": session.created_ms, "title": session.title,
            });
            if report::line(&object).is_err() {
                // Whoever read the list has enough of it.
                return Ok(());
            }
        }
        return Ok(());
    }
    let line = |session: &SessionRecord| {
        format!("{}  {}  {}", session.id, when(session.created_ms), shown_line(&session.title, 80))
    };
    if !sessions.is_empty() {
        out::answer(&sessions.iter().map(line).collect::<Vec<_>>().join("\n"));
    }
    Ok(())
}

/// Local date and time.
pub(super) fn when(unix_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(unix_ms) {
        Ok(time) => time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string(),
        Err(_) => "????-??-?? ??:??".to_owned(),
    }
}

fn transcript(session: &SavedSession) -> String {
    let mut text = format!("# {}\n", session.record.title);
    if let Some(system) = &session.record.system {
        text.push_str(&format!("\n## System\n\n{}\n", system.trim_end()));
    }
    for turn in &session.turns {
        text.push_str(&format!("\n## You\n\n{}\n", turn.user.trim_end()));
        for attempt in &turn.attempts {
            text.push_str(&format!(
                "\n## {} · {}{}\n\n{}\n",
                attempt.backend,
                attempt.model,
                outcome(attempt),
                attempt.answer.trim_end()
            ));
        }
    }
    text
}

fn outcome(attempt: &AttemptRecord) -> String {
    match &attempt.outcome {
        Outcome::Stop => String::new(),
        Outcome::Length => " · cut by length".to_owned(),
        Outcome::Stopped => " · stopped".to_owned(),
        Outcome::Open => " · interrupted: the program ended".to_owned(),
        Outcome::Interrupted { error } => {
            format!(" · interrupted: {}", error.lines().next().unwrap_or_default())
        }
    }
}
