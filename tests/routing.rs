//! Two machines: the engine with its built-in model, and a scripted server that fails in different moments. Where turns
//! go, what becomes of them when a machine fails, and what never leaves.

#![cfg(all(unix, feature = "local"))]
#![allow(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

mod support;

#[path = "support/scripted.rs"]
mod scripted;

use pretty_assertions::assert_eq;
use scripted::{Script, Server};
use serde_json::Value;
use std::process::{Command, Output};
use support::pty::{Home, Program, Pty};

const TUI: &str = env!("CARGO_BIN_EXE_tui");

/// A home with the engine and `mac`, which is the default target.
fn home(url: &str, more: &str) -> Home {
    Home::with_config(&format!(
        "model = \"mac/m\"\n{more}\n[engine]\nlinger = 1\nthreads = 1\n\
         [[backend]]\nname = \"mac\"\nurl = \"{url}\"\nmodel = \"m\"\nkind = \"llama-server\"\n"
    ))
}

fn start(home: &Home) -> Pty {
    let pty = Program::new(TUI, home).size(110, 34).start();
    pty.wait_for("the composer", |r| r.is_alternate() && r.text().contains("mac · m"));
    pty.wait_for("news of the engine", |r| r.text().contains("local 2M"));
    pty
}

fn ask(pty: &Pty, question: &str) {
    pty.send(question);
    pty.send("\r");
}

fn run(home: &Home, args: &[&str]) -> Output {
    Command::new(TUI).args(args).env_clear().envs(home.environment()).output().expect("it runs")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What `--json` says of the last saved turn's attempts: backend, answer, decision.
fn saved(home: &Home) -> Vec<(String, String, Value)> {
    let database = home.path("data/duet.db");
    let latest = duet::store::latest(&database).expect("read").expect("a session");
    let turn = duet::store::load(&database, &latest).expect("loaded").turns.pop().expect("a turn");
    let attempts = turn.attempts.into_iter();
    attempts
        .map(|a| (a.backend, a.answer, serde_json::from_str(&a.decision).unwrap_or(Value::Null)))
        .collect()
}

#[test]
fn killed_before_the_first_token_the_turn_is_offered_to_the_other() {
    let server = Server::start([]);
    let home = home(&server.url(), "");
    let pty = start(&home);
    drop(server);
    ask(&pty, "What is the capital of France?");
    pty.wait_for("the offer", |r| r.text().contains("enter run on local · builtin"));
    pty.send("\r");
    pty.wait_for_text("The capital of France is Paris.");
    pty.wait_for("the receipt tells", |r| r.text().contains("fallback from mac"));
    assert!(pty.received().text().contains("try 1 · mac"), "what failed stays: {}", pty.received().text());
    pty.send("\x04");
    let attempts = saved(&home);
    assert_eq!(attempts.iter().map(|(backend, ..)| backend.as_str()).collect::<Vec<_>>(), ["mac", "local"]);
    assert_eq!(attempts[1].2["fallback_from"], "mac");
}

#[test]
fn killed_at_token_20_the_text_is_kept_and_finished_elsewhere() {
    let words: Vec<String> = (1..=20).map(|n| format!("word{n} ")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let server = Server::start([Script::broken(&words)]);
    let home = home(&server.url(), "");
    let pty = start(&home);
    ask(&pty, "Count from 1 to 50");
    pty.wait_for("the cut", |r| r.text().contains("word20") && r.text().contains("c continue"));
    pty.send("c");
    pty.wait_for("both parts", |r| {
        let text = r.text();
        text.contains("continued on local · builtin") && text.contains("· continued ·")
    });
    let text = pty.received().text();
    assert!(text.contains("word1 word2") && text.contains("▲ "), "nothing is lost or spliced: {text}");
    pty.wait_for("its end", |r| !r.text().contains("esc stop"));
    pty.send("\x04");
    let attempts = saved(&home);
    assert_eq!(attempts[0].1, words.concat());
    assert_eq!((attempts[1].0.as_str(), &attempts[1].2["continues"]), ("local", &Value::from(1)));
    assert_eq!(server.requests().len(), 1, "the other machine was not asked again");
}

#[test]
fn killed_during_load_the_turn_moves_by_itself_where_that_is_configured() {
    let server = Server::start([Script::gone_while_loading()]);
    let home = home(&server.url(), "[route]\nfallback = \"auto\"");
    let pty = start(&home);
    ask(&pty, "What is the capital of France?");
    pty.wait_for_text("The capital of France is Paris.");
    pty.wait_for("the receipt tells", |r| r.text().contains("fallback from mac"));
    pty.send("/why\r");
    pty.wait_for("why", |r| r.text().contains("Why local?") && r.text().contains("fallback from mac"));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn in_one_shot_a_turn_moves_only_where_that_is_configured() {
    let question = "What is the capital of France?";
    // Nothing listens there.
    let gone = "http://127.0.0.1:9";
    let asks = home(gone, "");
    let output = run(&asks, &["-p", question]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 0), "{output:?}");
    assert!(err(&output).contains("--on local"), "{}", err(&output));
    assert_eq!(err(&output).lines().count(), 2, "{}", err(&output));

    let moves = home(gone, "[route]\nfallback = \"auto\"");
    let output = run(&moves, &["-p", question, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let answer = &json(&output)["answers"][0];
    assert_eq!((&answer["backend"], &answer["route"]["fallback_from"]), (&"local".into(), &"mac".into()));
    assert_eq!(answer["text"], "The capital of France is Paris.");
    assert!(answer["device"].as_str().is_some_and(|device| device.contains("CPU")), "{answer}");
    assert!(err(&output).contains("it is asked of local now"), "{}", err(&output));
    assert_eq!(saved(&moves).len(), 2);
    let output = run(&moves, &["-p", question, "--on", "mac"]);
    assert_eq!(output.status.code(), Some(3), "a machine that was named is not replaced: {output:?}");

    let never = home(gone, "[route]\nfallback = \"never\"");
    let output = run(&never, &["-p", question]);
    assert_eq!((output.status.code(), err(&output).contains("--on local")), (Some(3), false), "{output:?}");
}

#[test]
fn a_fenced_file_never_reaches_another_machine() {
    let server = Server::start([Script::answer(&["read"]), Script::answer(&["again"])]);
    let home = home(&server.url(), "[privacy]\nnever_leave = [\"*.pem\"]\n[route]\nfallback = \"auto\"");
    std::fs::write(home.path("id.pem"), "secret").expect("written");
    std::os::unix::fs::symlink(home.path("id.pem"), home.path("notes.txt")).expect("linked");
    let link = home.path("notes.txt").display().to_string();
    for args in [vec!["-p", "read this", "-f", &link], vec!["-p", "read this", "-f", &link, "--on", "mac"]] {
        let output = run(&home, &args);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 0), "{output:?}");
        assert!(
            err(&output).contains("notes.txt") && err(&output).contains("nothing was sent"),
            "{}",
            err(&output)
        );
    }
    let output = run(&home, &["route", "read this", "-f", &link, "--on", "mac"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(err(&output).contains("notes.txt"), "{}", err(&output));
    assert_eq!(server.requests().len(), 0);
    // On this machine it may be read; the session stays here from then on.
    let output = run(&home, &["-p", "read this", "-f", &link, "--on", "local"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = run(&home, &["-c", "-p", "and now?", "--on", "mac"]);
    assert_eq!((output.status.code(), server.requests().len()), (Some(3), 0), "{output:?}");
    // Lifted for one turn, which is on record.
    let output = run(&home, &["-c", "-p", "and now?", "--on", "mac", "--lift-fence"]);
    assert_eq!((output.status.code(), server.requests().len()), (Some(0), 1), "{output:?}");
    let database = home.path("data/duet.db");
    let latest = duet::store::latest(&database).expect("read").expect("a session");
    let turns = duet::store::load(&database, &latest).expect("loaded").turns;
    let fences: Vec<_> = turns.iter().map(|turn| turn.fence.clone().unwrap_or_default()).collect();
    assert_eq!((fences[0].files.len(), fences[0].is_lifted, fences[1].is_lifted), (1, false, true));
    let output = run(&home, &["-c", "-p", "and now?", "--on", "mac"]);
    assert_eq!((output.status.code(), server.requests().len()), (Some(3), 1), "{output:?}");
}

#[test]
fn route_says_where_and_sends_nothing_and_stats_what_was_measured() {
    let server = Server::start([Script::answer(&["one", " two"])]);
    let home = home(&server.url(), "");
    let output = run(&home, &["route", "where does it go?", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let decision = json(&output);
    assert_eq!((&decision["backend"], &decision["model"]), (&"mac".into(), &"m".into()));
    assert_eq!(decision["rule"], "configured");
    assert_eq!(decision["rejected"][0]["backend"], "local");
    assert!(decision["prompt_tokens"].as_u64().is_some_and(|tokens| tokens > 4), "{decision}");
    let output = run(&home, &["route", "where", "does it go?", "-m", "builtin"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("local · builtin") && text.contains("chosen"), "{text}");
    assert_eq!(server.requests().len(), 0);

    // Nothing listens there.
    let away = self::home("http://127.0.0.1:9", "");
    let output = run(&away, &["route", "where does it go?"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 0), "{output:?}");
    let told = err(&output);
    assert!(told.contains("mac can't answer") && told.contains("tui backends test mac"), "{told}");

    let stats = run(&home, &["stats"]);
    assert!(String::from_utf8_lossy(&stats.stdout).contains("nothing was measured yet"), "{stats:?}");
    assert_eq!(run(&home, &["-p", "count"]).status.code(), Some(0));
    let stats = json(&run(&home, &["stats", "--json"]));
    let model = &stats["models"][0];
    assert_eq!(
        (&model["backend"], &model["model"], &model["answers"]),
        (&"mac".into(), &"m".into(), &1.into())
    );
    assert_eq!(model["contexts"][0]["decode"]["p50"], 100.0);
    let kept = duet::store::speeds(&home.path("data/duet.db")).expect("read");
    assert_eq!(kept.iter().map(|row| row.decode).collect::<Vec<_>>(), [Some(100.0)]);
}
