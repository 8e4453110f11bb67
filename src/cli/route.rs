//! `tui route`: where a question would go, and why. Nothing is sent to a model.

use super::args::RouteArgs;
use super::target::{self, Before, Scout};
use super::{fence, input, out, report};
use crate::app::facts::decide;
use crate::app::story::Story;
use crate::app::why;
use crate::backend::Backends;
use crate::config::Config;
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use crate::store;
use crate::text::shown_line;
use serde_json::{Value, json};
use std::path::Path;

/// Prints the decision.
///
/// # Errors
/// As the question itself would have, were it sent.
pub(super) fn run(
    args: &RouteArgs,
    config: &Config,
    paths: &Paths,
    config_file: Option<&Path>,
) -> Result<Exit, AppError> {
    let backends = Backends::new(config, paths, config_file).map_err(target::bad_address)?;
    let pin = target::named(args.model.as_deref(), args.backend.as_deref(), &backends)?;
    let fenced = fence::fenced(&config.privacy, &args.files)?;
    let question = input::with_files(&args.words, &args.files)?;
    let database = paths.database();
    let saved = if args.go_on {
        let latest = store::latest(&database).map_err(super::sessions::unreadable)?;
        latest.map(|id| store::load(&database, &id)).transpose().map_err(super::sessions::unreadable)?
    } else {
        None
    };
    let session = saved.as_ref().map_or_else(store::new_id, |saved| saved.record.id.clone());
    let before = Before {
        session: &session,
        system: saved.as_ref().map_or(config.system.as_deref(), |saved| saved.record.system.as_deref()),
        turns: saved.as_ref().map_or(&[][..], |saved| saved.turns.as_slice()),
        question: &question,
        fenced: &fenced,
    };
    let mut scout = Scout::new((pin, args.lift_fence), config, paths, &backends, &before);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| AppError::new(Exit::Error, format!("cannot start: {error}")))?;
    runtime.block_on(scout.look());
    let facts = scout.facts();
    let decision = decide(&facts).map_err(|refusal| target::refused(&facts, refusal))?;
    if args.json {
        let mut object = json!({
            "version": 1,
            "backend": decision.backend,
            "model": decision.model,
            "prompt_tokens": facts.turn.prompt_tokens,
        });
        if let (Value::Object(object), Value::Object(route)) =
            (&mut object, report::route_object(&decision, &Story::default()))
        {
            object.extend(route);
        }
        drop(report::line(&object));
    } else {
        let lines = why::explain(&decision, Some(&facts));
        let text: Vec<String> = lines.iter().map(|(_, line)| shown_line(line, 400).to_string()).collect();
        out::answer(&format!("{}\n", text.join("\n")));
    }
    Ok(Exit::Ok)
}
