//! Units that start a server at boot.

use crate::error::{AppError, Exit};
use clap::ValueEnum;

/// For which service manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Unit {
    /// Linux: a user unit
    Systemd,
    /// macOS: a launch agent
    Launchd,
}

impl Unit {
    /// That of this system.
    pub(super) const DEFAULT: &str = if cfg!(target_os = "macos") { "launchd" } else { "systemd" };
}

/// The unit's text, with these variables set.
pub(super) fn print(
    kind: Unit,
    arguments: &[String],
    variables: &[(String, String)],
) -> Result<String, AppError> {
    let program = std::env::current_exe()
        .map_err(|error| AppError::new(Exit::Error, format!("this program's path is not known: {error}")))?;
    let mut words = vec![program.display().to_string()];
    words.extend_from_slice(arguments);
    let values = variables.iter().map(|(_, value)| value);
    if words.iter().chain(values).any(|word| word.contains(|c: char| c.is_control())) {
        return Err(AppError::new(Exit::Usage, "a path with control characters can't stand in a unit")
            .hint("rename it"));
    }
    Ok(match kind {
        Unit::Systemd => systemd(&words, variables),
        Unit::Launchd => launchd(&words, variables),
    })
}

/// What systemd reads specially in quotes, of everything but commands.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")
}

fn systemd(words: &[String], variables: &[(String, String)]) -> String {
    let quoted: Vec<String> = words
        .iter()
        .map(|word| {
            let word = escaped(word).replace('$', "$$");
            if word.contains([' ', '\'', '"', ';']) { format!("\"{word}\"") } else { word }
        })
        .collect();
    let environment: String = variables
        .iter()
        .map(|(name, value)| format!("Environment=\"{name}={}\"\n", escaped(value)))
        .collect();
    format!(
        "# ~/.config/systemd/user/duet.service
# systemctl --user enable --now duet; loginctl enable-linger keeps it when nobody is logged in.
[Unit]
Description=Duet: language models for other machines

[Service]
{environment}ExecStart={}
Restart=on-failure
RestartPreventExitStatus=2
RestartSec=5
TimeoutStopSec=30
NoNewPrivileges=yes
PrivateTmp=yes
UMask=0077

[Install]
WantedBy=default.target",
        quoted.join(" ")
    )
}

fn in_xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn launchd(words: &[String], variables: &[(String, String)]) -> String {
    let strings: String = words
        .iter()
        .map(|word| {
            let word = in_xml(word);
            format!("    <string>{word}</string>\n")
        })
        .collect();
    let pairs: String = variables
        .iter()
        .map(|(name, value)| format!("    <key>{name}</key>\n    <string>{}</string>\n", in_xml(value)))
        .collect();
    let environment = if pairs.is_empty() {
        pairs
    } else {
        format!("  <key>EnvironmentVariables</key>\n  <dict>\n{pairs}  </dict>\n")
    };
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- ~/Library/LaunchAgents/duet.serve.plist; then: launchctl bootstrap gui/$UID ~/Library/LaunchAgents/duet.serve.plist -->
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key>
  <string>duet.serve</string>
  <key>ProgramArguments</key>
  <array>
{strings}  </array>
{environment}  <key>RunAtLoad</key>
  <true/>
  <key>KeepAlive</key>
  <dict>
    <key>SuccessfulExit</key>
    <false/>
  </dict>
  <key>ThrottleInterval</key>
  <integer>10</integer>
  <key>Umask</key>
  <integer>63</integer>
</dict>
</plist>"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_survive() {
        let words: Vec<String> =
            ["/opt/my tui", "serve", "--models", "/a\"b%c$d<&>"].map(str::to_owned).into();
        let variables = [("DUET_DATA_DIR".to_owned(), "/a \"b%c$d<&>".to_owned())];
        let unit = systemd(&words, &variables);
        assert!(unit.contains("ExecStart=\"/opt/my tui\" serve --models \"/a\\\"b%%c$$d<&>\"\n"), "{unit}");
        assert!(unit.contains("\nEnvironment=\"DUET_DATA_DIR=/a \\\"b%%c$d<&>\"\n"), "{unit}");
        let plist = launchd(&words, &variables);
        assert!(plist.contains("<string>/opt/my tui</string>\n"), "{plist}");
        assert!(plist.contains("<string>/a\"b%c$d&lt;&amp;&gt;</string>"), "{plist}");
        assert!(
            plist.contains("<key>DUET_DATA_DIR</key>\n    <string>/a \"b%c$d&lt;&amp;&gt;</string>"),
            "{plist}"
        );
        assert!(!launchd(&words, &[]).contains("EnvironmentVariables"));
        let odd = "a\nExecStartPre=/bin/sh".to_owned();
        assert!(print(Unit::Systemd, std::slice::from_ref(&odd), &[]).is_err());
        assert!(print(Unit::Launchd, &[], &[("DUET_DATA_DIR".to_owned(), odd)]).is_err());
    }
}
