//! `tui serve`: the engine for other machines. The same host and the same routes as on the private socket,
//! behind a listener that expects the worst of everybody.
//!
//! Two processes, as for the engine of this machine: [`keeper`] holds the port, starts the worker and starts
//! it again when it dies; [`run`] is the worker. Secrets travel by file and environment only.

mod failures;
mod folder;
mod guard;
mod hosts;
mod identity;
pub mod keeper;
mod listener;
mod outgoing;
pub mod pairing;
mod running;
mod settings;
mod stall;
mod tokens;

pub use folder::Folder;
pub use identity::{Identity, own_files};
pub use running::{Recorded, Running};
pub use settings::Settings;
pub use tokens::{Known, Secret, TOKEN_VARIABLE, Tokens, given};

use super::activity::Activity;
use super::host::{Host, Terms};
use super::{http, residency, worker};
use crate::config::{Config, ServeLimits};
use crate::error::{AppError, Exit};
use crate::paths::{Paths, create_private};
use axum::Router;
use guard::Guard;
use listener::Ending;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokens::Keyring;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// How long the person's terminal has to take that it ends.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// How long cut answers have to send their last words.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The folders of a server: a runtime folder of its own, so that it and the engine of this machine don't
/// mistake each other's records.
#[must_use]
pub fn paths(paths: &Paths) -> Paths {
    Paths { runtime: paths.runtime.join("serve"), ..paths.clone() }
}

/// The worker: serves on the socket that is its stdin until it is told to end.
///
/// # Errors
/// When there is no socket, the files it needs can't be read, or llama.cpp does not start.
pub fn run(
    config: &Config,
    paths: &Paths,
    config_file: Option<&Path>,
    settings: &Settings,
) -> Result<Exit, AppError> {
    worker::end_with_parent();
    let failed =
        |what: &str, error: std::io::Error| AppError::new(Exit::Error, format!("serve: {what}: {error}"));
    create_private(&paths.runtime).map_err(|error| failed("no runtime folder", error))?;
    let socket: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)
        .map_err(|error| failed("no socket", error.into()))?;
    let runtime = worker::runtime()?;
    runtime.block_on(async {
        let listener = std::net::TcpListener::from(socket);
        listener.set_nonblocking(true).map_err(|error| failed("no socket", error))?;
        let listener = TcpListener::from_std(listener).map_err(|error| failed("no socket", error))?;
        serve(config, paths, config_file, settings, listener).await
    })
}

async fn serve(
    config: &Config,
    paths: &Paths,
    config_file: Option<&Path>,
    settings: &Settings,
    listener: TcpListener,
) -> Result<Exit, AppError> {
    let folder = Folder::open(&paths.data)?;
    let variable = std::env::var(TOKEN_VARIABLE).ok();
    let given = given(settings.token_file.as_deref(), variable.as_deref())?;
    let keyring = Keyring::new(Tokens::new(folder.clone()), &given);
    let tls = match &settings.tls {
        None => None,
        Some((cert, key)) => Some(TlsAcceptor::from(Identity::load(cert, key)?.config)),
    };
    let mut engine = config.engine.clone();
    engine.model_dirs.extend(settings.models.iter().cloned());
    let host = Host::new(
        &engine,
        &config.pool,
        paths,
        config_file,
        Activity::open(&paths.runtime),
        paths.cache.join("kv-serve"),
    )
    .map_err(|error| AppError::new(Exit::Error, error))?;
    host.restrict(Terms {
        ids_only: true,
        manages: settings.allow_manage,
        sessions: false,
        grammars: settings.allow_grammar,
        max_tokens: Some(settings.limits.max_tokens),
    });
    let mut keeping = tokio::task::JoinSet::new();
    keeping.spawn(residency::keeper::keep(host.clone()));
    worker::preload(&host, &config.engine.preload);
    restore(&host, &settings.restore).await;
    let (tell, ending) = watch::channel(Ending::No);
    let guard =
        Arc::new(Guard::new(host.clone(), folder, keyring, settings, engine.slots.max(1), ending.clone()));
    // Around the whole router, not inside it: its own answers, as to a wrong method, tell which routes there are.
    let router = Router::new()
        .fallback_service(http::router(host.clone()))
        .layer(axum::middleware::from_fn_with_state(guard, guard::guard));
    tracing::info!(version = crate::VERSION, listen = %settings.listen, tls = tls.is_some(), "serving");
    let serving = listener::run(listener, tls, router, settings.limits, ending);
    tokio::select! {
        () = serving => {}
        () = end(&host, &tell, settings.limits) => {}
    }
    keeping.abort_all();
    worker::unload(&host).await;
    tracing::info!("server ended");
    Ok(Exit::Ok)
}

/// Begins to load what was resident before, but for what ended the engine again and again.
async fn restore(host: &Host, ids: &[String]) {
    for id in ids {
        let (host, id) = (host.clone(), id.clone());
        let begun = tokio::task::spawn_blocking(move || {
            host.refuse_if_quarantined(&id).map_err(|error| error.message)?;
            let (id, path) = host.find(Some(&id))?;
            host.begin_load(&id, &path);
            Ok::<_, String>(())
        });
        if let Ok(Err(error)) = begun.await {
            tracing::warn!(error, "not loaded again");
        }
    }
}

/// A line on stdout, which the keeper has led to the person. A terminal that is held does not hold the end.
async fn say(line: String) {
    use std::io::Write;
    let (done, is_done) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = writeln!(std::io::stdout(), "{line}");
        let _ = done.send(());
    });
    let _ = tokio::time::timeout(FIRST_WORD, is_done).await;
}

/// Waits for a signal, then lets running answers finish for a while. A second signal cuts them.
async fn end(host: &Host, tell: &watch::Sender<Ending>, limits: ServeLimits) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    let mut told = async || tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} };
    told().await;
    let answers = host.answers();
    tracing::info!(answers, "told to end");
    host.close();
    let s = if answers == 1 { "" } else { "s" };
    say(format!("tui: serve: ending, {answers} answer{s} running")).await;
    tell.send_replace(Ending::Soon);
    // The listener returns by itself when the last connection has ended.
    tokio::select! {
        () = told() => tracing::info!("told to end at once"),
        () = tokio::time::sleep(Duration::from_secs(limits.stop.into())) => {}
    }
    tell.send_replace(Ending::Now);
    tokio::time::sleep(LAST_WORDS).await;
}
