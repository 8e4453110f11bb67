//! `tui doctor`: what works on this machine, what does not, and the next step for each. It asks the configured
//! backends and nobody else, starts no engine and changes nothing.

mod backends;
#[cfg(feature = "local")]
mod devices;
mod places;
mod terminal;

use super::out;
use crate::backend::Backends;
use crate::config::Config;
use crate::error::{AppError, Exit};
use crate::paths::{Paths, home};
use crate::text::shown_line;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;

/// Columns of the area's name.
const AREA: usize = 10;
/// Characters of one text: a path or a server's words may be long.
const MAX_TEXT: usize = 300;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// It works, but worse than it could.
    Warn,
    /// It does not work.
    Bad,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    area: &'static str,
    level: Level,
    text: String,
    /// What to do about it.
    next: Option<String>,
}

/// The checks so far, in the order they are shown.
#[derive(Debug, Default)]
struct Report {
    checks: Vec<Check>,
    /// Devices with their numbers, for scripts.
    devices: Value,
}

impl Report {
    fn add(&mut self, area: &'static str, level: Level, text: impl Into<String>, next: Option<String>) {
        let safe = |text: &str| shown_line(&short(text), MAX_TEXT).to_string();
        self.checks.push(Check { area, level, text: safe(&text.into()), next: next.map(|next| safe(&next)) });
    }

    fn ok(&mut self, area: &'static str, text: impl Into<String>) {
        self.add(area, Level::Ok, text, None);
    }

    fn warn(&mut self, area: &'static str, text: impl Into<String>, next: impl Into<String>) {
        self.add(area, Level::Warn, text, Some(next.into()));
    }

    fn bad(&mut self, area: &'static str, text: impl Into<String>, next: impl Into<String>) {
        self.add(area, Level::Bad, text, Some(next.into()));
    }

    /// An error of ours: its second line is the next step.
    fn error(&mut self, area: &'static str, level: Level, message: &str, hint: Option<&str>) {
        let (first, second) = message.split_once('\n').unwrap_or((message, ""));
        let next = Some(second).filter(|text| !text.is_empty()).or(hint);
        self.add(area, level, first, next.map(str::to_owned));
    }

    fn is_good(&self) -> bool {
        self.checks.iter().all(|check| check.level != Level::Bad)
    }

    fn json(&self) -> Value {
        json!({
            "version": 1,
            "program": crate::VERSION,
            "ok": self.is_good(),
            "checks": self.checks,
            "devices": self.devices,
        })
    }

    fn text(&self) -> String {
        let mut lines = Vec::new();
        let mut last = "";
        for check in &self.checks {
            let area = if check.area == last { "" } else { check.area };
            last = check.area;
            let mark = match check.level {
                Level::Ok => "ok  ",
                Level::Warn => "warn",
                Level::Bad => "BAD ",
            };
            lines.push(format!("{area:AREA$} {mark} {}", check.text));
            if let Some(next) = &check.next {
                lines.push(format!("{:AREA$}      -> {next}", ""));
            }
        }
        let count = |level: Level| self.checks.iter().filter(|check| check.level == level).count();
        lines.push(String::new());
        lines.push(match (count(Level::Bad), count(Level::Warn)) {
            (0, 0) => "all is well".to_owned(),
            (bad, warn) => format!("{bad} broken, {warn} that could be better"),
        });
        lines.join("\n")
    }
}

/// A text with the home folder as `~`: the report is made to be pasted somewhere.
fn short(text: &str) -> String {
    match home().as_deref().and_then(Path::to_str) {
        Some(home) if home.len() > 1 => text.replace(home, "~"),
        _ => text.to_owned(),
    }
}

/// Looks at everything. Exit code 1 when something is broken.
pub(super) fn run(
    config: Result<Config, AppError>,
    paths: &Paths,
    config_file: Option<&Path>,
    json: bool,
) -> Exit {
    let mut report = Report::default();
    #[cfg(feature = "local")]
    report.ok("program", format!("tui {}, built with {}", crate::VERSION, devices::built_with()));
    #[cfg(not(feature = "local"))]
    report.ok("program", format!("tui {}, a client without an engine", crate::VERSION));
    let config = places::configuration(&mut report, config, paths, config_file);
    places::folders(&mut report, paths);
    #[cfg(feature = "local")]
    devices::check(&mut report, &config, paths);
    match Backends::new(&config, paths, config_file) {
        Ok(backends) => backends::check(&mut report, &config, &backends),
        Err(why) => report.bad("backends", why, "see [[backend]] in the configuration file"),
    }
    terminal::check(&mut report, &config);
    if json {
        out::answer(&report.json().to_string());
    } else {
        out::answer(&report.text());
    }
    if report.is_good() { Exit::Ok } else { Exit::Error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn a_report_is_read_by_people_and_by_scripts() {
        let mut report = Report::default();
        report.ok("engine", "it runs");
        report.warn("engine", "it is old", "end it");
        assert!(report.is_good());
        report.error("models", Level::Bad, "x.gguf: cut off\nfetch it again", Some("not this"));
        assert!(!report.is_good());
        let expected = "engine     ok   it runs\n           warn it is old\n                -> end it\n\
                        models     BAD  x.gguf: cut off\n                -> fetch it again\n\n\
                        1 broken, 1 that could be better";
        assert_eq!(report.text(), expected);
        let json = report.json();
        assert_eq!((&json["ok"], &json["checks"][1]["level"]), (&json!(false), &json!("warn")));
        assert_eq!(json["checks"][2]["next"], "fetch it again");
    }

    #[test]
    fn foreign_text_is_made_harmless() {
        let mut report = Report::default();
        report.ok("models", "a\u{1b}[2Jb\nc");
        assert!(!report.text().contains('\u{1b}'));
        assert_eq!(report.text().lines().count(), 3);
    }
}
