//! The program from outside: arguments, streams, exit codes, what is saved. It talks to a scripted server.
#![expect(clippy::expect_used, clippy::panic, reason = "a helper whose set-up fails has failed")]

#[path = "support/scripted.rs"]
mod scripted;

use pretty_assertions::assert_eq;
use scripted::{Script, Server};
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A home of one test.
struct Home {
    dir: TempDir,
}

/// What a run left.
#[derive(Debug)]
struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("config")).expect("made");
        Self { dir }
    }

    /// A home whose configuration names this server as the default.
    fn with(server: &Server) -> Self {
        let home = Self::new();
        home.configure(&format!(
            "model = \"fake/m\"\n[[backend]]\nname = \"fake\"\nurl = \"{}\"\nmodel = \"m\"\n",
            server.url()
        ));
        home
    }

    fn configure(&self, text: &str) {
        std::fs::write(self.path("config/config.toml"), text).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tui"));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("TERM", "xterm-256color")
            .env("DUET_CONFIG_DIR", self.path("config"))
            .env("DUET_DATA_DIR", self.path("data"))
            .env("DUET_CACHE_DIR", self.path("cache"))
            .env("DUET_RUNTIME_DIR", self.path("run"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        done(self.command(args).output().expect("runs"))
    }

    fn run_with_stdin(&self, args: &[&str], stdin: &[u8]) -> Run {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().expect("starts");
        let mut pipe = child.stdin.take().expect("piped");
        // A program that refuses early may not read all of it.
        let _ = pipe.write_all(stdin);
        drop(pipe);
        done(child.wait_with_output().expect("ends"))
    }
}

fn done(output: Output) -> Run {
    Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).expect("text on stdout"),
        err: String::from_utf8(output.stderr).expect("text on stderr"),
    }
}

impl Run {
    /// Refused before anything was sent, in at most two lines.
    #[track_caller]
    fn refused(&self, code: i32, message: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.out, "", "{self:?}");
        assert!(self.err.contains(message), "{self:?}");
        assert!(self.err.lines().count() <= 2, "{self:?}");
    }

    #[track_caller]
    fn answered(&self, text: &str) {
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (0, text, ""));
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

// --- arguments and configuration ---------------------------------------------------------------

#[test]
fn wrong_arguments_are_two_lines_and_exit_2() {
    let home = Home::new();
    for (args, message) in [
        (&["--modle", "x", "hi"][..], "similar argument exists: '--model'"),
        (&["--temp", "nan", "hi"], "between 0 and 5"),
        (&["--temp", "-1", "hi"], "between 0 and 5"),
        (&["--temp", "1e9", "hi"], "between 0 and 5"),
        (&["--top-p", "2", "hi"], "between 0 and 1"),
        (&["--top-k", "-1", "hi"], "--top-k"),
        (&["--max-tokens", "0", "hi"], "--max-tokens"),
        (&["--max-tokens", "-1", "hi"], "--max-tokens"),
        (&["--max-tokens", "9223372036854775808", "hi"], "--max-tokens"),
        (&["--seed", "abc", "hi"], "--seed needs a whole number, not \"abc\""),
        (&["--seed", "-1", "hi"], "--seed needs a smaller whole number"),
        (&["--temp", "warm", "hi"], "--temp needs a number between 0 and 5, not \"warm\""),
        (&["--timeout", "x", "hi"], "--timeout needs a number of seconds above 0, not \"x\""),
        (&["sessions", "-n", "x"], "--limit needs a whole number, not \"x\""),
        (&["-m", "nowhere/builtin", "hi"], "no backend `nowhere`; there is"),
        (&["-m", "nowhere/qwen", "hi"], "no backend `nowhere`; there is"),
        (&["--on", "nowhere"], "no backend `nowhere`; there is"),
        (&["--timeout", "0", "hi"], "--timeout"),
        (&["--think", "perhaps", "hi"], "show, hide"),
        (&["-c", "--resume", "x"], "cannot be used with"),
        (&["-f", "-", "-f", "-", "hi"], "twice"),
        (&["-f", "-", "-", "hi"], "twice"),
        (&["sessions", "of", "the", "day"], "tui -p"),
        (&["--prompt", "nope", "hi"], "there is coder, default"),
        (&["--resume", "nope", "hi"], "no saved session `nope`"),
        (&["-c", "hi"], "no saved conversation"),
        (&["-p"], "nothing to ask"),
        (&["  "], "nothing to ask"),
        (&[], "nothing to ask"),
        (&["--on", "nowhere", "hi"], "nowhere"),
        (&["models", "load"], "load needs a model\nhint: `tui models` shows"),
        (&["models", "unload", "--on", "x"], "unload needs a model\n"),
        (&["sessions", "show"], "show needs an id\nhint: `tui sessions` shows"),
    ] {
        home.run(args).refused(2, message);
    }
    assert!(!home.path("data").exists(), "nothing was saved");
}

#[test]
fn a_wrong_configuration_names_line_and_nearest_key() {
    let home = Home::new();
    home.configure("theme = \"default\"\nmodle = \"x\"\n");
    let run = home.run(["hi"]);
    run.refused(2, "config.toml:2: unknown key `modle`");
    assert!(run.err.contains("did you mean `model`?"), "{run:?}");
    home.run(["--config", "/nonexistent/c.toml", "hi"]).refused(2, "no such file");
    home.run(["config", "check"]).refused(2, "unknown key");
    home.configure("[[backend]]\nname = \"mac\"\nurl = \"ftp://x\"\n");
    home.run(["config", "check"]).refused(2, "mac");
    home.configure("theme = \"nope\"\n");
    home.run(["config", "check"]).refused(2, "nope");
    home.configure(
        "[[backend]]\nname = \"mac\"\nurl = \"http://127.0.0.1:1\"\ntoken_env = \"NO_SUCH_KEY\"\n",
    );
    home.run(["config", "check"]).refused(2, "$NO_SUCH_KEY, which is not set");
    home.configure("theme = \"light\"\n");
    let run = home.run(["config", "check"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(home.run(["config", "path"]).out, format!("{}\n", home.path("config/config.toml").display()));
    let shown = home.run(["config", "show"]).out;
    std::fs::write(home.path("config/config.toml"), &shown).expect("written");
    assert_eq!(home.run(["config", "show"]).out, shown, "what is shown can be used");
}

#[test]
fn help_and_version() {
    let home = Home::new();
    for args in [["--help"], ["-h"], ["help"]] {
        let run = home.run(args);
        assert!(run.code == 0 && run.out.contains("Usage: tui") && run.err.is_empty(), "{run:?}");
    }
    assert!(home.run(["--help"]).out.contains("Examples:"));
    let help = home.run(["models", "--help"]).out;
    assert!(help.contains("Everywhere:\n      --config") && !help.contains("Sampling"), "{help}");
    assert_eq!(home.run(["--version"]).out, format!("tui {}\n", duet::VERSION));
}

#[test]
fn errors_are_json_where_json_was_asked_for() {
    let home = Home::new();
    let run = home.run(["--json", "--temp", "9", "hi"]);
    assert_eq!(run.code, 2);
    assert_eq!(run.json()["error"]["kind"], "usage");
    assert!(!run.err.is_empty());
    let run = home.run(["--json", "--jsonl", "hi"]);
    assert_eq!((run.code, &run.json()["version"]), (2, &Value::from(1)));
    let run = home.run(["--jsonl", "--on", "nowhere", "hi"]);
    assert_eq!((run.code, &run.json()["event"]), (2, &Value::from("error")));
}

#[test]
fn what_is_no_text_is_refused_before_anything_is_sent() {
    let server = Server::start([]);
    let home = Home::with(&server);
    std::fs::write(home.path("binary"), b"a\0b").expect("written");
    std::fs::write(home.path("latin1"), b"one\ncaf\xe9\n").expect("written");
    std::fs::write(home.path("huge"), vec![b'x'; (8 << 20) + 1]).expect("written");
    std::fs::write(home.path("list.json"), "[1]").expect("written");
    let fifo = home.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("runs").success());
    for (file, message) in [
        ("nope", "nope: no such file"),
        (".", "a folder"),
        ("fifo", "a pipe"),
        ("/dev/zero", "a device"),
        ("binary", "byte 2 is NUL"),
        ("latin1", "not UTF-8 text (line 2)"),
        ("huge", "larger than 8192 KiB"),
    ] {
        home.run(["-f", file, "what is this?"]).refused(2, message);
    }
    home.run(["--schema", "list.json", "hi"]).refused(2, "not a JSON schema");
    home.run(["-f", "list.json"]).refused(2, "no question about them");
    home.run_with_stdin(&["hi"], b"a\0").refused(2, "stdin: not text");
    home.run_with_stdin(&["hi"], b"caf\xe9").refused(2, "stdin: not UTF-8");
    assert!(server.requests().is_empty());
}

// --- answers -----------------------------------------------------------------------------------

#[test]
fn only_the_answer_is_on_stdout() {
    let server = Server::start([Script::answer(&["The capital of ", "France is Paris.", "\n\n"])]);
    let home = Home::with(&server);
    home.run(["-p", "What is the capital", "of France?"]).answered("The capital of France is Paris.\n");
    let request = &server.requests()[0];
    assert_eq!(request["model"], "m");
    assert_eq!(request["stream"], true);
    assert_eq!(request["messages"][0]["role"], "user");
    assert_eq!(request["messages"][0]["content"], "What is the capital of France?");
    assert_eq!(request["messages"].as_array().map(Vec::len), Some(1));
}

#[test]
fn flags_reach_the_server() {
    let server = Server::start([Script::answer(&["ok"])]);
    let home = Home::with(&server);
    std::fs::write(home.path("s.json"), r#"{"type":"object"}"#).expect("written");
    home.run([
        "--system",
        "Be brief.",
        "--temp",
        "0.5",
        "--top-k",
        "3",
        "--top-p",
        "0.25",
        "--min-p",
        "0.125",
        "--repeat-penalty",
        "1.5",
        "--presence-penalty",
        "-0.5",
        "--frequency-penalty",
        "0.75",
        "--seed",
        "7",
        "--max-tokens",
        "9",
        "--schema",
        "s.json",
        "-m",
        "other",
        "--on",
        "fake",
        "hi",
    ])
    .answered("ok\n");
    let request = &server.requests()[0];
    assert_eq!(request["model"], "other");
    assert_eq!(request["messages"][0]["content"], "Be brief.");
    for (name, value) in [
        ("temperature", 0.5),
        ("top_k", 3.0),
        ("top_p", 0.25),
        ("min_p", 0.125),
        ("repeat_penalty", 1.5),
        ("presence_penalty", -0.5),
        ("frequency_penalty", 0.75),
        ("seed", 7.0),
        ("max_tokens", 9.0),
    ] {
        assert_eq!(request[name].as_f64(), Some(value), "{name}");
    }
    assert!(request["response_format"].to_string().contains("object"), "{request}");
}

#[test]
fn stdin_and_files_are_joined_to_the_question() {
    let server = Server::start((0..4).map(|_| Script::answer(&["ok"])));
    let home = Home::with(&server);
    std::fs::write(home.path("a.txt"), b"\xff\xfeh\0i\0").expect("written");
    home.run_with_stdin(&["Fix", "this"], b"let x;\n").answered("ok\n");
    home.run_with_stdin(&[], b"From a pipe\n").answered("ok\n");
    home.run_with_stdin(&["-f", "a.txt", "-f", "-", "Compare"], b"yo").answered("ok\n");
    home.run_with_stdin(&["Now", "-"], b"more").answered("ok\n");
    let asked: Vec<String> = server
        .requests()
        .iter()
        .map(|request| request["messages"][0]["content"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(
        asked,
        [
            "Fix this\n\n```\nlet x;\n```",
            "From a pipe",
            "Compare\n\na.txt:\n```\nhi\n```\n\nstdin:\n```\nyo\n```",
            "Now\n\n```\nmore\n```",
        ]
    );
}

#[test]
fn json_is_one_object_with_everything() {
    let server = Server::start([Script::thinking_answer("hm", &["Par", "is"])]);
    let home = Home::with(&server);
    let run = home.run(["--json", "hi"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let value = run.json();
    assert_eq!(value["version"], 1);
    assert_eq!(value["turn"], 1);
    let answer = &value["answers"][0];
    assert_eq!(answer["text"], "Paris");
    assert_eq!(answer["thinking"], "hm");
    assert_eq!(answer["model"], "m");
    assert_eq!(answer["backend"], "fake");
    assert_eq!(answer["finish"], "stop");
    assert_eq!(answer["route"]["rule"], "configured");
    assert_eq!(answer["error"], Value::Null);
    let metrics = &answer["metrics"];
    assert_eq!(metrics["prompt_tokens"], 20);
    assert_eq!(metrics["output_tokens"], 8);
    assert_eq!(metrics["decode_tokens_per_s"], 100.0);
    for clock in ["network_ms", "first_token_ms", "first_answer_ms", "total_ms"] {
        assert!(metrics[clock].as_f64().is_some_and(|ms| ms >= 0.0), "{clock}: {metrics}");
    }
    let id = value["session"].as_str().expect("saved").to_owned();
    assert!(home.run(["sessions", "list"]).out.starts_with(&id));
    let shown = home.run(["sessions", "show", id.get(..12).expect("long enough")]).out;
    assert!(shown.contains("## You\n\nhi\n") && shown.contains("## fake · m\n\nParis\n"), "{shown}");
}

#[test]
fn jsonl_is_one_event_a_line() {
    let server = Server::start([Script::thinking_answer("hm", &["Par", "is"])]);
    let home = Home::with(&server);
    let run = home.run(["--jsonl", "hi"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let events: Vec<Value> = run.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().expect("a name")).collect();
    assert_eq!(names, ["start", "route", "prefill", "thinking", "delta", "delta", "usage", "end"]);
    assert!(events.iter().all(|event| event["lane"] == 0));
    assert_eq!(events[0]["version"], 1);
    assert_eq!(events[1]["backend"], "fake");
    assert_eq!(events[2]["total"], 20);
    assert_eq!(events[4]["text"], "Par");
    assert_eq!(events[6]["output_tokens"], 8);
    assert_eq!(events[7]["text"], "Paris");
}

#[test]
fn thinking_goes_to_stderr_and_only_if_asked() {
    let server = Server::start((0..2).map(|_| Script::thinking_answer("hm\u{1b}[2J", &["Paris"])));
    let home = Home::with(&server);
    home.run(["hi"]).answered("Paris\n");
    let run = home.run(["--think", "show", "hi"]);
    assert_eq!((run.code, run.out.as_str()), (0, "Paris\n"));
    assert!(run.err.starts_with("hm") && !run.err.contains('\u{1b}'), "{run:?}");
}

#[test]
fn only_the_last_code_block_with_x() {
    let text = "First:\n```sh\nls\n```\nThen:\n```rust\nfn main() {}\n```\nDone.";
    let server = Server::start([Script::answer(&[text]), Script::answer(&["no code"])]);
    let home = Home::with(&server);
    home.run(["-x", "hi"]).answered("fn main() {}\n");
    home.run(["-x", "hi"]).refused(1, "no code block");
}

#[test]
fn the_answer_can_come_at_once() {
    let server = Server::start([Script::answer(&["a", "b\n", "c"])]);
    let home = Home::with(&server);
    home.run(["--no-stream", "hi"]).answered("ab\nc\n");
}

// --- failures ----------------------------------------------------------------------------------

#[test]
fn every_kind_of_failure_has_its_exit_code() {
    let context = r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error","n_prompt_tokens":9000,"n_ctx":8192}}"#;
    let server = Server::start([
        Script::status(401, r#"{"error":{"message":"bad key"}}"#),
        Script::status(
            404,
            r#"{"error":{"code":404,"message":"model 'm' not found","type":"not_found_error"}}"#,
        ),
        Script::status(400, context),
        Script::status(500, "oops"),
    ]);
    let home = Home::with(&server);
    for code in [3, 4, 5] {
        home.run(["hi"]).refused(code, "");
    }
    let run = home.run(["hi"]);
    assert!(run.code != 0 && run.out.is_empty(), "{run:?}");
    drop(server);
    home.run(["hi"]).refused(3, "");
    let run = home.run(["--json", "hi"]);
    assert_eq!((run.code, &run.json()["answers"][0]["error"]["kind"]), (3, &Value::from("unreachable")));
}

#[test]
fn a_broken_answer_is_printed_and_kept() {
    let server = Server::start([Script::broken(&["half of ", "it"]), Script::answer(&["again"])]);
    let home = Home::with(&server);
    let run = home.run(["hi"]);
    assert_eq!((run.code, run.out.as_str()), (1, "half of it\n"), "{run:?}");
    let id = home.run(["sessions"]).out.split_whitespace().next().expect("one").to_owned();
    let shown = home.run(["sessions", "show", &id]).out;
    assert!(shown.contains("interrupted") && shown.contains("half of it"), "{shown}");
    home.run(["-c", "and?"]).answered("again\n");
    let sent = &server.requests()[1]["messages"];
    assert_eq!(sent.as_array().map(Vec::len), Some(1), "an interrupted answer is no context: {sent}");
}

#[test]
fn time_can_run_out() {
    let server = Server::start([Script::answer(&["slow "]).then_hold()]);
    let home = Home::with(&server);
    let run = home.run(["--timeout", "1.5", "hi"]);
    assert_eq!((run.code, run.out.as_str()), (124, "slow\u{20}\n"), "{run:?}");
    assert!(run.err.contains("1.5 s"), "{run:?}");
}

// --- signals and pipes -------------------------------------------------------------------------

/// Starts a question whose answer stops coming after `text`, and waits until that is printed.
fn held(home: &Home, text: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = home.command(["hi"]).spawn().expect("starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut seen = vec![0; text.len()];
    out.read_exact(&mut seen).expect("the answer begins");
    assert_eq!(seen, text.as_bytes());
    (child, out)
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().expect("runs");
    assert!(sent.success());
}

fn wait(mut child: Child) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match child.try_wait().expect("a child") {
            Some(status) => return status.code(),
            None if Instant::now() > deadline => {
                let _ = child.kill();
                panic!("it does not end");
            }
            None => std::thread::yield_now(),
        }
    }
}

#[test]
fn ctrl_c_stops_the_turn_and_keeps_what_came() {
    let server = Server::start([Script::answer(&["half"]).then_hold(), Script::answer(&["more"])]);
    let home = Home::with(&server);
    let (child, mut out) = held(&home, "half");
    signal(&child, "-INT");
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("ends");
    assert_eq!((wait(child), rest.as_str()), (Some(130), "\n"));
    home.run(["-c", "go on"]).answered("more\n");
    let sent = &server.requests()[1]["messages"];
    assert_eq!(sent[1]["content"], "half", "a stopped answer is context: {sent}");
}

#[test]
fn a_killed_program_leaves_what_had_come() {
    let server = Server::start([Script::answer(&["half"]).then_hold(), Script::answer(&["more"])]);
    let home = Home::with(&server);
    let (mut child, _out) = held(&home, "half");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !home.run(["sessions", "show", "hi"]).out.contains("half") {
        assert!(Instant::now() < deadline, "the answer is not on disk");
    }
    child.kill().expect("killed");
    child.wait().expect("gone");
    let shown = home.run(["sessions", "show", "hi"]).out;
    assert!(shown.contains("half") && shown.contains("the program ended"), "{shown}");
    home.run(["-c", "go on"]).answered("more\n");
    assert_eq!(home.run(["sessions"]).out.lines().count(), 1, "the same session");
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let server = Server::start([Script::endless()]);
    let home = Home::with(&server);
    let mut child = home.command(["hi"]).spawn().expect("starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    drop(out);
    let mut err = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut err).expect("ends");
    assert_eq!((wait(child), err.as_str()), (Some(0), ""));
}

#[test]
fn a_terminal_gets_no_control_byte_of_the_models() {
    use portable_pty::{CommandBuilder, PtySize, native_pty_system};
    let hostile = "A\u{1b}]0;owned\u{7}B\u{1b}[2JC\u{9b}31mD\u{202e}E\r\nF";
    let server = Server::start([Script::answer(&[hostile])]);
    let home = Home::with(&server);
    let pair = native_pty_system().openpty(PtySize::default()).expect("a pty");
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_tui"));
    command.args(["-p", "hi"]);
    command.env_clear();
    command.cwd(home.dir.path());
    command.env("TERM", "dumb");
    command.env("HOME", home.path("home"));
    for (name, dir) in [("CONFIG", "config"), ("DATA", "data"), ("CACHE", "cache"), ("RUNTIME", "run")] {
        command.env(format!("DUET_{name}_DIR"), home.path(dir));
    }
    let mut child = pair.slave.spawn_command(command).expect("starts");
    drop(pair.slave);
    let mut seen = Vec::new();
    let mut reader = pair.master.try_clone_reader().expect("a reader");
    // Linux reports the end of a pty as an error.
    let _ = reader.read_to_end(&mut seen);
    assert!(child.wait().expect("ends").success());
    let seen = String::from_utf8(seen).expect("text");
    assert!(seen.contains('A') && seen.contains('F'), "{seen:?}");
    let odd: Vec<char> =
        seen.chars().filter(|c| (c.is_control() && !"\r\n\t".contains(*c)) || *c == '\u{202e}').collect();
    assert!(odd.is_empty(), "{seen:?}");
}

// --- sessions ----------------------------------------------------------------------------------

#[test]
fn a_conversation_goes_on() {
    let server =
        Server::start(["Hello Ada.", "Your name is Ada.", "Hello Bob."].map(|a| Script::answer(&[a])));
    let home = Home::with(&server);
    home.run(["--system", "Be kind.", "My name is Ada"]).answered("Hello Ada.\n");
    home.run(["-c", "-p", "What is my name?"]).answered("Your name is Ada.\n");
    let sent: Vec<(String, String)> = server.requests()[1]["messages"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|m| {
            (m["role"].as_str().unwrap_or("").to_owned(), m["content"].as_str().unwrap_or("").to_owned())
        })
        .collect();
    let expected = [
        ("system", "Be kind."),
        ("user", "My name is Ada"),
        ("assistant", "Hello Ada."),
        ("user", "What is my name?"),
    ];
    assert_eq!(sent, expected.map(|(role, text)| (role.to_owned(), text.to_owned())));
    home.run(["--resume", "my name", "--system", "", "My name is Bob"]).answered("Hello Bob.\n");
    assert_eq!(server.requests()[2]["messages"][0]["role"], "user");
    assert_eq!(home.run(["sessions"]).out.lines().count(), 1);
}

#[test]
fn a_conversation_goes_on_with_its_model() {
    let server = Server::start((0..3).map(|_| Script::answer(&["ok"])));
    let home = Home::with(&server);
    home.run(["-m", "fake/other", "one"]).answered("ok\n");
    let run = home.run(["-c", "--json", "two"]).json();
    assert_eq!(run["answers"][0]["route"]["rule"], "session");
    assert_eq!(run["answers"][0]["route"]["reason"], "as before");
    home.run(["-c", "-m", "fake/m", "three"]).answered("ok\n");
    let models: Vec<Value> = server.requests().iter().map(|request| request["model"].clone()).collect();
    assert_eq!(models, ["other", "other", "m"]);
}

#[test]
fn conversations_are_listed_as_many_as_wished() {
    let server = Server::start((0..3).map(|_| Script::answer(&["ok"])));
    let home = Home::with(&server);
    let empty = home.run(["sessions"]);
    assert_eq!((empty.code, empty.out.as_str()), (0, ""));
    assert!(empty.err.contains("nothing has been saved yet"), "{empty:?}");
    for question in ["one", "two", "three"] {
        home.run([question]).answered("ok\n");
    }
    home.run(["sessions", "list", "-n", "0"]).answered("");
    assert_eq!(home.run(["sessions", "-n", "2"]).out.lines().count(), 2);
    for args in [&["sessions", "-n", "2", "--json"][..], &["sessions", "list", "-n", "2", "--json"]] {
        let run = home.run(args);
        let titles: Vec<Value> = run
            .out
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["title"].clone())
            .collect();
        assert_eq!(titles, ["three", "two"], "{run:?}");
    }
}

#[test]
fn nothing_is_saved_if_that_is_wished_or_impossible() {
    let server = Server::start((0..3).map(|_| Script::answer(&["ok"])));
    let home = Home::with(&server);
    home.run(["--no-save", "hi"]).answered("ok\n");
    assert!(!home.path("data").exists());
    std::fs::write(home.path("data"), "in the way").expect("written");
    let run = home.run(["hi"]);
    assert_eq!((run.code, run.out.as_str()), (0, "ok\n"));
    assert_eq!(run.err.matches("not saved").count(), 1, "{run:?}");
    let run = home.run(["--json", "hi"]);
    assert_eq!(run.json()["session"], Value::Null);
}

#[test]
fn files_are_private_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::start([Script::answer(&["ok"])]);
    let home = Home::with(&server);
    let command = home.command(["hi"]);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg("umask 000; exec \"$0\" hi").arg(command.get_program()).env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    assert!(shell.stdin(Stdio::null()).output().expect("runs").status.success());
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&home.path("data")), 0o700);
    assert_eq!(mode(&home.path("data/duet.db")), 0o600);
    assert_eq!(mode(&home.path("cache/logs/tui.log")), 0o600);
}
