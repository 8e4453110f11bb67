//! What `ssh` says when it can't, in plain words with the next step.

use super::super::fault::clean;
use super::{Far, Shared};
use crate::chat::{GenError, GenErrorKind};

/// The exit code of `ssh` for its own failures.
const SSH_FAILED: i32 = 255;
/// The exit code of a shell that does not find a program.
const NOT_FOUND: i32 = 127;
/// The exit code of our program when it does not know its arguments.
const USAGE: i32 = 2;

/// What is said when nothing listens at the far end.
pub(super) const NOBODY: &str = "nothing listens there";

/// Why a session ended that was not told to. `stderr` is what came there, `code` the exit code, where there is one.
pub(super) fn ended(shared: &Shared, stderr: &str, code: Option<i32>) -> GenError {
    let host = &shared.host;
    let has = |words: &str| stderr.contains(words);
    let error = |kind: GenErrorKind, why: String, next: String| {
        let message = format!("{} can't be reached over ssh ({host}): {why}\n{next}", shared.backend);
        GenError::new(kind, message)
    };
    let unreachable =
        |why: &str, next: &str| error(GenErrorKind::Unreachable, why.to_owned(), next.to_owned());
    let in_a_terminal = format!("`ssh {}` in a terminal", typed(host));
    if code == Some(NOT_FOUND) && shared.far == Far::Engine {
        return error(
            GenErrorKind::Refused,
            "there is no `tui` there".to_owned(),
            "install it there, or add its folder to the PATH of shells that don't log in; for another server write its own `url` and `ssh = \"host\"`".to_owned(),
        );
    }
    if code == Some(USAGE) && shared.far == Far::Engine {
        let said = stderr.lines().find_map(|line| line.strip_prefix("tui: "));
        let said = said.map_or_else(|| last_line(stderr), clean);
        return if said.contains("subcommand") {
            error(
                GenErrorKind::Refused,
                "the `tui` there is of another version, or has no engine".to_owned(),
                format!("install {} on both machines", crate::VERSION),
            )
        } else {
            error(
                GenErrorKind::Refused,
                format!("the `tui` there does not start: {said}"),
                "`tui doctor` there tells more".to_owned(),
            )
        };
    }
    if code.is_some_and(|code| code != SSH_FAILED) {
        return unreachable(
            &format!("what it ran there ended ({}): {}", code.unwrap_or_default(), last_line(stderr)),
            &format!("see whether {in_a_terminal} runs commands"),
        );
    }
    if has("REMOTE HOST IDENTIFICATION HAS CHANGED") || has("Host key for") && has("has changed") {
        return error(
            GenErrorKind::Untrusted,
            "its host key has changed, nothing was sent".to_owned(),
            format!("if that is meant, `ssh-keygen -R {}`, then {in_a_terminal} once", host.host),
        );
    }
    if has("Host key verification failed") {
        return error(
            GenErrorKind::Untrusted,
            "its host key is not known here, nothing was sent".to_owned(),
            format!("{in_a_terminal} once, and compare the key it shows"),
        );
    }
    if has("Permission denied") || has("Too many authentication failures") {
        return error(
            GenErrorKind::Auth,
            "it does not take your key".to_owned(),
            format!("see that {in_a_terminal} asks for nothing: `ssh-add`, or `ssh-copy-id {}`", typed(host)),
        );
    }
    if has("Could not resolve hostname") {
        return unreachable("no such host", &format!("check `url` of backend {}", shared.backend));
    }
    if has("Connection refused") {
        return unreachable("no SSH server listens there", "turn on remote login there");
    }
    if has("timed out") || has("Timeout") || has("No route to host") || has("Network is unreachable") {
        return unreachable("it does not answer", "see whether the machine is awake and on the network");
    }
    unreachable(&last_line(stderr), &format!("try {in_a_terminal}"))
}

/// What a line of `ssh` says about a connection through the tunnel that failed; none for other lines.
pub(super) fn refused(line: &str) -> Option<String> {
    let (_, why) = line.split_once("open failed: ")?;
    Some(if why.contains("administratively prohibited") {
        "the SSH server there allows no forwarding".to_owned()
    } else if why.contains("connect failed") {
        NOBODY.to_owned()
    } else {
        clean(why)
    })
}

fn typed(host: &crate::config::address::SshHost) -> String {
    let user = host.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
    let port = host.port.map(|port| format!("-p {port} ")).unwrap_or_default();
    format!("{port}{user}{}", host.host)
}

fn last_line(stderr: &str) -> String {
    let line = stderr.lines().map(str::trim).rfind(|line| !line.is_empty());
    clean(line.unwrap_or("it ended without a word"))
}
