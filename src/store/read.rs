//! Reading sessions. Every function opens its own read-only connection and closes it again.

use super::apply::channel_name;
use super::open::{beside, describe};
use super::{SavedSession, schema};
use crate::chat::record::{AttemptRecord, FenceRecord, Outcome, SessionRecord, TurnRecord};
use crate::chat::{Channel, GenKey, LaneId, Metrics, ServerTimings, SessionId, TurnId, Usage};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row};
use std::path::Path;
use std::time::Duration;

/// Reads saved sessions. Opens its own read-only connection.
///
/// # Errors
/// One or two lines: the file, the cause, the next step.
pub fn load(path: &Path, id: &SessionId) -> Result<SavedSession, String> {
    let saved = with(path, None, |conn| {
        let Some((seq, record)) = conn
            .query_row(
                "SELECT seq, id, created_ms, title, system FROM sessions WHERE id = ?1",
                [id.as_str()],
                |row| Ok((row.get::<_, i64>(0)?, session(row, 1)?)),
            )
            .optional()?
        else {
            return Ok(None);
        };
        Ok(Some(SavedSession { record, turns: turns(conn, seq)? }))
    })?;
    saved.ok_or_else(|| unknown(id.as_str()))
}

/// The session used last, if there is one.
///
/// # Errors
/// As [`load`].
pub fn latest(path: &Path) -> Result<Option<SessionId>, String> {
    Ok(list(path, 1)?.into_iter().next().map(|record| record.id))
}

/// The session a person means: an id, a unique prefix of one, or a title.
///
/// # Errors
/// As [`load`]; also when nothing or several match (they are named).
pub fn find(path: &Path, wanted: &str) -> Result<SessionId, String> {
    let all = list(path, usize::MAX)?;
    if let Some(exact) = all.iter().find(|s| s.id.as_str() == wanted) {
        return Ok(exact.id.clone());
    }
    let lower = wanted.to_lowercase();
    let tests: [&dyn Fn(&SessionRecord) -> bool; 3] =
        [&|s| s.id.as_str().starts_with(&lower), &|s| s.title.to_lowercase() == lower, &|s| {
            s.title.to_lowercase().starts_with(&lower)
        }];
    if lower.trim().is_empty() {
        return Err(unknown(wanted));
    }
    for test in tests {
        let found: Vec<&SessionRecord> = all.iter().filter(|s| test(s)).collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(one.id.clone()),
            several => {
                let named: Vec<String> =
                    several.iter().take(5).map(|s| format!("{} ({})", s.id, short(&s.title))).collect();
                let more = if several.len() > 5 { ", ..." } else { "" };
                return Err(format!(
                    "`{wanted}` means {} sessions: {}{more}\ngive more of the id",
                    several.len(),
                    named.join(", ")
                ));
            }
        }
    }
    Err(unknown(wanted))
}

/// Sessions, the one used last first.
///
/// # Errors
/// As [`load`].
pub fn list(path: &Path, limit: usize) -> Result<Vec<SessionRecord>, String> {
    with(path, Vec::new(), |conn| {
        conn.prepare(
            "SELECT id, created_ms, title, system FROM sessions
             WHERE EXISTS (SELECT 1 FROM turns WHERE turns.session = sessions.seq)
             ORDER BY used DESC, seq DESC LIMIT ?1",
        )?
        .query_map([limit_of(limit)], |row| session(row, 0))?
        .collect()
    })
}

/// Inputs typed into the composer, oldest first, duplicates removed.
///
/// # Errors
/// As [`load`].
pub fn inputs(path: &Path, limit: usize) -> Result<Vec<String>, String> {
    let mut newest_first: Vec<String> = with(path, Vec::new(), |conn| {
        conn.prepare("SELECT text FROM inputs GROUP BY text ORDER BY max(input) DESC LIMIT ?1")?
            .query_map([limit_of(limit)], |row| text(row, 0))?
            .collect()
    })?;
    newest_first.reverse();
    Ok(newest_first)
}

/// Runs a query in one read transaction; `empty` where there is no database yet.
pub(super) fn with<T>(
    path: &Path,
    empty: T,
    query: impl Fn(&Connection) -> rusqlite::Result<T>,
) -> Result<T, String> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(empty),
        Err(error) => return Err(format!("{}: {error}", path.display())),
        Ok(meta) if meta.len() == 0 => return Ok(empty),
        Ok(_) => {}
    }
    let run = |conn: &Connection| -> rusqlite::Result<Option<T>> {
        conn.busy_timeout(Duration::from_secs(5))?;
        let tx = conn.unchecked_transaction()?;
        if schema::version(&tx)? == 0 {
            return Ok(None);
        }
        query(&tx).map(Some)
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let result = Connection::open_with_flags(path, flags).and_then(|conn| run(&conn)).or_else(|error| {
        let cannot = matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied)
        );
        // In a folder that can't be written SQLite can't make the files that readers share; without a log
        // to read the file is complete by itself.
        if cannot && !beside(path, "-wal").exists() {
            let uri = format!("file:{}?immutable=1", uri_path(path));
            let conn = Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?;
            run(&conn)
        } else {
            Err(error)
        }
    });
    match result {
        Ok(found) => Ok(found.unwrap_or(empty)),
        Err(error) => Err(format!("can't read saved sessions: {}", describe(path, &error))),
    }
}

fn turns(conn: &Connection, seq: i64) -> rusqlite::Result<Vec<TurnRecord>> {
    // A database is read before it is migrated, and where it can't be.
    let is_old = schema::version(conn)? < schema::WITH_DECISIONS;
    let (more_of_turn, decision) = if is_old { ("NULL, NULL", "''") } else { ("kept, fence", "a.decision") };
    let mut turns: Vec<TurnRecord> = conn
        .prepare(&format!(
            "SELECT turn, user, created_ms, {more_of_turn} FROM turns WHERE session = ?1 ORDER BY turn"
        ))?
        .query_map([seq], |row| {
            let kept: Option<i64> = row.get(3)?;
            Ok(TurnRecord {
                id: TurnId(number(row, 0)?),
                user: text(row, 1)?,
                created_ms: row.get(2)?,
                attempts: Vec::new(),
                kept: kept.map(lane),
                fence: optional_text(row, 4)?
                    .and_then(|json| serde_json::from_str::<FenceRecord>(&json).ok()),
            })
        })?
        .collect::<Result<_, _>>()?;
    let attempts: Vec<AttemptRecord> = conn
        .prepare(&format!(
            "SELECT a.turn, a.lane, a.attempt, a.backend, a.model, a.quantisation, a.rule, a.reason, a.answer,
                    a.thinking, a.state, a.error, m.sent_ms, m.headers_ms, m.first_token_ms, m.first_answer_ms,
                    m.last_token_ms, m.painted_ms, m.total_ms, m.prompt_tokens, m.cached_tokens,
                    m.output_tokens, m.server, {decision}
             FROM attempts a LEFT JOIN metrics m USING (session, turn, lane, attempt)
             WHERE a.session = ?1 ORDER BY a.turn, a.lane, a.attempt",
        ))?
        .query_map([seq], attempt)?
        .collect::<Result<_, _>>()?;
    for attempt in attempts {
        if let Some(turn) = turns.iter_mut().find(|turn| turn.id == attempt.key.turn) {
            turn.attempts.push(attempt);
        }
    }
    let mut pieces = conn
        .prepare("SELECT turn, lane, attempt, channel, text FROM pieces WHERE session = ?1 ORDER BY piece")?;
    let mut rows = pieces.query([seq])?;
    while let Some(row) = rows.next()? {
        let key = key(row)?;
        let found = turns
            .iter_mut()
            .filter(|turn| turn.id == key.turn)
            .flat_map(|turn| &mut turn.attempts)
            .find(|attempt| attempt.key == key);
        if let Some(attempt) = found {
            let text = text(row, 4)?;
            if row.get_ref(3)?.as_bytes()? == channel_name(Channel::Thinking).as_bytes() {
                attempt.thinking.push_str(&text);
            } else {
                attempt.answer.push_str(&text);
            }
        }
    }
    Ok(turns)
}

fn attempt(row: &Row<'_>) -> rusqlite::Result<AttemptRecord> {
    let state = text(row, 10)?;
    let error = optional_text(row, 11)?;
    let server: Option<String> = row.get(22)?;
    Ok(AttemptRecord {
        key: key(row)?,
        backend: text(row, 3)?,
        model: text(row, 4)?,
        quantisation: optional_text(row, 5)?,
        rule: text(row, 6)?,
        reason: text(row, 7)?,
        decision: text(row, 23)?,
        answer: text(row, 8)?,
        thinking: text(row, 9)?,
        outcome: match state.as_str() {
            "open" => Outcome::Open,
            "stop" => Outcome::Stop,
            "length" => Outcome::Length,
            "stopped" => Outcome::Stopped,
            "interrupted" => Outcome::Interrupted { error: error.unwrap_or_default() },
            other => Outcome::Interrupted { error: format!("saved by a newer version as `{other}`") },
        },
        metrics: Metrics {
            sent_ms: row.get(12)?,
            headers_ms: row.get(13)?,
            first_token_ms: row.get(14)?,
            first_answer_ms: row.get(15)?,
            last_token_ms: row.get(16)?,
            painted_ms: row.get(17)?,
            total_ms: row.get(18)?,
            usage: Usage {
                prompt_tokens: row.get(19).unwrap_or_default(),
                cached_tokens: row.get(20).unwrap_or_default(),
                output_tokens: row.get(21).unwrap_or_default(),
            },
            server: server.and_then(|json| serde_json::from_str::<ServerTimings>(&json).ok()),
        },
    })
}

fn session(row: &Row<'_>, first: usize) -> rusqlite::Result<SessionRecord> {
    Ok(SessionRecord {
        id: SessionId(text(row, first)?),
        created_ms: row.get(first + 1)?,
        title: text(row, first + 2)?,
        system: optional_text(row, first + 3)?,
    })
}

fn key(row: &Row<'_>) -> rusqlite::Result<GenKey> {
    Ok(GenKey { turn: TurnId(number(row, 0)?), lane: lane(row.get(1)?), attempt: number(row, 2)? })
}

fn lane(number: i64) -> LaneId {
    LaneId(number.clamp(0, 255).try_into().unwrap_or_default())
}

/// A number that fits what we keep, whatever a damaged row says.
fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u32> {
    Ok(u32::try_from(row.get::<_, i64>(column)?.max(0)).unwrap_or(u32::MAX))
}

/// Text, also where a damaged row holds invalid UTF-8.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(String::from_utf8_lossy(row.get_ref(column)?.as_bytes()?).into_owned())
}

fn optional_text(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(row.get_ref(column)?.as_bytes_or_null()?.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn short(title: &str) -> String {
    crate::text::width::cut(title, 40)
}

fn unknown(wanted: &str) -> String {
    format!("no saved session `{wanted}`\n`tui sessions list` shows them")
}

/// The path as part of a `file:` URI.
fn uri_path(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str()
        .as_bytes()
        .iter()
        .map(|&byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
