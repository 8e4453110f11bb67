//! The client's side of this machine's engine, over a fake behind a real socket: finding it, starting it,
//! replacing one of another version, and learning of its death.

use crate::fake_server::{DEADLINE, FakeServer, Reply, Request, Step, events};
use crate::suite::{check_order, collect, failure, request, suite, text};
use crate::{delta, prompts, talker};
use duet::backend::{Backend, EngineEvent};
use duet::chat::{Change, Channel, GenErrorKind, KeepAlive, ModelState};
use duet::paths::{Paths, create_private};
use futures_util::StreamExt;
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Folders of their own for one test.
struct Place {
    paths: Paths,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("duet").tempdir_in("/tmp").expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let paths = Paths { config: at("config"), data: at("data"), cache: at("cache"), runtime: at("run") };
        Self { paths, folder }
    }

    fn socket(&self) -> PathBuf {
        self.paths.engine_socket()
    }

    /// The engine's handle; what it would start is `program`.
    fn backend(&self, program: &Path) -> Backend {
        Backend::engine(&self.paths, Some(Path::new("/etc/duet.toml")), Some(program)).expect("a handle")
    }

    /// A handle that must not have to start anything.
    fn running(&self) -> Backend {
        self.backend(Path::new("/nonexistent/tui"))
    }

    fn serve(&self, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> FakeServer {
        create_private(&self.paths.runtime).expect("a folder");
        FakeServer::unix(&self.socket(), handler)
    }

    /// A program that writes down that it was started, and how, and then does `then`.
    fn program(&self, then: &str) -> PathBuf {
        let path = self.folder.path().join("tui");
        let starts = self.starts();
        let script = format!(
            "#!/bin/sh\necho \"$*|$GGML_NO_BACKTRACE|$DUET_RUNTIME_DIR|$PWD\" >> {}\n{then}\n",
            starts.display()
        );
        // Written beside and moved: a file that is open for writing can't be run.
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, script).expect("written");
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o700)).expect("set");
        std::fs::rename(&fresh, &path).expect("moved");
        path
    }

    fn starts(&self) -> PathBuf {
        self.folder.path().join("starts")
    }

    /// A program that runs on, with nobody at the socket; it is ended with the test.
    fn idle_program(&self) -> PathBuf {
        self.program(&format!("echo $$ >> {}\nexec sleep 30", self.pids().display()))
    }

    fn pids(&self) -> PathBuf {
        self.folder.path().join("pids")
    }

    fn started(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.starts()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    async fn until_started(&self) {
        let wait = async {
            while self.started().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("it is started");
    }

    /// What the supervisor writes when an engine dies.
    fn write_death(&self, message: &str, residents: &[&str], at_ms: u128) {
        let report = json!({"pid": 5, "version": duet::VERSION, "signal": 9, "code": null, "activity": "answering with small",
            "model": "small", "residents": residents, "last_words": [], "message": message, "at_ms": at_ms});
        std::fs::write(self.paths.runtime.join("engine.death.json"), report.to_string()).expect("written");
    }
}

impl Drop for Place {
    /// Ends what runs on.
    fn drop(&mut self) {
        let pids = std::fs::read_to_string(self.pids()).unwrap_or_default();
        for pid in pids.lines().filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()
}

#[tokio::test]
async fn the_engine_passes_the_suite() {
    let place = Place::new();
    let server = place.serve(talker);
    let backend = place.running();
    assert!(backend.is_engine());
    suite(&backend, &prompts()).await;
    assert!(server.count("GET /engine/status") > 0);
    assert_eq!(place.started(), [""; 0]);
}

#[tokio::test]
async fn many_clients_start_one_engine() {
    let place = Arc::new(Place::new());
    let program = place.idle_program();
    let clients: Vec<Backend> = (0..20).map(|_| place.backend(&program)).collect();
    let asked = futures_util::future::join_all(clients.iter().map(Backend::models));
    let engine = async {
        place.until_started().await;
        place.serve(talker)
    };
    let (answers, server) = tokio::join!(asked, engine);
    for answer in answers {
        assert_eq!(answer.expect("a list").len(), 1);
    }
    let runtime = &place.paths.runtime;
    assert_eq!(place.started(), [format!("engine run --config /etc/duet.toml|1|{}|/", runtime.display())]);
    let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o777;
    assert_eq!((mode(runtime), mode(&runtime.join("start.lock"))), (0o700, 0o600));
    assert!(server.count("GET /health") > 0);
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let place = Place::new();
    place.serve(talker).stop().await;
    assert!(place.socket().exists(), "the file stays behind");
    let program = place.idle_program();
    let backend = place.backend(&program);
    let engine = async {
        place.until_started().await;
        assert!(!place.socket().exists(), "it was removed before the start");
        place.serve(talker)
    };
    let (models, _server) = tokio::join!(backend.models(), engine);
    assert_eq!(models.expect("a list").len(), 1);
}

#[tokio::test]
async fn an_engine_that_ends_at_once_is_an_error_with_its_words() {
    let place = Place::new();
    let backend = place.backend(&place.program("exit 3"));
    let error = backend.models().await.expect_err("it ended");
    assert_eq!(error.kind, GenErrorKind::Unreachable);
    assert!(error.message.contains("ended while it started, with exit status: 3"), "{error}");

    let report = place.paths.runtime.join("engine.death.json");
    let text = r#"{"message":"no such device\nuse another","at_ms":99999999999999}"#;
    let backend = place
        .backend(&place.program(&format!("echo '{text}' > {}", report.display()).replace("\\n", "\\\\n")));
    let error = backend.models().await.expect_err("it ended");
    assert_eq!(error.kind, GenErrorKind::EngineDied, "{error}");
    assert_eq!(error.message, "no such device\nuse another");
}

#[tokio::test]
async fn a_program_that_is_missing_is_named() {
    let place = Place::new();
    let error = place.running().models().await.expect_err("nothing to start");
    assert_eq!(error.kind, GenErrorKind::Unreachable);
    assert!(error.message.contains("/nonexistent/tui"), "{error}");
}

#[tokio::test]
async fn an_engine_of_another_version_is_asked_to_go() {
    let place = Place::new();
    let old = place.serve(|request| match request.route().as_str() {
        "GET /engine/status" => Reply::json(200, &json!({"version": "0.0.1"})),
        "POST /engine/shutdown" => Reply::json(200, &json!({"success": true})),
        other => panic!("the old engine was asked {other}"),
    });
    let program = place.idle_program();
    let backend = place.backend(&program);
    let engine = async {
        old.asked("POST /engine/shutdown", 1).await;
        assert_eq!(place.started(), [""; 0], "the new one waits");
        old.stop().await;
        place.until_started().await;
        place.serve(talker)
    };
    let (models, _server) = tokio::join!(backend.models(), engine);
    assert_eq!(models.expect("a list").len(), 1);
    assert_eq!(place.started().len(), 1);
}

#[tokio::test]
async fn places_that_are_no_good() {
    let place = Place::new();
    std::os::unix::fs::symlink("/tmp", &place.paths.runtime).expect("a link");
    let error = place.running().models().await.expect_err("a link");
    assert!(error.message.contains("is a link\nset DUET_RUNTIME_DIR"), "{error}");

    let mut place = Place::new();
    place.paths.runtime = place.folder.path().join("x".repeat(100));
    let error = place.running().models().await.expect_err("too long");
    assert!(
        error.message.contains("100 are possible") && error.message.contains("DUET_RUNTIME_DIR"),
        "{error}"
    );

    let place = Place::new();
    std::fs::write(&place.paths.runtime, "").expect("written");
    let error = place.running().models().await.expect_err("a file");
    assert!(error.message.contains("is not a folder"), "{error}");

    let place = Place::new();
    create_private(&place.paths.runtime).expect("a folder");
    std::fs::write(place.socket(), "precious").expect("written");
    let error = place.backend(&place.program("exit 0")).models().await.expect_err("in the way");
    assert!(error.message.contains("is in the way: it is not a socket"), "{error}");
    assert!(place.socket().exists(), "what is not ours stays");
}

/// An engine that breaks off after one word.
fn breaks_off(request: &Request) -> Reply {
    match request.route().as_str() {
        "POST /v1/chat/completions" => {
            let mut steps = events(&[delta("half")]);
            steps.extend([Step::Gate, Step::Cut]);
            Reply::stream(steps)
        }
        _ => talker(request),
    }
}

#[tokio::test]
async fn a_death_in_mid_answer_keeps_the_text_and_gives_the_last_words() {
    let place = Place::new();
    let server = place.serve(breaks_off);
    place.write_death("an old story", &[], now_ms() - 60_000);
    let backend = place.running();
    let killed = async {
        server.asked("POST /v1/chat/completions", 1).await;
        let answers_before = server.requests().len() - 1;
        server.open(1);
        // The report comes after the connection broke.
        server.over(answers_before + 1).await;
        place.write_death("killed by signal 9\npress r", &["small"], now_ms());
    };
    let (events, ()) = tokio::join!(collect(&backend, request("small", "Hi")), killed);
    check_order(&events);
    assert_eq!(text(&events, Channel::Answer), "half");
    assert_eq!(failure(&events), (GenErrorKind::EngineDied, "killed by signal 9\npress r".to_owned()));
}

#[tokio::test]
async fn a_break_without_a_record_is_a_death_without_a_word() {
    let place = Place::new();
    let server = place.serve(breaks_off);
    place.write_death("an old story", &[], now_ms() - 60_000);
    server.open(1);
    let events = collect(&place.running(), request("small", "Hi")).await;
    assert_eq!(text(&events, Channel::Answer), "half");
    let (kind, message) = failure(&events);
    assert_eq!(kind, GenErrorKind::EngineDied);
    assert!(message.contains("without a word"), "{message}");
}

#[tokio::test]
async fn paths_of_models_are_made_absolute() {
    let place = Place::new();
    let server = place.serve(talker);
    let backend = place.running();
    let here = std::env::current_dir().expect("a folder");
    for (model, sent) in [
        ("models/builtin.gguf", here.join("models/builtin.gguf").display().to_string()),
        ("./missing.gguf", here.join("missing.gguf").display().to_string()),
        ("small", "small".to_owned()),
        ("org/model", "org/model".to_owned()),
        ("src", "src".to_owned()),
    ] {
        collect(&backend, request(model, "Hi")).await;
        assert_eq!(server.requests().last().expect("asked").json()["model"], json!(sent));
    }
}

/// An engine whose list of models changes when the gate opens, and which leaves at the second opening.
fn newsworthy(request: &Request) -> Reply {
    match request.route().as_str() {
        "GET /models/sse" => {
            let mut steps = vec![Step::Send(b": hello\n\n".to_vec()), Step::Gate];
            steps.extend(events(&[
                json!({"event": "models", "data": [{"id": "small", "status": {"value": "loaded"}}, {"id": "big", "status": {"value": "loading", "progress": 0.5}}]}),
                json!({"event": "other", "data": {}}),
            ]));
            steps.push(Step::Gate);
            Reply::stream(steps)
        }
        _ => talker(request),
    }
}

#[tokio::test]
async fn news_of_an_engine_that_dies() {
    let place = Place::new();
    let server = place.serve(newsworthy);
    let backend = place.running();
    let mut news = backend.watch();
    let Some(EngineEvent::Ready(models)) = news.next().await else { panic!("not ready") };
    assert_eq!(models.cards.len(), 1, "and not `Starting`, for it ran");
    server.open(1);
    let Some(EngineEvent::Models(models)) = news.next().await else { panic!("no news") };
    assert_eq!(
        models.cards.iter().map(|m| m.state.clone()).collect::<Vec<_>>(),
        [ModelState::Loaded, ModelState::Loading { fraction: 0.5 }]
    );
    place.write_death("out of memory\nchoose a smaller model", &[], now_ms() + 1);
    server.open(1);
    assert_eq!(
        news.next().await,
        Some(EngineEvent::Died {
            message: "out of memory\nchoose a smaller model".to_owned(),
            residents: vec!["small".to_owned()]
        })
    );
    assert_eq!(news.next().await, None);
}

#[tokio::test]
async fn news_of_an_engine_that_was_stopped() {
    let place = Place::new();
    let server = place.serve(leaving);
    server.open(1);
    let news: Vec<EngineEvent> = place.running().watch().collect().await;
    assert_eq!(news.last(), Some(&EngineEvent::Stopped));
}

/// An engine that says goodbye when the gate opens.
fn leaving(request: &Request) -> Reply {
    match request.route().as_str() {
        "GET /models/sse" => {
            let mut steps = vec![Step::Send(b": hello\n\n".to_vec()), Step::Gate];
            steps.extend(events(&[json!({"model": "*", "event": "engine_ending"})]));
            Reply::stream(steps)
        }
        _ => talker(request),
    }
}

#[tokio::test]
async fn news_of_an_engine_that_was_killed() {
    let place = Place::new();
    let server = place.serve(newsworthy);
    place.write_death("an old story", &["big"], now_ms() - 60_000);
    server.open(2);
    let news: Vec<EngineEvent> = place.running().watch().collect().await;
    assert_eq!(
        news.last(),
        Some(&EngineEvent::Died {
            message: "engine ended without a word: it was killed".to_owned(),
            residents: vec!["small".to_owned()]
        })
    );
}

#[tokio::test]
async fn news_of_an_engine_that_has_to_be_started() {
    let place = Place::new();
    let program = place.idle_program();
    let backend = place.backend(&program);
    let mut news = backend.watch();
    assert_eq!(news.next().await, Some(EngineEvent::Starting));
    let engine = async {
        place.until_started().await;
        place.serve(newsworthy)
    };
    let (ready, server) = tokio::join!(news.next(), engine);
    assert!(matches!(ready, Some(EngineEvent::Ready(_))), "{ready:?}");
    drop(news);
    server.hangups(1).await;

    let place = Place::new();
    let news: Vec<EngineEvent> = place.running().watch().collect().await;
    assert!(
        matches!(news.as_slice(), [EngineEvent::Starting, EngineEvent::Failed(why)] if why.contains("/nonexistent/tui")),
        "{news:?}"
    );
}

/// An engine that keeps what it is told, and has room for nothing called `big`.
fn keeper(request: &Request) -> Reply {
    match request.route().as_str() {
        "POST /models/load" if request.json()["model"] == "big" => Reply::json(
            507,
            &json!({"error": {"code": 507, "type": "out_of_memory_error",
                "message": "big needs 9.8 GB, 4.1 GB are free\nunload small (4.7 GB) first"}}),
        ),
        "POST /models/unload" if request.json()["model"] == "big" => {
            Reply::json(400, &json!({"error": {"code": 400, "message": "`big` is not loaded"}}))
        }
        "POST /models/unload" | "POST /models/pin" | "POST /models/keep_alive" => {
            Reply::json(200, &json!({"success": true}))
        }
        "GET /engine/status" => Reply::json(
            200,
            &json!({"version": duet::VERSION, "pid": 1,
                "devices": [{"name": "CUDA0", "total": 24, "free": 12, "budget": 20, "reserved": 2}],
                "models": [{"id": "small", "device_bytes": [{"device": "CUDA0", "weights": 4, "kv": 1, "compute": 1}]}]}),
        ),
        "GET /v1/models" => Reply::json(
            200,
            &json!({"data": [
                {"id": "small", "status": {"value": "loaded"}, "duet": {"pinned": true, "keep_alive": -1}},
                {"id": "big", "status": {"value": "unloaded"}, "duet": {"builtin": false}},
            ]}),
        ),
        _ => talker(request),
    }
    .header("server", "duet/0")
}

#[tokio::test]
async fn a_change_of_residency_is_one_post() {
    let place = Place::new();
    let server = place.serve(keeper);
    let backend = place.running();
    for (change, route, body) in [
        (Change::Load { context: None }, "POST /models/load", json!({"model": "small"})),
        (
            Change::Load { context: Some(4096) },
            "POST /models/load",
            json!({"model": "small", "context": 4096}),
        ),
        (Change::Unload, "POST /models/unload", json!({"model": "small"})),
        (Change::Pin(true), "POST /models/pin", json!({"model": "small", "pinned": true})),
        (
            Change::KeepAlive(KeepAlive::Seconds(300)),
            "POST /models/keep_alive",
            json!({"model": "small", "seconds": 300}),
        ),
        (
            Change::KeepAlive(KeepAlive::ForEver),
            "POST /models/keep_alive",
            json!({"model": "small", "seconds": -1}),
        ),
        (
            Change::KeepAlive(KeepAlive::Default),
            "POST /models/keep_alive",
            json!({"model": "small", "seconds": null}),
        ),
    ] {
        let before = server.requests().len();
        backend.change("small", change).await.expect("done");
        let posts: Vec<(String, Value)> = server.requests()[before..]
            .iter()
            .filter(|request| request.method == "POST")
            .map(|request| (request.route(), request.json()))
            .collect();
        assert_eq!(posts, [(route.to_owned(), body)], "{change:?}");
    }
}

#[tokio::test]
async fn a_refusal_for_want_of_room_keeps_its_numbers() {
    let place = Place::new();
    let _server = place.serve(keeper);
    let backend = place.running();
    let error = backend.change("big", Change::Load { context: None }).await.expect_err("no room");
    assert_eq!(error.kind, GenErrorKind::OutOfMemory);
    assert_eq!(error.message, "big needs 9.8 GB, 4.1 GB are free\nunload small (4.7 GB) first");
    let error = backend.change("big", Change::Unload).await.expect_err("not there");
    assert_eq!(error.message, "`big` is not loaded");
}

#[tokio::test]
async fn an_engine_that_can_t_be_told_says_so() {
    let place = Place::new();
    let _server = place.serve(|request| match request.route().as_str() {
        "POST /models/pin" => Reply::json(404, &json!({"error": "File Not Found"})),
        _ => talker(request),
    });
    let error = place.running().change("small", Change::Pin(true)).await.expect_err("no such route");
    assert_eq!(error.kind, GenErrorKind::Refused);
    assert!(error.message.starts_with("local can't be told to pin a model: "), "{error}");
}

#[tokio::test]
async fn what_is_kept_and_where() {
    let place = Place::new();
    let _server = place.serve(keeper);
    let backend = place.running();
    let listing = backend.listing().await.expect("a list");
    assert_eq!(listing.cards.len(), 2);
    let kept: Vec<_> = listing.residency.iter().map(|r| (r.id.as_str(), r.pinned, r.keep_alive)).collect();
    assert_eq!(kept, [("small", Some(true), Some(KeepAlive::ForEver))], "of big nothing is told");
    let machine = backend.machine().await.expect("a status").expect("a machine");
    assert_eq!((machine.used("CUDA0"), machine.devices[0].budget), (Some(6), Some(20)));
    assert_eq!(
        Place::new().running().machine().await,
        Ok(None),
        "nobody runs: nothing is started to find out"
    );
}
