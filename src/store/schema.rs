//! The tables, and the way from an older version of them to this one.

use rusqlite::{Connection, TransactionBehavior};

/// The version this program writes.
pub(super) const CURRENT: i64 = STEPS.len() as i64;

/// What leads from version n to n + 1, for n from 0. Released steps never change.
pub(super) const STEPS: &[&str] = &[
    // 1: sessions hold turns, turns lanes, lanes attempts. Text of a running attempt is appended as pieces
    // and folded into the attempt when it ends. `used` orders by last use without trusting the clock.
    "CREATE TABLE sessions (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        created_ms INTEGER NOT NULL,
        title TEXT NOT NULL,
        system TEXT,
        used INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX sessions_used ON sessions (used);
    CREATE TABLE turns (
        session INTEGER NOT NULL REFERENCES sessions (seq) ON DELETE CASCADE,
        turn INTEGER NOT NULL,
        user TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        PRIMARY KEY (session, turn)
    ) STRICT;
    CREATE TABLE lanes (
        session INTEGER NOT NULL,
        turn INTEGER NOT NULL,
        lane INTEGER NOT NULL,
        PRIMARY KEY (session, turn, lane),
        FOREIGN KEY (session, turn) REFERENCES turns (session, turn) ON DELETE CASCADE
    ) STRICT;
    CREATE TABLE attempts (
        session INTEGER NOT NULL,
        turn INTEGER NOT NULL,
        lane INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        backend TEXT NOT NULL,
        model TEXT NOT NULL,
        quantisation TEXT,
        rule TEXT NOT NULL,
        reason TEXT NOT NULL,
        answer TEXT NOT NULL,
        thinking TEXT NOT NULL,
        state TEXT NOT NULL,
        error TEXT,
        PRIMARY KEY (session, turn, lane, attempt),
        FOREIGN KEY (session, turn, lane) REFERENCES lanes (session, turn, lane) ON DELETE CASCADE
    ) STRICT;
    CREATE TABLE pieces (
        piece INTEGER PRIMARY KEY,
        session INTEGER NOT NULL,
        turn INTEGER NOT NULL,
        lane INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        channel TEXT NOT NULL,
        text TEXT NOT NULL,
        FOREIGN KEY (session, turn, lane, attempt)
            REFERENCES attempts (session, turn, lane, attempt) ON DELETE CASCADE
    ) STRICT;
    CREATE INDEX pieces_attempt ON pieces (session, turn, lane, attempt);
    CREATE TABLE metrics (
        session INTEGER NOT NULL,
        turn INTEGER NOT NULL,
        lane INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        sent_ms REAL,
        headers_ms REAL,
        first_token_ms REAL,
        first_answer_ms REAL,
        last_token_ms REAL,
        painted_ms REAL,
        total_ms REAL,
        prompt_tokens INTEGER,
        cached_tokens INTEGER,
        output_tokens INTEGER,
        server TEXT,
        PRIMARY KEY (session, turn, lane, attempt),
        FOREIGN KEY (session, turn, lane, attempt)
            REFERENCES attempts (session, turn, lane, attempt) ON DELETE CASCADE
    ) STRICT;
    CREATE TABLE inputs (
        input INTEGER PRIMARY KEY,
        text TEXT NOT NULL,
        created_ms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX inputs_text ON inputs (text);",
    // 2: the whole decision with each attempt, what the privacy fence said, which answer counts; measured speeds,
    // and a log of predictions and outcomes.
    "ALTER TABLE attempts ADD COLUMN decision TEXT NOT NULL DEFAULT '';
    ALTER TABLE turns ADD COLUMN kept INTEGER;
    ALTER TABLE turns ADD COLUMN fence TEXT;
    CREATE TABLE speeds (
        backend TEXT NOT NULL,
        model TEXT NOT NULL,
        bucket INTEGER NOT NULL,
        prefill REAL,
        prefill_samples INTEGER NOT NULL,
        decode REAL,
        decode_samples INTEGER NOT NULL,
        load_ms REAL,
        updated_ms INTEGER NOT NULL,
        PRIMARY KEY (backend, model, bucket)
    ) STRICT;
    CREATE TABLE outcomes (
        outcome INTEGER PRIMARY KEY,
        ended_ms INTEGER NOT NULL,
        backend TEXT NOT NULL,
        model TEXT NOT NULL,
        quantisation TEXT,
        prompt_tokens INTEGER,
        cached_tokens INTEGER,
        output_tokens INTEGER,
        prefill REAL,
        decode REAL,
        first_ms REAL,
        total_ms REAL,
        rule TEXT NOT NULL,
        predicted TEXT,
        others TEXT NOT NULL
    ) STRICT;",
];

/// The version that has what step 2 brought.
pub(super) const WITH_DECISIONS: i64 = 2;

/// The version of an open database; 0 is an empty one.
pub(super) fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings the database to the version after the last of `steps`, all or nothing. Another program may have
/// done it meanwhile: the version is read again under the write lock.
pub(super) fn migrate(conn: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let from = usize::try_from(version(&tx)?).unwrap_or(0);
    for step in steps.iter().skip(from) {
        tx.execute_batch(step)?;
    }
    if from < steps.len() {
        tx.pragma_update(None, "user_version", i64::try_from(steps.len()).unwrap_or(i64::MAX))?;
    }
    tx.commit()
}
