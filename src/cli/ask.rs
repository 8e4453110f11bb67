//! One question, one answer: the answer on stdout, everything else on stderr, saved as it comes.

mod printer;
mod saving;

use super::args::AskArgs;
use super::out::note;
use super::report::{self, Ending, Format, Place};
use super::{input, sessions, target};
use crate::app;
use crate::backend::{Backends, GenStream};
use crate::chat::record::{Outcome, TurnRecord};
use crate::chat::{GenError, GenErrorKind, GenEvent, GenRequest, Message, Role, Sampling, SessionId, TurnId};
use crate::config::Config;
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use crate::router::Target;
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
    target::pinned(args, &backends)?;
    let resumed = sessions::resumed(args, paths)?;
    let system = system(args, config, paths, resumed.as_ref())?;
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
        messages: messages(system.as_deref(), turns, &user),
        system,
        user,
        schema,
        before: app::last_target(turns),
    };
    let database = (config.save && !args.no_save).then(|| paths.database());
    let exit = runtime.block_on(ask(args, config, &backends, question, database, format, entered));
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
    /// Where the conversation went so far.
    before: Target,
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

/// The conversation as a backend gets it: turns whose answer is complete or was stopped by the person.
fn messages(system: Option<&str>, turns: &[TurnRecord], user: &str) -> Vec<Message> {
    let mut messages: Vec<Message> =
        system.map(|text| Message::new(Role::System, text)).into_iter().collect();
    for turn in turns {
        let first_lane = turn.attempts.first().map(|attempt| attempt.key.lane);
        let current = turn.attempts.iter().rev().find(|attempt| Some(attempt.key.lane) == first_lane);
        if let Some(attempt) = current
            && matches!(attempt.outcome, Outcome::Stop | Outcome::Length | Outcome::Stopped)
            && !attempt.answer.is_empty()
        {
            messages.push(Message::new(Role::User, turn.user.as_str()));
            messages.push(Message::new(Role::Assistant, attempt.answer.as_str()));
        }
    }
    messages.push(Message::new(Role::User, user));
    messages
}

async fn ask(
    args: &AskArgs,
    config: &Config,
    backends: &Backends,
    question: Question,
    database: Option<PathBuf>,
    format: Format,
    entered: Instant,
) -> Result<Exit, AppError> {
    let mut cut_short = Box::pin(cut_short(entered, args.timeout));
    let decision = tokio::select! {
        biased;
        ending = &mut cut_short => return match ending {
            Ending::Failed(error) => Err(error.into()),
            Ending::Stopped | Ending::Complete(_) => Ok(Exit::Interrupted),
        },
        decision = target::decide(args, config, backends, question.before.clone()) => decision?,
    };
    let backend = backends
        .get(&decision.backend)
        .ok_or_else(|| AppError::new(Exit::Usage, format!("no backend `{}`", decision.backend)))?;
    let is_builtin = backend.is_engine() && decision.model == "builtin";
    let flags = args.sampling.settings();
    let mut request = GenRequest {
        model: decision.model.clone(),
        messages: question.messages.clone(),
        sampling: flags.or(config.sampling).or(Sampling::default_for(is_builtin)),
        max_tokens: args.sampling.max_tokens.or(config.max_tokens),
        stop: Vec::new(),
        schema: question.schema.clone(),
        session: None,
    };
    // Nothing is written before it is known where the question goes.
    let mut saving = Saving::open(database.as_deref());
    saving.begin(&question, &decision).await;
    request.session = saving.session().map(|session| session.to_string());

    let mut printer = Printer::new(args, format, entered);
    printer.answer.decision = Some(decision.clone());
    let (session, turn) = (saving.session(), question.turn);
    let place = Place { session: session.as_ref(), turn };
    let start = [report::start_event(&place), report::route_event(&decision)];
    printer.answer.metrics.sent_ms = Some(ms(entered));
    let mut end = match start.iter().try_for_each(|event| printer.event(event)) {
        Ok(()) => {
            let stream = backend.generate(request);
            listen(stream, &mut printer, &saving, cut_short.as_mut()).await
        }
        Err(error) => End::Unprinted(error),
    };
    printer.answer.metrics.total_ms = Some(ms(entered));
    printer.progress.clear();

    if let End::Finished(ending) = end {
        printer.answer.finish = Some(ending);
        end = match printer.finish(&place) {
            Ok(()) => End::Printed,
            Err(error) => End::Unprinted(error),
        };
    }
    saving.end(&printer.answer).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::record::AttemptRecord;
    use crate::chat::{GenKey, LaneId, Metrics};

    #[test]
    fn history_holds_what_was_answered() {
        let attempt = |number, answer: &str, outcome| AttemptRecord {
            key: GenKey { turn: TurnId(1), lane: LaneId(0), attempt: number },
            backend: String::new(),
            model: String::new(),
            quantisation: None,
            rule: String::new(),
            reason: String::new(),
            answer: answer.to_owned(),
            thinking: "never sent".to_owned(),
            outcome,
            metrics: Metrics::default(),
        };
        let turn = |user: &str, attempts| TurnRecord {
            id: TurnId(1),
            user: user.to_owned(),
            created_ms: 0,
            attempts,
        };
        let failed = Outcome::Interrupted { error: "x".to_owned() };
        let turns = [
            turn("a", vec![attempt(1, "half", failed.clone()), attempt(2, "A", Outcome::Stop)]),
            turn("b", vec![attempt(1, "B", Outcome::Stopped)]),
            turn("c", vec![attempt(1, "C", failed)]),
            turn("d", vec![attempt(1, "D", Outcome::Open)]),
            turn("e", vec![attempt(1, "", Outcome::Stop)]),
            turn("f", vec![]),
            turn("g", vec![attempt(1, "G", Outcome::Length)]),
        ];
        let sent: Vec<String> = messages(Some("S"), &turns, "now").into_iter().map(|m| m.content).collect();
        assert_eq!(sent, ["S", "a", "A", "b", "B", "g", "G", "now"]);
        assert_eq!(messages(None, &[], "now").len(), 1);
    }
}
