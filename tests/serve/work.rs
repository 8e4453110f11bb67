//! What is taken from clients that are let in, how much of it, and what happens when they go away.

use crate::support::{Reply, Server, TOKEN, asking, endless, request, wait_until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// One slot, so that the second request waits.
const ONE_SLOT: &str = "[engine]\nthreads = 1\nslots = 1\n";

fn model(server: &Server) -> Value {
    server.get("/engine/status")["models"][0].clone()
}

/// No answer is on its way and no slot is in use.
fn is_idle(server: &Server) -> bool {
    let status = server.get("/engine/status");
    let models = status["models"].as_array().unwrap();
    status["queue"] == 0 && models.iter().all(|m| m["slots_used"] == 0 && m["queued"] == 0)
}

fn first_word(stream: &mut BufReader<TcpStream>) {
    let mut line = String::new();
    while !line.contains("\"content\":\"") {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the answer ended early");
    }
}

#[test]
fn an_openai_client_finds_what_it_needs() {
    let server = Server::start();
    let list = server.get("/v1/models");
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("builtin")));
    let one = server.get("/v1/models/builtin");
    assert_eq!((&one["id"], &one["object"]), (&json!("builtin"), &json!("model")));
    assert_eq!(server.answer("What is the capital of France?"), "The capital of France is Paris.");
    let mut stream =
        server.stream(&asking("Hello", &json!({"stream": true, "stream_options": {"include_usage": true}})));
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("data: [DONE]") && text.contains("\"usage\""), "{text}");
    let nowhere = server.ask("GET", "/v1/models/nowhere", b"");
    assert_eq!((nowhere.status, nowhere.json()["error"]["code"].as_u64()), (404, Some(404)));
    // The key of the machine stays with who sits there.
    assert_eq!(server.ask("POST", "/engine/shutdown", b"{}").status, 404);
    assert_eq!(server.ask("POST", "/models/load", br#"{"model":"builtin"}"#).status, 200);
    assert_eq!(server.answer("Hello"), "Hello! How can I help you today?");
}

#[test]
fn conversations_of_clients_stay_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    // What the engine of this machine is about to finish.
    let kept = dir.path().join("cache/kv");
    std::fs::create_dir_all(&kept).unwrap();
    std::fs::write(kept.join("0123.new"), "half").unwrap();
    let files = |folder: &std::path::Path| -> Vec<_> {
        std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().file_name()).collect()
    };
    let mut server = Server::start_in(dir, &[], "", Some(TOKEN));
    let long = json!({"duet_session": "of-a-client"});
    let reply = server.chat(&asking("Count from 1 to 50", &long));
    assert_eq!(reply.status, 200, "{reply:?}");
    let tokens = reply.json()["usage"]["total_tokens"].as_u64().unwrap();
    assert!(tokens >= 128, "{tokens}: long enough to be worth keeping");
    // Another one in the same slot, and the end in good order: when sessions are written.
    server.answer("Hello");
    server.signal("TERM");
    assert_eq!(server.wait(), 0);
    assert_eq!(files(&kept), ["0123.new"], "the other one's folder is left alone");
    assert_eq!(files(&server.dir().join("cache/kv-serve")), [""; 0]);
}

/// The model ended the server three times just now.
fn is_deadly(server: &Server, model: &str) -> std::path::PathBuf {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let file = server.dir().join("run/serve/engine.deaths");
    std::fs::write(&file, format!("{now} {model}\n").repeat(3)).unwrap();
    file
}

const MANAGING: [(&str, &str); 8] = [
    ("/models/pin", r#"{"model":"builtin","pinned":true}"#),
    ("/models/keep_alive", r#"{"model":"builtin","seconds":-1}"#),
    ("/models/load", r#"{"model":"builtin","pin":true}"#),
    ("/models/load", r#"{"model":"builtin","pin":false}"#),
    ("/models/load", r#"{"model":"builtin","keep_alive":0}"#),
    ("/models/load", r#"{"model":"builtin","context":512}"#),
    ("/engine/forget", r#"{"session":"x"}"#),
    ("/models/unload", r#"{"model":"builtin"}"#),
];

#[test]
fn clients_do_not_manage_models() {
    let server = Server::start();
    let post = |route: &str, body: &str| server.ask("POST", route, body.as_bytes());
    let plain = r#"{"model":"builtin"}"#;
    assert_eq!(post("/models/load", plain).status, 200);
    wait_until("it is resident", || model(&server)["id"] == "builtin");
    let before = model(&server);
    for (route, body) in MANAGING {
        let reply = post(route, body);
        assert!(
            reply.status == 403 && reply.message().contains("--allow-manage"),
            "{route} {body}: {reply:?}"
        );
        assert_eq!(reply.json()["error"]["type"], "permission_error");
    }
    for field in ["pinned", "keep_alive", "context", "load_ms"] {
        assert_eq!(model(&server)[field], before[field], "{field}");
    }
    let deaths = is_deadly(&server, "other");
    std::fs::create_dir_all(server.dir().join("data/models")).unwrap();
    let large = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/fixture-large.gguf");
    std::fs::copy(large, server.dir().join("data/models/other.gguf")).unwrap();
    let noted = std::fs::read_to_string(&deaths).unwrap();
    for body in [r#"{"model":"other"}"#, r#"{"model":"other","restore":false}"#] {
        let reply = post("/models/load", body);
        assert!(reply.status == 500 && reply.message().contains("ten minutes"), "{reply:?}");
        assert!(!reply.message().contains("/model "), "{reply:?}");
    }
    assert_eq!(std::fs::read_to_string(&deaths).unwrap(), noted, "nobody pardoned it");
    assert_eq!(server.get("/v1/models/other")["status"]["value"], "unloaded");
}

#[test]
fn clients_manage_models_where_that_is_allowed() {
    for (flags, config) in [(&["--allow-manage"][..], ""), (&[], "[serve]\nmanage = true\n")] {
        let server = Server::with(flags, config);
        let post = |route: &str, body: &str| server.ask("POST", route, body.as_bytes());
        let deaths = is_deadly(&server, "builtin");
        assert_eq!(post("/models/load", r#"{"model":"builtin"}"#).status, 200);
        assert_eq!(std::fs::read_to_string(&deaths).unwrap(), "", "it is given another chance");
        wait_until("it is resident", || model(&server)["id"] == "builtin");
        for (route, body) in MANAGING {
            // What is asked for after a change of the context may have to load first.
            wait_until("it is resident", || model(&server)["id"] == "builtin");
            let reply = post(route, body);
            assert_eq!(reply.status, 200, "{route} {body}: {reply:?}");
        }
        wait_until("it has left", || model(&server).is_null());
    }
}

#[test]
fn bodies_are_bounded() {
    let server = Server::start();
    let token = format!("Bearer {TOKEN}");
    let post = |headers: &[(&str, &str)], body: &[u8]| {
        let mut all = vec![("authorization", token.as_str())];
        all.extend_from_slice(headers);
        server.raw(&request("POST", "/v1/chat/completions", &all, body))
    };
    let large = post(&[("content-length", "104857600")], &vec![b' '; 100 << 20]);
    assert!(large.status == 413 && large.message().contains("8 MiB"), "{large:?}");
    // Not even sent, only promised.
    assert_eq!(post(&[("content-length", "1073741824")], b"{").status, 413);
    let mut chunks = Vec::new();
    for _ in 0..9 {
        chunks.extend_from_slice(b"100000\r\n");
        chunks.resize(chunks.len() + (1 << 20), b' ');
        chunks.extend_from_slice(b"\r\n");
    }
    assert_eq!(post(&[("transfer-encoding", "chunked")], &chunks).status, 413, "chunks without end");
    let message = r#"{"role":"user","content":"x"}"#;
    let million = format!(r#"{{"messages":[{}]}}"#, vec![message; 1_000_000].join(","));
    assert_eq!(post(&[], million.as_bytes()).status, 413);
    let many = format!(r#"{{"model":"builtin","messages":[{}]}}"#, vec![message; 200_000].join(","));
    let many = post(&[], many.as_bytes());
    assert!(many.status == 400 && many.message().contains("messages"), "{many:?}");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("not JSON", b"hello".to_vec()),
        ("not UTF-8", b"{\"model\":\"\xff\"}".to_vec()),
        ("deep", format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)).into_bytes()),
        (
            "deep inside",
            format!(r#"{{"messages":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000)).into_bytes(),
        ),
        ("NaN", br#"{"messages":[{"role":"user","content":"x"}],"temperature":NaN}"#.to_vec()),
        ("a list", b"[]".to_vec()),
    ];
    for (what, body) in cases {
        let reply = post(&[], &body);
        assert!(reply.status == 400 && !reply.message().is_empty(), "{what}: {reply:?}");
    }
    assert_eq!(server.answer("Hello"), "Hello! How can I help you today?");
}

#[test]
fn odd_fields_have_a_status_and_a_message() {
    let server = Server::start();
    let with = |more: Value| server.chat(&asking("Hello", &more));
    for (more, word) in [
        (json!({"messages": []}), "messages"),
        (json!({"messages": "x"}), "messages"),
        (json!({"messages": [{"role": "user"}]}), "content"),
        (json!({"messages": [{"role": "king", "content": "x"}]}), "role"),
        (json!({"temperature": -1}), "temperature"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"top_p": 1.5}), "top_p"),
        (json!({"top_k": 2_147_483_648_u32}), "top_k"),
        (json!({"max_tokens": -5}), "max_tokens"),
        (json!({"n": -1}), "n "),
        (json!({"n": 2}), "n "),
        (json!({"seed": -7}), "seed"),
        (json!({"stop": vec!["x"; 10_000]}), "stop"),
        (json!({"logit_bias": {"5": "much"}}), "logit_bias"),
        (json!({"chat_template": "{{ messages }}"}), "chat_template"),
        (json!({"grammar": "root ::= \"x\""}), "--allow-grammar"),
        (json!({"json_schema": {"type": "object"}}), "--allow-grammar"),
        (json!({"response_format": {"type": "json_object"}}), "--allow-grammar"),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}),
            "--allow-grammar",
        ),
        (json!({"tools": [{"type": "function"}]}), "tools"),
    ] {
        let reply = with(more.clone());
        assert!(reply.status == 400 && reply.message().contains(word), "{more}: {reply:?}");
        assert!(reply.message().lines().count() <= 2, "{reply:?}");
    }
    // Out of the vocabulary, or negative where that has a meaning: harmless.
    for more in [
        json!({"logit_bias": {"1000000000": 5}}),
        json!({"seed": -1}),
        json!({"n_discard": -5, "unheard_of": [1]}),
        json!({"prompt": [999_999_999]}),
    ] {
        assert_eq!(with(more.clone()).status, 200, "{more}");
    }
    let long = server.chat(&asking(&"word ".repeat(20_000), &json!({})));
    assert_eq!((long.status, &long.json()["error"]["type"]), (400, &json!("exceed_context_size_error")));
}

#[test]
fn models_go_by_their_id_alone() {
    let dir = tempfile::tempdir().unwrap();
    let large = format!("{}/tests/models/fixture-large.gguf", env!("CARGO_MANIFEST_DIR"));
    let folder = dir.path().join("shelf");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(&large, folder.join("Large.gguf")).unwrap();
    let server = Server::start_in(dir, &["--models", folder.to_str().unwrap()], "", Some(TOKEN));
    let status = |name: &str| server.chat(&asking("Hello", &json!({"model": name})));
    assert_eq!(status("large").status, 200, "a folder given by flag");
    let there = folder.join("Large.gguf");
    for name in [
        large.as_str(),
        there.to_str().unwrap(),
        "/etc/passwd",
        "/dev/zero",
        "../shelf/Large.gguf",
        "..",
        "https://example.com/x.gguf",
        "~/x.gguf",
        "nowhere",
    ] {
        let reply = status(name);
        assert_eq!(reply.status, 404, "{name}: {reply:?}");
        let message = reply.message();
        assert!(message.contains("/v1/models") && !message.contains("no such file"), "{message}");
        let body = json!({"model": name}).to_string();
        assert_eq!(server.ask("POST", "/models/load", body.as_bytes()).status, 404, "{name}");
    }
    assert_eq!(server.get("/v1/models")["data"].as_array().unwrap().len(), 2, "nothing was added");
}

#[test]
fn no_folder_of_this_machine_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models");
    let shelf = dir.path().join("shelf");
    std::fs::create_dir(&shelf).unwrap();
    let large = std::fs::read(format!("{fixtures}/fixture-large.gguf")).unwrap();
    std::fs::write(shelf.join("Large.gguf"), &large).unwrap();
    std::fs::write(shelf.join("Half.gguf"), &large[..large.len() / 2]).unwrap();
    // A link whose name says nothing of where it leads.
    std::os::unix::fs::symlink(shelf.join("Half.gguf"), shelf.join("Link.gguf")).unwrap();
    std::fs::write(shelf.join("Second-00002-of-00002.gguf"), &large).unwrap();
    let home = dir.path().to_str().unwrap().to_owned();
    let server = Server::start_in(dir, &["--models", shelf.to_str().unwrap()], "", Some(TOKEN));
    let is_clean = |what: &str, body: &str| {
        for place in [home.as_str(), env!("CARGO_MANIFEST_DIR"), "/shelf"] {
            assert!(!body.contains(place), "{what} tells {place}: {body}");
        }
    };
    let ask = |model: &str, more: &Value| {
        let mut body = asking("Hello", &json!({"model": model}));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.chat(&body)
    };
    assert_eq!(ask("large", &json!({})).status, 200);
    let list = server.get("/v1/models");
    let models = list["data"].as_array().unwrap();
    assert!(models.len() >= 3, "{list}");
    let ids: Vec<&str> = models.iter().map(|model| model["id"].as_str().unwrap()).collect();
    let mut unusable = 0;
    for id in &ids {
        for route in [format!("/v1/models/{id}"), format!("/props?model={id}")] {
            is_clean(&route, &server.ask("GET", &route, b"").body);
        }
        for body in [json!({}), json!({"stream": true})] {
            let reply = ask(id, &body);
            is_clean(id, &reply.body);
            unusable += usize::from(reply.status != 200);
        }
        let body = json!({"model": id}).to_string();
        is_clean(id, &server.ask("POST", "/models/load", body.as_bytes()).body);
    }
    assert!(unusable >= 1, "{ids:?}: some can't be used");
    let image = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]}]});
    let refused = ask("large", &image);
    assert_eq!(refused.status, 400, "{refused:?}");
    is_clean("an image", &refused.body);
    // After the loads that failed.
    for route in ["/v1/models", "/models", "/props", "/metrics", "/engine/status"] {
        let reply = server.ask("GET", route, b"");
        assert_eq!(reply.status, 200);
        is_clean(route, &reply.body);
    }
    let status = server.get("/engine/status");
    assert!(status["pid"].is_null() && status["models"][0]["path"].is_null(), "{status}");
    let list = server.get("/v1/models");
    let half = list["data"].as_array().unwrap().iter().find(|model| model["id"] == "half").unwrap();
    let why = half["status"]["error"].as_str().unwrap();
    assert!(why.starts_with("half: ") && why.contains("incomplete"), "{why}");
    assert!(half["path"].is_null() && half["duet"]["path"].is_null(), "{half}");
    let mut stream = server.connect();
    let token = format!("Bearer {TOKEN}");
    stream.write_all(&request("GET", "/models/sse", &[("authorization", &token)], b"")).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !line.contains("\"models\"") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the stream ended early");
    }
    is_clean("events", &line);
}

#[test]
fn an_answer_is_as_long_as_is_allowed() {
    let server = Server::with(&[], "[serve.limits]\nmax_tokens = 7\n");
    let count = |more: Value| {
        let answer = server.chat(&asking("Count from 1 to 50", &more)).json();
        (answer["usage"]["completion_tokens"].clone(), answer["choices"][0]["finish_reason"].clone())
    };
    assert_eq!(count(json!({})), (json!(7), json!("length")));
    assert_eq!(count(json!({"max_tokens": 9})), (json!(9), json!("length")), "more when asked for");
}

#[test]
fn grammars_are_taken_where_that_is_allowed() {
    let server = Server::with(&["--allow-grammar"], "");
    let format = |schema: Value| json!({"max_tokens": 60, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}});
    let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": false});
    let reply = server.chat(&asking("Hello", &format(schema)));
    assert_eq!(reply.status, 200, "{reply:?}");
    let text = reply.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text:?}"));
    assert!(value["ok"].is_boolean(), "{value}");
    // A schema that contains itself, a grammar that never ends, one that is none.
    let circular = json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}}}});
    let circular = server.chat(&asking("Hello", &format(circular)));
    assert!([200, 400].contains(&circular.status), "{circular:?}");
    let endless = server.chat(&asking("Hello", &json!({"grammar": "root ::= \"x\" root", "max_tokens": 20})));
    assert_eq!(endless.json()["choices"][0]["finish_reason"], "length", "{endless:?}");
    assert_eq!(server.chat(&asking("Hello", &json!({"grammar": "root ::= ("}))).status, 400);
    let template = server.chat(&asking("Hello", &json!({"chat_template": "x"})));
    assert_eq!(template.status, 400, "never from a request");
    assert_eq!(server.answer("Hello"), "Hello! How can I help you today?");
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let server = Server::with(&[], &format!("[serve.limits]\nqueue = 2\n{ONE_SLOT}"));
    let mut running = server.stream(&endless());
    first_word(&mut running);
    let waiting: Vec<_> = (0..2).map(|_| server.stream(&endless())).collect();
    for body in [endless(), asking("Hello", &json!({}))] {
        let refused = server.chat(&body);
        assert_eq!(refused.status, 429, "{refused:?}");
        assert!(refused.head.contains("retry-after: 2"), "{}", refused.head);
        assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    }
    assert_eq!(model(&server)["slots_used"], 1, "asking how it goes needs no room");
    drop(waiting);
    drop(running);
    wait_until("all of them are gone", || is_idle(&server));
    assert_eq!(server.answer("Hello"), "Hello! How can I help you today?");
}

#[test]
fn who_goes_away_leaves_nothing_behind() {
    let server = Server::with(&[], ONE_SLOT);
    // While the model is being loaded.
    let mut early = server.connect();
    let token = format!("Bearer {TOKEN}");
    let bytes = endless().to_string();
    let headers = [("authorization", token.as_str())];
    early.write_all(&request("POST", "/v1/chat/completions", &headers, bytes.as_bytes())).unwrap();
    drop(early);
    wait_until("it is idle after the load", || is_idle(&server));
    assert_eq!(server.answer("Hello"), "Hello! How can I help you today?");
    // While it decodes, and while another waits for the slot.
    let mut decoding = server.stream(&endless());
    first_word(&mut decoding);
    let waiting = server.stream(&endless());
    wait_until("one waits", || model(&server)["queued"] == 1);
    drop(waiting);
    wait_until("none waits", || model(&server)["queued"] == 0);
    drop(decoding);
    wait_until("the slot is free", || is_idle(&server));
    // While it reads a long prompt.
    let long = asking(&"planets and stars ".repeat(1500), &json!({"stream": true, "cache_prompt": false}));
    let mut prefilling = server.connect();
    let bytes = long.to_string();
    prefilling.write_all(&request("POST", "/v1/chat/completions", &headers, bytes.as_bytes())).unwrap();
    drop(prefilling);
    // A body that ends early.
    let mut half = server.connect();
    let promised = [("authorization", token.as_str()), ("content-length", "1000")];
    half.write_all(&request("POST", "/v1/chat/completions", &promised, b"{\"model\":")).unwrap();
    drop(half);
    // One whose answer comes at once at the end.
    let mut whole = server.connect();
    let bytes = asking("Count from 1 to 50", &json!({"ignore_eos": true, "max_tokens": 100_000})).to_string();
    whole.write_all(&request("POST", "/v1/chat/completions", &headers, bytes.as_bytes())).unwrap();
    wait_until("it has the slot", || model(&server)["slots_used"] == 1);
    drop(whole);
    wait_until("it is idle again", || is_idle(&server));
    assert_eq!(server.answer("Hello"), "Hello! How can I help you today?");
}

#[test]
fn a_client_that_takes_nothing_is_dropped() {
    let config = format!("[serve.limits]\nstall = 1\nqueue = 0\n{ONE_SLOT}");
    let server = Server::with(&[], &config);
    // More than the system's buffers hold, and never read.
    let body =
        json!({"model": "builtin", "with_pieces": true, "content": "planets and stars ".repeat(200_000)});
    let token = format!("Bearer {TOKEN}");
    let bytes = request("POST", "/tokenize", &[("authorization", &token)], body.to_string().as_bytes());
    let mut stream = server.connect();
    rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 4096).unwrap();
    stream.write_all(&bytes).unwrap();
    wait_until("it has the only place", || server.chat(&asking("Hello", &json!({}))).status == 429);
    wait_until("it is dropped", || server.log().contains("dropped a client that took nothing"));
    wait_until("its place is free", || server.chat(&asking("Hello", &json!({}))).status == 200);
    drop(stream);
}

#[test]
fn no_answer_runs_for_ever() {
    let config = "[serve.limits]\nrun = 1\n[engine]\nthreads = 1\ncontext = 4096\nslots = 1\n";
    let server = Server::with(&[], config);
    // The only slot is taken again and again, so that the last one has to wait for longer than it may.
    let mut streams: Vec<_> = (0..8).map(|_| server.stream(&endless())).collect();
    let whole = asking("Hello", &json!({"ignore_eos": true, "max_tokens": 100_000}));
    let whole = server.chat(&whole);
    let last = streams.last_mut().unwrap();
    let mut text = String::new();
    last.read_to_string(&mut text).unwrap();
    let was_cut = text.contains("timeout_error") && !text.contains("[DONE]");
    assert!(was_cut || whole.status == 504, "{whole:?} {text:.300}");
    drop(streams);
    wait_until("it is idle", || is_idle(&server));
}

#[test]
fn signs_of_life_come_while_an_answer_waits() {
    // Time for headers is no time for answers.
    let server = Server::with(&[], &format!("[serve.limits]\nheader = 1\nbody = 1\n{ONE_SLOT}"));
    let mut running = server.stream(&endless());
    first_word(&mut running);
    let mut waiting = server.stream(&endless());
    let mut text = String::new();
    // The running one ends when the context is full; reading it is not needed for that.
    waiting.read_to_string(&mut text).unwrap();
    assert!(text.contains("\n:\n"), "{text:.300}");
    assert!(text.contains("[DONE]"), "it was cut: {:?}", text.lines().last());
}

#[test]
fn replies_of_one_connection_follow_each_other() {
    let server = Server::start();
    let token = format!("Bearer {TOKEN}");
    let headers = [("authorization", token.as_str()), ("connection", "keep-alive")];
    let mut bytes = request("GET", "/v1/models", &headers, b"");
    bytes.extend(request("GET", "/health", &[], b""));
    let reply = Reply::read(&mut {
        let mut stream = server.connect();
        stream.write_all(&bytes).unwrap();
        stream
    });
    assert_eq!(reply.status, 200);
    assert!(reply.body.ends_with(r#"{"status":"ok"}"#), "{}", reply.body);
}
