//! One question, one answer: the answer on stdout, everything else on stderr, saved as it comes.

mod printer;
mod saving;

use super::args::AskArgs;
use super::out::note;
use super::report::{self, Ending, Format, Place};
use super::target::{self, Before, Scout};
use super::{fence, input, sessions};
use crate::app::story::Story;
use crate::app::{self, facts};
use crate::backend::{Backend, Backends, GenStream};
use crate::chat::record::FenceRecord;
use crate::chat::{GenError, GenErrorKind, GenEvent, GenRequest, Message, Sampling, SessionId, TurnId};
use crate::config::Config;
use crate::config::Fallback;
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use crate::router::Decision;
use crate::store::{self, SavedSession};
use futures_util::StreamExt;
use futures_util::future::select_all;
use printer::{Printer, ms};
use saving::Saving;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Asks the question and prints the answer.
///
/// # Errors
/// What kept the question from being sent. What happens later is printed and becomes the exit code.
pub(super) fn run(
    args: &AskArgs,
    config: &Config,
    paths: &Paths,
    config_file: Option<&Path>,
) -> Result<Exit, AppError> {
    let entered = Instant::now();
    let format = match (args.json, args.jsonl) {
        (true, _) => Format::Json,
        (_, true) => Format::Jsonl,
        _ => Format::Text,
    };
    let schema = args.schema.as_deref().map(input::schema).transpose()?;
    if args.resume == Some(None) {
        return Err(AppError::new(Exit::Usage, "--resume needs the id of a session here")
            .hint("`tui sessions list` shows them"));
    }
    let backends = Backends::new(config, paths, config_file).map_err(target::bad_address)?;
    let pin = target::pinned(args, &backends)?;
    let resumed = sessions::resumed(args, paths)?;
    let system = system(args, config, paths, resumed.as_ref())?;
    let fenced = fence::fenced(&config.privacy, &args.files)?;
    let user = input::question(args)?;

    // The first Ctrl+C stops the turn; the second one ends the program whatever it is doing.
    let is_interrupted = Arc::new(AtomicBool::new(false));
    for action in [
        signal_hook::flag::register_conditional_shutdown(libc::SIGINT, 130, Arc::clone(&is_interrupted)),
        signal_hook::flag::register(libc::SIGINT, is_interrupted),
    ] {
        action.map_err(|error| AppError::new(Exit::Error, format!("Ctrl+C can't be watched: {error}")))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| AppError::new(Exit::Error, format!("no event loop: {error}")))?;

    let session = resumed.as_ref().map_or_else(store::new_id, |saved| saved.record.id.clone());
    let turns = resumed.as_ref().map_or(&[][..], |saved| saved.turns.as_slice());
    let question = Question {
        is_new: resumed.is_none(),
        has_new_system: resumed.as_ref().is_some_and(|saved| saved.record.system != system),
        session,
        turn: TurnId(turns.last().map_or(0, |turn| turn.id.0) + 1),
        messages: app::asked_after(system.as_deref(), turns, &user),
        system,
        user,
        schema,
        fence: (!fenced.is_empty() || args.lift_fence)
            .then(|| FenceRecord { files: fenced.clone(), is_lifted: args.lift_fence }),
    };
    let before = Before {
        session: &question.session,
        system: question.system.as_deref(),
        turns,
        question: &question.user,
        fenced: &fenced,
    };
    let scout = Scout::new((pin, args.lift_fence), config, paths, &backends, &before);
    let database = (config.save && !args.no_save).then(|| paths.database());
    let exit = runtime.block_on(ask(args, config, scout, &question, database, (format, entered)));
    // A connection that can't be closed must not keep the program.
    runtime.shutdown_timeout(Duration::from_millis(200));
    exit
}

/// What is asked, complete.
struct Question {
    session: SessionId,
    is_new: bool,
    has_new_system: bool,
    turn: TurnId,
    system: Option<String>,
    user: String,
    messages: Vec<Message>,
    schema: Option<serde_json::Value>,
    /// What the privacy fence has to say about it.
    fence: Option<FenceRecord>,
}

/// The system prompt in force: the flag's, the session's, the configured one.
///
/// # Errors
/// Exit code 2: there is no prompt of that name.
pub(super) fn system(
    args: &AskArgs,
    config: &Config,
    paths: &Paths,
    resumed: Option<&SavedSession>,
) -> Result<Option<String>, AppError> {
    let text = match (&args.system, &args.prompt, resumed) {
        (Some(text), _, _) => Some(text.clone()),
        (None, Some(name), _) => {
            let (prompts, _) = crate::prompts::all(Some(&paths.config.join("prompts")));
            let found = prompts.iter().find(|prompt| &prompt.name == name);
            let names: Vec<&str> = prompts.iter().map(|prompt| prompt.name.as_str()).collect();
            let found = found.ok_or_else(|| {
                AppError::new(Exit::Usage, format!("no prompt `{name}`"))
                    .hint(format!("there is {}", names.join(", ")))
            })?;
            Some(found.text.clone())
        }
        (None, None, Some(saved)) => saved.record.system.clone(),
        (None, None, None) => config.system.clone(),
    };
    Ok(text.filter(|text| !text.trim().is_empty()))
}

async fn ask(
    args: &AskArgs,
    config: &Config,
    mut scout: Scout<'_>,
    question: &Question,
    database: Option<PathBuf>,
    (format, entered): (Format, Instant),
) -> Result<Exit, AppError> {
    let mut cut_short = Box::pin(cut_short(entered, args.timeout));
    let mut decision = tokio::select! {
        biased;
        ending = &mut cut_short => return match ending {
            Ending::Failed(error) => Err(error.into()),
            Ending::Stopped | Ending::Complete(_) => Ok(Exit::Interrupted),
        },
        decision = scout.decide() => decision?,
    };
    // Nothing is written before it is known where the question goes.
    let mut saving = Saving::open(database.as_deref());
    let mut printer = Printer::new(args, format, entered);
    let mut story = Story::default();
    let mut tried: Vec<String> = Vec::new();
    let end = loop {
        let backend = scout.backend(&decision)?;
        saving.begin(question, &decision, &story, scout.quantisation(&decision)).await;
        let (session, turn) = (saving.session(), question.turn);
        let place = Place { session: session.as_ref(), turn };
        printer.answer.decision = Some(decision.clone());
        printer.answer.story = story.clone();
        let route = report::route_event(&decision, &story);
        let is_first = tried.is_empty();
        let start = is_first.then(|| report::start_event(&place));
        if is_first {
            printer.answer.metrics.sent_ms = Some(ms(entered));
        }
        let request = request(args, config, question, backend, &decision, session.as_ref());
        let mut end = match start.iter().chain([&route]).try_for_each(|event| printer.event(event)) {
            Ok(()) => listen(backend.generate(request), &mut printer, &saving, cut_short.as_mut()).await,
            Err(error) => End::Unprinted(error),
        };
        printer.answer.metrics.total_ms = Some(ms(entered));
        printer.progress.clear();
        if let End::Finished(Ending::Failed(error)) = &end
            && printer.answer.is_empty()
            && config.route.fallback != Fallback::Never
            && facts::may_move(error.kind)
        {
            scout.failed(&decision.backend, error.kind);
            tried.push(decision.backend.clone());
            let may_move = config.route.fallback == Fallback::Auto && !scout.is_pinned();
            let other = tokio::select! {
                biased;
                ending = &mut cut_short => {
                    end = End::Finished(ending);
                    None
                }
                other = scout.elsewhere(&tried) => other,
            };
            match (other, &end) {
                (Some(other), End::Finished(Ending::Failed(error))) if may_move => {
                    note(&format!("{}; it is asked of {} now", first_line(error), other.backend));
                    saving.fail(error, &printer.answer).await;
                    story = Story { fallback_from: Some(decision.backend.clone()), ..Story::default() };
                    decision = other;
                    continue;
                }
                (Some(other), _) => end = or_there(end, &other.backend),
                (None, _) => {}
            }
        }
        if let End::Finished(ending) = end {
            printer.answer.finish = Some(ending);
            let hope = scout.hope(&decision);
            printer.answer.before = app::learn::before(&hope);
            let lost = app::learn::lost(hope, &printer.answer.metrics, &decision.backend);
            printer.answer.story.cache_lost = lost;
            printer.answer.device = device(format, backend, &decision).await;
            end = match printer.finish(&place) {
                Ok(()) => End::Printed,
                Err(error) => End::Unprinted(error),
            };
        }
        break end;
    };
    saving.end(&printer.answer, &mut scout.routing.speeds).await;
    if let End::Unprinted(error) = end {
        // Whoever read the answer has enough of it.
        return match error.kind() {
            io::ErrorKind::BrokenPipe => Ok(Exit::Ok),
            _ => Err(AppError::new(Exit::Error, format!("the answer can't be written to stdout: {error}"))),
        };
    }
    Ok(match &printer.answer.finish {
        Some(Ending::Complete(_)) if args.code && !printer.has_code() => {
            note("there is no code block in the answer");
            Exit::Error
        }
        Some(Ending::Complete(_)) => Exit::Ok,
        Some(Ending::Stopped) | None => Exit::Interrupted,
        Some(Ending::Failed(error)) => report::tell(error),
    })
}

/// The next step of a failure, and that another machine could be asked.
fn or_there(end: End, other: &str) -> End {
    let End::Finished(Ending::Failed(error)) = end else { return end };
    let step = format!("ask another machine: --on {other}");
    let message = match error.message.split_once('\n') {
        Some((what, next)) => format!("{what}\n{next}; or {step}"),
        None => format!("{}\n{step}", error.message),
    };
    End::Finished(Ending::Failed(GenError::new(error.kind, message)))
}

fn first_line(error: &GenError) -> &str {
    error.message.lines().next().unwrap_or_default()
}

fn request(
    args: &AskArgs,
    config: &Config,
    question: &Question,
    backend: &Backend,
    decision: &Decision,
    session: Option<&SessionId>,
) -> GenRequest {
    let is_builtin = backend.is_engine() && decision.model == crate::backend::BUILTIN;
    let flags = args.sampling.settings();
    GenRequest {
        model: decision.model.clone(),
        messages: question.messages.clone(),
        sampling: flags.or(config.sampling).or(Sampling::default_for(is_builtin)),
        max_tokens: args.sampling.max_tokens.or(config.max_tokens),
        stop: Vec::new(),
        schema: question.schema.clone(),
        session: session.map(ToString::to_string),
        is_ahead: false,
    }
}

/// How long a server may take to say on which devices a model lies.
const DEVICE_LIMIT: Duration = Duration::from_millis(500);

/// The devices the model lies on, as its engine tells; asked for only where it is printed.
async fn device(format: Format, backend: &Backend, decision: &Decision) -> Option<String> {
    if format == Format::Text {
        return None;
    }
    let machine = tokio::time::timeout(DEVICE_LIMIT, backend.machine()).await.ok()?.ok()??;
    let placement = machine.placements.iter().find(|placement| placement.id == decision.model)?;
    let names: Vec<&str> = placement.devices.iter().map(|part| part.device.as_str()).collect();
    (!names.is_empty()).then(|| names.join("+"))
}

/// How listening ended.
enum End {
    Finished(Ending),
    Printed,
    /// Stdout refused.
    Unprinted(io::Error),
}

async fn listen(
    mut stream: GenStream,
    printer: &mut Printer,
    saving: &Saving,
    mut cut_short: Pin<&mut impl Future<Output = Ending>>,
) -> End {
    loop {
        let event = tokio::select! {
            biased;
            ending = &mut cut_short => return End::Finished(ending),
            event = stream.next() => event,
        };
        let Some(event) = event else {
            let error = GenError::new(GenErrorKind::Protocol, "the answer broke off without a reason");
            return End::Finished(Ending::Failed(error));
        };
        match event {
            GenEvent::Done { finish, timings } => {
                printer.answer.metrics.server = timings.or(printer.answer.metrics.server);
                return End::Finished(Ending::Complete(finish));
            }
            GenEvent::Failed(error) => return End::Finished(Ending::Failed(error)),
            GenEvent::Delta { channel, text } => {
                saving.append(channel, &text);
                if let Err(error) = printer.delta(channel, &text) {
                    return End::Unprinted(error);
                }
            }
            other => {
                if let Err(error) = printer.state(&other) {
                    return End::Unprinted(error);
                }
            }
        }
    }
}

/// Returns when the turn has to end before its time: by a signal, or by `--timeout`.
async fn cut_short(entered: Instant, timeout: Option<f64>) -> Ending {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut signals: Vec<_> = kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect();
    let any_signal = async {
        match signals.as_mut_slice() {
            [] => std::future::pending().await,
            signals => {
                select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
            }
        }
    };
    let out_of_time = async {
        match timeout {
            Some(seconds) => {
                tokio::time::sleep_until((entered + Duration::from_secs_f64(seconds)).into()).await;
                seconds
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = any_signal => Ending::Stopped,
        seconds = out_of_time => Ending::Failed(report::timed_out(seconds)),
    }
}
