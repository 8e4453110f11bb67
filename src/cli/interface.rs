//! Opening the interface: the first state from the configuration, the flags and a saved session.

use super::args::{AskArgs, Color};
use super::{ask, out, sessions, target};
use crate::app::model::{
    BackendView, Composer, EngineView, Fleet, Level, Model, Notice, Overlay, Picker, PickerItem, PickerKind,
    Prefs, PromptView, Saving, Scroll, Session,
};
use crate::app::turn::{Attempt, Lane, Phase, Prose, Turn};
use crate::backend::Backends;
use crate::chat::record::{AttemptRecord, Outcome, TurnRecord};
use crate::chat::{Finish, GenError, GenErrorKind};
use crate::config::Config;
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use crate::router::Decision;
use crate::runtime::{self, Startup};
use crate::store::{self, SavedSession};
use crate::text::{EditBuffer, shown, shown_line};
use crate::theme::Theme;
use std::path::PathBuf;
use std::time::Duration;

/// Inputs remembered from earlier runs.
const HISTORY: usize = 1000;
/// Sessions offered to choose from.
const SESSIONS: usize = 500;

/// Runs the interface until it is left, and says how to come back.
///
/// # Errors
/// When what was asked for isn't there, or there is no terminal.
pub(super) fn run(
    args: &AskArgs,
    config: Config,
    paths: Paths,
    config_file: Option<PathBuf>,
) -> Result<Exit, AppError> {
    match args.color {
        Color::Auto => {}
        Color::Always => crossterm::style::force_color_output(true),
        Color::Never => crossterm::style::force_color_output(false),
    }
    let backends = Backends::new(&config, &paths, config_file.as_deref()).map_err(|why| {
        AppError::new(Exit::Usage, why).hint("an url is http://host:port or http://host:port/v1")
    })?;
    let resumed = sessions::resumed(args, &paths)?;
    let model = first_state(args, &config, &paths, &backends, resumed.as_ref())?;
    let is_saved = !args.no_save && config.save;
    let database = is_saved.then(|| paths.database());
    let startup = Startup { model, effects: Vec::new(), backends, database, config_file, config, paths };
    let (exit, model) = runtime::run(startup)?;
    if model.session.is_opened && model.session.saving != Saving::Off {
        out::plain(&format!("resume with: tui --resume {}", model.session.id));
    }
    Ok(exit)
}

fn first_state(
    args: &AskArgs,
    config: &Config,
    paths: &Paths,
    backends: &Backends,
    resumed: Option<&SavedSession>,
) -> Result<Model, AppError> {
    let themes_dir = paths.config.join("themes");
    let theme = args.theme.clone().unwrap_or_else(|| config.theme.clone());
    Theme::load(&theme, Some(&themes_dir)).map_err(|why| AppError::new(Exit::Usage, why))?;
    let (prompts, mut warnings) = crate::prompts::all(Some(&paths.config.join("prompts")));
    let history = store::inputs(&paths.database(), HISTORY).unwrap_or_else(|why| {
        warnings.push(why);
        Vec::new()
    });
    let overlays = match &args.resume {
        Some(None) => vec![Overlay::Picker(session_picker(paths)?)],
        _ => Vec::new(),
    };
    let is_off = args.no_save || !config.save;
    Ok(Model {
        session: Session {
            id: resumed.map_or_else(store::new_id, |saved| saved.record.id.clone()),
            title: resumed.map(|saved| shown_line(&saved.record.title, 200)).unwrap_or_default(),
            system: ask::system(args, config, paths, resumed)?,
            prompt_name: args.prompt.clone(),
            saving: if is_off { Saving::Off } else { Saving::On },
            is_opened: resumed.is_some(),
        },
        turns: resumed.map(|saved| restore(&saved.turns)).unwrap_or_default(),
        queue: Vec::new(),
        composer: Composer { history, ..Composer::default() },
        overlays,
        scroll: Scroll::Follow,
        fleet: Fleet {
            backends: backends
                .all()
                .iter()
                .map(|backend| BackendView {
                    name: backend.name().to_owned(),
                    is_engine: backend.is_engine(),
                    default_model: backend.default_model().map(str::to_owned),
                    models: Vec::new(),
                    trouble: None,
                })
                .collect(),
            engine: EngineView::Unknown,
        },
        notice: warnings.first().map(|warning| Notice {
            text: shown_line(warning, 400),
            level: Level::Warn,
            until: None,
        }),
        prefs: Prefs {
            pin: target::pinned(args, backends)?,
            configured: target::configured(config, backends),
            sampling: args.sampling.settings().or(config.sampling),
            max_tokens: args.sampling.max_tokens.or(config.max_tokens),
            theme,
            themes: Theme::names(Some(&themes_dir)),
            prompts: prompts
                .into_iter()
                .map(|prompt| PromptView { name: prompt.name, about: prompt.about, text: prompt.text })
                .collect(),
        },
        quit_armed: None,
        size: (80, 24),
        now: Duration::ZERO,
    })
}

fn session_picker(paths: &Paths) -> Result<Picker, AppError> {
    let sessions = store::list(&paths.database(), SESSIONS).map_err(sessions::unreadable)?;
    if sessions.is_empty() {
        return Err(AppError::new(Exit::Usage, "there is no saved conversation to choose from")
            .hint("`tui` begins one"));
    }
    let items: Vec<PickerItem> = sessions
        .iter()
        .map(|session| PickerItem {
            value: session.id.to_string(),
            mark: "",
            label: shown_line(&session.title, 200),
            columns: vec![shown(&sessions::when(session.created_ms))],
        })
        .collect();
    Ok(Picker {
        kind: PickerKind::Session,
        filter: EditBuffer::default(),
        matches: (0..items.len()).collect(),
        items,
        selected: 0,
    })
}

/// Saved turns as the app holds them. An attempt found open ended with the program that wrote it.
fn restore(turns: &[TurnRecord]) -> Vec<Turn> {
    let mut first_code = 1;
    let mut restored = Vec::new();
    for turn in turns {
        let mut lanes: Vec<Lane> = Vec::new();
        for record in &turn.attempts {
            let attempt = restore_attempt(record, first_code);
            match lanes.iter_mut().find(|lane| lane.id == record.key.lane) {
                Some(lane) => lane.attempts.push(attempt),
                None => lanes.push(Lane { id: record.key.lane, attempts: vec![attempt] }),
            }
        }
        first_code += lanes
            .iter()
            .filter_map(Lane::current)
            .map(|attempt| attempt.answer.blocks().code_count())
            .sum::<usize>();
        restored.push(Turn {
            id: turn.id,
            user: turn.user.clone(),
            user_shown: shown(&turn.user),
            created_ms: turn.created_ms,
            lanes,
        });
    }
    restored
}

fn restore_attempt(record: &AttemptRecord, first_code: usize) -> Attempt {
    let interrupted = |why: &str| Phase::Interrupted(GenError::new(GenErrorKind::EngineDied, why));
    Attempt {
        key: record.key,
        decision: Decision {
            backend: record.backend.clone(),
            model: record.model.clone(),
            rule: record.rule.clone(),
            reason: record.reason.clone(),
            rejected: Vec::new(),
        },
        quantisation: record.quantisation.clone(),
        phase: match &record.outcome {
            Outcome::Stop => Phase::Done(Finish::Stop),
            Outcome::Length => Phase::Done(Finish::Length),
            Outcome::Stopped => Phase::Stopped,
            Outcome::Open => interrupted("the program ended while this was being answered"),
            Outcome::Interrupted { error } => interrupted(error),
        },
        answer: Prose::finished(&record.answer),
        thinking: Prose::finished(&record.thinking),
        thinking_open: false,
        first_code,
        entered_at: Duration::ZERO,
        metrics: record.metrics,
    }
}
