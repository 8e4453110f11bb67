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

/// The unit's text.
pub(super) fn print(kind: Unit, arguments: &[String]) -> Result<String, AppError> {
    let program = std::env::current_exe()
        .map_err(|error| AppError::new(Exit::Error, format!("this program's path is not known: {error}")))?;
    let mut words = vec![program.display().to_string()];
    words.extend_from_slice(arguments);
    if words.iter().any(|word| word.contains(|c: char| c.is_control())) {
        return Err(AppError::new(Exit::Usage, "a path with control characters can't stand in a unit")
            .hint("rename it"));
    }
    Ok(match kind {
        Unit::Systemd => systemd(&words),
        Unit::Launchd => launchd(&words),
    })
}

fn systemd(words: &[String]) -> String {
    let quoted: Vec<String> = words
        .iter()
        .map(|word| {
            let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
            if word.contains([' ', '\'', '"', ';']) { format!("\"{word}\"") } else { word }
        })
        .collect();
    format!(
        "# ~/.config/systemd/user/duet.service
# systemctl --user enable --now duet; loginctl enable-linger keeps it when nobody is logged in.
[Unit]
Description=Duet: language models for other machines

[Service]
ExecStart={}
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

fn launchd(words: &[String]) -> String {
    let strings: String = words
        .iter()
        .map(|word| {
            let word = word.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            format!("    <string>{word}</string>\n")
        })
        .collect();
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
  <key>RunAtLoad</key>
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
        let unit = systemd(&words);
        assert!(unit.contains("ExecStart=\"/opt/my tui\" serve --models \"/a\\\"b%%c$$d<&>\"\n"), "{unit}");
        let plist = launchd(&words);
        assert!(plist.contains("<string>/opt/my tui</string>\n"), "{plist}");
        assert!(plist.contains("<string>/a\"b%c$d&lt;&amp;&gt;</string>"), "{plist}");
        let with_newline = print(Unit::Systemd, &["a\nExecStartPre=/bin/sh".to_owned()]);
        assert!(with_newline.is_err());
    }
}
