//! `tui engine hold`: the far side of `ssh://`. Starts or finds the engine, tells where it listens, keeps it from
//! leaving, gives back each line it is sent, and ends with its input.
//!
//! What it tells is one JSON object a line: `ready` with the socket, `gone` when the engine ended, `failed` when it
//! can't be started. The line `start` starts an engine that is gone.

use crate::backend::{Backend, EngineEvent};
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::pin::Pin;
use tokio::sync::mpsc;

/// The version of what is said here; the other side refuses another one.
const VERSION: u32 = 1;

/// Holds until its input ends.
///
/// # Errors
/// When the thread that reads can't be started.
pub(super) async fn hold(engine: &Backend, paths: &Paths) -> Result<Exit, AppError> {
    let mut lines = lines()?;
    let mut news: Option<News> = Some(engine.watch());
    loop {
        let event = async {
            match &mut news {
                Some(news) => news.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            line = lines.recv() => match line.as_deref() {
                None => return Ok(Exit::Ok),
                Some("start") if news.is_none() => news = Some(engine.watch()),
                // One that runs is told again.
                Some("start") => {}
                Some(line) => if !say(line) { return Ok(Exit::Ok) },
            },
            event = event => {
                let (told, goes_on) = match event {
                    Some(EngineEvent::Ready(_)) => (Some(ready(paths)), true),
                    Some(EngineEvent::Starting | EngineEvent::Models(_)) => (None, true),
                    Some(EngineEvent::Died { message, .. }) => (Some(json!({"event": "gone", "message": message})), false),
                    Some(EngineEvent::Stopped) => {
                        (Some(json!({"event": "gone", "message": "the engine there was told to end"})), false)
                    }
                    Some(EngineEvent::Failed(message)) => {
                        (Some(json!({"event": "failed", "message": message})), false)
                    }
                    None => (None, false),
                };
                if !goes_on {
                    news = None;
                }
                if let Some(told) = told && !say(&told.to_string()) {
                    return Ok(Exit::Ok);
                }
            }
        }
    }
}

type News = Pin<Box<dyn Stream<Item = EngineEvent> + Send>>;

fn ready(paths: &Paths) -> Value {
    let socket = std::path::absolute(paths.engine_socket()).unwrap_or_else(|_| paths.engine_socket());
    json!({"event": "ready", "hold": VERSION, "version": crate::VERSION, "socket": socket})
}

/// Says a line; `false` when nobody hears it any more.
fn say(line: &str) -> bool {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}

/// The lines of stdin. Its thread ends with the process, if not before.
fn lines() -> Result<mpsc::Receiver<String>, AppError> {
    let (sender, receiver) = mpsc::channel(16);
    let read = move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(read)
        .map_err(|error| AppError::new(Exit::Error, format!("cannot start: {error}")))?;
    Ok(receiver)
}
