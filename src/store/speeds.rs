//! Measured speeds, and the log of how attempts went. Both hold numbers and names, no text of a conversation.

use super::read::with;
use super::schema;
use crate::chat::record::{OutcomeRecord, SpeedRecord};
use rusqlite::{Connection, Row, params};
use std::path::Path;

/// Outcomes that are kept; older ones go.
const MAX_OUTCOMES: i64 = 5000;
/// Speeds that are kept: those measured last.
const MAX_SPEEDS: i64 = 2000;

/// Smoothed speeds, as they were last measured.
///
/// # Errors
/// One or two lines: the file, the cause, the next step.
pub fn speeds(path: &Path) -> Result<Vec<SpeedRecord>, String> {
    with(path, Vec::new(), |conn| {
        if schema::version(conn)? < schema::WITH_DECISIONS {
            return Ok(Vec::new());
        }
        conn.prepare(
            "SELECT backend, model, bucket, prefill, prefill_samples, decode, decode_samples, load_ms, updated_ms
             FROM speeds ORDER BY backend, model, bucket",
        )?
        .query_map([], |row| {
            Ok(SpeedRecord {
                backend: row.get(0)?,
                model: row.get(1)?,
                bucket: small(row, 2)?.try_into().unwrap_or(u8::MAX),
                prefill: row.get(3)?,
                prefill_samples: small(row, 4)?,
                decode: row.get(5)?,
                decode_samples: small(row, 6)?,
                load_ms: row.get(7)?,
                updated_ms: row.get(8)?,
            })
        })?
        .collect()
    })
}

/// How attempts went, oldest first: all that are kept.
///
/// # Errors
/// As [`speeds`].
pub fn outcomes(path: &Path) -> Result<Vec<OutcomeRecord>, String> {
    with(path, Vec::new(), |conn| {
        if schema::version(conn)? < schema::WITH_DECISIONS {
            return Ok(Vec::new());
        }
        conn.prepare(
            "SELECT ended_ms, backend, model, quantisation, prompt_tokens, cached_tokens, output_tokens,
                    prefill, decode, first_ms, total_ms, rule, predicted, others
             FROM outcomes ORDER BY outcome",
        )?
        .query_map([], |row| {
            Ok(OutcomeRecord {
                ended_ms: row.get(0)?,
                backend: row.get(1)?,
                model: row.get(2)?,
                quantisation: row.get(3)?,
                prompt_tokens: row.get(4)?,
                cached_tokens: row.get(5)?,
                output_tokens: row.get(6)?,
                prefill: row.get(7)?,
                decode: row.get(8)?,
                first_ms: row.get(9)?,
                total_ms: row.get(10)?,
                rule: row.get(11)?,
                predicted: row.get(12)?,
                others: row.get(13)?,
            })
        })?
        .collect()
    })
}

/// A count, whatever a damaged row says.
fn small(row: &Row<'_>, column: usize) -> rusqlite::Result<u32> {
    Ok(u32::try_from(row.get::<_, i64>(column)?.max(0)).unwrap_or(u32::MAX))
}

/// Writes speeds in place of those before.
pub(super) fn keep(tx: &Connection, speed: &SpeedRecord) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT OR REPLACE INTO speeds (backend, model, bucket, prefill, prefill_samples, decode, decode_samples,
                                        load_ms, updated_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            speed.backend,
            speed.model,
            speed.bucket,
            speed.prefill,
            speed.prefill_samples,
            speed.decode,
            speed.decode_samples,
            speed.load_ms,
            speed.updated_ms,
        ],
    )?;
    tx.execute(
        "DELETE FROM speeds WHERE rowid IN (SELECT rowid FROM speeds ORDER BY updated_ms DESC LIMIT -1 OFFSET ?1)",
        [MAX_SPEEDS],
    )
    .map(drop)
}

/// Adds to the log; what is too old goes.
pub(super) fn log(tx: &Connection, outcome: &OutcomeRecord) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO outcomes (ended_ms, backend, model, quantisation, prompt_tokens, cached_tokens,
            output_tokens, prefill, decode, first_ms, total_ms, rule, predicted, others)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        params![
            outcome.ended_ms,
            outcome.backend,
            outcome.model,
            outcome.quantisation,
            outcome.prompt_tokens,
            outcome.cached_tokens,
            outcome.output_tokens,
            outcome.prefill,
            outcome.decode,
            outcome.first_ms,
            outcome.total_ms,
            outcome.rule,
            outcome.predicted,
            outcome.others,
        ],
    )?;
    tx.execute("DELETE FROM outcomes WHERE outcome <= ?1 - ?2", [tx.last_insert_rowid(), MAX_OUTCOMES])
        .map(drop)
}
