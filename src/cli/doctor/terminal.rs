//! The terminal and the clipboard.

use super::Report;
use crate::config::Config;
use crate::runtime::Colours;
use crate::runtime::inspect;
use crate::theme::Charset;
use std::io::IsTerminal;
use std::process::{Command, Stdio};

/// The least the interface is drawn for.
const SMALLEST: (u16, u16) = (40, 12);

pub(super) fn check(report: &mut Report, config: &Config) {
    let area = "terminal";
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let term = variable("TERM").unwrap_or_else(|| "not set".to_owned());
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        report.ok(area, "not looked at: stdin or stdout is no terminal");
    } else {
        match inspect::terminal() {
            None => report.bad(area, "there is none to open", "ask one question instead: tui -p \"...\""),
            Some(facts) => {
                let (columns, rows) = facts.size;
                let size = format!("TERM {term}, {columns}x{rows}");
                if columns < SMALLEST.0 || rows < SMALLEST.1 {
                    let next = format!("make it {}x{} at least", SMALLEST.0, SMALLEST.1);
                    report.warn(area, format!("{size}: too small to draw everything"), next);
                } else {
                    report.ok(area, size);
                }
                match facts.keyboard {
                    Some(true) => report.ok(area, "keyboard: Shift+Enter is told from Enter"),
                    Some(false) if variable("TMUX").is_some() => report.warn(
                        area,
                        "keyboard: tmux does not pass on Shift+Enter",
                        "set -s extended-keys on in tmux.conf, or use ctrl+j for a new line",
                    ),
                    Some(false) => {
                        report.ok(area, "keyboard: Shift+Enter looks like Enter; ctrl+j makes a new line");
                    }
                    None => report.warn(
                        area,
                        "keyboard: the terminal does not say what it is",
                        "a new line is made with ctrl+j where shift+enter sends",
                    ),
                }
            }
        }
    }
    match Colours::from_env() {
        Colours::Unwanted => report.ok(area, "colours: none (NO_COLOR, or a terminal without)"),
        Colours::Allowed => {
            report.ok(area, format!("colours: {}", depth(&term, variable("COLORTERM").as_deref())));
        }
    }
    match Charset::from_env() {
        Charset::Unicode => report.ok(area, "characters: Unicode"),
        Charset::Ascii => report.warn(
            area,
            "characters: borders and marks are drawn in ASCII, because the locale is not UTF-8",
            "set LANG to a UTF-8 locale, as en_US.UTF-8 or C.UTF-8",
        ),
    }
    let is_remote = variable("SSH_CONNECTION").is_some();
    if variable("TMUX").is_some() {
        tmux(report);
    } else if is_remote {
        report.ok(area, "over SSH: frames are drawn less often while much changes");
    }
    clipboard(report, config);
}

fn depth(term: &str, colorterm: Option<&str>) -> &'static str {
    match colorterm {
        Some("truecolor" | "24bit") => "24 bit",
        _ if term.contains("direct") => "24 bit",
        _ if term.contains("256color") => "256",
        _ => "16",
    }
}

/// What tmux does with a copied text.
fn tmux(report: &mut Report) {
    match option("set-clipboard") {
        Some(value) if value == "off" => report.warn(
            "terminal",
            "tmux: what is copied stays in tmux's buffer (set-clipboard off)",
            "set -s set-clipboard on in tmux.conf, so that it reaches the system's clipboard",
        ),
        Some(value) => report.ok("terminal", format!("tmux, set-clipboard {value}")),
        None => report.warn("terminal", "tmux does not answer", "try `tmux show -s` by hand"),
    }
}

fn option(name: &str) -> Option<String> {
    let output = Command::new("tmux")
        .args(["show-options", "-sv", name])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let value = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !value.is_empty()).then_some(value)
}

fn clipboard(report: &mut Report, config: &Config) {
    let ways = inspect::copying(config.clipboard.mode);
    let (first, then) = ways.split_first().map_or(("a file", &[][..]), |(first, rest)| (*first, rest));
    let mut text = format!("copying goes to {first}");
    if !then.is_empty() {
        text.push_str(&format!("; where that fails to {}", then.join(", ")));
    }
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let needs_display = cfg!(all(unix, not(target_os = "macos"))) && first.contains("system");
    if needs_display && !is_set("WAYLAND_DISPLAY") && !is_set("DISPLAY") {
        let next = "copying falls back by itself; set [clipboard] mode to say which way you want";
        report.warn("clipboard", format!("{text} (no display is set, so the first one fails)"), next);
    } else {
        report.ok("clipboard", text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn colours_are_read_from_the_usual_names() {
        assert_eq!(depth("xterm-256color", Some("truecolor")), "24 bit");
        assert_eq!(depth("xterm-direct", None), "24 bit");
        assert_eq!(depth("screen-256color", None), "256");
        assert_eq!(depth("xterm", Some("yes")), "16");
    }
}
