//! Kinds of servers: how they are told apart, that looking has no side effects, and what is spoken with each.

use crate::fake_server::{FakeServer, Reply, Request, Step, events};
use crate::suite::{Manner, Prompts, check_order, collect, failure, request, suite, text};
use crate::{backend, backend_at, delta, finish, prompts, questions};
use duet::backend::{LoadReason, Readiness};
use duet::chat::{Change, Channel, GenErrorKind, GenEvent, GenRequest, Message, ModelState, Note, Role};
use duet::config::{BackendKind, Continues};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const CHAT: &str = "POST /v1/chat/completions";

/// The answer of an OpenAI-compatible server that has `small` alone.
fn chat(request: &Request, missing: Option<Reply>) -> Reply {
    if let (Some(missing), true) = (missing, request.json()["model"] != "small") {
        return missing;
    }
    let words = ["It ", "is ", "five ", "past ", "nine", "."];
    let limit = request.json()["max_tokens"].as_u64().unwrap_or(100);
    let said = words.len().min(usize::try_from(limit).expect("small"));
    let mut chunks: Vec<Value> = words[..said].iter().map(|word| delta(word)).collect();
    chunks.push(finish(if said < words.len() { "length" } else { "stop" }));
    chunks.push(json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": said}}));
    let mut steps = events(&chunks);
    steps.push(Step::Send(b"data: [DONE]\n\n".to_vec()));
    Reply::stream(steps)
}

fn list(item: &Value) -> Reply {
    Reply::json(200, &json!({"object": "list", "data": [item]}))
}

/// llama-server with one model.
fn single(request: &Request) -> Reply {
    let reply = match request.route().as_str() {
        "GET /props" => Reply::json(200, &props(false)),
        "GET /health" => Reply::json(200, &json!({"status": "ok"})),
        "GET /v1/models" => {
            list(&json!({"id": "small", "aliases": [], "object": "model", "owned_by": "llamacpp",
            "meta": {"n_ctx": 4096, "n_ctx_train": 8192, "n_params": 1_000_000, "size": 900_000, "ftype": "Q4_K - Medium"}}))
        }
        "GET /slots?autoload=false&model=small" => {
            Reply::json(200, &json!([{"id": 0, "is_processing": true}, {"id": 1, "is_processing": false}]))
        }
        "POST /v1/chat/completions/input_tokens?autoload=false" => {
            Reply::json(200, &json!({"input_tokens": 42, "object": "response.input_tokens"}))
        }
        CHAT => chat(request, None),
        _ => Reply::json(
            404,
            &json!({"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}),
        ),
    };
    reply.header("server", "llama.cpp")
}

fn props(is_sleeping: bool) -> Value {
    json!({"default_generation_settings": {"n_ctx": 4096}, "total_slots": 2, "build_info": "b7000", "is_sleeping": is_sleeping})
}

/// `mlx_lm.server`, started with a folder.
fn mlx(request: &Request) -> Reply {
    let reply = match request.route().as_str() {
        "GET /health" => Reply::json(200, &json!({"status": "ok"})),
        "GET /v1/models" => list(&json!({"id": "small", "object": "model", "created": 1})),
        CHAT => chat(request, Some(Reply::json(404, &json!({"error": "Repository Not Found for url: x"})))),
        _ => Reply::new(404, "application/json", "Not Found"),
    };
    reply.header("server", "BaseHTTP/0.6 Python/3.11.7")
}

fn vllm(request: &Request) -> Reply {
    let missing = Reply::json(
        404,
        &json!({"error": {"message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404}}),
    );
    let reply = match request.route().as_str() {
        "GET /version" => Reply::json(200, &json!({"version": "0.12.0"})),
        "GET /v1/models" => {
            list(&json!({"id": "small", "owned_by": "vllm", "root": "small", "max_model_len": 4096}))
        }
        "POST /tokenize" => Reply::json(200, &json!({"count": 17, "max_model_len": 4096, "tokens": []})),
        CHAT => chat(request, Some(missing)),
        _ => Reply::json(404, &json!({"detail": "Not Found"})),
    };
    reply.header("server", "uvicorn")
}

fn tensorrt(request: &Request) -> Reply {
    let missing = Reply::json(
        404,
        &json!({"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404}),
    );
    let reply = match request.route().as_str() {
        "GET /version" => Reply::json(200, &json!({"version": "1.2.0"})),
        "GET /v1/models" => list(&json!({"id": "small", "object": "model", "owned_by": "tensorrt_llm"})),
        CHAT => chat(request, Some(missing)),
        _ => Reply::json(404, &json!({"detail": "Not Found"})),
    };
    reply.header("server", "uvicorn")
}

fn llama_swap(request: &Request) -> Reply {
    match request.route().as_str() {
        "GET /running" => {
            Reply::json(200, &json!({"running": [{"model": "small", "state": "ready", "ttl": 300}]}))
        }
        "GET /api/version" => Reply::json(200, &json!({"version": "v170"})),
        "GET /v1/models" => list(&json!({"id": "small", "owned_by": "llama-swap"})),
        "GET /upstream/small/health" => Reply::json(200, &json!({"status": "ok"})),
        "POST /api/models/unload/small" => Reply::new(200, "text/plain", "OK"),
        CHAT => chat(request, Some(Reply::json(404, &json!({"error": "could not find real modelID for x"})))),
        _ => Reply::new(404, "text/plain", "404 page not found"),
    }
}

fn plain(request: &Request) -> Reply {
    match request.route().as_str() {
        "GET /v1/models" => list(&json!({"id": "small", "object": "model"})),
        CHAT => chat(request, Some(Reply::json(404, &json!({"error": {"message": "model not found"}})))),
        _ => Reply::new(404, "text/html", "<html><title>404</title></html>"),
    }
}

type Handler = fn(&Request) -> Reply;

#[tokio::test]
async fn each_kind_is_told_apart_by_gets_alone_and_passes_the_suite() {
    let cases: [(Handler, BackendKind, Manner); 6] = [
        (single, BackendKind::LlamaServer, Manner::AnswersAnyway),
        (mlx, BackendKind::Mlx, Manner::LoadsWhenAsked),
        (vllm, BackendKind::Vllm, Manner::LoadsWhenAsked),
        (tensorrt, BackendKind::TensorrtLlm, Manner::LoadsWhenAsked),
        (llama_swap, BackendKind::LlamaSwap, Manner::Loads),
        (plain, BackendKind::Openai, Manner::LoadsWhenAsked),
    ];
    for (handler, kind, manner) in cases {
        let server = FakeServer::tcp(handler).await;
        let backend = backend(&server);
        assert_eq!(backend.kind(), None, "nothing is asked before it is needed");
        let identity = backend.identify().await.expect("it is there");
        assert_eq!((identity.kind, identity.readiness), (kind, Readiness::Ready));
        assert_eq!(questions(&server).len(), 0, "{kind:?}: only GETs");
        let looks = server.requests().len();
        assert!(looks <= 9, "{kind:?}: {looks}");
        backend.identify().await.expect("it is there");
        assert_eq!(server.requests().len(), looks, "{kind:?}: it is remembered");
        suite(&backend, &Prompts { manner, ..prompts() }).await;
        let asked: Vec<String> = server.requests().iter().map(Request::route).collect();
        assert!(!asked.iter().any(|route| route.contains("/metrics")), "{kind:?}: {asked:?}");
        assert_eq!(backend.kind(), Some(kind));
    }
}

#[tokio::test]
async fn a_kind_that_is_configured_is_not_looked_for() {
    let server = FakeServer::tcp(plain).await;
    let backend = backend_at(server.url(), Some(BackendKind::Vllm));
    collect(&backend, request("small", "Hi")).await;
    assert_eq!(server.requests().iter().map(Request::route).collect::<Vec<_>>(), [CHAT]);
    assert_eq!((backend.kind(), backend.can_continue()), (Some(BackendKind::Vllm), Ok(Continues::WhenTold)));
}

#[tokio::test]
async fn an_engine_of_ours_elsewhere_is_known_by_its_header() {
    let server = FakeServer::tcp(|request| crate::talker(request).header("server", "duet/9.9.9")).await;
    let backend = backend(&server);
    let identity = backend.identify().await.expect("it is there");
    assert_eq!((identity.kind, identity.version.as_deref()), (BackendKind::Duet, Some("9.9.9")));
    assert_eq!(server.requests().len(), 1);
    suite(&backend, &prompts()).await;
    assert!(backend.abilities().pins);
}

/// A server that is another one after the test says so.
async fn replaced(before: Handler, after: Handler) -> (FakeServer, Arc<AtomicUsize>) {
    let turn = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&turn);
    let server =
        FakeServer::tcp(
            move |request| {
                if seen.load(Ordering::SeqCst) == 0 { before(request) } else { after(request) }
            },
        )
        .await;
    (server, turn)
}

fn ollama(request: &Request) -> Reply {
    match request.route().as_str() {
        "GET /" => Reply::new(200, "text/plain", "Ollama is running"),
        "GET /api/version" => Reply::json(200, &json!({"version": "0.12.6"})),
        "GET /api/tags" => Reply::json(200, &json!({"models": [{"name": "small", "size": 5}]})),
        "GET /api/ps" => Reply::json(200, &json!({"models": [{"name": "small", "context_length": 4096}]})),
        "POST /api/chat" => {
            let lines = [
                json!({"message": {"content": "ollama"}, "done": false}),
                json!({"done": true, "done_reason": "stop"}),
            ];
            let steps = lines.iter().map(|line| Step::Send(format!("{line}\n").into_bytes())).collect();
            Reply::stream(steps).header("content-type", "application/x-ndjson")
        }
        "GET /v1/models" => list(&json!({"id": "small", "owned_by": "library"})),
        _ => Reply::new(404, "text/plain", "404 page not found"),
    }
}

fn lm_studio(request: &Request) -> Reply {
    match request.route().as_str() {
        "GET /api/v1/models" => {
            Reply::json(200, &json!({"models": [{"key": "small", "loaded_instances": [{"id": "small"}]}]}))
        }
        CHAT => chat(request, None),
        other => Reply::json(200, &json!({"error": format!("Unexpected endpoint or method. ({other})")})),
    }
}

#[tokio::test]
async fn a_server_replaced_by_another_kind_is_noticed_by_a_question() {
    for (after, kind, words) in [
        (vllm as Handler, BackendKind::Vllm, "404"),
        (lm_studio as Handler, BackendKind::LmStudio, "200 with an error in it"),
    ] {
        let (server, turn) = replaced(ollama, after).await;
        let backend = backend(&server);
        assert_eq!(text(&collect(&backend, request("small", "Hi")).await, Channel::Answer), "ollama");
        turn.store(1, Ordering::SeqCst);
        let events = collect(&backend, request("small", "Hi")).await;
        check_order(&events);
        assert_eq!(text(&events, Channel::Answer), "It is five past nine.", "{words}: {events:?}");
        assert_eq!(backend.kind(), Some(kind));
        let posts: Vec<String> = questions(&server).iter().map(Request::route).collect();
        assert_eq!(
            posts,
            ["POST /api/chat", "POST /api/chat", CHAT],
            "sent again where nobody could answer it"
        );
    }
}

#[tokio::test]
async fn a_server_replaced_by_another_kind_is_noticed_by_its_list() {
    for (before, after, kind) in [
        (vllm as Handler, ollama as Handler, BackendKind::Ollama),
        (single, vllm, BackendKind::Vllm),
        (ollama, single, BackendKind::LlamaServer),
        (lm_studio, plain, BackendKind::Openai),
        (plain, tensorrt, BackendKind::TensorrtLlm),
    ] {
        let (server, turn) = replaced(before, after).await;
        let backend = backend(&server);
        backend.models().await.expect("a list");
        turn.store(1, Ordering::SeqCst);
        assert_eq!(backend.models().await.expect("a list")[0].id, "small");
        assert_eq!(backend.kind(), Some(kind));
    }
}

#[tokio::test]
async fn a_lost_connection_makes_it_look_again() {
    fn gone(_: &Request) -> Reply {
        Reply::raw(b"")
    }
    let (server, turn) = replaced(vllm, gone).await;
    let backend = backend(&server);
    collect(&backend, request("small", "Hi")).await;
    assert_eq!(backend.kind(), Some(BackendKind::Vllm));
    turn.store(1, Ordering::SeqCst);
    let events = collect(&backend, request("small", "Hi")).await;
    assert_eq!(failure(&events).0, GenErrorKind::Protocol);
    assert_eq!(questions(&server).len(), 2, "nothing is sent twice");
    assert_eq!(backend.kind(), None);
    turn.store(0, Ordering::SeqCst);
    let events = collect(&backend, request("small", "Hi")).await;
    assert_eq!(text(&events, Channel::Answer), "It is five past nine.");
}

#[tokio::test]
async fn a_key_that_is_wanted_is_a_matter_of_configuration() {
    let server =
        FakeServer::tcp(|_| Reply::json(401, &json!({"error": {"message": "Invalid API Key", "code": 401}})))
            .await;
    let backend = backend(&server);
    let error = backend.identify().await.expect_err("a key is wanted");
    assert_eq!(error.kind, GenErrorKind::Auth);
    assert_eq!(backend.models().await.expect_err("a key is wanted").kind, GenErrorKind::Auth);
    let events = collect(&backend, request("small", "Hi")).await;
    assert_eq!((failure(&events).0, questions(&server).len()), (GenErrorKind::Auth, 0));
}

#[tokio::test]
async fn a_llama_server_that_loads_is_waited_for() {
    let looks = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&looks);
    let server = FakeServer::tcp(move |request| {
        let is_loading = seen.load(Ordering::SeqCst) < 2;
        if request.path == "/health" {
            seen.fetch_add(1, Ordering::SeqCst);
        }
        if is_loading {
            let loading =
                json!({"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}});
            return Reply::json(503, &loading).header("server", "llama.cpp");
        }
        single(request)
    })
    .await;
    let backend = backend(&server);
    let identity = backend.identify().await.expect("it is up");
    assert_eq!((identity.kind, identity.readiness), (BackendKind::LlamaServer, Readiness::Loading));
    let events = collect(&backend, request("small", "Hi")).await;
    check_order(&events);
    assert_eq!(events.first(), Some(&GenEvent::Loading { fraction: 0.0 }));
    assert_eq!(text(&events, Channel::Answer), "It is five past nine.");
    assert_eq!(questions(&server).len(), 2, "once while it loaded, once when it had");
    assert_eq!(backend.identify().await.expect("it is up").readiness, Readiness::Ready);
}

#[tokio::test]
async fn a_busy_llama_server_is_not_taken_for_one_that_loads() {
    let server = FakeServer::tcp(|request| match request.route().as_str() {
        CHAT => {
            Reply::json(503, &json!({"error": {"message": "no slot is free", "type": "unavailable_error"}}))
        }
        _ => single(request),
    })
    .await;
    let events = collect(&backend(&server), request("small", "Hi")).await;
    assert_eq!(failure(&events).1.lines().next(), Some("mac is not ready (503): no slot is free"));
    assert_eq!(questions(&server).len(), 1);
}

#[tokio::test]
async fn a_sleeping_server_is_not_woken() {
    let server = FakeServer::tcp(|request| match request.route().as_str() {
        "GET /props" => Reply::json(200, &props(true)),
        _ => single(request),
    })
    .await;
    let backend = backend(&server);
    assert_eq!(backend.identify().await.expect("it is there").readiness, Readiness::Asleep);
    backend.models().await.expect("a list");
    assert_eq!(backend.count(&request("small", "Hi")).await, Ok(None));
    assert_eq!(backend.running("small").await, Ok(None));
    let harmless = ["GET /props", "GET /v1/models", "GET /health"];
    let asked: Vec<String> = server.requests().iter().map(Request::route).collect();
    assert!(asked.iter().all(|route| harmless.contains(&route.as_str())), "{asked:?}");
}

#[tokio::test]
async fn a_router_is_never_made_to_load_by_a_look() {
    let server = FakeServer::tcp(|request| match request.route().as_str() {
        "GET /props" => Reply::json(200, &json!({"role": "router", "models_autoload": true})),
        "GET /v1/models" => {
            let item = |id: &str, value: &str| json!({"id": id, "owned_by": "llamacpp", "status": {"value": value}});
            Reply::json(200, &json!({"data": [item("small", "loaded"), item("cold", "unloaded"), item("asleep", "sleeping")]}))
        }
        _ => single(request),
    })
    .await;
    let backend = backend(&server);
    assert!(backend.identify().await.expect("it is there").is_router);
    assert!(backend.abilities().loads && !backend.abilities().sets_context);
    for model in ["cold", "asleep", "nowhere"] {
        assert_eq!(backend.count(&request(model, "Hi")).await, Ok(None), "{model}");
        assert_eq!(backend.running(model).await, Ok(None), "{model}");
    }
    assert_eq!(backend.count(&request("small", "Hi")).await, Ok(Some(42)));
    assert_eq!(backend.running("small").await, Ok(Some(1)));
    for request in server.requests() {
        let needs = request.path.contains("model=") || request.method == "POST";
        assert!(!needs || request.path.contains("autoload=false"), "{}", request.route());
    }
}

#[tokio::test]
async fn prompts_are_counted_once_and_a_cut_one_is_told_exactly() {
    let server = FakeServer::tcp(single).await;
    let backend = backend(&server);
    let ask = request("small", "Hi");
    for _ in 0..3 {
        assert_eq!(backend.count(&ask).await, Ok(Some(42)));
    }
    let counts = questions(&server).len();
    assert_eq!(counts, 1, "the same prompt is not counted again");
    let events = collect(&backend, ask).await;
    let note = GenEvent::Note(Note::Cut { sent: 42, read: 9, is_exact: true });
    assert!(events.contains(&note), "it read 9 of them: {events:?}");

    let server = FakeServer::tcp(vllm).await;
    let backend = crate::backend(&server);
    assert_eq!(backend.count(&request("small", "Hi")).await, Ok(Some(17)));
    let server = FakeServer::tcp(plain).await;
    assert_eq!(crate::backend(&server).count(&request("small", "Hi")).await, Ok(None));
}

#[tokio::test]
async fn an_older_llama_server_counts_in_two_steps() {
    let server = FakeServer::tcp(|request| match request.route().as_str() {
        "POST /v1/chat/completions/input_tokens?autoload=false" => Reply::json(404, &json!({"error": "no"})),
        "POST /apply-template?autoload=false" => Reply::json(200, &json!({"prompt": "<s>Hi"})),
        "POST /tokenize?autoload=false" => {
            assert_eq!(request.json()["content"], "<s>Hi");
            Reply::json(200, &json!({"tokens": [1, 2, 3]}))
        }
        _ => single(request),
    })
    .await;
    assert_eq!(backend(&server).count(&request("small", "Hi")).await, Ok(Some(3)));
}

#[tokio::test]
async fn zero_tokens_are_asked_only_of_those_who_can() {
    let warm = || GenRequest { max_tokens: Some(0), ..request("small", "Hi") };
    let cases: [(Handler, bool); 5] =
        [(single, true), (mlx, false), (vllm, false), (llama_swap, false), (plain, false)];
    for (handler, can) in cases {
        let server = FakeServer::tcp(handler).await;
        let backend = backend(&server);
        let events = collect(&backend, warm()).await;
        let sent: Vec<Value> = questions(&server).iter().map(Request::json).collect();
        assert_eq!(backend.abilities().warms, can, "{:?}", backend.kind());
        if can {
            assert!(matches!(events.last(), Some(GenEvent::Done { .. })), "{events:?}");
            assert_eq!((sent.len(), &sent[0]["max_tokens"]), (1, &json!(0)));
        } else {
            assert_eq!((failure(&events).0, sent.len()), (GenErrorKind::Refused, 0));
        }
    }
}

#[tokio::test]
async fn schemas_are_not_sent_to_who_ignores_them() {
    let server = FakeServer::tcp(mlx).await;
    let asked = GenRequest { schema: Some(json!({"type": "object"})), ..request("small", "Hi") };
    let (kind, message) = failure(&collect(&backend(&server), asked).await);
    assert_eq!(kind, GenErrorKind::Refused);
    assert!(message.starts_with("mac is mlx_lm.server: it would take no notice of a schema\n"), "{message}");
    assert_eq!(questions(&server).len(), 0);
}

#[tokio::test]
async fn an_answer_that_was_begun_is_continued_or_refused() {
    let cases: [(Handler, bool); 6] =
        [(single, true), (vllm, true), (llama_swap, true), (mlx, false), (tensorrt, false), (plain, false)];
    for (handler, can) in cases {
        let server = FakeServer::tcp(handler).await;
        let backend = backend(&server);
        assert_eq!(backend.can_continue(), Ok(Continues::Perhaps), "not known yet");
        let mut begun = request("small", "Hi");
        begun.messages.push(Message::new(Role::Assistant, "It is"));
        let events = collect(&backend, begun).await;
        let is_done = matches!(events.last(), Some(GenEvent::Done { .. }));
        assert_eq!((is_done, backend.can_continue().is_ok()), (can, can), "{:?}: {events:?}", backend.kind());
        assert_eq!(questions(&server).len(), usize::from(can));
    }
}

#[tokio::test]
async fn what_a_server_cant_be_told_is_said_in_its_own_words() {
    let cases: [(Handler, Change, &str); 6] = [
        (mlx, Change::Load { context: None }, "it loads one when it is asked a question"),
        (vllm, Change::Unload, "it has the one it was started with"),
        (single, Change::Unload, "it has the one it was started with"),
        (llama_swap, Change::Load { context: Some(8192) }, "the context is in its configuration"),
        (plain, Change::Pin(true), "it manages its models itself"),
        (tensorrt, Change::Load { context: None }, "it has the one it was started with"),
    ];
    for (handler, change, why) in cases {
        let server = FakeServer::tcp(handler).await;
        let error = backend(&server).change("small", change).await.expect_err(why);
        assert_eq!(error.kind, GenErrorKind::Refused, "{error}");
        assert!(error.message.starts_with("mac can't be told to ") && error.message.contains(why), "{error}");
        assert_eq!(error.message.lines().count(), 2, "{error}");
    }
}

#[tokio::test]
async fn the_single_model_is_loaded_and_no_other_can_be() {
    let server = FakeServer::tcp(single).await;
    let backend = backend(&server);
    backend.load("small", LoadReason::Asked).await.expect("it is there");
    let error = backend.load("other", LoadReason::Asked).await.expect_err("it is not");
    assert!(error.message.contains("it has the one it was started with"), "{error}");
    let card = backend.models().await.expect("a list").remove(0);
    assert_eq!((card.state, card.quantisation.as_deref()), (ModelState::Loaded, Some("q4_k_m")));
    assert!(!backend.abilities().loads, "only a router does");
}

#[tokio::test]
async fn llama_swap_unloads_what_runs() {
    let server = FakeServer::tcp(llama_swap).await;
    let backend = backend(&server);
    assert!(backend.unload("small").await.expect("it goes"));
    assert_eq!(server.count("POST /api/models/unload/small"), 1);
    assert!(!backend.unload("other").await.expect("it does not run"));
}
