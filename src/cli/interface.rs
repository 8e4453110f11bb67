//! Opening the interface: the first state from the configuration, the flags and a saved session.

use super::args::{AskArgs, Color};
use super::{ask, out, sessions, target};
use crate::app::Effect;
use crate::app::NewModel;
use crate::app::model::{Level, Model, Notice, Overlay, Picker, PickerKind, Prefs, PromptView, Saving};
use crate::backend::Backends;
use crate::chat::record::StoreJob;
use crate::config::Config;
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use crate::runtime::{self, Colours, Startup};
use crate::store::{self, SavedSession};
use crate::text::{EditBuffer, shown_line};
use crate::theme::Theme;
use std::path::PathBuf;

/// Inputs remembered from earlier runs.
const HISTORY: usize = 1000;

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
    let colours = match args.color {
        Color::Auto => Colours::from_env(),
        Color::Always => {
            crossterm::style::force_color_output(true);
            Colours::Allowed
        }
        Color::Never => Colours::Unwanted,
    };
    let backends = Backends::new(&config, &paths, config_file.as_deref()).map_err(target::bad_address)?;
    let resumed = sessions::resumed(args, &paths)?;
    let (model, effects) = first_state(args, &config, &paths, &backends, resumed)?;
    let database = (!model.session.saving.is_off()).then(|| paths.database());
    let startup = Startup { model, effects, backends, database, config_file, colours, config, paths };
    let (exit, model) = runtime::run(startup)?;
    if model.session.is_opened && !model.session.saving.is_off() {
        out::plain(&format!("resume with: tui --resume {}", model.session.id));
    }
    Ok(exit)
}

fn first_state(
    args: &AskArgs,
    config: &Config,
    paths: &Paths,
    backends: &Backends,
    resumed: Option<SavedSession>,
) -> Result<(Model, Vec<Effect>), AppError> {
    let themes_dir = paths.config.join("themes");
    let theme = args.theme.clone().unwrap_or_else(|| config.theme.clone());
    Theme::load(&theme, Some(&themes_dir)).map_err(|why| AppError::new(Exit::Usage, why))?;
    let (prompts, mut warnings) = crate::prompts::all(Some(&paths.config.join("prompts")));
    let history = store::inputs(&paths.database(), HISTORY).unwrap_or_else(|why| {
        warnings.push(why);
        Vec::new()
    });
    let system = ask::system(args, config, paths, resumed.as_ref())?;
    let is_saved = !args.no_save && config.save;
    let mut model = Model::new(NewModel {
        session: store::new_id(),
        system: system.clone(),
        prompt_name: args.prompt.clone(),
        saving: if is_saved { Saving::On } else { Saving::Off },
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
        backends: backends.all().iter().map(|backend| target::view_of(backend, config)).collect(),
        routing: target::routing(config, paths),
        history,
        restored: resumed.map(|saved| (saved.record, saved.turns)),
        size: (80, 24),
    });
    let mut effects = Vec::new();
    if model.session.system != system {
        // A session that is gone on with under another system prompt.
        model.session.system.clone_from(&system);
        model.session.prompt_name.clone_from(&args.prompt);
        if is_saved {
            effects.push(Effect::Store(StoreJob::SetSystem { session: model.session.id.clone(), system }));
        }
    }
    if args.resume == Some(None) {
        model.overlays.push(Overlay::Picker(Picker {
            kind: PickerKind::Session,
            filter: EditBuffer::default(),
            items: Vec::new(),
            matches: Vec::new(),
            selected: 0,
        }));
        effects.push(Effect::ListSessions);
    }
    model.notice = warnings.first().map(|warning| Notice {
        text: shown_line(warning, 400),
        level: Level::Warn,
        until: None,
    });
    Ok((model, effects))
}
