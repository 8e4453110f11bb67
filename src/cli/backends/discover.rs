//! `tui backends discover`: who announces itself in the local network.

use super::super::{out, report};
use crate::backend::{Announced, discover};
use crate::error::{AppError, Exit};
use crate::text::shown_line;
use clap::Args;
use serde_json::json;
use std::time::Duration;

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct DiscoverArgs {
    /// How long to listen
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &DiscoverArgs) -> Result<Exit, AppError> {
    let found = heard(Duration::from_secs(arguments.seconds))?;
    for server in &found {
        if arguments.json {
            let object = json!({
                "name": server.name,
                "url": server.url(),
                "addresses": server.addresses,
                "port": server.port,
                "tls": server.is_tls,
                "fingerprint": server.fingerprint.map(|fingerprint| fingerprint.to_string()),
            });
            if report::line(&object).is_err() {
                break;
            }
        } else {
            out::answer(&line(server));
        }
    }
    if found.is_empty() {
        out::note("nobody announces itself; start `tui serve --announce` there, or add it by its address");
    }
    Ok(Exit::Ok)
}

/// Those that were heard.
pub(super) fn heard(patience: Duration) -> Result<Vec<Announced>, AppError> {
    out::note(&format!("listening for {} s", patience.as_secs()));
    discover(patience).map_err(|why| AppError::new(Exit::Error, why).hint("add the server by its address"))
}

fn line(server: &Announced) -> String {
    let url = server.url().unwrap_or_default();
    let next = if server.is_tls {
        format!("tui backends pair {url}")
    } else {
        format!("tui backends add NAME {url}")
    };
    format!("{}  {url} -> {next}", shown_line(&server.name, 40))
}
