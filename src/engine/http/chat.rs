//! `/v1/chat/completions`, the number of tokens of one, `/tokenize`, `/apply-template`.

use super::super::count::TokenCounter;
use super::super::draft::LONGEST;
use super::super::host::{Host, Lease, Resident, State as ModelState, Terms};
use super::super::job::{Job, JobEvent, SamplerSpec};
use super::super::prompt;
use super::super::request::{self, BiasToken, ChatRequest, Form, Image, TemplateRequest, TokenizeRequest};
use super::super::template::{Ending, Prompt, PromptMessage, RenderOptions};
use super::super::think::ThinkSplitter;
use super::super::{gguf, llama};
use super::Failure;
use super::answer::{Answer, Gathered, Question, Step};
use super::chunk;
use super::streams::{Begin, Client, Streams, Wanted};
use crate::chat::{GenError, GenErrorKind};
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::mpsc;

static ANSWERS: AtomicU64 = AtomicU64::new(1);

/// The body, or why there is none: too large, or the client went away.
pub(super) fn body(result: Result<Bytes, BytesRejection>) -> Result<Bytes, Failure> {
    result.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            format!("the request is larger than {} MiB. Send less", super::BODY_LIMIT >> 20),
        ),
        status => Failure::new(status, "invalid_request_error", "the request body could not be read"),
    })
}

pub(super) fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::bad_request(error.to_string())
}

pub(super) fn json_body(bytes: &[u8]) -> Result<Value, Failure> {
    request::parse_json(bytes).map_err(refused)
}

fn chat_request(bytes: &[u8]) -> Result<ChatRequest, Failure> {
    ChatRequest::parse(&json_body(bytes)?).map_err(refused)
}

/// The request as this host allows it.
fn on_terms(mut request: ChatRequest, terms: Terms) -> Result<ChatRequest, Failure> {
    if request.generation.form.is_some() && !terms.grammars {
        return Err(Failure::bad_request(
            "grammars and JSON schemas are not taken from the network here\n\
             start the server with `tui serve --allow-grammar` where all clients are trusted",
        ));
    }
    if !terms.sessions {
        request.generation.session = None;
    }
    request.generation.max_tokens = request.generation.max_tokens.or(terms.max_tokens);
    Ok(request)
}

/// The model a request names: that of `/models/load` and `/models/unload`.
pub(super) fn named_model(body: &Value) -> Result<String, Failure> {
    request::parse_model(body).map_err(refused)
}

/// The catalogue's id and file for what a request names; without a name the model used last, else the built-in one.
///
/// Not on the HTTP thread: an unknown name has the folders searched.
pub(super) async fn resolve(host: &Host, name: Option<&str>) -> Result<(String, PathBuf), Failure> {
    if host.is_closing() {
        return Err(Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable_error",
            "the engine is ending; start it again and retry",
        ));
    }
    let (host, name) = (host.clone(), name.map(str::to_owned));
    away(move || host.find(name.as_deref()))
        .await?
        .map_err(|message| Failure::new(StatusCode::NOT_FOUND, "model_not_found_error", message))
}

/// Starts loading unless resident; a model that ends the engine again and again is left alone.
fn want(host: &Host, id: &str, path: &std::path::Path) -> Result<ModelState, Failure> {
    let state = host.state(id);
    match state {
        ModelState::Unloaded | ModelState::Failed(_) => {
            host.refuse_if_quarantined(id)?;
            host.begin_load(id, path);
            Ok(host.state(id))
        }
        ModelState::Loading(_) => {
            // It may have been begun ahead of this question.
            host.begin_load(id, path);
            Ok(host.state(id))
        }
        ModelState::Loaded(_) => Ok(state),
    }
}

/// The same for a question that may come. What failed before is not tried again for it.
fn want_ahead(host: &Host, id: &str, path: &std::path::Path) -> Result<ModelState, Failure> {
    if let ModelState::Unloaded = host.state(id) {
        host.refuse_if_quarantined(id)?;
        host.begin_load_ahead(id, path);
    }
    Ok(host.state(id))
}

/// Refuses a model that is for something else, before it is loaded for nothing.
async fn refuse_unless_chat(host: &Host, id: &str) -> Result<(), Failure> {
    let kind = match host.state(id) {
        ModelState::Loaded(resident) => Some(resident.info.kind),
        ModelState::Unloaded | ModelState::Loading(_) | ModelState::Failed(_) => {
            let (host, id) = (host.clone(), id.to_owned());
            away(move || host.kind(&id)).await?
        }
    };
    match kind.and_then(gguf::ModelKind::why_not_chat) {
        Some(why) => {
            let message = format!("`{id}` is {why}. Choose another");
            Err(Failure::new(StatusCode::BAD_REQUEST, "model_error", message))
        }
        None => Ok(()),
    }
}

/// Refuses images where nothing could look at them, before a model is loaded for nothing.
fn refuse_images(host: &Host, images: &[Image], id: &str, path: &std::path::Path) -> Result<(), Failure> {
    if images.is_empty() {
        return Ok(());
    }
    let why = if cfg!(feature = "mtmd") {
        #[cfg(feature = "mtmd")]
        if super::super::vision::projector(path).is_some() {
            return Ok(());
        }
        let place = match path.parent() {
            Some(folder) if !host.terms().ids_only => format!("into {}", folder.display()),
            _ => "beside it, on the server".to_owned(),
        };
        format!("`{id}` can't see: there is no projector for it. Put its mmproj file {place}")
    } else {
        "this program was built without image input. Build it with --features mtmd, or leave the image out"
            .to_owned()
    };
    Err(Failure::new(StatusCode::BAD_REQUEST, "image_error", why))
}

/// A request ready for its model's thread.
pub(super) struct Prepared {
    prompt: Vec<i32>,
    #[cfg(feature = "mtmd")]
    images: Vec<super::super::vision::Seen>,
    think: ThinkSplitter,
    sampling: SamplerSpec,
}

/// Renders and tokenises, off the HTTP thread: a long prompt takes a while.
pub(super) async fn prepare(
    host: Host,
    resident: Arc<Resident>,
    request: Arc<ChatRequest>,
) -> Result<Prepared, Failure> {
    let work = move || {
        let rendered = render(&resident, &request.messages, &request.render)?;
        #[cfg(feature = "mtmd")]
        let (prompt, images) = if request.images.is_empty() {
            (prompt::tokenize(&resident.model, &rendered.segments), Vec::new())
        } else {
            let refused = |message: String| Failure::new(StatusCode::BAD_REQUEST, "image_error", message);
            let told = |message| refused(host.told(&resident.id, &[&resident.path], message));
            let eyes = resident.eyes().map_err(told)?;
            eyes.prompt(&rendered.segments, &request.images).map_err(refused)?
        };
        #[cfg(not(feature = "mtmd"))]
        drop(host);
        #[cfg(not(feature = "mtmd"))]
        let prompt = prompt::tokenize(&resident.model, &rendered.segments);
        let context = resident.options.context as usize;
        if prompt.len() >= context {
            return Err(Failure::context(prompt.len(), context));
        }
        let sampling = sampling(&resident, &request)?;
        let tags = resident.template.tags();
        // What is continued began as an answer, unless it is inside its thinking.
        let think = match request.render.ending {
            Ending::Continue if !rendered.is_thinking => ThinkSplitter::in_answer(tags),
            Ending::Continue | Ending::Answer | Ending::Nothing => {
                ThinkSplitter::new(tags, rendered.is_thinking)
            }
        };
        Ok(Prepared {
            prompt,
            #[cfg(feature = "mtmd")]
            images,
            think,
            sampling,
        })
    };
    away(work).await?
}

/// Runs what may take a while away from the HTTP thread.
pub(super) async fn away<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|_| {
        GenError::new(GenErrorKind::EngineDied, "the engine failed while it read the request. Retry").into()
    })
}

fn render(
    resident: &Resident,
    messages: &[PromptMessage],
    options: &RenderOptions,
) -> Result<Prompt, Failure> {
    resident
        .template
        .render(messages, options)
        .map_err(|e| Failure::new(StatusCode::BAD_REQUEST, "template_error", e.to_string()))
}

/// The request's sampling with ids of this model's vocabulary, and a schema as a grammar.
fn sampling(resident: &Resident, request: &ChatRequest) -> Result<SamplerSpec, Failure> {
    let asked = &request.generation;
    let mut logit_bias = Vec::new();
    for entry in &asked.logit_bias {
        match &entry.token {
            BiasToken::Id(id) => logit_bias.extend(i32::try_from(*id).map(|id| (id, entry.bias))),
            BiasToken::Text(text) => {
                let tokens = resident.model.vocab().tokenize(text.as_bytes(), false, true);
                logit_bias.extend(tokens.iter().map(|token| (token.0, entry.bias)));
            }
        }
    }
    let grammar = match &asked.form {
        None => None,
        Some(Form::Grammar(grammar)) => Some(grammar.clone()),
        Some(Form::Schema(schema)) => Some(llama::schema_grammar(schema).map_err(Failure::bad_request)?),
    };
    if let Some(grammar) = &grammar {
        llama::check_grammar(&resident.model, grammar).map_err(Failure::bad_request)?;
    }
    let s = &asked.sampling;
    Ok(SamplerSpec {
        temperature: s.temperature,
        top_k: s.top_k,
        top_p: s.top_p,
        min_p: s.min_p,
        repeat_penalty: s.repeat_penalty,
        repeat_last_n: s.repeat_last_n,
        presence_penalty: s.presence_penalty,
        frequency_penalty: s.frequency_penalty,
        seed: s.seed.unwrap_or_else(random_seed),
        logit_bias,
        grammar,
    })
}

/// A seed that differs from one request to the next.
fn random_seed() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (random >> 32) as u32
}

/// Gives the model's thread the job.
pub(super) fn submit(
    host: &Host,
    resident: &Arc<Resident>,
    prepared: Prepared,
    question: &Question,
) -> Result<mpsc::UnboundedReceiver<JobEvent>, Failure> {
    let request = &question.request;
    let (sender, events) = mpsc::unbounded_channel();
    let asked = &request.generation;
    let job = Job {
        prompt: prepared.prompt,
        #[cfg(feature = "mtmd")]
        images: prepared.images,
        max_tokens: asked.max_tokens,
        sampling: prepared.sampling,
        stop: asked.stop.clone(),
        ignore_eos: asked.ignore_eos,
        cache_prompt: asked.cache_prompt,
        session: asked.session.as_deref().map(Arc::from),
        draft: asked.draft.unwrap_or(LONGEST).min(host.longest_draft()),
        think: prepared.think,
        arrived: Instant::now(),
        events: sender,
    };
    host.note_use(resident);
    if let Err(error) = resident.submit(job) {
        host.forget(resident);
        return Err(error.into());
    }
    Ok(events)
}

pub(super) async fn completions(
    State(host): State<Host>,
    State(streams): State<Streams>,
    client: Option<Extension<Client>>,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let bytes = body(bytes)?;
    let request = Arc::new(on_terms(chat_request(&bytes)?, host.terms())?);
    if !request.stream {
        return whole(begin(host, request).await?).await;
    }
    // A stream with an id outlives its connection.
    let Some(wanted) = Wanted::of(&headers, client.map(|Extension(client)| client), &bytes)? else {
        return Ok(stream(begin(host, request).await?));
    };
    match streams.begin(wanted)? {
        Begin::Joined(response) => Ok(response),
        Begin::New(writer) => match begin(host, request).await {
            Ok(answer) => writer.run(events(answer)),
            Err(failure) => {
                writer.fail(&failure);
                Err(failure)
            }
        },
    }
}

/// Begins an answer, or says why there is none.
async fn begin(host: Host, request: Arc<ChatRequest>) -> Result<Answer, Failure> {
    let (id, path) = resolve(&host, request.model.as_deref()).await?;
    refuse_unless_chat(&host, &id).await?;
    refuse_images(&host, &request.images, &id, &path)?;
    let question = Question { request: Arc::clone(&request), id, path, arrived: Instant::now() };
    // Before anybody looks whether it is resident: it is not sent away from now on.
    let mut lease = host.lease(&question.id);
    lease.is_warming = request.generation.max_tokens == Some(0);
    let want = if request.generation.is_ahead { want_ahead } else { want };
    let state = want(&host, &question.id, &question.path)?;
    let answer = Answer::new(host.clone(), question, lease, ANSWERS.fetch_add(1, Ordering::Relaxed));
    // With the model at hand, what is wrong with a request is said by the status.
    match state {
        ModelState::Loaded(resident) => {
            let prepared = prepare(host.clone(), Arc::clone(&resident), Arc::clone(&request)).await?;
            answer.running(resident, prepared)
        }
        ModelState::Loading(_) | ModelState::Unloaded | ModelState::Failed(_) => Ok(answer),
    }
}

/// The events of an answer. Dropping them cancels it.
fn events(answer: Answer) -> impl Stream<Item = Bytes> + Send + 'static {
    futures_util::stream::unfold(answer, async |mut answer| {
        let bytes = answer.next().await?;
        Some((Bytes::from(bytes), answer))
    })
}

fn stream(answer: Answer) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(events(answer).map(Ok::<_, Infallible>))).into_response()
}

async fn whole(mut answer: Answer) -> Result<Response, Failure> {
    let mut gathered = Gathered::default();
    while let Some(step) = answer.step().await {
        match step {
            Step::Job(JobEvent::Text { channel, text, .. }) => gathered.push(channel, &text),
            Step::Job(JobEvent::Done { finish, timings }) => {
                let fields = json!({
                    "usage": chunk::usage(&timings),
                    "timings": chunk::timings(&timings, answer.load_ms()),
                });
                let completion =
                    answer.envelope().completion(&gathered.answer, &gathered.thinking, finish, fields);
                return Ok(axum::Json(completion).into_response());
            }
            Step::Job(JobEvent::Failed { kind, message }) => return Err(GenError::new(kind, message).into()),
            Step::Failed(failure) => return Err(failure),
            Step::Job(JobEvent::Queued { .. } | JobEvent::Prefill { .. })
            | Step::Loading(_)
            | Step::Heartbeat => {}
        }
    }
    Err(GenError::new(GenErrorKind::EngineDied, "the answer ended without an end. Retry").into())
}

/// Waits until a model is resident; it stays so as long as the lease lives.
pub(super) async fn resident(host: &Host, name: Option<&str>) -> Result<(Arc<Resident>, Lease), Failure> {
    let (id, path) = resolve(host, name).await?;
    let mut lease = host.lease(&id);
    lease.is_warming = true;
    let mut changed = host.changed();
    let mut state = want(host, &id, &path)?;
    loop {
        match state {
            ModelState::Loaded(resident) => return Ok((resident, lease)),
            ModelState::Failed(error) => return Err(error.into()),
            ModelState::Unloaded => {
                return Err(
                    GenError::new(GenErrorKind::Model, format!("`{id}` was unloaded. Send again")).into()
                );
            }
            ModelState::Loading(_) => {}
        }
        if changed.changed().await.is_err() {
            return Err(GenError::new(GenErrorKind::Refused, "the engine is ending").into());
        }
        state = host.state(&id);
    }
}

/// Tokens of a text. A model that is not resident is not loaded for that where its tokenizer can be had
/// without it.
pub(super) async fn tokenize(
    State(host): State<Host>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let request = TokenizeRequest::parse(&json_body(&body(bytes)?)?).map_err(refused)?;
    let (id, path) = resolve(&host, request.model.as_deref()).await?;
    let is_plain = !request.add_special && request.parse_special && !request.with_pieces;
    if is_plain && !matches!(host.state(&id), ModelState::Loaded(_)) {
        let content = request.content.clone();
        let count = move || TokenCounter::new(gguf::vocabulary(&path).ok()?)?.tokens(&content);
        if let Ok(Some(tokens)) = tokio::task::spawn_blocking(count).await {
            return Ok(axum::Json(json!({ "tokens": tokens })).into_response());
        }
    }
    let (resident, _lease) = resident(&host, request.model.as_deref()).await?;
    let vocab = resident.model.vocab();
    let ids = vocab.tokenize(request.content.as_bytes(), request.add_special, request.parse_special);
    let tokens: Vec<Value> = if request.with_pieces {
        let piece = |id| {
            // Half a character is given as bytes, as llama-server does.
            match String::from_utf8(vocab.token_to_piece(id, true, None)) {
                Ok(text) => Value::from(text),
                Err(error) => Value::from(error.into_bytes()),
            }
        };
        ids.iter().map(|id| json!({"id": id.0, "piece": piece(*id)})).collect()
    } else {
        ids.iter().map(|id| Value::from(id.0)).collect()
    };
    Ok(axum::Json(json!({ "tokens": tokens })).into_response())
}

/// The prompt a chat becomes.
pub(super) async fn apply_template(
    State(host): State<Host>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let request = TemplateRequest::parse(&json_body(&body(bytes)?)?).map_err(refused)?;
    let (id, _) = resolve(&host, request.model.as_deref()).await?;
    refuse_unless_chat(&host, &id).await?;
    let (resident, _lease) = resident(&host, request.model.as_deref()).await?;
    let rendered = render(&resident, &request.messages, &request.render)?;
    Ok(axum::Json(json!({ "prompt": rendered.text })).into_response())
}

/// How many tokens a chat becomes, for a model that is resident: none is loaded for counting.
pub(super) async fn input_tokens(
    State(host): State<Host>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let request = TemplateRequest::parse(&json_body(&body(bytes)?)?).map_err(refused)?;
    let (id, _) = resolve(&host, request.model.as_deref()).await?;
    refuse_unless_chat(&host, &id).await?;
    let ModelState::Loaded(resident) = host.state(&id) else {
        let message = format!("`{id}` is not loaded, and is not for counting. Load it first");
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", message));
    };
    let work = move || {
        let rendered = render(&resident, &request.messages, &request.render)?;
        Ok::<_, Failure>(prompt::tokenize(&resident.model, &rendered.segments).len())
    };
    let tokens = away(work).await??;
    Ok(axum::Json(json!({ "object": "response.input_tokens", "input_tokens": tokens })).into_response())
}
