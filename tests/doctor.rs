//! `tui doctor` from outside: what it says of a machine that is well, and of what is broken.
#![cfg(feature = "local")]
#![expect(clippy::unwrap_used, reason = "a helper whose set-up fails has failed")]
#![allow(clippy::panic, dead_code, reason = "a helper that fails fails its test; the helpers are shared")]

#[path = "support/engine.rs"]
mod support;

use serde_json::Value;
use std::path::Path;
use support::{Engine, command};

fn doctor(dir: &Path) -> (i32, Value) {
    let output = command(dir).args(["doctor", "--json"]).output().unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

/// The lines of one area, as (level, text, next step).
fn lines<'a>(report: &'a Value, area: &str) -> Vec<(&'a str, &'a str, &'a str)> {
    let checks = report["checks"].as_array().unwrap().iter().filter(|check| check["area"] == area);
    let text = |value: &'a Value| value.as_str().unwrap_or_default();
    checks.map(|check| (text(&check["level"]), text(&check["text"]), text(&check["next"]))).collect()
}

fn home(config: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("config")).unwrap();
    std::fs::write(dir.path().join("config/config.toml"), config).unwrap();
    dir
}

#[test]
fn a_machine_that_is_well() {
    let dir = home("");
    let (code, report) = doctor(dir.path());
    assert_eq!((code, &report["ok"]), (0, &Value::Bool(true)), "{report:#}");
    assert_eq!(report["devices"].as_array().unwrap().last().unwrap()["kind"], "cpu");
    let devices = lines(&report, "devices");
    assert!(devices.iter().any(|(_, text, _)| text.contains("a trial")), "{devices:?}");
    assert!(
        lines(&report, "cpu").iter().any(|(level, text, _)| *level == "ok" && text.starts_with("in use"))
    );
    assert_eq!(lines(&report, "engine")[0].1, "none runs; the next question starts it");
    // Every line that is not well says what to do.
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check["level"] == "ok", check["next"].is_null(), "{check}");
    }
    assert!(!dir.path().join("run/engine.sock").exists(), "no engine was started");
}

#[test]
fn what_is_broken_is_told_and_the_rest_too() {
    let dir = home("[engine]\ncontxt = 5\n");
    let (code, report) = doctor(dir.path());
    assert_eq!(code, 1);
    let (level, text, next) = lines(&report, "config")[0];
    assert_eq!(level, "bad");
    assert!(text.contains("config.toml:2") && next.contains("context"), "{text} {next}");
    assert!(!lines(&report, "devices").is_empty() && !lines(&report, "engine").is_empty());

    // A port that was free a moment ago: nobody is there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dir = home(&format!("[[backend]]\nname = \"box\"\nurl = \"http://127.0.0.1:{port}\"\n"));
    let (code, report) = doctor(dir.path());
    let (level, text, next) = lines(&report, "backends")[0];
    assert_eq!((code, level), (0, "warn"), "a machine that is off is nothing broken: {text}");
    assert!(text.contains("box") && !next.is_empty(), "{text}");

    let dir = home(&format!("[pool]\nmodel = \"m\"\nservers = [\"127.0.0.1:{port}\"]\n"));
    let (_, report) = doctor(dir.path());
    let (level, text, _) = lines(&report, "pool")[0];
    assert!(level == "warn" && text.contains("m can't be loaded"), "{text}");

    let dir =
        home("[[backend]]\nname = \"box\"\nurl = \"http://127.0.0.1:1\"\ntoken_env = \"NO_SUCH_KEY\"\n");
    let (code, report) = doctor(dir.path());
    assert_eq!(code, 1);
    assert!(lines(&report, "backends")[0].1.contains("$NO_SUCH_KEY, which is not set"));
}

#[test]
fn model_folders_are_counted_by_kind() {
    let dir = tempfile::tempdir().unwrap();
    let models = dir.path().join("models");
    std::fs::create_dir(&models).unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    for name in ["fixture-large.gguf", "embed-bert.gguf"] {
        std::os::unix::fs::symlink(fixtures.join(name), models.join(name)).unwrap();
    }
    std::fs::write(models.join("broken.gguf"), "<html>").unwrap();
    // Another program's, which `tui models` lists as well.
    let hub = dir.path().join("hub");
    let theirs = hub.join("models--org--name/snapshots/1");
    std::fs::create_dir_all(&theirs).unwrap();
    std::fs::copy(fixtures.join("embed-bert.gguf"), theirs.join("theirs.gguf")).unwrap();
    let output = command(dir.path()).env("HF_HUB_CACHE", &hub).arg("doctor").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("1 to chat with, 2 for embeddings"), "{text}");
    // The home folder is written short.
    assert!(text.contains("~/hub"), "{text}");
    assert!(text.contains("broken.gguf"), "{text}");
}

#[test]
fn an_engine_that_runs_is_described() {
    let engine = Engine::start();
    let (code, report) = doctor(engine.dir());
    let (level, text, _) = lines(&report, "engine")[0];
    assert_eq!((code, level), (0, "ok"), "{text}");
    assert!(text.starts_with("it runs: version") && text.ends_with("resident: no model"), "{text}");
}
