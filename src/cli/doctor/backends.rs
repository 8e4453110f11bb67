//! The engine of this machine and the configured servers, asked once each.

use super::{Level, Report};
use crate::backend::{Backend, Backends};
use crate::chat::GenErrorKind;
use crate::config::Config;
use std::time::{Duration, Instant};

/// How long a server may take to say which models it has; a tunnel to it has to be opened first.
const PATIENCE: Duration = Duration::from_secs(15);
/// For a connection to a server of the pool.
#[cfg(feature = "local")]
const POOL: Duration = Duration::from_secs(5);

pub(super) fn check(report: &mut Report, config: &Config, backends: &Backends) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report.bad("backends", format!("nobody can be asked: {error}"), "try again"),
    };
    runtime.block_on(async {
        for backend in backends.all() {
            if backend.is_engine() {
                engine(report, backend).await;
            } else {
                server(report, config, backend).await;
            }
        }
    });
    if config.backends.is_empty() {
        report.ok("backends", "no other server is configured");
    }
    #[cfg(feature = "local")]
    pool(report, config);
}

/// Whether somebody listens where the pool's servers, or the tunnels to them, should be.
#[cfg(feature = "local")]
fn pool(report: &mut Report, config: &Config) {
    let area = "pool";
    for server in &config.pool.servers {
        let reached = server
            .parse()
            .map_err(|_| std::io::ErrorKind::InvalidInput.into())
            .and_then(|address| std::net::TcpStream::connect_timeout(&address, POOL));
        match reached {
            Ok(_) => report.ok(area, format!("{server} can be reached")),
            Err(error) => report.warn(
                area,
                format!(
                    "{server}: {error}; {} can't be loaded",
                    config.pool.model.as_deref().unwrap_or("its model")
                ),
                "start `tui engine lend` there and the SSH tunnel to it",
            ),
        }
    }
}

async fn engine(report: &mut Report, backend: &Backend) {
    let area = "engine";
    match backend.status().await {
        Ok(None) => report.ok(area, "none runs; the next question starts it"),
        Ok(Some(status)) => {
            let version = status["version"].as_str().unwrap_or("unknown");
            let models: Vec<&str> =
                status["models"].as_array().into_iter().flatten().filter_map(|m| m["id"].as_str()).collect();
            let resident = if models.is_empty() { "no model".to_owned() } else { models.join(", ") };
            let text = format!(
                "it runs: version {version}, process {}, up {} s, resident: {resident}",
                status["pid"],
                status["uptime_s"].as_f64().unwrap_or_default() as u64
            );
            if version == crate::VERSION {
                report.ok(area, text);
            } else {
                let next = format!("this is {}; `tui engine stop` ends the other one", crate::VERSION);
                report.warn(area, text, next);
            }
        }
        Err(error) => report.error(area, Level::Bad, &error.message, Some("`tui engine stop` ends it")),
    }
}

async fn server(report: &mut Report, config: &Config, backend: &Backend) {
    let area = "backends";
    let name = backend.name();
    let configured = config.backends.iter().find(|known| known.name == name);
    let url = configured.map_or("", |known| known.url.as_str());
    let began = Instant::now();
    let Ok(seen) = tokio::time::timeout(PATIENCE, backend.examine(1)).await else {
        return report.warn(
            area,
            format!("{name}: {url} did not answer within {} s", PATIENCE.as_secs()),
            "see whether the machine is awake and the server runs",
        );
    };
    let ms = seen.network.map_or(began.elapsed().as_secs_f64() * 1000.0, |net| net.rtt_ms);
    if let Some(error) = seen.error() {
        // A machine that is off is no fault of this one; a wrong key or something else at that address is.
        let is_off = matches!(error.kind, GenErrorKind::Unreachable | GenErrorKind::Timeout);
        let level = if is_off { Level::Warn } else { Level::Bad };
        let wake = format!("`tui backends wake {name}` wakes it");
        let (first, next) = error.message.split_once('\n').unwrap_or((&error.message, "see [[backend]]"));
        let next = if is_off && backend.can_wake() { &wake } else { next };
        return report.error(area, level, &format!("{name}: {first}"), Some(next));
    }
    let models = seen.models.unwrap_or_default();
    let kind = seen.kind.map(|kind| format!(", {}", kind.words())).unwrap_or_default();
    let key =
        backend.key_source().map_or_else(|| "without a key".to_owned(), |key| format!("key from {key}"));
    let text = format!("{name}: {url} answers in {ms:.0} ms{kind}, {} models, {key}", models.len());
    let model = configured.and_then(|known| known.model.as_ref());
    match model.filter(|model| !models.is_empty() && !models.contains(model)) {
        Some(model) => report.warn(
            area,
            format!("{text}; its configured model {model} is not among them"),
            "correct `model` of the backend",
        ),
        None if backend.marks().is_plain => report.warn(
            area,
            format!("{text}; what is sent there can be read on the way"),
            "use https://, or `ssh = \"host\"` for a tunnel",
        ),
        None => report.ok(area, text),
    }
}
