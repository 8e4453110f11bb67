//! Words for what `ssh` says; tunnels with a made-up `ssh` are in `tests/ssh.rs`.

use super::words::{ended, refused};
use super::*;
use pretty_assertions::assert_eq;

fn shared(far: Far) -> Arc<Shared> {
    let host = "me@mac".parse().expect("a host");
    let tunnel = Tunnel::new("studio", host, far, Path::new("/run/duet"), None).expect("a tunnel");
    Arc::clone(&tunnel.shared)
}

#[test]
fn every_failure_has_a_cause_and_a_next_step() {
    use GenErrorKind as K;
    let port = Far::Port { host: "localhost".to_owned(), port: 1 };
    for (far, stderr, code, kind, cause, next) in [
        (
            &port,
            "ssh: Could not resolve hostname mac: Name or service not known\r\n",
            255,
            K::Unreachable,
            "no such host",
            "check `url`",
        ),
        (
            &port,
            "ssh: connect to host mac port 22: Connection refused\n",
            255,
            K::Unreachable,
            "no SSH server listens",
            "turn on remote login",
        ),
        (
            &port,
            "ssh: connect to host mac port 22: Connection timed out\n",
            255,
            K::Unreachable,
            "does not answer",
            "awake",
        ),
        (&port, "Timeout, server mac not responding.\n", 255, K::Unreachable, "does not answer", "awake"),
        (
            &port,
            "me@mac: Permission denied (publickey).\n",
            255,
            K::Auth,
            "does not take your key",
            "ssh-copy-id me@mac",
        ),
        (
            &port,
            "No ED25519 host key is known for mac and you have requested strict checking.\nHost key verification failed.\n",
            255,
            K::Untrusted,
            "is not known here",
            "`ssh me@mac` in a terminal once",
        ),
        (
            &port,
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\n",
            255,
            K::Untrusted,
            "has changed, nothing was sent",
            "ssh-keygen -R mac",
        ),
        (&port, "mac: something new\n", 255, K::Unreachable, "mac: something new", "try `ssh me@mac`"),
        (&port, "", 255, K::Unreachable, "ended without a word", "try `ssh me@mac`"),
        (
            &port,
            "This account is not available.\n",
            1,
            K::Unreachable,
            "ended (1): This account",
            "runs commands",
        ),
        (
            &Far::Engine,
            "sh: 1: exec: tui: not found\n",
            127,
            K::Refused,
            "there is no `tui` there",
            "install it there",
        ),
        (
            &Far::Engine,
            "tui: unrecognized subcommand 'hold'\nhint: x\n",
            2,
            K::Refused,
            "of another version",
            "on both machines",
        ),
        (
            &Far::Engine,
            "tui: /etc/c.toml:1: unknown key `x`\nhint: y\n",
            2,
            K::Refused,
            "does not start: /etc/c.toml:1",
            "`tui doctor` there",
        ),
    ] {
        let error = ended(&shared(far.clone()), stderr, Some(code));
        let (first, second) = error.message.split_once('\n').expect("two lines");
        assert!(first.contains(cause) && first.starts_with("studio "), "{stderr}: {first}");
        assert!(second.contains(next) && second.lines().count() == 1, "{stderr}: {second}");
        assert_eq!(error.kind, kind, "{stderr}");
    }
}

#[test]
fn connections_that_failed_at_the_far_end() {
    for (line, words) in [
        ("channel 2: open failed: connect failed: Connection refused", Some("nothing listens there")),
        ("channel 2: open failed: connect failed: open failed", Some("nothing listens there")),
        (
            "channel 3: open failed: administratively prohibited: open failed",
            Some("the SSH server there allows no forwarding"),
        ),
        ("Warning: Permanently added 'mac'", None),
    ] {
        assert_eq!(refused(line).as_deref(), words, "{line}");
    }
}

#[test]
fn a_path_that_is_too_long_is_one_line() {
    let host: SshHost = "mac".parse().expect("a host");
    let long = Path::new("/").join("x".repeat(120));
    let error = Tunnel::new("studio", host, Far::Engine, &long, None).expect_err("too long");
    assert!(error.contains("DUET_RUNTIME_DIR") && error.lines().count() == 1, "{error}");
}
