//! The interface with the real engine and the built-in model, in a real pseudo-terminal.

#![cfg(all(unix, feature = "local"))]
#![allow(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use support::pty::{DEADLINE, Home, Program, Pty, Received};

const TUI: &str = env!("CARGO_BIN_EXE_tui");
const COUNT: &str = "Count from 1 to 50";

fn home() -> Home {
    Home::with_config("[engine]\nlinger = 1\nthreads = 1\n")
}

fn start(home: &Home, args: &[&str]) -> Pty {
    let pty = Program::new(TUI, home).args(args.iter().copied()).size(100, 30).start();
    pty.wait_for("the composer", |r| r.is_alternate() && r.text().contains("→ local"));
    pty
}

fn ask(pty: &Pty, question: &str) {
    pty.send(question);
    pty.send("\r");
}

/// Runs the program without a terminal.
fn run(home: &Home, args: &[&str]) -> Output {
    Command::new(TUI).args(args).env_clear().envs(home.environment()).output().expect("it runs")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// The process that does the engine's work.
fn worker(home: &Home) -> Pid {
    let status = stdout(&run(home, &["engine", "status", "--json"]));
    let status: Value = serde_json::from_str(&status).expect("JSON");
    let pid = status["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    pid.expect("the engine runs")
}

/// Sampling so hot that the model talks nonsense until its context is full, which takes a while.
const BABBLE: [&str; 10] = ["--temp", "5", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--seed", "7"];

/// Has the model babble and stops the engine in the middle of it. Gives the engine and the last word shown.
/// Babble that ends early by chance is asked for again.
fn caught_in_the_middle(home: &Home, pty: &Pty) -> (Pid, String) {
    let deadline = Instant::now() + DEADLINE;
    pty.wait_for("news of the engine's models", |r| r.text().contains("2M"));
    loop {
        assert!(Instant::now() < deadline, "the answer always got away");
        let engine = worker(home);
        ask(pty, "Say something");
        // The question, some lines of the answer, the receipt, the composer; the welcome is gone.
        let is_talking = |text: &str| {
            !text.contains("Type a question")
                && text.lines().filter(|line| !line.trim().is_empty()).count() >= 8
        };
        while !is_talking(&pty.received().text()) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        kill_process(engine, Signal::STOP).expect("stopped");
        // What was under way arrives; then nothing moves any more. A loaded machine is given more than the
        // 250 ms within which text is on disk.
        let _ = pty.bytes_during(Duration::from_millis(1000));
        let text = pty.received().text();
        if text.contains("esc stop")
            && let Some(word) = last_word(&text)
        {
            return (engine, word);
        }
        kill_process(engine, Signal::CONT).expect("goes on");
        pty.wait_for("the end of it", |r| !r.text().contains("esc stop"));
        pty.send("/new\r");
        pty.wait_for_text("Type a question");
    }
}

/// The last word of plain letters in the answer, which is all above the live receipt.
fn last_word(screen: &str) -> Option<String> {
    let (answer, _) = screen.rsplit_once("local · builtin q8_0")?;
    let is_word = |part: &&str| part.len() > 3 && part.chars().all(|c| c.is_ascii_lowercase());
    answer.split(|c: char| !c.is_ascii_alphanumeric()).rfind(is_word).map(str::to_owned)
}

#[test]
fn a_question_is_answered_saved_and_gone_on_with() {
    let home = home();
    let mut pty = start(&home, &[]);
    pty.wait_for("news of the engine's models", |r| r.text().contains("2M"));
    ask(&pty, "My name is Ada");
    pty.wait_for_text("Nice to meet you, Ada.");
    pty.wait_for("the receipt", |r| r.text().contains("local · builtin q8_0") && r.text().contains("tok/s"));
    pty.send("\x03");
    pty.wait_for_text("again to quit");
    pty.send("\x03");
    assert_eq!(pty.wait_for_end(DEADLINE), Ok(0));
    pty.assert_restored();
    assert!(pty.received().text().contains("tui --resume "), "{}", pty.received().text());
    assert_eq!(stdout(&run(&home, &["-c", "-p", "What is my name?"])), "Your name is Ada.\n");
}

#[test]
fn one_shot_prints_the_answer_and_nothing_else() {
    let home = home();
    let question = "What is the capital of France?";
    assert_eq!(stdout(&run(&home, &["-p", question])), "The capital of France is Paris.\n");
    assert_eq!(stdout(&run(&home, &["--system", "Answer in one word.", question])), "Paris\n");
    let events: Vec<Value> = stdout(&run(&home, &["-p", COUNT, "--jsonl"]))
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    let names: Vec<&str> = events.iter().filter_map(|e| e["event"].as_str()).collect();
    assert_eq!(names.first(), Some(&"start"));
    let mut order: Vec<&str> = names.clone();
    order.dedup();
    assert_eq!(order, ["start", "route", "prefill", "delta", "usage", "end"]);
    let said: String =
        events.iter().filter(|e| e["event"] == "delta").filter_map(|e| e["text"].as_str()).collect();
    assert!(said.starts_with("1 2 3") && said.ends_with("49 50"), "{said}");
    assert_eq!(events.last().map(|end| end["text"].as_str()), Some(Some(said.as_str())));
}

#[test]
fn escapes_of_the_model_never_reach_the_terminal() {
    let home = home();
    let hostile = ["\x1b]0;", "\x1b[2J\x1b[31m", "owned\x07", "\x1b[31mred"];
    let mut pty = Program::new(TUI, &home).args(["-p", "Print an escape sequence"]).start();
    assert_eq!(pty.wait_for_end(DEADLINE), Ok(0));
    pty.wait_for_text("after.");
    // The progress on stderr clears its line; that is ours.
    let text = String::from_utf8_lossy(&pty.received().raw).replace("\r\x1b[K", "");
    assert!(!text.contains(['\x1b', '\x07']), "{text:?}");

    let pty = start(&home, &[]);
    ask(&pty, "Print an escape sequence");
    pty.wait_for("the answer", |r| r.text().contains("owned") && r.text().contains("after."));
    let text = String::from_utf8_lossy(&pty.received().raw).into_owned();
    for escape in hostile {
        assert!(!text.contains(escape), "{escape:?} reached the terminal");
    }
    // Into a pipe the original goes.
    let raw = run(&home, &["-p", "Print an escape sequence"]).stdout;
    assert!(String::from_utf8_lossy(&raw).contains("\x1b]0;owned\x07"));
}

#[test]
fn a_killed_engine_takes_neither_the_text_nor_the_interface() {
    let home = home();
    let pty = start(&home, &BABBLE);
    let (engine, word) = caught_in_the_middle(&home, &pty);
    kill_process(engine, Signal::KILL).expect("killed");
    pty.wait_for("the trouble", |r| {
        r.text().contains("engine ended while answering") && r.text().contains(&word)
    });
    pty.wait_for("the engine is back", |r| {
        r.text().contains("engine restarted") && r.text().contains("local 2M")
    });
    pty.send("r");
    pty.wait_for("the second attempt to end", |r| {
        let text = r.text();
        text.contains("tok/s") && !text.contains("esc stop") && !text.contains("r retry")
    });
}

#[test]
fn a_killed_client_loses_nothing_that_was_shown() {
    let home = home();
    let mut pty = start(&home, &BABBLE);
    let (engine, word) = caught_in_the_middle(&home, &pty);
    pty.kill(Signal::KILL);
    assert!(pty.wait_for_end(DEADLINE).is_err());
    kill_process(engine, Signal::CONT).expect("goes on");
    let pty = start(&home, &["-c"]);
    pty.wait_for("the text that was shown", |r: &Received| r.text().contains(&word));
    pty.wait_for_text("r retry");
}

#[test]
fn two_windows_share_one_engine() {
    let home = home();
    let (a, b) = (start(&home, &[]), start(&home, &[]));
    ask(&a, "What is the capital of Japan?");
    ask(&b, "What is the capital of Peru?");
    a.wait_for_text("The capital of Japan is Tokyo.");
    b.wait_for_text("The capital of Peru is Lima.");
    let status: Value =
        serde_json::from_str(&stdout(&run(&home, &["engine", "status", "--json"]))).expect("JSON");
    assert_eq!(status["models"].as_array().map(Vec::len), Some(1));
    assert_eq!(stdout(&run(&home, &["engine", "stop"])), "");
    a.wait_for_text("the engine was stopped");
    ask(&a, "What is the capital of Cuba?");
    a.wait_for_text("The capital of Cuba is Havana.");
}

#[test]
fn a_model_that_is_not_there_is_refused_in_the_engines_words() {
    let home = home();
    let output = run(&home, &["-m", "nosuch", "hi"]);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{err}");
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 2, "{err}");
    assert_eq!(lines[0], "tui: there is no model \"nosuch\"");
    assert!(lines[1].starts_with("hint: "), "{err}");
    let output = run(&home, &["-m", "nosuch", "--json", "hi"]);
    let object: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let error = &object["answers"][0]["error"];
    assert_eq!(
        (&error["kind"], &error["message"]),
        (&"model".into(), &"there is no model \"nosuch\"".into())
    );
    assert!(error["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{error}");
}

#[test]
fn the_board_shows_what_is_in_memory_and_changes_it() {
    let home = home();
    let pty = start(&home, &[]);
    pty.wait_for("news of the engine's models", |r| r.text().contains("2M"));
    pty.send("/models\r");
    pty.wait_for("the board", |r| {
        let text = r.text();
        text.contains("in memory ─╮") && text.contains("CPU") && text.contains("free")
    });
    if pty.received().text().contains("● builtin") {
        pty.send("u");
    }
    for _ in 0..2 {
        pty.wait_for("the model on disk", |r| r.text().contains("○ builtin"));
        pty.send("\r");
        pty.wait_for("the model in memory", |r| r.text().contains("● builtin"));
        pty.send("u");
    }
    pty.wait_for("the model on disk", |r| r.text().contains("○ builtin"));
    pty.send("u");
    pty.wait_for_text("builtin is not in memory");
    pty.send("\x1b");
    pty.wait_for("the page without the board", |r| !r.text().contains("in memory ─╮"));
}
