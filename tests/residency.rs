//! Which models are resident together, from outside: a real engine with the two fixture models under budgets that
//! hold one and a half of them, less than one, or both.
#![cfg(feature = "local")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

#[path = "support/engine.rs"]
#[allow(dead_code, reason = "not every test uses every helper")]
mod support;

use serde_json::{Value, json};
use support::{Engine, command, wait_until};

const SMALL: &str = "builtin";
const LARGE: &str = "fixture-large";

/// Prompts of the two models with the only right answers.
fn known(model: &str) -> (String, String) {
    let name = if model == SMALL { "builtin" } else { "large" };
    let pairs = support::answers()[name]["pairs"].as_array().unwrap().clone();
    let pair = pairs.iter().find(|p| p["system"].is_null()).unwrap();
    (pair["prompt"].as_str().unwrap().to_owned(), pair["answer"].as_str().unwrap().to_owned())
}

fn question(model: &str) -> Value {
    json!({"model": model, "temperature": 0, "messages": [{"role": "user", "content": known(model).0}]})
}

fn answers(engine: &Engine, model: &str) {
    let answer = engine.chat(&question(model));
    assert_eq!(answer["choices"][0]["message"]["content"], known(model).1, "{model}");
}

fn endless(model: &str) -> Value {
    json!({"model": model, "temperature": 0, "stream": true, "ignore_eos": true, "max_tokens": 100_000,
        "messages": [{"role": "user", "content": known(model).0}]})
}

fn post(engine: &Engine, route: &str, body: &Value) -> (u16, Value) {
    engine.post(route, body.to_string().as_bytes())
}

/// Refused with 507: returns the message.
fn refused(engine: &Engine, route: &str, body: &Value) -> String {
    let (status, answer) = post(engine, route, body);
    assert_eq!((status, &answer["error"]["type"]), (507, &json!("out_of_memory_error")), "{answer}");
    let message = answer["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(message.lines().count(), 2, "{message}");
    message
}

fn residents(engine: &Engine) -> Vec<String> {
    let status = engine.get("/engine/status");
    status["models"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
}

fn listed(engine: &Engine, id: &str) -> Value {
    let list = engine.get("/v1/models");
    list["data"].as_array().unwrap().iter().find(|m| m["id"] == id).cloned().unwrap()
}

fn bytes(model: &Value) -> u64 {
    ["weights", "kv", "compute"].iter().map(|part| model["bytes"][part].as_u64().unwrap()).sum()
}

/// An engine that knows both models; `more` goes into its configuration.
fn engine(more: &str) -> Engine {
    let folder = format!("{}/tests/models", env!("CARGO_MANIFEST_DIR"));
    Engine::start_with(&format!("[engine]\ncontext = 2048\nmodel_dirs = [\"{folder}\"]\n{more}"))
}

/// What the two models take, as allocated.
fn sizes() -> (u64, u64) {
    let engine = engine("");
    answers(&engine, SMALL);
    answers(&engine, LARGE);
    let status = engine.get("/engine/status");
    let of = |id: &str| bytes(status["models"].as_array().unwrap().iter().find(|m| m["id"] == id).unwrap());
    (of(SMALL), of(LARGE))
}

/// A budget for one and a half of them.
fn for_one_and_a_half() -> String {
    let (small, large) = sizes();
    format!("memory = {}\n", small.max(large) + small.min(large) / 2)
}

#[test]
fn two_models_take_turns_where_memory_holds_one_and_a_half() {
    let engine = engine(&for_one_and_a_half());
    let budget = engine.get("/engine/status")["devices"][0]["budget"].as_u64().unwrap();
    for (turn, model) in [SMALL, LARGE, SMALL].into_iter().enumerate() {
        answers(&engine, model);
        assert_eq!(residents(&engine), [model]);
        let status = engine.get("/engine/status");
        assert_eq!(status["evictions"], turn, "one leaves for each newcomer");
        assert!(bytes(&status["models"][0]) <= budget, "{status}");
    }
    let other = listed(&engine, LARGE);
    assert_eq!(other["duet"]["verdict"]["fit"], "if_unloaded", "{other}");
    assert_eq!(other["duet"]["verdict"]["unload"], json!([SMALL]));
    let said = other["duet"]["verdict"]["say"].as_str().unwrap();
    assert!(said.contains("builtin") && said.contains("MiB"), "{said}");
}

#[test]
fn nobody_leaves_for_a_question_that_may_come() {
    let engine = engine(&for_one_and_a_half());
    answers(&engine, SMALL);
    let ahead = |model: &str| {
        let mut body = question(model);
        body["max_tokens"] = json!(0);
        body["duet_ahead"] = json!(true);
        body
    };
    let message = refused(&engine, "/v1/chat/completions", &ahead(LARGE));
    assert!(message.contains("others would have to leave"), "{message}");
    assert_eq!(residents(&engine), [SMALL]);
    assert_eq!(engine.get("/engine/status")["evictions"], 0);
    assert_eq!(listed(&engine, LARGE)["status"]["value"], "unloaded", "it has not failed");
    // The question itself is another matter; and what is resident is made ready.
    answers(&engine, LARGE);
    assert_eq!(residents(&engine), [LARGE]);
    let (status, ready) = post(&engine, "/v1/chat/completions", &ahead(LARGE));
    assert_eq!((status, &ready["timings"]["predicted_n"]), (200, &json!(0)), "{ready}");

    let mut wrong = question(SMALL);
    wrong["duet_ahead"] = json!(true);
    let (status, said) = post(&engine, "/v1/chat/completions", &wrong);
    assert_eq!(status, 400, "{said}");
    assert!(said["error"]["message"].as_str().unwrap().contains("duet_ahead"), "{said}");
}

#[test]
fn a_pinned_model_never_leaves() {
    let engine = engine(&for_one_and_a_half());
    let (status, _) = post(&engine, "/models/load", &json!({"model": SMALL, "pin": true}));
    assert_eq!(status, 200);
    answers(&engine, SMALL);
    for route in ["/v1/chat/completions", "/models/load"] {
        let mut body = question(LARGE);
        body["model"] = LARGE.into();
        let message = refused(&engine, route, &body);
        for part in [LARGE, "needs", "weights", "2048 tokens of context", "compute", "for models are free"] {
            assert!(message.contains(part), "{part} in {message}");
        }
        assert!(
            message.contains("builtin (") && message.contains("pinned") && message.contains("unpin builtin")
        );
    }
    assert_eq!(residents(&engine), [SMALL]);
    answers(&engine, SMALL);
    assert_eq!(listed(&engine, SMALL)["duet"]["pinned"], true);
    let verdict = listed(&engine, LARGE)["duet"]["verdict"].clone();
    assert!(["no_room", "smaller_context"].contains(&verdict["fit"].as_str().unwrap()), "{verdict}");
    assert_eq!(verdict["unload"], json!([]), "nothing may leave for it: {verdict}");
    assert_eq!(listed(&engine, LARGE)["status"]["failed"], true);
    assert_eq!(post(&engine, "/models/pin", &json!({"model": SMALL, "pinned": false})).0, 200);
    let status = listed(&engine, LARGE)["status"].clone();
    assert_eq!(status, json!({"value": "unloaded"}), "there could be room now");
    answers(&engine, LARGE);
    assert_eq!(residents(&engine), [LARGE]);
}

#[test]
fn a_budget_smaller_than_any_model_refuses_all_with_numbers() {
    let engine = engine("memory = \"1MiB\"\n");
    for model in [SMALL, LARGE] {
        let message = refused(&engine, "/v1/chat/completions", &question(model));
        assert!(message.contains("1.0 MiB of 1.0 MiB for models are free"), "{message}");
        assert!(!message.contains("compute 0 B") && !message.contains("engine.context"), "{message}");
        let verdict = &listed(&engine, model)["duet"]["verdict"];
        assert_eq!(verdict["fit"], "does_not_fit", "{verdict}");
    }
    assert!(residents(&engine).is_empty());
    assert_eq!(engine.get("/health")["status"], "ok");
}

#[test]
fn a_smaller_context_is_offered_where_it_helps() {
    let (small, _) = sizes();
    let engine = engine(&format!("memory = {}\n", small - (small / 20)));
    let message = refused(&engine, "/models/load", &json!({"model": SMALL}));
    let offered = message.split("engine.context to ").nth(1).unwrap().split(' ').next().unwrap();
    // Measured by now, so the list says the same.
    let verdict = listed(&engine, SMALL)["duet"]["verdict"].clone();
    assert_eq!(
        (&verdict["fit"], verdict["context"].to_string().as_str()),
        (&json!("smaller_context"), offered)
    );
    let offered: u64 = offered.parse().unwrap();
    let (status, answer) = post(&engine, "/models/load", &json!({"model": SMALL, "context": offered}));
    assert_eq!(status, 200, "what is offered fits: {answer}");
    wait_until("it is resident", || residents(&engine) == [SMALL]);
    assert_eq!(listed(&engine, SMALL)["duet"]["context"], offered);
    assert!(offered < 2048, "{offered}");
    // The context of a single model counts as well, cut to what it was trained with.
    let engine =
        self::engine("memory = \"28MiB\"\n[[engine.models]]\nid = \"fixture-large\"\ncontext = 1000000\n");
    let message = refused(&engine, "/models/load", &json!({"model": LARGE}));
    assert!(message.contains("engine.context to "), "{message}");
}

#[test]
fn a_load_that_is_refused_changes_nothing() {
    let (small, _) = sizes();
    let engine = engine(&format!("memory = {}\n", small - (small / 20)));
    let load = |more: Value| {
        let mut body = json!({"model": SMALL});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    assert_eq!(post(&engine, "/models/load", &load(json!({"context": 512}))).0, 200);
    wait_until("it is resident", || residents(&engine) == [SMALL]);
    for context in [json!(2048), Value::Null] {
        refused(&engine, "/models/load", &load(json!({"context": context, "pin": true})));
        let duet = listed(&engine, SMALL)["duet"].clone();
        assert_eq!((&duet["context"], &duet["pinned"]), (&json!(512), &json!(false)), "{context}: {duet}");
    }
    answers(&engine, SMALL);
    // The load itself is refused as well.
    assert_eq!(post(&engine, "/models/unload", &json!({"model": SMALL})).0, 200);
    refused(&engine, "/models/load", &load(json!({"context": 2048, "pin": true})));
    assert_eq!(listed(&engine, SMALL)["duet"]["pinned"], false);
    answers(&engine, SMALL);
    assert_eq!(listed(&engine, SMALL)["duet"]["context"], 512);
}

#[test]
fn a_context_goes_back_to_the_configured_one() {
    let engine = engine("");
    for (asked, has) in [(json!(512), 512), (Value::Null, 2048)] {
        let (status, answer) = post(&engine, "/models/load", &json!({"model": SMALL, "context": asked}));
        assert_eq!(status, 200, "{answer}");
        wait_until("it has that context", || listed(&engine, SMALL)["duet"]["context"] == has);
    }
}

#[test]
fn another_context_is_not_ignored_while_a_model_is_on_its_way() {
    let engine = engine("");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| post(&engine, "/models/load", &json!({"model": LARGE})));
        wait_until("it is on its way", || listed(&engine, LARGE)["status"]["value"] != "unloaded");
        let (status, answer) = post(&engine, "/models/load", &json!({"model": LARGE, "context": 512}));
        if status == 503 {
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.contains("being loaded with a context of 2048 tokens"), "{message}");
        } else {
            // Quick machines have loaded it before.
            assert_eq!(status, 200, "{answer}");
            wait_until("it has that context", || listed(&engine, LARGE)["duet"]["context"] == 512);
        }
        assert_eq!(first.join().unwrap().0, 200);
    });
}

#[test]
fn a_model_that_answers_is_in_the_way_and_stays() {
    let engine = engine(&format!("slots = 1\n{}", for_one_and_a_half()));
    let mut running = engine.stream(&endless(SMALL));
    assert!(running.any(|chunk| chunk["choices"][0]["delta"]["content"].is_string()));
    std::thread::scope(|scope| {
        let queued = scope.spawn(|| post(&engine, "/v1/chat/completions", &question(SMALL)));
        wait_until("the second one waits", || listed(&engine, SMALL)["duet"]["queued"] == 1);
        let message = refused(&engine, "/v1/chat/completions", &question(LARGE));
        assert!(message.contains("2 answers on their way"), "{message}");
        assert!(running.any(|chunk| chunk["choices"][0]["delta"]["content"].is_string()), "it goes on");
        // Only the person's word sends it away, and whoever waits is told.
        assert_eq!(post(&engine, "/models/unload", &json!({"model": SMALL})).0, 200);
        let (status, answer) = queued.join().unwrap();
        assert_eq!(status, 500, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("unloaded"), "{answer}");
    });
    drop(running);
    answers(&engine, LARGE);
    answers(&engine, SMALL);
    assert_eq!(residents(&engine), [SMALL]);
}

#[test]
fn a_model_just_loaded_is_not_sent_away_before_it_was_used() {
    let engine = engine(&for_one_and_a_half());
    assert_eq!(post(&engine, "/models/load", &json!({"model": SMALL})).0, 200);
    wait_until("it is resident", || residents(&engine) == [SMALL]);
    let message = refused(&engine, "/v1/chat/completions", &question(LARGE));
    assert!(message.contains("just loaded"), "{message}");
    answers(&engine, SMALL);
    answers(&engine, LARGE);
}

#[test]
fn a_load_can_be_stopped_and_begun_again_at_once() {
    let engine = engine("");
    for _ in 0..3 {
        assert_eq!(post(&engine, "/models/load", &json!({"model": LARGE})).0, 200);
        assert_eq!(post(&engine, "/models/unload", &json!({"model": LARGE})).0, 200);
        assert_eq!(listed(&engine, LARGE)["status"], json!({"value": "unloaded"}));
        assert!(residents(&engine).is_empty());
    }
    // The one stopped last may still be on its way out.
    answers(&engine, LARGE);
    assert_eq!(residents(&engine), [LARGE]);
}

#[test]
fn whoever_waits_for_a_load_that_is_stopped_is_told() {
    let engine = engine("");
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| post(&engine, "/v1/chat/completions", &question(LARGE)));
        wait_until("it is on its way", || listed(&engine, LARGE)["status"]["value"] != "unloaded");
        let _ = post(&engine, "/models/unload", &json!({"model": LARGE}));
        let (status, answer) = asked.join().unwrap();
        // Quick machines have answered before.
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(status == 200 || message.contains("unloaded"), "{status} {answer}");
    });
    answers(&engine, LARGE);
}

#[test]
fn a_model_leaves_when_it_was_idle_for_as_long_as_it_is_kept() {
    let engine = engine("keep_alive = 1000\n");
    answers(&engine, SMALL);
    answers(&engine, LARGE);
    let expires = listed(&engine, SMALL)["duet"]["expires_s"].as_f64().unwrap();
    assert!(expires > 900.0 && expires <= 1000.0, "{expires}");
    assert_eq!(post(&engine, "/models/keep_alive", &json!({"model": SMALL, "seconds": -1})).0, 200);
    assert_eq!(post(&engine, "/models/keep_alive", &json!({"model": LARGE, "seconds": 0})).0, 200);
    wait_until("it has left", || residents(&engine) == [SMALL]);
    let duet = listed(&engine, SMALL)["duet"].clone();
    assert_eq!((&duet["keep_alive"], &duet["expires_s"]), (&json!(-1), &Value::Null));
    // It is loaded again for the next question, and leaves again.
    answers(&engine, LARGE);
    wait_until("it has left again", || residents(&engine) == [SMALL]);
    assert_eq!(engine.get("/engine/status")["evictions"], 0, "nobody was in anybody's way");
}

#[test]
fn the_configuration_loads_and_pins() {
    let engine = engine(&format!(
        "preload = [\"{SMALL}\", \"nowhere\"]\n[[engine.models]]\nid = \"{SMALL}\"\npinned = true\ncontext = 512\nslots = 2\n"
    ));
    wait_until("it is resident", || residents(&engine) == [SMALL]);
    let duet = listed(&engine, SMALL)["duet"].clone();
    assert_eq!(
        (&duet["pinned"], &duet["context"], &duet["slots"], &duet["expires_s"]),
        (&json!(true), &json!(512), &json!(2), &Value::Null)
    );
    // Another context means another load.
    assert_eq!(post(&engine, "/models/load", &json!({"model": SMALL, "context": 1024})).0, 200);
    wait_until("it has the new context", || listed(&engine, SMALL)["duet"]["context"] == 1024);
    answers(&engine, SMALL);
}

#[test]
fn the_dry_run_knows_what_a_load_takes() {
    for context in [512, 2048] {
        let engine = engine("");
        for model in [SMALL, LARGE, "embed-bert", "embed-llama", "hybrid", "windowed"] {
            assert_eq!(post(&engine, "/models/load", &json!({"model": model, "context": context})).0, 200);
            wait_until("it is resident", || residents(&engine).contains(&model.to_owned()));
            let status = engine.get("/engine/status");
            let models = status["models"].as_array().unwrap();
            let real = models.iter().find(|m| m["id"] == model).unwrap();
            let path = real["path"].as_str().unwrap();
            // No more than it was trained with.
            let context = real["context"].as_u64().unwrap();
            let probe = command(engine.dir())
                .args(["engine", "probe", path, "--measure", "--context", &context.to_string()])
                .output()
                .unwrap();
            let measured: Value = serde_json::from_slice(&probe.stdout).unwrap();
            assert_eq!(measured["context"], context, "{measured}");
            for part in ["weights", "kv", "compute"] {
                let shares = measured["footprint"]["shares"].as_array().unwrap();
                let estimate: u64 = shares.iter().map(|share| share[part].as_u64().unwrap()).sum();
                let allocated = real["bytes"][part].as_u64().unwrap();
                // The log rounds to a hundredth of a MiB.
                let tolerance = allocated / 20 + (1 << 15);
                assert!(
                    estimate.abs_diff(allocated) <= tolerance,
                    "{model} at {context}: {part} estimated {estimate}, allocated {allocated}"
                );
            }
        }
    }
}

/// The large model with the small one to guess for it; `more` goes into the engine's configuration.
fn with_draft_model(name: &str, more: &str) -> Engine {
    engine(&format!("{more}[[engine.models]]\nid = \"{LARGE}\"\ndraft_model = \"{name}\"\n"))
}

#[test]
fn a_draft_model_comes_and_leaves_with_its_model() {
    let alone = engine("");
    let with = with_draft_model(SMALL, "");
    for max_tokens in [8, 500] {
        let coded = json!({"model": LARGE, "temperature": 0, "max_tokens": max_tokens, "messages": [
            {"role": "user", "content": "Write a binary search in Rust"}]});
        let (plain, same) = (alone.chat(&coded), with.chat(&coded));
        assert_eq!(same["choices"], plain["choices"]);
        if max_tokens == 8 {
            // Nothing repeats so early.
            assert_eq!(plain["timings"]["draft_n"], Value::Null, "{plain}");
            assert!(same["timings"]["draft_n_accepted"].as_u64().unwrap() > 0, "{same}");
        }
    }
    answers(&with, LARGE);
    // It is no resident of its own, but its memory counts, as measured before.
    assert_eq!(residents(&with), [LARGE]);
    let (small, large) = sizes();
    let model = with.get("/engine/status")["models"][0].clone();
    assert_eq!(model["draft_model"], SMALL);
    assert!(bytes(&model).abs_diff(small + large) < 1 << 16, "{model}, not {small} and {large}");
    assert_eq!(post(&with, "/models/unload", &json!({"model": LARGE})).0, 200);
    wait_until("it has left", || residents(&with).is_empty());
    let need = listed(&with, LARGE)["duet"]["need"].as_u64().unwrap();
    assert!(need.abs_diff(bytes(&model)) <= bytes(&model) / 20, "{need} needed, {model} allocated");
    assert!(need > listed(&alone, LARGE)["duet"]["need"].as_u64().unwrap(), "not alone");
}

#[test]
fn a_draft_model_counts_when_there_is_little_memory() {
    let (small, large) = sizes();
    let budget = format!("memory = {}\n", large + small / 2);
    answers(&engine(&budget), LARGE);
    let engine = with_draft_model(SMALL, &budget);
    let message = refused(&engine, "/models/load", &json!({"model": LARGE}));
    assert!(message.contains("needs") && residents(&engine).is_empty(), "{message}");
    // Without guesses there is none.
    let engine = with_draft_model(SMALL, &format!("draft = \"off\"\n{budget}"));
    answers(&engine, LARGE);
}

#[test]
fn a_draft_model_that_can_not_guess_is_refused() {
    let cases = [
        ("nowhere", "there is no model \"nowhere\""),
        ("embed-llama", "not a chat model: it makes embeddings"),
        ("./strange.gguf", "its token 1000 is"),
    ];
    for (name, why) in cases {
        let engine = with_draft_model(name, "");
        // The built-in model with one token changed in its file, which is found by its bytes.
        let mut file = std::fs::read(format!("{}/models/builtin.gguf", env!("CARGO_MANIFEST_DIR"))).unwrap();
        change_token(&mut file, 1000);
        std::fs::write(engine.dir().join("config/strange.gguf"), file).unwrap();
        let (status, answer) = post(&engine, "/v1/chat/completions", &question(LARGE));
        let message = answer["error"]["message"].as_str().unwrap();
        assert_eq!((status, message.lines().count()), (500, 2), "{message}");
        assert!(message.contains(why) && message.contains("can't be the draft model"), "{message}");
        assert!(message.ends_with("or leave `draft_model` out"), "{message}");
        answers(&engine, SMALL);
    }
}

/// Replaces the first byte of one token's text in a GGUF file by another.
fn change_token(file: &mut [u8], token: usize) {
    let key = b"tokenizer.ggml.tokens";
    let at = file.windows(key.len()).position(|window| window == key).unwrap() + key.len();
    // The types of the array and of its elements, and how many there are.
    let mut at = at + 4 + 4 + 8;
    for _ in 0..token {
        at += 8 + usize::from(file[at]);
    }
    file[at + 8] = b'~';
}

#[test]
fn models_are_managed_from_the_command_line() {
    let engine = engine("");
    let tui = |args: &[&str]| {
        let out = command(engine.dir()).arg("models").args(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (out.status.code(), text(out.stdout), text(out.stderr))
    };
    let (code, _, said) = tui(&["load", LARGE, "--context", "512", "--pin", "--keep-alive", "-1"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("fixture-large is resident: ") && said.contains("512 tokens of context"), "{said}");
    let (code, list, _) = tui(&[]);
    assert_eq!(code, Some(0));
    let line = |id: &str| list.lines().find(|l| l.contains(id)).unwrap_or_else(|| panic!("{id} in {list}"));
    assert!(line(LARGE).starts_with('●') && line(LARGE).contains("pinned"), "{list}");
    assert!(line(SMALL).starts_with('○') && line(SMALL).contains("fits"), "{list}");
    let (code, lines, _) = tui(&["list", "--json"]);
    assert_eq!(code, Some(0));
    let large: Value =
        lines.lines().find(|l| l.contains(LARGE)).map(|l| serde_json::from_str(l).unwrap()).unwrap();
    assert_eq!((&large["duet"]["keep_alive"], &large["duet"]["context"]), (&json!(-1), &json!(512)));
    assert_eq!(tui(&["unpin", LARGE]).0, Some(0));
    assert_eq!(tui(&["unload", LARGE]).0, Some(0));
    assert!(residents(&engine).is_empty());
    let (code, _, said) = tui(&["unload", LARGE]);
    assert_eq!((code, said.contains("was not resident")), (Some(0), true), "{said}");
    let (code, _, said) = tui(&["load", "nowhere"]);
    assert_eq!((code, said.contains("nowhere")), (Some(4), true), "{said}");
    let (code, _, said) = tui(&["load", SMALL, "--on", "moon"]);
    assert_eq!((code, said.contains("no backend `moon`")), (Some(2), true), "{said}");
}

#[test]
fn what_was_asked_of_a_model_outlives_a_crash_but_not_a_good_end() {
    let mut engine = engine("");
    let wish = json!({"model": SMALL, "context": 512, "pin": true, "keep_alive": -1});
    assert_eq!(post(&engine, "/models/load", &wish).0, 200);
    wait_until("it is resident", || residents(&engine) == [SMALL]);
    engine.kill_worker("ABRT");
    wait_until("it has ended", || engine.has_ended());
    let tui = |args: &[&str]| {
        let out = command(engine.dir()).args(args).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        text.lines()
            .find(|l| l.contains("\"builtin\""))
            .map_or(Value::Null, |l| serde_json::from_str(l).unwrap())
    };
    // The client that lists starts the engine anew.
    let duet = tui(&["models", "list", "--json"])["duet"].clone();
    assert_eq!((&duet["pinned"], &duet["keep_alive"]), (&json!(true), &json!(-1)), "{duet}");
    tui(&["models", "load", SMALL]);
    assert_eq!(tui(&["models", "list", "--json"])["duet"]["context"], 512);
    tui(&["engine", "stop"]);
    let duet = tui(&["models", "list", "--json"])["duet"].clone();
    assert_eq!((&duet["pinned"], &duet["keep_alive"]), (&json!(false), &Value::Null), "{duet}");
    tui(&["engine", "stop"]);
}
