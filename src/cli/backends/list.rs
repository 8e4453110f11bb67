//! `tui backends list`: one line for each, with how it is now and what to do about it.

use super::Context;
use crate::backend::{Backend, Examination};
use crate::chat::{GenError, GenErrorKind};
use crate::cli::{out, report};
use crate::config::BackendKind;
use crate::error::{AppError, Exit};
use crate::text::shown_line;
use crate::text::width::width;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;

/// How long one may take to say how it is; a tunnel to it has to be opened first.
const PATIENCE: Duration = Duration::from_secs(15);
/// Columns of a cell.
const CELL: usize = 60;

/// How a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    /// The engine of this machine does not run; nothing is wrong.
    Stopped,
    Asleep,
    Unreachable,
    KeyNeeded,
    Untrusted,
    Failing,
}

impl State {
    pub(super) fn of(seen: &Examination, backend: &Backend) -> Self {
        match seen.error().map(|error| error.kind) {
            None if seen.models.is_none() => Self::Stopped,
            None => Self::Ready,
            Some(GenErrorKind::Unreachable | GenErrorKind::Timeout) if backend.can_wake() => Self::Asleep,
            Some(GenErrorKind::Unreachable | GenErrorKind::Timeout) => Self::Unreachable,
            Some(GenErrorKind::Auth) => Self::KeyNeeded,
            Some(GenErrorKind::Untrusted) => Self::Untrusted,
            Some(_) => Self::Failing,
        }
    }

    const fn mark(self) -> &'static str {
        match self {
            Self::Ready => "●",
            Self::Stopped => "○",
            Self::Asleep | Self::Unreachable | Self::KeyNeeded | Self::Untrusted => "✕",
            Self::Failing => "▲",
        }
    }

    pub(super) const fn id(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Stopped => "stopped",
            Self::Asleep => "asleep",
            Self::Unreachable => "unreachable",
            Self::KeyNeeded => "key_needed",
            Self::Untrusted => "untrusted",
            Self::Failing => "failing",
        }
    }
}

pub(super) async fn run(context: &Context<'_>, as_json: bool) -> Result<Exit, AppError> {
    let backends = context.backends()?;
    let looks = backends.all().iter().map(async |backend| {
        let seen = tokio::time::timeout(PATIENCE, backend.examine(1)).await;
        seen.unwrap_or_else(|_| late(backend))
    });
    let seen = join_all(looks).await;
    let rows = backends.all().iter().zip(&seen);
    if as_json {
        for (backend, seen) in rows {
            let object = object(backend, seen, context);
            if report::line(&object).is_err() {
                // Whoever read the list has enough of it.
                break;
            }
        }
        return Ok(Exit::Ok);
    }
    let rows: Vec<[String; 5]> = rows.map(|(backend, seen)| row(backend, seen, context)).collect();
    out::answer(&table(&rows));
    if context.config.backends.is_empty() {
        out::note("no other server is configured; `tui backends add NAME URL` adds one");
    }
    Ok(Exit::Ok)
}

fn late(backend: &Backend) -> Examination {
    let message = format!(
        "{} did not answer within {} s\nsee whether the machine is awake and the server runs",
        backend.name(),
        PATIENCE.as_secs()
    );
    let step =
        crate::backend::Step { name: "models", outcome: Err(GenError::new(GenErrorKind::Timeout, message)) };
    Examination { steps: vec![step], kind: backend.kind(), ..Examination::default() }
}

fn url(backend: &Backend, context: &Context<'_>) -> String {
    let configured = context.configured(backend.name());
    configured.map_or_else(
        || "this machine".to_owned(),
        |known| match &known.ssh {
            Some(host) => format!("{} via {host}", known.url),
            None => known.url.clone(),
        },
    )
}

/// The cause of an error without what stands in the same line already, and the next step.
pub(super) fn words(backend: &Backend, error: &GenError) -> (String, String) {
    let (cause, next) = error.message.split_once('\n').unwrap_or((&error.message, ""));
    let place = format!("{} can't be reached at {}: ", backend.name(), backend.place());
    let ssh = format!("{} can't be reached over ssh ", backend.name());
    let name = format!("{}: ", backend.name());
    let cause = cause.strip_prefix(&place).or_else(|| cause.strip_prefix(&ssh)).unwrap_or(cause);
    let cause = cause.strip_prefix(&name).unwrap_or(cause);
    (cause.to_owned(), next.to_owned())
}

fn row(backend: &Backend, seen: &Examination, context: &Context<'_>) -> [String; 5] {
    let state = State::of(seen, backend);
    let says = match (seen.error(), &seen.models) {
        (Some(error), _) => {
            let (cause, next) = words(backend, error);
            let next =
                if state == State::Asleep { format!("`tui backends wake {}`", backend.name()) } else { next };
            if next.is_empty() { cause } else { format!("{cause} -> {next}") }
        }
        (None, None) => "does not run; the next question starts it".to_owned(),
        (None, Some(models)) => {
            let s = if models.len() == 1 { "" } else { "s" };
            let rtt = seen.network.map(|net| format!(", {:.0} ms", net.rtt_ms)).unwrap_or_default();
            let plain = if backend.marks().is_plain { ", plain: others can read it on the way" } else { "" };
            format!("ready, {} model{s}{rtt}{plain}", models.len())
        }
    };
    [
        state.mark().to_owned(),
        shown_line(backend.name(), CELL).to_string(),
        seen.kind.map_or("?", BackendKind::words).to_owned(),
        shown_line(&url(backend, context), CELL).to_string(),
        shown_line(&says, 400).to_string(),
    ]
}

fn object(backend: &Backend, seen: &Examination, context: &Context<'_>) -> Value {
    let error = seen.error().map(|error| words(backend, error));
    json!({
        "name": backend.name(),
        "kind": seen.kind,
        "url": context.configured(backend.name()).map(|known| &known.url),
        "state": State::of(seen, backend).id(),
        "models": seen.models,
        "rtt_ms": seen.network.map(|net| net.rtt_ms),
        "jitter_ms": seen.network.map(|net| net.jitter_ms),
        "wake_ms": backend.wake_ms(),
        "key": backend.key_source(),
        "error": error.as_ref().map(|(cause, _)| cause),
        "next": error.as_ref().map(|(_, next)| next),
    })
}

fn table(rows: &[[String; 5]]) -> String {
    let widths: [usize; 5] = std::array::from_fn(|i| {
        rows.iter().filter_map(|row| row.get(i)).map(|cell| width(cell)).max().unwrap_or(0)
    });
    let line = |row: &[String; 5]| {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, wide)| format!("{cell}{}", " ".repeat(wide.saturating_sub(width(cell)))));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
