//! The event loop: terminal in, messages to the app, effects out, frames to the writer thread.
//!
//! Start: the terminal is taken and the first frame handed to the writer thread before the store is opened or
//! a backend contacted. End: generations are dropped, the store is flushed, the terminal given back; a process
//! that was told to end by a signal then dies by it.

pub mod around;
mod canvas;
mod clipboard;
mod clock;
mod coalesce;
mod crash;
mod effects;
mod event_loop;
mod frames;
mod input;
pub mod inspect;
mod last_words;
mod mailbox;
mod paint;
mod screen;
mod signals;
mod terminal;
mod writer;

use crate::app::{self, Ctx, Effect, FrameFacts, Model, Msg};
use crate::backend::Backends;
use crate::config::Config;
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use crate::theme::Theme;
use crate::ui::{self, ViewCache};
use clock::Clock;
pub use effects::Colours;
use effects::{Means, Runner, StoreGate};
use event_loop::{End, EventLoop, News, Sources};
use frames::{Link, Pacing};
use last_words::LastWords;
use screen::RealScreen;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use terminal::Terminal;
use tokio::sync::mpsc;
use writer::Writer;

/// Messages on their way to the app; whoever sends more waits.
const NEWS: usize = 1024;
/// The theme that is always there.
const DEFAULT_THEME: &str = "default";
/// How long the way out waits for the store.
const LAST_FLUSH: Duration = Duration::from_secs(5);
/// The same when a signal ended the program.
const LAST_FLUSH_BY_SIGNAL: Duration = Duration::from_millis(1000);

/// Everything the interface starts with. Nothing in it has waited for the engine.
#[derive(Debug)]
pub struct Startup {
    /// The first state.
    pub model: Model,
    /// Effects to run at once.
    pub effects: Vec<Effect>,
    /// The backends.
    pub backends: Backends,
    /// The session database, unless nothing is to be saved; opened by the runtime after the first frame.
    pub database: Option<PathBuf>,
    /// The configuration file in force, passed on to an engine that has to be started.
    pub config_file: Option<PathBuf>,
    /// Whether themes may bring colours.
    pub colours: Colours,
    /// The configuration.
    pub config: Config,
    /// The folders.
    pub paths: Paths,
}

/// Runs the interface until it is left. Returns the exit code and the final model (for the resume line).
/// When a signal ended it, the process dies by that signal and this does not return.
///
/// # Errors
/// When there is no terminal to draw on.
pub fn run(startup: Startup) -> Result<(Exit, Model), AppError> {
    let mut cache = ViewCache::default();
    run_with(startup, app::update, move |model, theme, frame| ui::view(model, theme, &mut cache, frame))
}

/// As [`run`], with the given update and view.
fn run_with<U, V>(startup: Startup, update: U, view: V) -> Result<(Exit, Model), AppError>
where
    U: FnMut(&mut Model, Msg, &Ctx<'_>) -> Vec<Effect>,
    V: FnMut(&Model, &Theme, &mut ratatui::Frame<'_>) -> FrameFacts,
{
    let clock = Clock::start();
    let last_words = Arc::new(LastWords::default());
    let ended = signals::Ended::default();
    crash::install();
    last_words::install_panic_hook(Arc::clone(&last_words));

    let mut terminal = Terminal::open(&startup.paths.logs())?;
    let signals = signals::start(terminal.tty().clone(), ended.clone()).map_err(no_start)?;
    terminal.enter().map_err(no_start)?;
    let tty = terminal.tty().clone();
    let (painted, painted_reports) = mpsc::unbounded_channel();
    let mut writer = Writer::new(tty.clone(), clock, painted);
    writer.start().map_err(no_start)?;

    let colours = startup.colours;
    let themes = startup.paths.config.join("themes");
    let (theme, theme_notices) = first_theme(&startup.model.prefs.theme, &themes)?;
    let (news, news_in) = mpsc::channel(NEWS);
    let repaint = news.clone();
    crate::ui::on_grammars_ready(move || {
        let _ = repaint.try_send(News::Repaint);
    });
    let (store, opener) = match startup.database {
        Some(path) => {
            let (gate, opener) = StoreGate::closed(path);
            (gate, Some(opener))
        }
        None => (StoreGate::off(), None),
    };
    let ways = clipboard::RealWays::new(writer.sequences(), &startup.paths.cache);
    let runner = Runner::new(Means {
        backends: startup.backends,
        news: news.clone(),
        clock,
        store: store.clone(),
        clipboard: (startup.config.clipboard.mode, clipboard::Place::from_env(), ways),
        database: startup.paths.database(),
        themes,
        colours,
        last_words: Arc::clone(&last_words),
    });
    let link = if std::env::var_os("SSH_CONNECTION").is_some_and(|v| !v.is_empty()) {
        Link::Remote
    } else {
        Link::Local
    };
    let mut event_loop = EventLoop::new(
        startup.model,
        colours.apply(theme),
        (update, view),
        (RealScreen::new(terminal, writer), runner),
        (clock, Pacing::new(link)),
    );
    event_loop.draw_first();

    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_start)?;
    let input = input::start(tty).map_err(no_start)?;
    let end = tokio::task::LocalSet::new().block_on(&tokio, async {
        let opening =
            opener.map(|opener| tokio::task::spawn_local(opener.run(news.clone(), Arc::clone(&last_words))));
        for text in theme_notices {
            let _ = news.try_send(News::Msg(Msg::Notice { text, is_error: false }));
        }
        event_loop.run_effects(startup.effects);
        event_loop.runner.watch_backends();
        #[cfg(debug_assertions)]
        crash::on_purpose::by_environment();
        let mut sources = Sources { signals, input, painted: painted_reports, news: news_in };
        let end = event_loop.run(&mut sources).await;
        event_loop.runner.stop();
        // The terminal is given back before the disk is waited for.
        event_loop.screen.close();
        let limit = if matches!(end, End::Signal(_)) { LAST_FLUSH_BY_SIGNAL } else { LAST_FLUSH };
        if !store.finish(limit).await {
            last_words::say_unwritten();
        }
        last_words.keep(None);
        if let Some(opening) = opening {
            opening.abort();
        }
        end
    });
    tokio.shutdown_background();
    last_words.note(&event_loop.model);
    let EventLoop { model, runner, .. } = event_loop;
    drop(runner);
    match end {
        End::Quit(code) => {
            ended.set();
            Ok((exit_of(code), model))
        }
        End::Signal(signal) => {
            last_words.say();
            crash::die_by(signal)
        }
    }
}

/// The theme wished for; where it can't be had, the default one and why.
fn first_theme(wanted: &str, user_dir: &Path) -> Result<(Theme, Vec<String>), AppError> {
    Theme::load(wanted, Some(user_dir)).or_else(|error| {
        let (theme, mut notices) = Theme::load(DEFAULT_THEME, None)
            .map_err(|no_default| AppError::new(Exit::Error, format!("{error}; {no_default}")))?;
        notices.insert(0, error);
        Ok((theme, notices))
    })
}

fn exit_of(code: u8) -> Exit {
    [Exit::Ok, Exit::Usage, Exit::Backend, Exit::Model, Exit::Context, Exit::Timeout, Exit::Interrupted]
        .into_iter()
        .find(|exit| *exit as u8 == code)
        .unwrap_or(Exit::Error)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn no_start(error: std::io::Error) -> AppError {
    AppError::new(Exit::Error, format!("the interface can't start: {error}"))
}
