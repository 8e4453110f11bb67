//! Finding out what a server is, from the shape of what it answers to a few GETs without side effects.
//!
//! The status proves nothing: LM Studio answers unknown paths with 200, llama-server anything with 503 while it loads.
//! [`judge`] is pure: it says what to look at next, until it knows.

use super::{Identity, Readiness};
use crate::backend::fault::{self, ErrorBody};
use crate::backend::http::{Http, HttpError, Look, Reach};
use crate::chat::GenErrorKind;
use crate::config::BackendKind;
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;

/// For one look.
const BUDGET: Duration = Duration::from_secs(2);
/// For the first one: a host that can't be reached shows as that, not as a silent one.
const FIRST: Duration = Duration::from_secs(5);
/// Looks that may stay without an answer.
const MAX_SILENCES: usize = 2;

/// What was seen so far, by route; none where nothing came.
type Seen = HashMap<&'static str, Option<Look>>;

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Look at this route.
    Ask(&'static str),
    /// It is known.
    Is(Identity),
    /// It wants a key, or another one: the answer that says so.
    Key(Look),
    /// None of those that are known.
    Nothing,
}

/// Asks a server what it is. None when it is none of the known kinds, or says too little in time.
///
/// # Errors
/// When nobody is there, or a key is wanted.
pub(super) async fn climb(http: &Http) -> Result<Option<Identity>, HttpError> {
    let mut seen = Seen::new();
    loop {
        let route = match judge(&seen) {
            Next::Ask(route) => route,
            Next::Is(identity) => return Ok(Some(identity)),
            Next::Nothing => return Ok(None),
            Next::Key(look) => {
                let body = ErrorBody::from_bytes(&look.body);
                let error = fault::refusal(http.backend(), None, look.status, &body, http.origin());
                return Err(HttpError { error, reach: Reach::Answered { status: look.status } });
            }
        };
        let budget = if seen.is_empty() { FIRST } else { BUDGET };
        let look = match http.look(route, budget).await {
            Ok(look) => Some(look),
            // A server that answered and now breaks off has no such route.
            Err(error) if is_passing(&error) && !seen.is_empty() => None,
            Err(error) if error.error.kind == GenErrorKind::Timeout => None,
            Err(error) => return Err(error),
        };
        seen.insert(route, look);
        if seen.values().filter(|look| look.is_none()).count() > MAX_SILENCES {
            return Ok(None);
        }
    }
}

fn is_passing(error: &HttpError) -> bool {
    matches!(error.error.kind, GenErrorKind::Timeout | GenErrorKind::Protocol)
}

/// What is known from what was seen, or what to look at next.
fn judge(seen: &Seen) -> Next {
    let nothing = Look::default();
    // What a route answered: nothing at all where it stayed silent.
    macro_rules! look {
        ($route:literal) => {
            match seen.get($route) {
                None => return Next::Ask($route),
                Some(None) => &nothing,
                Some(Some(look)) if look.status == 401 => return Next::Key(look.clone()),
                Some(Some(look)) => look,
            }
        };
    }
    let look = look!("/props");
    if let Some(version) = look.server.strip_prefix("duet/") {
        return Next::Is(Identity { version: Some(version.to_owned()), ..Identity::of(BackendKind::Duet) });
    }
    let props = look.json();
    if let Some(identity) = llama_server(&props) {
        return Next::Is(identity);
    }
    if is_loading(look) {
        return Next::Is(Identity {
            readiness: Readiness::Loading,
            ..Identity::of(BackendKind::LlamaServer)
        });
    }
    if look.server.contains("llama.cpp") {
        // One that keeps its properties to itself, or is too old to have them.
        let is_router = items(&look!("/v1/models").json()).iter().any(has_status);
        return Next::Is(Identity { is_router, ..Identity::of(BackendKind::LlamaServer) });
    }
    let is_lm_studio =
        props.get("error").and_then(Value::as_str).is_some_and(|e| e.contains("Unexpected endpoint"));

    let running = look!("/running").json();
    if running.get("running").is_some_and(Value::is_array) {
        return Next::Is(Identity::of(BackendKind::LlamaSwap));
    }
    let version = look!("/api/version").json();
    if let Some(version) = version.get("version").and_then(Value::as_str)
        && String::from_utf8_lossy(&look!("/").body).contains("Ollama is running")
        && look!("/api/tags").json().get("models").is_some_and(Value::is_array)
    {
        return Next::Is(Identity { version: Some(version.to_owned()), ..Identity::of(BackendKind::Ollama) });
    }
    let list = look!("/api/v1/models").json();
    if let Some(models) = list.get("models").and_then(Value::as_array)
        && models.iter().all(|model| model.get("loaded_instances").is_some())
        && (is_lm_studio || !models.is_empty())
    {
        return Next::Is(Identity::of(BackendKind::LmStudio));
    }
    let list = items(&look!("/api/v0/models").json());
    if !list.is_empty() && list.iter().all(|model| model.get("state").is_some_and(Value::is_string)) {
        return Next::Is(Identity::of(BackendKind::LmStudio));
    }
    let look = look!("/v1/models");
    let json = look.json();
    let data = json.get("data").and_then(Value::as_array);
    let owns = |list: &Vec<Value>| list.iter().any(|model| model.get("owned_by").is_some());
    // It breaks off in the middle of its list where Hugging Face's cache does not exist.
    if look.server.starts_with("basehttp") && !data.is_some_and(owns) {
        let health = look!("/health").json();
        if let Some("ok" | "unavailable") = health.get("status").and_then(Value::as_str) {
            return Next::Is(Identity::of(BackendKind::Mlx));
        }
    }
    let Some(list) = data else {
        let forbidden = seen.values().flatten().find(|look| look.status == 403);
        return forbidden.map_or(Next::Nothing, |look| Next::Key(look.clone()));
    };
    let owner = list.iter().find_map(|model| model.get("owned_by")?.as_str()).unwrap_or_default();
    let version = |look: &Look| look.json().get("version").and_then(Value::as_str).map(str::to_owned);
    match owner {
        "llama-swap" => return Next::Is(Identity::of(BackendKind::LlamaSwap)),
        "llamacpp" => {
            let is_router = list.iter().any(has_status);
            return Next::Is(Identity { is_router, ..Identity::of(BackendKind::LlamaServer) });
        }
        "tensorrt_llm" => {
            let version = version(look!("/version"));
            return Next::Is(Identity { version, ..Identity::of(BackendKind::TensorrtLlm) });
        }
        _ => {}
    }
    if owner == "vllm" || list.iter().any(|model| model.get("max_model_len").is_some()) {
        let version = version(look!("/version"));
        if owner == "vllm" || version.is_some() {
            return Next::Is(Identity { version, ..Identity::of(BackendKind::Vllm) });
        }
    }
    Next::Is(Identity::of(BackendKind::Openai))
}

/// What llama-server's properties say.
fn llama_server(props: &Value) -> Option<Identity> {
    let version = props.get("build_info").and_then(Value::as_str).map(str::to_owned);
    let known = Identity { version, ..Identity::of(BackendKind::LlamaServer) };
    if props.get("role").and_then(Value::as_str) == Some("router") {
        return Some(Identity { is_router: true, ..known });
    }
    let is_single = props.get("default_generation_settings").is_some_and(Value::is_object)
        && props.get("total_slots").is_some_and(Value::is_u64);
    let is_asleep = props.get("is_sleeping").and_then(Value::as_bool).unwrap_or_default();
    let readiness = if is_asleep { Readiness::Asleep } else { Readiness::Ready };
    is_single.then_some(Identity { readiness, ..known })
}

/// Whether this is llama-server's word for being up and not ready.
pub(in crate::backend) fn is_loading(look: &Look) -> bool {
    let json = look.json();
    let kind = json.get("error").and_then(|error| error.get("type")).and_then(Value::as_str);
    look.status == 503 && kind == Some("unavailable_error")
}

fn items(list: &Value) -> Vec<Value> {
    list.get("data").and_then(Value::as_array).cloned().unwrap_or_default()
}

fn has_status(model: &Value) -> bool {
    model.get("status").is_some_and(Value::is_object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use serde_json::json;

    /// A server that answers these routes, and all others in its own way.
    struct Server {
        header: &'static str,
        routes: Vec<(&'static str, u16, String)>,
        others: (u16, &'static str),
    }

    impl Server {
        fn new(header: &'static str, others: (u16, &'static str)) -> Self {
            Self { header, routes: Vec::new(), others }
        }

        fn with(mut self, route: &'static str, status: u16, body: &Value) -> Self {
            let body = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
            self.routes.push((route, status, body));
            self
        }

        fn answer(&self, route: &str) -> Look {
            let known = self.routes.iter().find(|(known, ..)| *known == route);
            let (status, body) =
                known.map_or((self.others.0, self.others.1), |(_, status, body)| (*status, body.as_str()));
            Look { status, server: self.header.to_owned(), body: body.as_bytes().to_vec() }
        }

        /// What it is taken for, and what was asked until then.
        fn judged(&self) -> (Next, Vec<&'static str>) {
            let (mut seen, mut asked) = (Seen::new(), Vec::new());
            loop {
                match judge(&seen) {
                    Next::Ask(route) => {
                        asked.push(route);
                        seen.insert(route, Some(self.answer(route)));
                    }
                    other => return (other, asked),
                }
            }
        }

        fn kind(&self) -> Option<BackendKind> {
            match self.judged().0 {
                Next::Is(identity) => Some(identity.kind),
                _ => None,
            }
        }
    }

    const NOT_FOUND: (u16, &str) = (404, r#"{"detail":"Not Found"}"#);

    fn single() -> Value {
        json!({"default_generation_settings": {"n_ctx": 4096}, "total_slots": 4, "build_info": "b7000-abc", "is_sleeping": false})
    }

    #[test]
    fn a_llama_server() {
        let unknown = (404, r#"{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}"#);
        let (next, asked) = Server::new("llama.cpp", unknown).with("/props", 200, &single()).judged();
        let version = Some("b7000-abc".to_owned());
        assert_eq!(
            next,
            Next::Is(Identity { version: version.clone(), ..Identity::of(BackendKind::LlamaServer) })
        );
        assert_eq!(asked, ["/props"], "the first positive ends it");

        let router = json!({"role": "router", "max_instances": 4, "models_autoload": true, "build_info": "b7000-abc",
            "default_generation_settings": {"params": null, "n_ctx": 0}});
        let (next, _) = Server::new("llama.cpp", unknown).with("/props", 200, &router).judged();
        let known = Identity { version, is_router: true, ..Identity::of(BackendKind::LlamaServer) };
        assert_eq!(next, Next::Is(known));

        let mut asleep = single();
        asleep["is_sleeping"] = json!(true);
        let (Next::Is(known), _) = Server::new("", NOT_FOUND).with("/props", 200, &asleep).judged() else {
            panic!("not known")
        };
        assert_eq!((known.kind, known.readiness), (BackendKind::LlamaServer, Readiness::Asleep));
    }

    #[test]
    fn a_llama_server_that_loads_is_up() {
        let loading = (503, r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#);
        for header in ["llama.cpp", ""] {
            let (next, asked) = Server::new(header, loading).judged();
            let known = Identity { readiness: Readiness::Loading, ..Identity::of(BackendKind::LlamaServer) };
            assert_eq!((next, asked), (Next::Is(known), vec!["/props"]));
        }
    }

    #[test]
    fn a_llama_server_that_hides_its_properties() {
        let list = json!({"data": [{"id": "a", "owned_by": "llamacpp", "status": {"value": "loaded"}}]});
        for header in ["llama.cpp", ""] {
            let server = Server::new(header, NOT_FOUND).with("/v1/models", 200, &list);
            let (Next::Is(known), _) = server.judged() else { panic!("not known") };
            assert_eq!((known.kind, known.is_router), (BackendKind::LlamaServer, true), "{header:?}");
        }
    }

    #[test]
    fn our_engine_says_so() {
        let (next, asked) = Server::new("duet/0.1.0", NOT_FOUND).judged();
        assert_eq!(
            next,
            Next::Is(Identity { version: Some("0.1.0".to_owned()), ..Identity::of(BackendKind::Duet) })
        );
        assert_eq!(asked, ["/props"]);
    }

    #[test]
    fn llama_swap_comes_before_ollama() {
        let server = Server::new("", NOT_FOUND)
            .with("/running", 200, &json!({"running": []}))
            .with("/api/version", 200, &json!({"version": "v150"}))
            .with("/", 200, &json!("Ollama is running"))
            .with("/api/tags", 200, &json!({"models": []}));
        assert_eq!(server.kind(), Some(BackendKind::LlamaSwap));
        let old = Server::new("", NOT_FOUND).with(
            "/v1/models",
            200,
            &json!({"data": [{"id": "a", "owned_by": "llama-swap"}]}),
        );
        assert_eq!(old.kind(), Some(BackendKind::LlamaSwap));
    }

    #[test]
    fn ollama_needs_all_three() {
        let ollama = || {
            Server::new("", (404, "404 page not found"))
                .with("/api/version", 200, &json!({"version": "0.12.3"}))
                .with("/v1/models", 200, &json!({"data": [{"id": "a", "owned_by": "library"}]}))
        };
        let whole = ollama().with("/", 200, &json!("Ollama is running")).with(
            "/api/tags",
            200,
            &json!({"models": [{"name": "a"}]}),
        );
        let (next, _) = whole.judged();
        assert_eq!(
            next,
            Next::Is(Identity { version: Some("0.12.3".to_owned()), ..Identity::of(BackendKind::Ollama) })
        );
        let imitation = ollama().with("/api/tags", 200, &json!({"models": [{"name": "a"}]}));
        assert_eq!(imitation.kind(), Some(BackendKind::Openai));
        let tags = ollama().with("/", 200, &json!("Ollama is running"));
        assert_eq!(tags.kind(), Some(BackendKind::Openai));
    }

    #[test]
    fn lm_studio_says_200_to_everything() {
        let unknown = (200, r#"{"error":"Unexpected endpoint or method. (GET /props)"}"#);
        let model = json!({"models": [{"type": "llm", "key": "a", "loaded_instances": []}]});
        let new = Server::new("", unknown).with("/api/v1/models", 200, &model);
        assert_eq!(new.kind(), Some(BackendKind::LmStudio));
        let empty = Server::new("", unknown).with("/api/v1/models", 200, &json!({"models": []}));
        assert_eq!(empty.kind(), Some(BackendKind::LmStudio));
        let old = Server::new("", unknown).with(
            "/api/v0/models",
            200,
            &json!({"data": [{"id": "a", "state": "not-loaded"}]}),
        );
        assert_eq!(old.kind(), Some(BackendKind::LmStudio));
        let nobody = Server::new("", unknown);
        assert_eq!(nobody.judged().0, Next::Nothing, "200 alone proves nothing");
        let lemonade =
            Server::new("", NOT_FOUND).with("/api/v1/models", 200, &json!({"data": [{"id": "a"}]}));
        assert_eq!(lemonade.judged().0, Next::Nothing);
    }

    #[test]
    fn python_servers() {
        let vllm = json!({"data": [{"id": "a", "owned_by": "vllm", "root": "a", "max_model_len": 4096}]});
        let server = Server::new("uvicorn", NOT_FOUND)
            .with("/version", 200, &json!({"version": "0.12.0"}))
            .with("/v1/models", 200, &vllm);
        let (next, _) = server.judged();
        assert_eq!(
            next,
            Next::Is(Identity { version: Some("0.12.0".to_owned()), ..Identity::of(BackendKind::Vllm) })
        );
        let sglang = json!({"data": [{"id": "a", "owned_by": "sglang", "max_model_len": 4096}]});
        let server = Server::new("uvicorn", NOT_FOUND).with("/v1/models", 200, &sglang);
        assert_eq!(server.kind(), Some(BackendKind::Openai));

        let tensorrt = json!({"object": "list", "data": [{"id": "a", "object": "model", "created": 1, "owned_by": "tensorrt_llm"}]});
        let server = Server::new("uvicorn", NOT_FOUND)
            .with("/version", 200, &json!({"version": "1.2.0"}))
            .with("/v1/models", 200, &tensorrt);
        assert_eq!(server.kind(), Some(BackendKind::TensorrtLlm));

        let list = json!({"object": "list", "data": [{"id": "a", "object": "model", "created": 1}]});
        let mlx = |header, health| {
            Server::new(header, (404, "Not Found"))
                .with("/v1/models", 200, &list)
                .with("/health", 200, &health)
        };
        assert_eq!(mlx("basehttp/0.6 python/3.11.7", json!({"status": "ok"})).kind(), Some(BackendKind::Mlx));
        let broken =
            Server::new("basehttp/0.6", (404, "Not Found")).with("/health", 200, &json!({"status": "ok"}));
        let broken = broken.with("/v1/models", 200, &json!(""));
        assert_eq!(broken.kind(), Some(BackendKind::Mlx), "its list broke off");
        assert_eq!(mlx("uvicorn", json!({"status": "ok"})).kind(), Some(BackendKind::Openai));
        assert_eq!(mlx("basehttp/0.6", json!({"health": 1})).kind(), Some(BackendKind::Openai));
    }

    #[test]
    fn a_key_is_wanted() {
        let body = r#"{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}"#;
        let (next, asked) = Server::new("llama.cpp", (401, body)).judged();
        assert!(matches!(next, Next::Key(look) if look.status == 401));
        assert_eq!(asked, ["/props"]);
        let vllm =
            Server::new("uvicorn", NOT_FOUND).with("/v1/models", 401, &json!({"error": "Unauthorized"}));
        assert!(matches!(vllm.judged().0, Next::Key(_)));
        let fenced = Server::new("nginx", (403, "<html>"));
        assert!(matches!(fenced.judged().0, Next::Key(look) if look.status == 403));
        let list = json!({"data": [{"id": "a"}]});
        let partly = Server::new("nginx", (403, "<html>")).with("/v1/models", 200, &list);
        assert_eq!(partly.kind(), Some(BackendKind::Openai), "a fence around other paths is no key");
    }

    #[test]
    fn strangers() {
        for (status, body) in [(404, ""), (200, "<html>"), (500, "{"), (200, "[]"), (204, "null")] {
            assert_eq!(Server::new("", (status, body)).judged().0, Next::Nothing, "{status} {body}");
        }
        let (_, asked) = Server::new("", (200, "5")).judged();
        assert!(asked.len() <= 9, "{asked:?}");
    }
}
