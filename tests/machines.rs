//! One conversation on every kind of machine, with the program as people run it: our engine over SSH, `tui serve` with its
//! key pinned, llama-server, `mlx_lm.server`, and fakes of Ollama and LM Studio. What each receipt holds, that each of them
//! sees a cancel, and the split by size over two real engines. What this machine hasn't got is skipped, with a word.

#![cfg(all(unix, feature = "local"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers included"
)]

#[path = "support/fake_lmstudio.rs"]
mod fake_lmstudio;
#[path = "support/fake_ollama.rs"]
mod fake_ollama;
#[path = "support/peer.rs"]
mod peer;
#[path = "support/recorder.rs"]
mod recorder;
#[path = "support/serve.rs"]
mod serve;
#[path = "support/sshd.rs"]
mod sshd;

use duet::backend::Backend;
use duet::config::BackendConfig;
use fake_lmstudio::FakeLmStudio;
use fake_ollama::FakeOllama;
use peer::{Peer, builtin, peer};
use pretty_assertions::assert_eq;
use serde_json::Value;
use serve::{DEADLINE, Server, TOKEN, answers, command, wait_until};
use sshd::Sshd;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use tokio::runtime::Handle;

const ENGINE: &str = "[engine]\nthreads = 1\ncontext = 8192\nlinger = 60\n";
const CONVERSATION: [&str; 2] = ["My name is Ada", "What is my name?"];
/// What the built-in model answers, everywhere.
const ANSWERS: [&str; 2] = ["Nice to meet you, Ada.", "Your name is Ada."];
/// Tokens of its second prompt and answer, by everybody's count.
const COUNTS: (u64, u64) = (61, 9);
/// What the fakes answer, whatever they are asked.
const SCRIPTED: &str = "It is five past nine.";
/// An answer that goes on and on: whatever was said is likelier to be said again.
const LONG: [&str; 8] =
    ["-p", "Count from 1 to 50", "--jsonl", "--no-save", "--temp", "0", "--repeat-penalty", "0.3"];
/// How often an answer may come to its end before it is cancelled.
const TRIES: usize = 5;

/// What every receipt holds.
const ALWAYS: &str =
    "network_ms first_token_ms first_answer_ms total_ms prompt_tokens output_tokens decode_tokens_per_s";
/// What is only there when there was something to guess, or a meter to read.
const SOMETIMES: [&str; 3] = ["server.draft_n", "server.draft_n_accepted", "server.energy_j"];
/// What a server's clock says of every answer.
const CLOCK: &str = "server.cache_n server.prompt_n server.prompt_ms server.predicted_n server.predicted_ms";

/// A client with folders of its own.
struct Client {
    dir: tempfile::TempDir,
    /// With the `ssh` that knows the test's own server.
    path: Option<String>,
}

impl Client {
    fn new(path: Option<String>) -> Self {
        let client = Self { dir: tempfile::tempdir().unwrap(), path };
        std::fs::create_dir(client.dir.path().join("config")).unwrap();
        client.configure(ENGINE);
        client
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("config/config.toml")
    }

    fn configure(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(self.dir.path());
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// What it prints, which must have gone well.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// Pairs with a `tui serve` by the line it prints.
    fn pair(&self, server: &Server, name: &str) {
        let line = || server.told().lines().rev().find(|line| line.contains("duet://")).map(str::to_owned);
        wait_until("it prints a line", || line().is_some());
        self.run(&["backends", "pair", line().unwrap().trim(), name]);
    }

    /// A backend as the configuration file has it.
    fn backend(&self, name: &str) -> Backend {
        let config = duet::config::file::load(&self.file(), None).unwrap();
        let found = config.backends.iter().find(|backend| backend.name == name).expect("it is configured");
        Backend::server(found).unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Its engine lingers.
        let _ = self.command(&["engine", "stop"]).output();
    }
}

/// One machine, and what holds for its kind.
struct Machine<'a> {
    name: &'static str,
    answers: [&'static str; 2],
    /// What its receipts hold beside [`ALWAYS`].
    gives: String,
    /// Whether it tells on which device the model lies.
    tells_device: bool,
    /// How many answers it is at work on, where it tells.
    running: Box<dyn Fn() -> Option<u32> + 'a>,
    /// Whether it has seen that somebody hung up in the middle of an answer.
    saw_cancel: Box<dyn Fn() -> bool + 'a>,
}

/// Which fields of a receipt say something, in order.
fn fields(metrics: &Value) -> String {
    let mut names = Vec::new();
    for (name, value) in metrics.as_object().unwrap() {
        match value {
            Value::Null => {}
            Value::Object(clock) => names.extend(clock.keys().map(|key| format!("{name}.{key}"))),
            _ => names.push(name.clone()),
        }
    }
    names.retain(|name| !SOMETIMES.contains(&name.as_str()));
    names.sort_unstable();
    names.join(" ")
}

fn converse(client: &Client, machine: &Machine<'_>) {
    let name = machine.name;
    let first = client.json(&["-p", CONVERSATION[0], "--on", name, "--temp", "0"]);
    let second = client.json(&["-c", "-p", CONVERSATION[1], "--temp", "0"]);
    assert_eq!((&first["turn"], &second["turn"]), (&1.into(), &2.into()), "{name}");
    assert_eq!(first["session"], second["session"], "{name}");
    for (at, (object, rule)) in [(&first, "pinned"), (&second, "session")].into_iter().enumerate() {
        let answer = &object["answers"][0];
        assert_eq!(
            (&answer["backend"], &answer["text"]),
            (&name.into(), &machine.answers[at].into()),
            "{answer}"
        );
        assert_eq!((&answer["route"]["rule"], &answer["finish"]), (&rule.into(), &"stop".into()), "{answer}");
        assert_eq!(answer["device"].is_string(), machine.tells_device, "{answer}");
    }
    let metrics = &second["answers"][0]["metrics"];
    let mut expected: Vec<&str> = ALWAYS.split(' ').chain(machine.gives.split_whitespace()).collect();
    expected.sort_unstable();
    assert_eq!(fields(metrics), expected.join(" "), "{name}: {metrics}");
    let number = |name: &str| metrics[name].as_u64();
    if machine.answers == ANSWERS {
        let counted = number("prompt_tokens").zip(number("output_tokens"));
        assert_eq!(counted, Some(COUNTS), "{name}");
    }
    if machine.gives.contains("cached_tokens") {
        let cached = number("cached_tokens").unwrap();
        assert!(cached > 0 && cached < number("prompt_tokens").unwrap(), "{name}: {metrics}");
        assert_eq!(first["answers"][0]["metrics"]["cached_tokens"], 0, "{name}: nothing was there before");
    }
}

/// Ctrl+C in the middle of an answer.
fn cancel(client: &Client, machine: &Machine<'_>) {
    let name = machine.name;
    let is_counted = (machine.running)() == Some(0);
    for _ in 0..TRIES {
        let mut child = client
            .command(&LONG)
            .args(["--on", name])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (stdout, (begun, begins)) = (child.stdout.take().unwrap(), mpsc::channel());
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let events = lines.map(|line| serde_json::from_str::<Value>(&line).unwrap());
            let told = events.inspect(|event| {
                if event["event"] == "delta" {
                    let _ = begun.send(());
                }
            });
            told.last()
        });
        begins.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("{name} says nothing"));
        let mut has_ended = || child.try_wait().unwrap().is_some();
        wait_until("it is at work", || !is_counted || (machine.running)() == Some(1) || has_ended());
        assert!(!(machine.saw_cancel)(), "{name}: nobody has hung up yet");
        serve::kill(child.id(), "INT");
        let (code, end) = (child.wait().unwrap().code(), reader.join().unwrap().expect("a last event"));
        if code == Some(0) {
            continue;
        }
        assert_eq!((code, &end["finish"]), (Some(130), &"stopped".into()), "{name}: {end}");
        assert!(
            end["text"].as_str().is_some_and(|text| !text.is_empty()),
            "{name}: what came is kept: {end}"
        );
        wait_until("it has seen it", || (machine.saw_cancel)());
        wait_until("it is at rest", || !is_counted || (machine.running)() == Some(0));
        return;
    }
    panic!("{name} always came to the end of its answer");
}

/// How many answers a backend is at work on.
fn running(handle: &Handle, backend: &Backend, model: &str) -> Option<u32> {
    handle.block_on(backend.running(model)).unwrap()
}

fn has_cancelled(metrics: &str) -> bool {
    metrics.contains("requests_cancelled_total{model=\"builtin\"} 1")
}

fn metrics_at(socket: &Path) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: duet\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

async fn metrics_of(server: &Server) -> String {
    let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).no_proxy().build().unwrap();
    let request = client.get(format!("https://{}/metrics", server.address)).bearer_auth(TOKEN);
    request.send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn one_conversation_on_every_kind_of_machine() {
    let (ollama, studio) = (FakeOllama::start().await, FakeLmStudio::start().await);
    let handle = Handle::current();
    // The fakes live on this thread, everything that waits is on another one.
    let run = tokio::task::spawn_blocking(move || on_all(&handle, &ollama, &studio));
    run.await.unwrap();
}

fn on_all(handle: &Handle, ollama: &FakeOllama, studio: &FakeLmStudio) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let sshd = Sshd::start();
    let path = sshd.as_ref().map(|sshd| {
        std::fs::write(sshd.path("far/config/config.toml"), ENGINE).unwrap();
        sshd.environment().into_iter().find(|(name, _)| name == "PATH").unwrap().1
    });
    let client = Client::new(path);
    let home = tempfile::tempdir().unwrap();
    let llama = peer("bin/llama-server").map(|program| {
        let model = ["--model", &builtin(), "--threads", "1", "--parallel", "2", "--ctx-size", "16384"];
        Peer::start(&program, &model, home.path())
    });
    let mlx = peer("mlx/bin/python").zip(peer("mlx-model")).map(|(python, model)| {
        Peer::start(
            &python,
            &["-m", "mlx_lm", "server", "--model", &model.display().to_string()],
            home.path(),
        )
    });
    let served = Server::start_in(tempfile::tempdir().unwrap(), &["--pair"], ENGINE, Some(TOKEN));
    client.pair(&served, "served");
    let text = std::fs::read_to_string(client.file()).unwrap();
    assert!(text.contains("url = \"https://") && text.contains("fingerprint = \"sha256:"), "{text}");
    if sshd.is_some() {
        client.run(&["backends", "add", "far", "ssh://far"]);
    }
    client.run(&["backends", "add", "ollama", &ollama.url, "--model", "small:latest"]);
    client.run(&["backends", "add", "studio", &studio.url, "--model", "acme/small"]);
    for (name, peer) in [("llama", &llama), ("mlx", &mlx)] {
        if let Some(peer) = peer {
            client.run(&["backends", "add", name, &peer.url]);
            wait_until("it is ready", || {
                let listed = client.run(&["backends", "--json"]);
                let mut rows = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
                rows.any(|row| row["name"] == name && row["state"] == "ready")
            });
        }
    }

    let ours =
        String::from("queue_ms load_ms cached_tokens server.queue_ms server.load_ms server.cache_from ")
            + CLOCK;
    let mut machines = Vec::new();
    if let Some(sshd) = &sshd {
        let socket = sshd.path("far/run/engine.sock");
        let config = BackendConfig {
            name: "far".to_owned(),
            url: format!("unix://{}", socket.display()),
            ..BackendConfig::default()
        };
        let there = Backend::server(&config).unwrap();
        machines.push(Machine {
            name: "far",
            answers: ANSWERS,
            gives: ours.clone(),
            tells_device: true,
            running: Box::new(move || running(handle, &there, "builtin")),
            saw_cancel: Box::new(move || has_cancelled(&metrics_at(&socket))),
        });
    }
    let there = client.backend("served");
    machines.push(Machine {
        name: "served",
        answers: ANSWERS,
        gives: ours,
        tells_device: true,
        running: Box::new(move || running(handle, &there, "builtin")),
        saw_cancel: Box::new(|| has_cancelled(&handle.block_on(metrics_of(&served)))),
    });
    if let Some(peer) = &llama {
        let there = client.backend("llama");
        let model = handle.block_on(there.models()).unwrap().remove(0).id;
        machines.push(Machine {
            name: "llama",
            answers: ANSWERS,
            gives: String::from("cached_tokens ") + CLOCK,
            tells_device: false,
            running: Box::new(move || running(handle, &there, &model)),
            saw_cancel: Box::new(|| peer.log().contains("cancel task")),
        });
    }
    if let Some(peer) = &mlx {
        let gone = ["BrokenPipeError", "ConnectionResetError"];
        machines.push(Machine {
            name: "mlx",
            answers: ANSWERS,
            gives: String::from("cached_tokens"),
            tells_device: false,
            running: Box::new(|| None),
            saw_cancel: Box::new(move || gone.iter().any(|error| peer.log().contains(error))),
        });
    }
    machines.push(Machine {
        name: "ollama",
        answers: [SCRIPTED; 2],
        gives: String::from("load_ms cached_tokens server.load_ms ") + CLOCK,
        tells_device: false,
        running: Box::new(|| None),
        saw_cancel: Box::new(|| ollama.recorder.cancels() > 0),
    });
    machines.push(Machine {
        name: "studio",
        answers: [SCRIPTED; 2],
        gives: String::new(),
        tells_device: false,
        running: Box::new(|| None),
        saw_cancel: Box::new(|| studio.recorder.cancels() > 0),
    });

    for machine in &machines {
        converse(&client, machine);
    }
    // What the fakes were sent is the conversation, and nothing of anybody else's.
    for (recorder, route) in
        [(&ollama.recorder, "POST /api/chat"), (&studio.recorder, "POST /v1/chat/completions")]
    {
        let sent = recorder.sent(route);
        let texts = |body: &Value| {
            let messages = body["messages"].as_array().unwrap();
            messages.iter().map(|message| message["content"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let sent: Vec<Vec<String>> = sent.iter().map(texts).collect();
        let expected = [vec![CONVERSATION[0]], vec![CONVERSATION[0], SCRIPTED, CONVERSATION[1]]];
        assert_eq!(sent, expected);
    }
    ollama.fault(Some(fake_ollama::Fault::Slow));
    studio.fault(Some(fake_lmstudio::Fault::Slow));
    for machine in &machines {
        cancel(&client, machine);
    }
    if let Some(sshd) = &sshd {
        assert_eq!((sshd.left_over(), sshd.sockets()), (Vec::new(), Vec::new()));
    }
}

/// The answer a fixture model has learnt.
fn learnt(model: &str, question: &str) -> String {
    let known = answers();
    let pairs = known[model]["pairs"].as_array().unwrap();
    let pair = pairs.iter().find(|pair| pair["prompt"] == question && pair["system"].is_null());
    pair.unwrap()["answer"].as_str().unwrap().to_owned()
}

#[test]
fn small_goes_here_and_large_there_or_the_reverse() {
    let question = "What is the capital of France?";
    let models = tempfile::tempdir().unwrap();
    let large = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/fixture-large.gguf");
    std::os::unix::fs::symlink(large, models.path().join("fixture-large.gguf")).unwrap();
    let folder = models.path().to_str().unwrap();
    let served =
        Server::start_in(tempfile::tempdir().unwrap(), &["--pair", "--models", folder], "", Some(TOKEN));
    let client = Client::new(None);
    let dirs = format!("{ENGINE}model_dirs = [\"{folder}\"]\n");
    client.configure(&dirs);
    client.pair(&served, "box");
    let paired = std::fs::read_to_string(client.file()).unwrap();
    let backend = paired.strip_prefix(&dirs).expect("it is added at the end");
    for (small, large) in [("local", "box"), ("box", "local")] {
        // Two million weights are few, seven are many.
        client.configure(&format!(
            "{dirs}[route]\nlarge_from = 0.005\nsmall = \"{small}\"\nlarge = \"{large}\"\n{backend}"
        ));
        for (model, size, side, other) in
            [("builtin", "small", small, large), ("fixture-large", "large", large, small)]
        {
            let told = client.json(&["route", question, "-m", model]);
            let answer = &client.json(&["-p", question, "-m", model, "--temp", "0"])["answers"][0];
            let rule = format!("{size}-to-{side}");
            assert_eq!((&told["backend"], &told["rule"]), (&side.into(), &rule.clone().into()), "{told}");
            assert_eq!((&answer["backend"], &answer["model"]), (&side.into(), &model.into()), "{answer}");
            for field in ["rule", "reason", "alias", "is_variant"] {
                assert_eq!(answer["route"][field], told[field], "{field}: {answer}");
            }
            let why = |route: &Value| {
                (route["rejected"][0]["backend"].clone(), route["rejected"][0]["why"].clone())
            };
            assert_eq!(why(&answer["route"]), why(&told), "{answer}");
            assert_eq!(why(&told), (other.into(), format!("{size} models go to {side}").into()), "{told}");
            let name = model.trim_start_matches("fixture-");
            assert_eq!(answer["text"], learnt(name, question), "{answer}");
            let text = client.run(&["route", question, "-m", model]);
            assert!(text.contains(&format!("{side} · {model}")) && text.contains(&rule), "{text}");
        }
    }
}
