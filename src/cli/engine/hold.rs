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
    // Whether it was asked for while its end was not known here yet.
    let mut is_wanted = false;
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
                Some("start") => match engine.status().await {
                    Ok(Some(_)) => if !say(&ready(paths).to_string()) { return Ok(Exit::Ok) },
                    Ok(None) | Err(_) => is_wanted = true,
                },
                Some(line) => if !say(line) { return Ok(Exit::Ok) },
            },
            event = event => {
                let told = match event {
                    Some(EngineEvent::Ready(_)) => Ok(Some(ready(paths))),
                    Some(EngineEvent::Starting | EngineEvent::Models(_)) => Ok(None),
                    Some(EngineEvent::Died { message, .. }) => Err(gone(&message)),
                    Some(EngineEvent::Stopped) => Err(gone("the engine there was told to end")),
                    Some(EngineEvent::Failed(message)) => Err(json!({"event": "failed", "message": message})),
                    None => Err(gone("the engine there is gone")),
                };
                let told = match told {
                    Ok(told) => told,
                    Err(_) if std::mem::take(&mut is_wanted) => {
                        news = Some(engine.watch());
                        None
                    }
                    Err(told) => {
                        news = None;
                        Some(told)
                    }
                };
                if let Some(told) = told && !say(&told.to_string()) {
                    return Ok(Exit::Ok);
                }
            }
        }
    }
}

type News = Pin<Box<dyn Stream<Item = EngineEvent> + Send>>;

fn gone(message: &str) -> Value {
    json!({"event": "gone", "message": message})
}

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
