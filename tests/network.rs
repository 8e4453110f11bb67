//! What only the system's own network can do: a link that goes and comes back, a peer that falls silent, a machine that is
//! woken, a server that announces itself. Two networks of their own, joined by a cable. Where the system makes none
//! for this user, the tests say so and pass.

#![cfg(all(target_os = "linux", feature = "local"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers included"
)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "copies of this program talk to each other, and skipped tests say so"
)]

#[path = "support/program.rs"]
mod program;

use pretty_assertions::assert_eq;
use program::{command, wait_until};
use serde_json::Value;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Says to a copy of this program what it is to be.
const ROLE: &str = "DUET_NETWORK_TEST";
const HERE: &str = "10.9.0.1";
const THERE: &str = "10.9.0.2";

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Runs the test of this name in a network of its own; `true` inside of it.
fn inside(test: &str) -> bool {
    if std::env::var(ROLE).is_ok_and(|role| role == test) {
        return true;
    }
    let probe = "ip link add near type veth peer name far && unshare -n true";
    if !run("unshare", &["-Urn", "sh", "-c", probe]) {
        eprintln!("skipped: no networks of one's own here (unshare, ip and user namespaces are needed)");
        return false;
    }
    let status = Command::new("unshare")
        .arg("-Urn")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, test)
        .status()
        .unwrap();
    assert!(status.success(), "see above");
    false
}

/// The other network, and the cable to it.
struct There {
    child: Child,
}

impl There {
    fn new() -> Self {
        let child = Command::new("unshare").args(["-n", "sleep", "600"]).spawn().unwrap();
        let there = Self { child };
        let pid = there.pid();
        let of = |link: &str| std::fs::read_link(format!("/proc/{link}/ns/net")).ok();
        wait_until("the other network is there", || of(&pid).is_some() && of(&pid) != of("self"));
        let here = |line: &str| assert!(run("ip", &line.split(' ').collect::<Vec<_>>()), "ip {line}");
        here("link set lo up");
        here("link add near type veth peer name far");
        here(&format!("link set far netns {pid}"));
        here(&format!("addr add {HERE}/24 dev near"));
        here("link set near up");
        there.ip("link set lo up");
        there.ip(&format!("addr add {THERE}/24 dev far"));
        there.ip("link set far up");
        there
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid(), "-n", program]);
        command
    }

    fn ip(&self, line: &str) {
        assert!(self.command("ip").args(line.split(' ')).status().unwrap().success(), "ip {line}");
    }

    /// Another copy of this program over there; it has said that it is ready.
    fn play(&self, role: &str) -> Player {
        let program = std::env::current_exe().unwrap();
        let mut child = self
            .command(program.to_str().unwrap())
            .args(["--exact", "a_player", "--nocapture"])
            .env(ROLE, role)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("ready")), "{role} is ready");
        Player { child, _out: Some(lines) }
    }
}

impl Drop for There {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Player {
    child: Child,
    /// Kept open: who writes into nothing ends.
    _out: Option<Lines<BufReader<ChildStdout>>>,
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the copies over there do; nothing when it is run as a test.
#[test]
fn a_player() {
    match std::env::var(ROLE).as_deref() {
        Ok("talker") => talk(&TcpListener::bind((THERE, 8080)).unwrap()),
        Ok("sleeper") => {
            let card = UdpSocket::bind("0.0.0.0:9").unwrap();
            println!("ready");
            let mut packet = [0; 200];
            let length = card.recv(&mut packet).unwrap();
            let address = [0x0a, 0, 0, 0, 0, 1];
            let is_mine =
                length == 102 && packet[..6] == [0xff; 6] && packet[6..102].chunks(6).all(|c| c == address);
            assert!(is_mine, "{packet:?}");
            talk(&TcpListener::bind((THERE, 8080)).unwrap());
        }
        _ => {}
    }
}

/// Serves one model that says a number every tenth of a second, up to eighty.
fn talk(listener: &TcpListener) {
    println!("ready");
    for stream in listener.incoming() {
        std::thread::spawn(move || say(stream.unwrap()));
    }
}

fn say(mut stream: TcpStream) {
    let mut bytes = [0; 8192];
    let count = stream.read(&mut bytes).unwrap_or(0);
    let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
    if text.starts_with("GET ") {
        let (status, body) = if text.starts_with("GET /v1/models") {
            (200, "{\"data\":[{\"id\":\"small\"}]}")
        } else {
            (404, "{\"error\":{\"message\":\"not here\"}}")
        };
        let _ = write!(
            stream,
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
    } else if text.starts_with("POST") {
        let _ =
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n");
        for number in 1..=80 {
            let chunk = format!(
                "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{number} \"}}}}]}}\n\n"
            );
            if stream.write_all(chunk.as_bytes()).is_err() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        let _ = stream.write_all(b"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n");
    }
}

/// A client here with a backend `box` there.
fn client(lines: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("config")).unwrap();
    let text =
        format!("[[backend]]\nname = \"box\"\nurl = \"http://{THERE}:8080\"\nmodel = \"small\"\n{lines}");
    std::fs::write(dir.path().join("config/config.toml"), text).unwrap();
    dir
}

fn tui(dir: &tempfile::TempDir, arguments: &[&str]) -> (i32, String, String) {
    let output = command(dir.path()).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// A question under way, once its first text has come.
fn asking(dir: &tempfile::TempDir) -> Child {
    let mut child = command(dir.path())
        .args(["-p", "Count", "--on", "box", "--no-save"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 2];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"1 ");
    child
}

#[test]
fn a_link_that_comes_back_loses_nothing() {
    if !inside("a_link_that_comes_back_loses_nothing") {
        return;
    }
    let there = There::new();
    let _talker = there.play("talker");
    let dir = client("");
    let child = asking(&dir);
    there.ip("link set far down");
    let down = Instant::now();
    wait_until("it was away for a while", || down.elapsed() > Duration::from_secs(2));
    there.ip("link set far up");
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    let expected: String = (2..=80).map(|number| format!("{number} ")).collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), expected.trim_end());
}

#[test]
fn a_peer_that_falls_silent_is_noticed() {
    if !inside("a_peer_that_falls_silent_is_noticed") {
        return;
    }
    let there = There::new();
    let _talker = there.play("talker");
    let dir = client("");
    let child = asking(&dir);
    there.ip("link set far down");
    let silent = Instant::now();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{err}");
    assert!(err.contains("box") && err.contains("vanished"), "{err}");
    assert!(silent.elapsed() < Duration::from_secs(55), "not by the limit for silence, which is 60 s");
    // And what is asked then is told within the limit for a connection.
    let (code, _, err) = tui(&dir, &["-p", "Count", "--on", "box", "--no-save"]);
    assert!(code == 3 && err.contains("no connection within 2 s"), "{code} {err}");
    there.ip("link set far up");
    wait_until("it is there again", || tui(&dir, &["backends", "test", "box"]).0 == 0);
}

#[test]
fn a_machine_that_sleeps_is_woken_and_how_long_it_took_is_remembered() {
    if !inside("a_machine_that_sleeps_is_woken_and_how_long_it_took_is_remembered") {
        return;
    }
    let there = There::new();
    let dir = client("wake = \"0a:00:00:00:00:01\"\n");
    let state = || {
        let (_, out, err) = tui(&dir, &["backends", "--json"]);
        let line: Value = serde_json::from_str(out.lines().last().expect(&err)).unwrap();
        (line["state"].as_str().unwrap().to_owned(), line["wake_ms"].clone(), line["next"].clone())
    };
    assert_eq!((state().0.as_str(), state().1), ("asleep", Value::Null));
    assert!(tui(&dir, &["backends"]).1.contains("-> `tui backends wake box`"));
    let _sleeper = there.play("sleeper");
    let (code, _, err) = tui(&dir, &["backends", "wake", "box"]);
    assert!(code == 0 && err.contains("waking box\n") && err.contains("box woke within"), "{code} {err}");
    let (now, wake, _) = state();
    assert_eq!(now, "ready");
    // Whole milliseconds: one that wakes at once takes none.
    assert!(wake.is_number(), "{wake}");
    let (code, _, err) = tui(&dir, &["backends", "wake", "box"]);
    assert!(code == 0 && err.contains("box is awake") && err.contains("as it was before"), "{err}");
}

#[test]
fn a_server_that_announces_itself_is_found() {
    if !inside("a_server_that_announces_itself_is_found") {
        return;
    }
    let there = There::new();
    let server = tempfile::tempdir().unwrap();
    let mut serving = there.command(env!("CARGO_BIN_EXE_tui"));
    for (name, folder) in [("CONFIG", "config"), ("DATA", "data"), ("CACHE", "cache"), ("RUNTIME", "run")] {
        serving.env(format!("DUET_{name}_DIR"), server.path().join(folder));
    }
    let child = serving
        .args(["serve", "--listen", &format!("{THERE}:7411"), "--tls", "--announce"])
        .env("DUET_SERVE_TOKEN", "a-token-for-tests-0123456789abcdef0123456789")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut serving = Player { child, _out: None };
    let mut lines = BufReader::new(serving.child.stderr.take().unwrap()).lines();
    let key =
        lines.find_map(|line| line.unwrap().split_once("SHA256:").map(|(_, key)| key.to_owned())).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut found = String::new();
    wait_until("it is heard", || {
        found = tui(&dir, &["backends", "discover", "--json", "--seconds", "2"]).1;
        !found.is_empty()
    });
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["url"], format!("https://{THERE}:7411"));
    assert_eq!(found["fingerprint"], format!("sha256:{key}"));
    let text = tui(&dir, &["backends", "discover", "--seconds", "2"]).1;
    assert!(text.contains(&format!("-> tui backends pair https://{THERE}:7411")), "{text}");
    let (code, _, err) = tui(&dir, &["backends", "add", "box", "--discover"]);
    assert!(code == 0 && err.contains("box is added"), "{code} {err}");
    assert!(err.contains("its certificate"), "a hint is no proof: {err}");
}
