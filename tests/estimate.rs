//! `tui estimate` from outside: shapes, files, machines, the better one, and what is refused.
#![expect(clippy::expect_used, reason = "a helper whose set-up fails has failed")]

#[path = "support/program.rs"]
mod program;

use pretty_assertions::assert_eq;
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

const CONFIG: &str = "[[backend]]\nname = \"mac\"\nurl = \"http://127.0.0.1:1\"\nhardware = \"m4-max-64\"\n\
    [[backend]]\nname = \"plain\"\nurl = \"http://127.0.0.1:1\"\n";

struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

fn home() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("config")).expect("made");
    std::fs::write(dir.path().join("config/config.toml"), CONFIG).expect("written");
    dir
}

fn tui(args: &[&str]) -> Run {
    let home = home();
    let output = program::command(home.path()).args(args).current_dir(home.path()).output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Run { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn estimated(args: &[&str]) -> Value {
    let run = tui(&[&["estimate", "--json"], args].concat());
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{args:?}");
    assert_eq!(run.out.lines().count(), 1);
    serde_json::from_str(&run.out).expect("JSON")
}

#[test]
fn one_object_with_every_field() {
    let value = estimated(&["llama-3.1-8b:q4_k_m", "--on", "rtx4090", "--on", "mac"]);
    let keys: Vec<&String> = value.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["version", "model", "context", "machines", "better", "why"]);
    assert_eq!((&value["version"], &value["context"]), (&1.into(), &8192.into()));
    let rows = value["machines"].as_array().expect("machines");
    assert_eq!(rows.len(), 2);
    for row in rows {
        let keys: Vec<&String> = row.as_object().expect("an object").keys().collect();
        assert_eq!(
            keys,
            [
                "machine",
                "verdict",
                "weights_bytes",
                "kv_bytes",
                "compute_bytes",
                "device_bytes",
                "host_bytes",
                "prefill_tokens_per_s",
                "decode_tokens_per_s",
                "basis"
            ]
        );
        assert_eq!((&row["verdict"], &row["basis"]), (&"fits".into(), &"roofline".into()));
        assert_eq!(row["kv_bytes"], 1_u64 << 30);
    }
    assert_eq!(
        rows.iter().map(|row| row["machine"].as_str()).collect::<Vec<_>>(),
        [Some("rtx4090"), Some("mac")]
    );
    assert_eq!(value["better"], "rtx4090");
}

#[test]
fn the_better_of_two_is_named() {
    let large = estimated(&["--compare", "rtx4090", "m4-max-64", "llama-3.3-70b:q4_k_m"]);
    assert_eq!(large["better"], "m4-max-64");
    assert_eq!(large["machines"][0]["verdict"], "partial");
    let (device, host) = (&large["machines"][0]["device_bytes"], &large["machines"][0]["host_bytes"]);
    assert!(device.as_u64().is_some_and(|b| b > 20 << 30) && host.as_u64().is_some_and(|b| b > 15 << 30));
    let alike = estimated(&["--compare", "m4-max-64", "m4-max-128", "13b:q4_k_m"]);
    assert_eq!(alike["better"], Value::Null);
    assert!(alike["why"].as_str().is_some_and(|why| why.contains("are alike")), "{alike}");
    let none = estimated(&["--compare", "m4-16", "rtx5080-16", "70b:f16"]);
    assert_eq!((&none["better"], &none["machines"][0]["decode_tokens_per_s"]), (&Value::Null, &Value::Null));
}

#[test]
fn people_read_the_verdict_and_the_speeds() {
    let run = tui(&["estimate", "llama-3.3-70b:q4_k_m", "--on", "rtx4090", "--context", "4096"]);
    assert_eq!(run.code, Some(0), "{}", run.err);
    for words in ["70.6B weights", "4096 tokens", "fits in part", "tok/s", "slower than all on the card"] {
        assert!(run.out.contains(words), "{words}: {}", run.out);
    }
    let list = tui(&["estimate", "--machines"]);
    for name in
        ["rtx3090", "2x-rtx3090", "rtx5080-16", "m4-16", "m4-pro-24", "m3-max-64", "m2-ultra-192", "h200"]
    {
        assert!(list.out.contains(name), "{name}");
    }
}

#[test]
fn names_that_are_not_known_are_answered_with_the_nearest() {
    for (args, words) in [
        (&["llama-3.1-8b", "--on", "rtx4900"][..], "`rtx4090`"),
        (&["lama-3.1-8b", "--on", "rtx4090"], "`llama-3.1-8b`"),
        (&["llama-3.1-8b:q4_k_mm", "--on", "rtx4090"], "`q4_k_m`"),
        (&["llama-3.1-8b", "--on", "plain"], "hardware"),
        (&["llama-3.1-8b", "--on", "m4-max"], "`m4-max-64`"),
        (&["llama-3.1-8b", "--context", "0"], "--context needs a whole number, 1 or above"),
        (&["llama-3.1-8b", "--compare", "rtx4090"], "--compare"),
        (&[], "needs a model"),
    ] {
        let run = tui(&[&["estimate"], args].concat());
        assert_eq!((run.code, run.out.as_str()), (Some(2), ""), "{args:?}: {}", run.err);
        assert!(run.err.contains(words), "{args:?}: {}", run.err);
    }
}

#[cfg(feature = "local")]
#[test]
fn a_file_is_read_by_its_header() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/fixture-large.gguf");
    let file = file.to_str().expect("text");
    let value = estimated(&[file, "--on", "cpu-ddr5-64"]);
    let row = &value["machines"][0];
    assert_eq!((&row["verdict"], &row["device_bytes"]), (&"fits".into(), &0.into()));
    let bytes = std::fs::metadata(file).expect("it is there").len();
    let weights = row["weights_bytes"].as_u64().expect("bytes");
    assert!(weights <= bytes && weights > bytes / 2, "{weights} of {bytes}");
    assert!(row["decode_tokens_per_s"].as_f64().is_some_and(|speed| speed > 100.0), "{row}");
    // Of this machine's models by name, and on this machine.
    let own = estimated(&["builtin", "--on", "local"]);
    assert_eq!(own["machines"][0]["verdict"], "fits");
    // What is no model is refused as one.
    let run = tui(&["estimate", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "--on", "rtx4090"]);
    assert_eq!(run.code, Some(4), "{}", run.err);
    let run = tui(&["estimate", "nowhere.gguf", "--on", "rtx4090"]);
    assert_eq!(run.code, Some(4), "{}", run.err);
}
