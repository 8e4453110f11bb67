//! `tui backends test`: one backend, step by step.

use super::list::{State, words};
use super::{Context, named};
use crate::cli::out;
use crate::error::{AppError, Exit};
use crate::text::shown_line;
use serde_json::json;

/// Round trips that are measured.
const ROUND_TRIPS: u32 = 5;
/// Columns of a step's name.
const NAME: usize = 8;

pub(super) async fn run(name: &str, as_json: bool, context: &Context<'_>) -> Result<Exit, AppError> {
    let backends = context.backends()?;
    let backend = named(&backends, name)?;
    let seen = backend.examine(ROUND_TRIPS).await;
    if as_json {
        let steps = seen.steps.iter().map(|step| match &step.outcome {
            Ok(text) => json!({"step": step.name, "ok": true, "text": text}),
            Err(error) => {
                let (cause, next) = words(backend, error);
                json!({"step": step.name, "ok": false, "text": cause, "next": next})
            }
        });
        let object = json!({
            "version": 1,
            "name": name,
            "ok": seen.error().is_none(),
            "state": State::of(&seen, backend).id(),
            "kind": seen.kind,
            "steps": steps.collect::<Vec<_>>(),
            "models": seen.models,
            "rtt_ms": seen.network.map(|net| net.rtt_ms),
            "jitter_ms": seen.network.map(|net| net.jitter_ms),
        });
        out::answer(&object.to_string());
    } else {
        for step in &seen.steps {
            match &step.outcome {
                Ok(text) => out::answer(&format!("{:NAME$} ok   {}", step.name, shown_line(text, 300))),
                Err(error) => {
                    let (cause, next) = words(backend, error);
                    out::answer(&format!("{:NAME$} BAD  {}", step.name, shown_line(&cause, 300)));
                    if !next.is_empty() {
                        out::answer(&format!("{:NAME$}      -> {}", "", shown_line(&next, 300)));
                    }
                }
            }
        }
    }
    Ok(seen.error().map_or(Exit::Ok, |error| error.kind.into()))
}
