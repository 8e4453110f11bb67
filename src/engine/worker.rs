//! `tui engine worker`: the process that does the work. Serves HTTP on the private socket until it is told
//! to end, or until nobody has been connected for the configured time.

use super::activity::Activity;
use super::host::Host;
use super::http;
use super::residency::keeper;
use super::socket::{Place, Socket};
use crate::config::Config;
use crate::error::{AppError, Exit};
use crate::paths::{Paths, create_private};
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;

/// How long the first client may take to connect.
const FIRST_CLIENT: Duration = Duration::from_secs(30);
/// How often the engine looks whether its socket is still there.
const SOCKET_CHECK: Duration = Duration::from_secs(2);
/// How long models may take to end.
const UNLOAD: Duration = Duration::from_secs(5);
/// How long writing conversations to disk may take then.
const FLUSH: Duration = Duration::from_secs(10);
/// How long running answers may go on after the engine was told to end.
const GRACE: Duration = Duration::from_secs(30);

/// Serves until the end.
///
/// # Errors
/// When the socket can't be had or llama.cpp does not start.
pub fn run(config: &Config, paths: &Paths, config_file: Option<&Path>) -> Result<Exit, AppError> {
    end_with_parent();
    create_private(&paths.runtime)
        .map_err(|e| AppError::new(Exit::Error, format!("engine: `{}`: {e}", paths.runtime.display())))?;
    runtime()?.block_on(serve(config, paths, config_file))
}

/// Without its supervisor nobody would explain its death or clean up: it ends too.
pub(super) fn end_with_parent() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
}

/// The runtime of a worker: one thread, as HTTP is little work beside the models'.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, AppError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| AppError::new(Exit::Error, format!("engine: cannot start: {e}")))
}

/// Ends all models, and waits until their conversations are on disk. They are freed by their own threads; exiting under them would run C++ destructors in
/// mid-computation.
pub(super) async fn unload(host: &Host) {
    host.unload_all();
    let deadline = tokio::time::Instant::now() + UNLOAD;
    while host.threads() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    host.cache().flush(FLUSH);
}

async fn serve(config: &Config, paths: &Paths, config_file: Option<&Path>) -> Result<Exit, AppError> {
    let path = paths.engine_socket();
    let activity = Activity::open(&paths.runtime);
    let host = Host::new(&config.engine, &config.pool, paths, config_file, activity, paths.cache.join("kv"))
        .map_err(|e| AppError::new(Exit::Error, e))?;
    let socket = Socket::bind(&path).map_err(|e| {
        AppError::new(Exit::Error, format!("engine: cannot listen on `{}`: {e}", path.display()))
            .hint("set DUET_RUNTIME_DIR to a folder of your own")
    })?;
    tracing::info!(version = crate::VERSION, socket = %path.display(), "engine ready");
    let place = socket.place();
    let linger = Duration::from_secs(config.engine.linger);
    let end = ending(host.clone(), socket.connections(), place.clone(), linger);
    let (ended, has_ended) = watch::channel(false);
    let mut keeping = tokio::task::JoinSet::new();
    keeping.spawn(keeper::keep(host.clone()));
    preload(&host, &config.engine.preload);
    let serving = async {
        axum::serve(socket, http::router(host.clone()))
            .with_graceful_shutdown(async move {
                end.await;
                let _ = ended.send(true);
            })
            .await
    };
    // Connections that idle keep a graceful end waiting: it is bounded.
    let bounded = async {
        let mut has_ended = has_ended;
        let _ = has_ended.wait_for(|ended| *ended).await;
        let deadline = tokio::time::Instant::now() + GRACE;
        while host.answers() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // The last chunks of the last answers still have to leave.
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    tokio::select! {
        result = serving => result.map_err(|e| AppError::new(Exit::Error, format!("engine: {e}")))?,
        () = bounded => {}
    }
    place.clear();
    keeping.abort_all();
    unload(&host).await;
    tracing::info!("engine ended");
    Ok(Exit::Ok)
}

/// Loads what the configuration wants from the start. A model that ends the engine again and again is left out.
pub(super) fn preload(host: &Host, ids: &[String]) {
    let (host, ids) = (host.clone(), ids.to_vec());
    if ids.is_empty() {
        return;
    }
    // The folders are searched for them, which takes a while.
    tokio::task::spawn_blocking(move || {
        for name in &ids {
            match host.find(Some(name)) {
                Ok((id, path)) => match host.refuse_if_quarantined(&id) {
                    Ok(()) => host.begin_load(&id, &path),
                    Err(error) => tracing::warn!(error = %error.message, "not loaded at the start"),
                },
                Err(error) => tracing::warn!(%error, "not loaded at the start"),
            }
        }
    });
}

/// Returns when the engine shall end: told to by a client or a signal, or nobody there for `linger`.
async fn ending(host: Host, mut connections: watch::Receiver<usize>, place: Place, linger: Duration) {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        let Ok(mut term) = signal(SignalKind::terminate()) else { return std::future::pending().await };
        let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return std::future::pending().await };
        tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("told to end by a signal");
    };
    let told = async {
        let mut changed = host.changed();
        while !host.is_closing() {
            if changed.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
        tracing::info!("told to end by a client");
    };
    let abandoned = async {
        // Whoever started the engine needs a moment to connect.
        let somebody_came = connections.wait_for(|n| *n > 0);
        if tokio::time::timeout(linger.max(FIRST_CLIENT), somebody_came).await.is_err() {
            return;
        }
        loop {
            if connections.wait_for(|n| *n == 0).await.is_err() {
                return std::future::pending().await;
            }
            let somebody_came = connections.wait_for(|n| *n > 0);
            if tokio::time::timeout(linger, somebody_came).await.is_err() {
                tracing::info!(seconds = linger.as_secs(), "nobody is connected any more");
                return;
            }
        }
    };
    // An engine whose socket is gone can't be found by anybody, but holds the lock.
    let unreachable = async {
        while place.is_there() {
            tokio::time::sleep(SOCKET_CHECK).await;
        }
        tracing::warn!("the socket was removed");
    };
    tokio::select! { () = terminated => {}, () = told => {}, () = abandoned => {}, () = unreachable => {} }
    host.close();
}
