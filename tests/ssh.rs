//! Backends over SSH, against a real `sshd` on loopback: an engine that is started on the far side, servers behind
//! tunnels, and all that can be wrong with the way.

#![cfg(feature = "local")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers included"
)]

#[path = "support/pty.rs"]
mod pty;
#[path = "support/scripted.rs"]
mod scripted;
#[path = "support/serve.rs"]
mod serve;
#[path = "support/sshd.rs"]
mod sshd;

use pretty_assertions::assert_eq;
use pty::{Home, Program, Pty};
use scripted::{Script, Server};
use serde_json::Value;
use serve::{DEADLINE, wait_until};
use sshd::{Sshd, has};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

const FAR: &str = "[[backend]]\nname = \"far\"\nurl = \"ssh://far\"\n";

fn ask(sshd: &Sshd, question: &str, more: &[&str]) -> (i32, String, String) {
    sshd.run_tui(&[&["-p", question, "--on", "far", "--no-save"][..], more].concat())
}

/// A server of another kind that listens on loopback, and a backend `box` that reaches it through a host.
fn behind(sshd: &Sshd, server: &Server, host: &str) {
    sshd.configure(&format!(
        "[[backend]]\nname = \"box\"\nurl = \"{}\"\nssh = \"{host}\"\nmodel = \"m\"\n",
        server.url()
    ));
}

#[test]
fn an_engine_is_started_there_and_answers() {
    let Some(sshd) = Sshd::start() else { return };
    sshd.configure(FAR);
    let (code, out, err) = ask(&sshd, "What is the capital of France?", &[]);
    assert_eq!((code, out.as_str()), (0, "The capital of France is Paris.\n"), "{err}");
    assert_eq!(sshd.logins(), 2, "where the engine listens is asked once: {}", sshd.log());
    assert!(sshd.path("far/run/engine.sock").exists() && !sshd.path("near/run/engine.sock").exists());
    assert!(has(&sshd.path("near/data/learned.json"), "far/run/engine.sock"));
    let (code, out, err) = ask(&sshd, "Hello", &["--json"]);
    assert_eq!(code, 0, "{err}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["answers"][0]["backend"], "far", "{answer}");
    assert!(answer["answers"][0]["metrics"]["server"].is_object(), "it is our own engine: {answer}");
    assert_eq!(sshd.logins(), 3, "and then known");
    assert_eq!(sshd.left_over(), Vec::<String>::new());
    assert_eq!(sshd.sockets(), Vec::<std::path::PathBuf>::new());

    let (code, out, err) = sshd.run_tui(&["backends", "test", "far"]);
    assert_eq!(code, 0, "{out}{err}");
    let steps: Vec<&str> = out.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(steps, ["ssh", "server", "models", "network"], "{out}");
    assert!(out.contains(&format!("tui {} there", duet::VERSION)), "{out}");
    let (_, out, err) = sshd.run_tui(&["backends", "--json"]);
    let far: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((&far["state"], &far["kind"]), (&"ready".into(), &"duet".into()), "{far} {err}");
    assert!(far["rtt_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{far}");
}

#[test]
fn a_way_that_is_blocked_is_told_in_plain_words() {
    let Some(sshd) = Sshd::start() else { return };
    for (host, code, cause, next) in [
        ("nowhere", 3, "no such host", "check `url` of backend far"),
        ("deaf", 3, "no SSH server listens there", "turn on remote login"),
        ("shut", 3, "it does not take your key", "`ssh shut` in a terminal asks for nothing"),
        ("unknown", 3, "its host key is not known here", "`ssh unknown` in a terminal once"),
        ("changed", 3, "its host key has changed, nothing was sent", "ssh-keygen -R changed"),
    ] {
        sshd.configure(&FAR.replace("ssh://far", &format!("ssh://{host}")));
        let (exit, out, err) = ask(&sshd, "Hello", &[]);
        assert_eq!((exit, out.as_str()), (code, ""), "{host}: {err}");
        assert!(err.contains(&format!("over ssh ({host}): {cause}")) && err.contains(next), "{host}: {err}");
        assert!(err.trim_end().lines().count() == 2, "{host}: {err}");
    }
    let (_, out, _) = sshd.run_tui(&["backends"]);
    assert!(out.contains("✕  far") && out.contains("its host key has changed"), "{out}");
    assert_eq!(sshd.left_over(), Vec::<String>::new());
    sshd.configure(FAR);
    std::fs::remove_file(sshd.path("near/bin/ssh")).unwrap();
    let nothing = sshd.path("near/bin").display().to_string();
    let output = sshd.tui(&["-p", "Hello", "--on", "far"]).env("PATH", nothing).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("there is none in the PATH") && err.contains("install OpenSSH"), "{err}");
}

#[test]
fn a_far_side_that_can_not_is_told() {
    let other = "echo '{\"event\":\"ready\",\"hold\":99,\"version\":\"9.9.9\",\"socket\":\"/x\"}'; cat";
    let evil =
        "echo '{\"event\":\"ready\",\"hold\":1,\"version\":\"1\",\"socket\":\"/x:localhost:22\"}'; cat";
    for (command, cause, next) in [
        ("exit 127", "there is no `tui` there", "install it there"),
        (other, "the `tui` there is of version 9.9.9", "install the same on both machines"),
        (evil, "its socket has a path that can't be forwarded", "try again"),
        ("echo This account is not available.; exit 1", "what it ran there ended (1)", "runs commands"),
    ] {
        let Some(sshd) = Sshd::with(&format!("ForceCommand {command}\n")) else { return };
        sshd.configure(FAR);
        let (code, _, err) = ask(&sshd, "Hello", &[]);
        assert!(code != 0 && err.contains(cause) && err.contains(next), "{command}: {code} {err}");
        assert_eq!(sshd.left_over(), Vec::<String>::new());
    }
    // The real program, which does not start.
    let Some(sshd) = Sshd::start() else { return };
    std::fs::write(sshd.path("far/config/config.toml"), "zebra = 1\n").unwrap();
    sshd.configure(FAR);
    let (_, _, err) = ask(&sshd, "Hello", &[]);
    assert!(err.contains("the `tui` there does not start") && err.contains("zebra"), "{err}");
}

#[test]
fn a_server_on_the_far_loopback_is_reached_and_nobody_else_sees_the_key() {
    let Some(sshd) = Sshd::start() else { return };
    let server = Server::start([Script::answer(&["Hel", "lo."])]);
    behind(&sshd, &server, "far");
    let (code, out, err) = sshd.run_tui(&["-p", "Hi", "--on", "box", "--no-save"]);
    assert_eq!((code, out.as_str()), (0, "Hello.\n"), "{err}");
    assert_eq!(server.requests().len(), 1, "one question is one request");
    drop(server);
    let (code, _, err) = sshd.run_tui(&["-p", "Hi", "--on", "box", "--no-save"]);
    assert_eq!(code, 3, "{err}");
    assert!(
        err.contains(" on far: nothing listens there") && err.contains("start the server on far"),
        "{err}"
    );
    assert_eq!(sshd.left_over(), Vec::<String>::new());

    let Some(closed) = Sshd::with("AllowTcpForwarding no\n") else { return };
    let server = Server::start([Script::answer(&["never"])]);
    behind(&closed, &server, "far");
    let (code, _, err) = closed.run_tui(&["-p", "Hi", "--on", "box", "--no-save"]);
    assert!(code == 3 && err.contains("the SSH server there allows no forwarding"), "{code} {err}");
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_shared_connection_is_used_and_left_as_it_was() {
    let Some(sshd) = Sshd::start() else { return };
    let master = sshd.ssh(&["-M", "-N", "-f", "shared"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(master.unwrap().success());
    let logins = sshd.logins();
    sshd.configure(&FAR.replace("ssh://far", "ssh://shared"));
    let (code, out, err) = ask(&sshd, "What is the capital of Italy?", &[]);
    assert_eq!((code, out.as_str()), (0, "The capital of Italy is Rome.\n"), "{err}");
    assert_eq!(sshd.logins(), logins, "nobody logged in again");
    assert_eq!(sshd.sockets(), Vec::<std::path::PathBuf>::new());
    assert!(sshd.ssh(&["-O", "check", "shared"]).stderr(Stdio::null()).status().unwrap().success());
    // What the master still forwards would be listed among the sockets it listens on.
    assert_eq!(sshd.left_over().len(), 1, "the master alone: {:?}", sshd.left_over());
    let ended = sshd.ssh(&["-O", "exit", "shared"]).stderr(Stdio::null()).status();
    assert!(ended.unwrap().success());
}

/// The process of the far side's engine; none when none runs.
fn engine(sshd: &Sshd) -> Option<u64> {
    let mut command = sshd.tui(&["engine", "status", "--json"]);
    for (name, folder) in [("CONFIG", "config"), ("DATA", "data"), ("CACHE", "cache"), ("RUNTIME", "run")] {
        command.env(format!("DUET_{name}_DIR"), sshd.path("far").join(folder));
    }
    serde_json::from_slice::<Value>(&command.output().unwrap().stdout).unwrap()["pid"].as_u64()
}

fn kill(pid: u64) {
    let killed = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    assert!(killed.unwrap().success());
}

#[test]
fn an_engine_that_dies_there_in_the_middle_is_told() {
    let Some(sshd) = Sshd::start() else { return };
    sshd.configure(FAR);
    let (code, _, err) = ask(&sshd, "Hello", &[]);
    assert_eq!(code, 0, "{err}");
    // Nonsense goes on until the context is full, or ends by chance: then it is asked for again.
    let babble = ["--temp", "5", "--top-k", "0", "--top-p", "1", "--min-p", "0"];
    for _ in 0..20 {
        let arguments = [&["-p", "Say something", "--on", "far", "--no-save"][..], &babble].concat();
        let mut child = sshd.tui(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 20];
        let has_begun = child.stdout.as_mut().unwrap().read_exact(&mut first).is_ok();
        if let Some(pid) = engine(&sshd).filter(|_| has_begun) {
            kill(pid);
        }
        let output = child.wait_with_output().unwrap();
        if !output.status.success() {
            let err = String::from_utf8_lossy(&output.stderr);
            assert!(err.contains("far: engine ended") && err.lines().count() <= 2, "{err}");
            return;
        }
    }
    panic!("the answer always got away");
}

/// The interface on the near side, at a target.
fn interface(sshd: &Sshd, target: &str) -> Pty {
    let home = Home::new();
    let mut program =
        Program::new(env!("CARGO_BIN_EXE_tui"), &home).args(["--on", target, "--no-save"]).size(100, 30);
    for (name, value) in sshd.environment() {
        program = program.env(&name, &value);
    }
    let pty = program.start();
    pty.wait_for("the composer", |r| r.is_alternate() && r.text().contains(&format!("→ {target}")));
    pty
}

#[test]
fn a_connection_that_breaks_in_the_middle_comes_back() {
    let Some(mut sshd) = Sshd::start() else { return };
    let server = Server::start([Script::endless(), Script::answer(&["Here ", "again."])]);
    behind(&sshd, &server, "far");
    let mut pty = interface(&sshd, "box");
    pty.send("Go on\r");
    pty.wait_for_text("another line");
    sshd.kill();
    pty.wait_for("the end of it", |r| !r.text().contains("esc stop"));
    assert!(pty.received().text().contains("another line"), "what came is kept");
    sshd.run();
    pty.send("And now?\r");
    pty.wait_for_text("Here again.");
    assert_eq!(server.requests().len(), 2, "nothing was sent twice");
    pty.send("\x03");
    pty.wait_for_text("again to quit");
    pty.send("\x03");
    assert_eq!(pty.wait_for_end(DEADLINE), Ok(0));
    wait_until("no ssh is left", || sshd.left_over().is_empty());
    assert_eq!(sshd.sockets(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn an_engine_that_dies_there_is_started_again() {
    let Some(sshd) = Sshd::start() else { return };
    sshd.configure(FAR);
    let pty = interface(&sshd, "far");
    pty.send("Hello\r");
    pty.wait_for_text("How can I help you today?");
    let first = engine(&sshd).expect("it runs");
    kill(first);
    wait_until("it is gone", || engine(&sshd) != Some(first));
    pty.send("What is the capital of Germany?\r");
    pty.wait_for_text("The capital of Germany is Berlin.");
    assert_ne!(engine(&sshd), Some(first));
}

#[test]
fn a_connection_that_fell_silent_is_replaced_before_it_is_used() {
    let Some(sshd) = Sshd::start() else { return };
    let server = Server::start([Script::answer(&["First."]), Script::answer(&["Second."])]);
    behind(&sshd, &server, "far");
    let pty = interface(&sshd, "box");
    pty.send("One\r");
    pty.wait_for_text("First.");
    // The connection is as after a night's sleep: there, and dead. The server takes new ones.
    let connections = sshd.processes().split_off(1);
    let signal = |name: &str| {
        for pid in &connections {
            let _ = std::process::Command::new("kill").args([name, &pid.to_string()]).status();
        }
    };
    signal("-STOP");
    let since = std::time::Instant::now();
    wait_until("nothing was heard for long", || since.elapsed() > std::time::Duration::from_secs(9));
    let logins = sshd.logins();
    pty.send("Two\r");
    pty.wait_for_text("Second.");
    assert_eq!(sshd.logins(), logins + 1);
    assert_eq!(server.requests().len(), 2, "the question was sent once");
    signal("-CONT");
}

#[test]
fn a_paired_server_behind_a_host_shows_the_same_key() {
    let Some(sshd) = Sshd::start() else { return };
    let server = serve::Server::start_in(tempfile::tempdir().unwrap(), &["--pair"], "", None);
    let mut line = String::new();
    wait_until("it prints its line", || {
        let told = server.told();
        line = told.lines().find(|line| line.contains("duet://")).unwrap_or_default().trim().to_owned();
        !line.is_empty()
    });
    let url = format!("https://{}", server.address);
    sshd.configure(&format!("[[backend]]\nname = \"mac\"\nurl = \"{url}\"\nssh = \"far\"\n"));
    let (code, _, err) = sshd.run_tui(&["backends", "pair", &line, "mac"]);
    assert!(code == 0 && err.contains("it answers: Duet"), "{code} {err}");
    let ask = || sshd.run_tui(&["-p", "Hello", "--on", "mac", "-m", "builtin", "--no-save"]);
    let (code, out, err) = ask();
    assert_eq!((code, out.as_str()), (0, "Hello! How can I help you today?\n"), "{err}");
    let file = sshd.path("near/config/config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("ssh = \"far\"") && text.contains(&url), "{text}");
    let pin = format!("fingerprint = \"{}\"", duet::config::fingerprint::Fingerprint([7; 32]));
    let lines = text.lines().map(|line| if line.starts_with("fingerprint") { pin.as_str() } else { line });
    std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
    let (code, out, err) = ask();
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(err.contains("mac: certificate changed") && err.contains("nothing was sent"), "{err}");
    assert_eq!(sshd.left_over(), Vec::<String>::new());
}

#[test]
fn a_silent_connection_is_noticed_and_nothing_is_left_behind() {
    let Some(sshd) = Sshd::start() else { return };
    let server = Server::start([Script::endless()]);
    behind(&sshd, &server, "far");
    let mut child = sshd
        .tui(&["-p", "Go on", "--on", "box", "--no-save"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 7];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"another");
    // The other side neither answers nor closes.
    let stopped = sshd.processes();
    sshd.signal("STOP");
    let stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut rest = Vec::new();
        let _ = std::io::BufReader::new(stdout).read_to_end(&mut rest);
    });
    wait_until("it gives up", || child.try_wait().unwrap().is_some());
    reader.join().unwrap();
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(err.contains("box"), "{err}");
    assert_eq!(sshd.left_over(), Vec::<String>::new());
    for pid in stopped {
        let _ = std::process::Command::new("kill").args(["-CONT", &pid.to_string()]).status();
    }
}

#[test]
fn a_program_that_is_killed_leaves_no_ssh_behind() {
    let Some(sshd) = Sshd::start() else { return };
    let server = Server::start([Script::endless()]);
    behind(&sshd, &server, "far");
    let mut child =
        sshd.tui(&["-p", "Go on", "--on", "box", "--no-save"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 7];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert!(!sshd.left_over().is_empty());
    let socket = sshd.sockets().pop().expect("a tunnel");
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("ssh has ended", || sshd.left_over().is_empty());
    assert!(UnixStream::connect(&socket).is_err());
    // What it left is cleared away by the next one.
    drop(server);
    let _ = sshd.run_tui(&["-p", "Hi", "--on", "box", "--no-save"]);
    assert_eq!(sshd.sockets(), Vec::<std::path::PathBuf>::new());
}
