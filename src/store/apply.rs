//! One job to SQL. Runs inside the writer's transaction; what it remembers survives a rollback unharmed,
//! because applying the same jobs again gives the same state.

use super::hold::{Hold, Holds};
use super::speeds;
use crate::chat::record::{AttemptRecord, Outcome, SessionRecord, StoreJob};
use crate::chat::{Channel, GenKey, Metrics, SessionId, TurnId};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

/// A session whose turns go elsewhere: from, to.
pub(super) type Fork = (SessionId, SessionId);

/// What the writer knows beside the database.
#[derive(Debug)]
pub(super) struct Desk {
    /// Sessions opened by this program; their rows are written with their first turn.
    records: HashMap<SessionId, SessionRecord>,
    /// System prompts set before the session was claimed.
    systems: HashMap<SessionId, Option<String>>,
    forks: HashMap<SessionId, SessionId>,
    holds: Holds,
}

/// Which turns this program has seen of a session it did not write to yet.
#[derive(Clone, Copy)]
enum Seen {
    /// Those before this one.
    Before(TurnId),
    /// Those up to this attempt, itself excluded.
    Up(GenKey),
}

const MAX_INPUTS: i64 = 5000;

impl Desk {
    /// For the database at `path`.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            records: HashMap::new(),
            systems: HashMap::new(),
            forks: HashMap::new(),
            holds: Holds::new(path),
        }
    }

    /// The transaction that made these forks is committed.
    pub(super) fn keep(&mut self, forks: &[Fork]) {
        self.forks.extend(forks.iter().cloned());
    }

    /// Applies one job. Forks it makes are appended.
    pub(super) fn apply(
        &mut self,
        tx: &Connection,
        forks: &mut Vec<Fork>,
        job: &StoreJob,
    ) -> rusqlite::Result<()> {
        match job {
            StoreJob::OpenSession(record) => {
                self.records.insert(record.id.clone(), record.clone());
                Ok(())
            }
            StoreJob::SetSystem { session, system } => self.set_system(tx, forks, session, system),
            StoreJob::OpenTurn { session, turn, user, created_ms } => {
                let seq = self.claim(tx, forks, session, Seen::Before(*turn), (user, *created_ms))?;
                tx.prepare_cached(
                    "INSERT INTO turns (session, turn, user, created_ms) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![seq, turn.0, user, created_ms])?;
                tx.prepare_cached(
                    "UPDATE sessions SET used = (SELECT max(used) + 1 FROM sessions) WHERE seq = ?1",
                )?
                .execute([seq])
                .map(drop)
            }
            StoreJob::DropTurn { session, turn } => {
                let Some(seq) = self.known(tx, forks, session)? else { return Ok(()) };
                tx.execute("DELETE FROM turns WHERE session = ?1 AND turn = ?2", params![seq, turn.0])?;
                tx.execute(
                    "DELETE FROM sessions WHERE seq = ?1
                     AND NOT EXISTS (SELECT 1 FROM turns WHERE session = ?1)",
                    [seq],
                )
                .map(drop)
            }
            StoreJob::OpenAttempt { session, attempt } => {
                let seq = self.claim(tx, forks, session, Seen::Up(attempt.key), ("", 0))?;
                open_attempt(tx, seq, attempt)
            }
            StoreJob::Append { session, key, channel, text } => {
                let Some(seq) = self.known(tx, forks, session)? else { return Ok(()) };
                append(tx, seq, *key, *channel, text)
            }
            StoreJob::CloseAttempt { session, key, outcome, metrics } => {
                let Some(seq) = self.known(tx, forks, session)? else { return Ok(()) };
                close_attempt(tx, seq, *key, outcome, metrics)
            }
            StoreJob::Fence { session, turn, fence } => {
                let Some(seq) = self.known(tx, forks, session)? else { return Ok(()) };
                let json = serde_json::to_string(fence).unwrap_or_default();
                tx.execute(
                    "UPDATE turns SET fence = ?3 WHERE session = ?1 AND turn = ?2",
                    params![seq, turn.0, json],
                )
                .map(drop)
            }
            StoreJob::Decide { session, key, decision } => {
                let Some(seq) = self.known(tx, forks, session)? else { return Ok(()) };
                tx.execute(
                    "UPDATE attempts SET decision = ?5
                     WHERE session = ?1 AND turn = ?2 AND lane = ?3 AND attempt = ?4",
                    params![seq, key.turn.0, key.lane.0, key.attempt, decision],
                )
                .map(drop)
            }
            StoreJob::KeepLane { session, turn, lane } => {
                let Some(seq) = self.known(tx, forks, session)? else { return Ok(()) };
                tx.execute(
                    "UPDATE turns SET kept = ?3 WHERE session = ?1 AND turn = ?2",
                    params![seq, turn.0, lane.0],
                )
                .map(drop)
            }
            StoreJob::KeepSpeed(speed) => speeds::keep(tx, speed),
            StoreJob::LogOutcome(outcome) => speeds::log(tx, outcome),
            StoreJob::RememberInput { text, created_ms } => remember_input(tx, text, *created_ms),
        }
    }

    fn resolve(&self, forks: &[Fork], session: &SessionId) -> SessionId {
        let mut id = session;
        while let Some(next) =
            forks.iter().find(|(from, _)| from == id).map(|(_, to)| to).or_else(|| self.forks.get(id))
        {
            id = next;
        }
        id.clone()
    }

    /// The row of a session, if it has one.
    fn known(&self, tx: &Connection, forks: &[Fork], session: &SessionId) -> rusqlite::Result<Option<i64>> {
        row_of(tx, &self.resolve(forks, session))
    }

    /// The row this program may write to: the session's own, or that of a copy when another program holds
    /// it or went on with it meanwhile.
    fn claim(
        &mut self,
        tx: &Connection,
        forks: &mut Vec<Fork>,
        session: &SessionId,
        seen: Seen,
        (user, created_ms): (&str, i64),
    ) -> rusqlite::Result<i64> {
        let mut id = self.resolve(forks, session);
        let is_held = self.holds.take(&id) == Hold::Ours;
        let row = row_of(tx, &id)?;
        if let Some(row) = row
            && (!is_held || is_taken(tx, row, seen)?)
        {
            let copy = super::new_id();
            copy_session(tx, row, &copy, seen)?;
            self.holds.take(&copy);
            forks.push((id, copy.clone()));
            id = copy;
        } else if row.is_none() {
            let record = self.records.get(session).or_else(|| self.records.get(&id));
            insert_session(tx, &id, record, user, created_ms)?;
        }
        if let Some(system) = self.systems.get(session) {
            tx.execute("UPDATE sessions SET system = ?2 WHERE id = ?1", params![id.as_str(), system])?;
        }
        row_of(tx, &id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
    }

    fn set_system(
        &mut self,
        tx: &Connection,
        forks: &[Fork],
        session: &SessionId,
        system: &Option<String>,
    ) -> rusqlite::Result<()> {
        self.systems.insert(session.clone(), system.clone());
        let id = self.resolve(forks, session);
        // A session not claimed yet may be another window's: the prompt is written with the next turn.
        if self.holds.has(&id) {
            tx.execute("UPDATE sessions SET system = ?2 WHERE id = ?1", params![id.as_str(), system])?;
        }
        Ok(())
    }
}

fn row_of(tx: &Connection, id: &SessionId) -> rusqlite::Result<Option<i64>> {
    tx.prepare_cached("SELECT seq FROM sessions WHERE id = ?1")?
        .query_row([id.as_str()], |row| row.get(0))
        .optional()
}

/// Whether another program has already written what this one is about to.
fn is_taken(tx: &Connection, seq: i64, seen: Seen) -> rusqlite::Result<bool> {
    match seen {
        Seen::Before(turn) => tx
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM turns WHERE session = ?1 AND turn >= ?2)")?
            .query_row(params![seq, turn.0], |row| row.get(0)),
        Seen::Up(key) => tx
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM attempts
                 WHERE session = ?1 AND turn = ?2 AND lane = ?3 AND attempt >= ?4)",
            )?
            .query_row(params![seq, key.turn.0, key.lane.0, key.attempt], |row| row.get(0)),
    }
}

fn insert_session(
    tx: &Connection,
    id: &SessionId,
    record: Option<&SessionRecord>,
    user: &str,
    created_ms: i64,
) -> rusqlite::Result<()> {
    let title = record.map_or_else(|| user.lines().next().unwrap_or_default(), |r| r.title.as_str());
    tx.execute(
        "INSERT INTO sessions (id, created_ms, title, system, used)
         VALUES (?1, ?2, ?3, ?4, (SELECT coalesce(max(used), 0) + 1 FROM sessions))",
        params![
            id.as_str(),
            record.map_or(created_ms, |r| r.created_ms),
            title,
            record.and_then(|r| r.system.as_deref()),
        ],
    )
    .map(drop)
}

fn copy_session(tx: &Connection, from: i64, copy: &SessionId, seen: Seen) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO sessions (id, created_ms, title, system, used)
         SELECT ?2, created_ms, title, system, (SELECT max(used) + 1 FROM sessions) FROM sessions WHERE seq = ?1",
        params![from, copy.as_str()],
    )?;
    let to = tx.last_insert_rowid();
    let last = match seen {
        Seen::Before(turn) => i64::from(turn.0) - 1,
        Seen::Up(key) => i64::from(key.turn.0),
    };
    for (table, columns) in [
        ("turns", "turn, user, created_ms, kept, fence"),
        ("lanes", "turn, lane"),
        (
            "attempts",
            "turn, lane, attempt, backend, model, quantisation, rule, reason, decision, answer, thinking, state, \
             error",
        ),
        ("pieces", "turn, lane, attempt, channel, text"),
        (
            "metrics",
            "turn, lane, attempt, sent_ms, headers_ms, first_token_ms, first_answer_ms, last_token_ms, \
             painted_ms, total_ms, prompt_tokens, cached_tokens, output_tokens, server",
        ),
    ] {
        let order = if table == "pieces" { " ORDER BY piece" } else { "" };
        tx.execute(
            &format!(
                "INSERT INTO {table} (session, {columns})
                 SELECT ?2, {columns} FROM {table} WHERE session = ?1 AND turn <= ?3{order}"
            ),
            params![from, to, last],
        )?;
    }
    if let Seen::Up(key) = seen {
        tx.execute(
            "DELETE FROM attempts WHERE session = ?1 AND turn = ?2 AND lane = ?3 AND attempt >= ?4",
            params![to, key.turn.0, key.lane.0, key.attempt],
        )?;
    }
    Ok(())
}

fn open_attempt(tx: &Connection, seq: i64, attempt: &AttemptRecord) -> rusqlite::Result<()> {
    let key = attempt.key;
    let (state, error) = state_of(&attempt.outcome);
    tx.execute(
        "INSERT OR IGNORE INTO lanes (session, turn, lane) VALUES (?1, ?2, ?3)",
        params![seq, key.turn.0, key.lane.0],
    )?;
    tx.execute(
        "INSERT INTO attempts (session, turn, lane, attempt, backend, model, quantisation, rule, reason,
                               answer, thinking, state, error, decision)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        params![
            seq,
            key.turn.0,
            key.lane.0,
            key.attempt,
            attempt.backend,
            attempt.model,
            attempt.quantisation,
            attempt.rule,
            attempt.reason,
            attempt.answer,
            attempt.thinking,
            state,
            error,
            attempt.decision,
        ],
    )?;
    write_metrics(tx, seq, key, &attempt.metrics)
}

fn append(tx: &Connection, seq: i64, key: GenKey, channel: Channel, text: &str) -> rusqlite::Result<()> {
    // Of an attempt whose turn was taken back there is nothing to append to.
    tx.prepare_cached(
        "INSERT INTO pieces (session, turn, lane, attempt, channel, text)
         SELECT session, turn, lane, attempt, ?5, ?6 FROM attempts
         WHERE session = ?1 AND turn = ?2 AND lane = ?3 AND attempt = ?4",
    )?
    .execute(params![seq, key.turn.0, key.lane.0, key.attempt, channel_name(channel), text])
    .map(drop)
}

fn close_attempt(
    tx: &Connection,
    seq: i64,
    key: GenKey,
    outcome: &Outcome,
    metrics: &Metrics,
) -> rusqlite::Result<()> {
    let name = params![seq, key.turn.0, key.lane.0, key.attempt];
    let (mut answer, mut thinking) = (String::new(), String::new());
    {
        let mut pieces = tx.prepare_cached(
            "SELECT channel, text FROM pieces
             WHERE session = ?1 AND turn = ?2 AND lane = ?3 AND attempt = ?4 ORDER BY piece",
        )?;
        let mut rows = pieces.query(name)?;
        while let Some(row) = rows.next()? {
            let text = row.get_ref(1)?.as_bytes()?;
            let text = String::from_utf8_lossy(text);
            if row.get_ref(0)?.as_bytes()? == channel_name(Channel::Thinking).as_bytes() {
                thinking.push_str(&text);
            } else {
                answer.push_str(&text);
            }
        }
    }
    let (state, error) = state_of(outcome);
    let changed = tx
        .prepare_cached(
            "UPDATE attempts SET answer = answer || ?5, thinking = thinking || ?6, state = ?7, error = ?8
             WHERE session = ?1 AND turn = ?2 AND lane = ?3 AND attempt = ?4",
        )?
        .execute(params![seq, key.turn.0, key.lane.0, key.attempt, answer, thinking, state, error])?;
    if changed == 0 {
        return Ok(());
    }
    tx.prepare_cached("DELETE FROM pieces WHERE session = ?1 AND turn = ?2 AND lane = ?3 AND attempt = ?4")?
        .execute(name)?;
    write_metrics(tx, seq, key, metrics)
}

fn write_metrics(tx: &Connection, seq: i64, key: GenKey, metrics: &Metrics) -> rusqlite::Result<()> {
    if *metrics == Metrics::default() {
        return Ok(());
    }
    let server = metrics.server.as_ref().and_then(|server| serde_json::to_string(server).ok());
    tx.prepare_cached(
        "INSERT OR REPLACE INTO metrics (session, turn, lane, attempt, sent_ms, headers_ms, first_token_ms,
            first_answer_ms, last_token_ms, painted_ms, total_ms, prompt_tokens, cached_tokens, output_tokens,
            server)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?
    .execute(params![
        seq,
        key.turn.0,
        key.lane.0,
        key.attempt,
        metrics.sent_ms,
        metrics.headers_ms,
        metrics.first_token_ms,
        metrics.first_answer_ms,
        metrics.last_token_ms,
        metrics.painted_ms,
        metrics.total_ms,
        metrics.usage.prompt_tokens,
        metrics.usage.cached_tokens,
        metrics.usage.output_tokens,
        server,
    ])
    .map(drop)
}

fn remember_input(tx: &Connection, text: &str, created_ms: i64) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM inputs WHERE text = ?1", [text])?;
    tx.execute("INSERT INTO inputs (text, created_ms) VALUES (?1, ?2)", params![text, created_ms])?;
    tx.execute("DELETE FROM inputs WHERE input <= ?1 - ?2", [tx.last_insert_rowid(), MAX_INPUTS]).map(drop)
}

/// The name of a channel in the database.
pub(super) const fn channel_name(channel: Channel) -> &'static str {
    match channel {
        Channel::Answer => "answer",
        Channel::Thinking => "thinking",
    }
}

fn state_of(outcome: &Outcome) -> (&'static str, Option<&str>) {
    match outcome {
        Outcome::Open => ("open", None),
        Outcome::Stop => ("stop", None),
        Outcome::Length => ("length", None),
        Outcome::Stopped => ("stopped", None),
        Outcome::Interrupted { error } => ("interrupted", Some(error)),
    }
}

/// 32 bits that another program started in the same second won't have.
pub(super) fn random() -> u32 {
    let bits = RandomState::new().hash_one(std::process::id()).to_le_bytes();
    let [a, b, c, d, ..] = bits;
    u32::from_le_bytes([a, b, c, d])
}
