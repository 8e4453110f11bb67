//! The OpenAI dialect and what servers add to it: a request builder and a decoder of events. Pure, no IO.

use super::decode::{Decoder, MAX_PIECES, Malformed, count, object_of, parse, text_of};
use super::fault::{self, ErrorBody, Origin};
use crate::chat::{CacheLost, Finish, GenEvent, GenRequest, Role, Sampling, ServerTimings, Usage};
use crate::config::BackendKind;
use serde_json::{Map, Value, json};

#[cfg(test)]
mod tests;

/// Where it is spoken.
pub(super) const CHAT: &str = "/v1/chat/completions";
/// The name `mlx_lm.server` gives the model it was started with, which it lists by its folder.
pub(super) const MLX_STARTED_WITH: &str = "default_model";

/// The body of a chat request to a server of this kind.
pub(super) fn chat_request(request: &GenRequest, kind: BackendKind) -> Value {
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(model_name(&request.model, kind)));
    body.insert("messages".to_owned(), json!(request.messages));
    body.insert("stream".to_owned(), json!(true));
    // Never without `include_usage`: mlx_lm breaks off in the middle then.
    body.insert("stream_options".to_owned(), json!({"include_usage": true}));
    body.extend(sampling(request.sampling, kind));
    let max_tokens = match kind {
        // Its own limit is 512.
        BackendKind::Mlx => Some(request.max_tokens.unwrap_or(MAX_PIECES)),
        _ => request.max_tokens,
    };
    if let Some(max_tokens) = max_tokens {
        body.insert("max_tokens".to_owned(), json!(max_tokens));
    }
    if !request.stop.is_empty() {
        body.insert("stop".to_owned(), json!(request.stop));
    }
    if let Some(schema) = &request.schema {
        let format = json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}});
        body.insert("response_format".to_owned(), format);
    }
    if matches!(kind, BackendKind::Duet | BackendKind::LlamaServer | BackendKind::LlamaSwap) {
        body.insert("return_progress".to_owned(), json!(true));
        body.insert("cache_prompt".to_owned(), json!(true));
    }
    // llama-server goes on without being told, and repeats what it was given then.
    let is_told = matches!(kind, BackendKind::LlamaServer | BackendKind::LlamaSwap | BackendKind::Vllm);
    if is_told && request.messages.last().is_some_and(|last| last.role == Role::Assistant) {
        body.insert("continue_final_message".to_owned(), json!(true));
        body.insert("add_generation_prompt".to_owned(), json!(false));
    }
    if let (BackendKind::Duet, Some(session)) = (kind, &request.session) {
        body.insert("duet_session".to_owned(), json!(session));
    }
    if kind == BackendKind::Duet && request.is_ahead {
        body.insert("duet_ahead".to_owned(), json!(true));
    }
    Value::Object(body)
}

/// What to send as `model`.
pub(super) fn model_name(id: &str, kind: BackendKind) -> &str {
    // By its folder it would be loaded once more.
    if kind == BackendKind::Mlx && id.starts_with('/') { MLX_STARTED_WITH } else { id }
}

/// The sampling settings under the names this kind of server knows them by.
fn sampling(mut sampling: Sampling, kind: BackendKind) -> Map<String, Value> {
    if kind == BackendKind::Mlx {
        // Left to itself it is greedy; and it takes no number below 0 for keeping all.
        sampling.temperature = sampling.temperature.or(Sampling::default_for(false).temperature);
        sampling.top_k = sampling.top_k.map(|k| k.max(0));
    }
    let Ok(Value::Object(mut fields)) = serde_json::to_value(sampling) else { return Map::new() };
    if matches!(kind, BackendKind::Mlx | BackendKind::Vllm | BackendKind::TensorrtLlm)
        && let Some(penalty) = fields.remove("repeat_penalty")
    {
        fields.insert("repetition_penalty".to_owned(), penalty);
    }
    fields
}

impl Decoder {
    /// One event of the stream.
    pub(super) fn event(&mut self, name: &str, data: &str, out: &mut Vec<GenEvent>) {
        if self.is_over() {
            return;
        }
        if data.trim() == "[DONE]" {
            self.end(&super::decode::StreamEnd::Closed, out);
            return;
        }
        let parsed = parse(data);
        if name == "error" {
            let body = parsed.as_ref().ok().and_then(ErrorBody::from_json);
            self.fail_with(&body.unwrap_or_else(|| ErrorBody::from_bytes(data.as_bytes())), out);
            return;
        }
        let result = parsed.and_then(|value| self.chunk(&value, out));
        self.counted(&result, out);
    }

    /// A comment of the stream. `mlx_lm` tells in them how far the prefill is.
    pub(super) fn comment(&self, text: &str, out: &mut Vec<GenEvent>) {
        let Some((done, total)) =
            text.trim().strip_prefix("keepalive ").and_then(|rest| rest.split_once('/'))
        else {
            return;
        };
        if let (Ok(done), Ok(total)) = (done.parse::<u32>(), total.parse::<u32>())
            && !self.is_over()
            && !self.has_text()
        {
            out.push(GenEvent::Prefill { done: done.min(total), total, cached: 0 });
        }
    }

    fn chunk(&mut self, value: &Value, out: &mut Vec<GenEvent>) -> Result<(), Malformed> {
        let object = value.as_object().ok_or(Malformed)?;
        if let Some(body) = ErrorBody::from_json(value) {
            self.fail_with(&body, out);
            return Ok(());
        }
        if let Some(model) = object.get("model").and_then(Value::as_str) {
            self.answered_by(model, out);
        }
        if !self.is_finished() {
            progress(object, out);
            match object.get("choices") {
                None | Some(Value::Null) => {}
                Some(Value::Array(choices)) => {
                    if let Some(choice) = choices.first() {
                        self.choice(choice, out)?;
                    }
                }
                Some(_) => return Err(Malformed),
            }
        }
        if let Some(tokens) = object.get("duet").and_then(|ours| count(ours.get("tokens")))
            && !self.is_over()
        {
            self.produced = Some(tokens);
            out.push(GenEvent::Produced { tokens });
        }
        if let Some(timings) = object.get("timings").and_then(Value::as_object) {
            self.timings = Some(server_timings(timings));
        }
        if let Some(usage) = object.get("usage").and_then(Value::as_object) {
            self.usage(token_usage(usage), out);
        }
        if let Some(metrics) = object.get("metrics").and_then(Value::as_object) {
            self.timings = self.timings.or(vllm_timings(metrics, object.get("usage")));
        }
        Ok(())
    }

    fn choice(&mut self, choice: &Value, out: &mut Vec<GenEvent>) -> Result<(), Malformed> {
        let choice = choice.as_object().ok_or(Malformed)?;
        let empty = Map::new();
        // A server that doesn't stream answers with one whole message.
        let delta = object_of(choice.get("delta").or_else(|| choice.get("message")), &empty)?;
        let thinking = match text_of(delta.get("reasoning_content"))? {
            "" => text_of(delta.get("reasoning"))?,
            thinking => thinking,
        };
        let answer = text_of(delta.get("content"))?;
        let reason = text_of(choice.get("finish_reason"))?;
        self.think(thinking, out);
        self.answer(answer, out);
        match reason {
            "" => {}
            "abort" | "error" => {
                // Nobody's words: what it means is ours to say.
                let body = ErrorBody { message: format!("finish reason `{reason}`"), ..ErrorBody::default() };
                self.fail(fault::broken_off(&self.backend, &self.model, &body, Origin::Foreign), out);
            }
            "length" => self.finish(Finish::Length, out),
            _ => self.finish(Finish::Stop, out),
        }
        Ok(())
    }
}

/// Waiting, loading and prefill.
fn progress(object: &Map<String, Value>, out: &mut Vec<GenEvent>) {
    if let Some(ours) = object.get("duet") {
        if let Some(ahead) = count(ours.get("queued")) {
            out.push(GenEvent::Queued { ahead });
        }
        if let Some(fraction) = ours.get("loading").and_then(Value::as_f64) {
            #[expect(clippy::cast_possible_truncation, reason = "a fraction for a progress bar")]
            out.push(GenEvent::Loading { fraction: fraction.clamp(0.0, 1.0) as f32 });
        }
    }
    if let Some(progress) = object.get("prompt_progress")
        && let Some(total) = count(progress.get("total"))
    {
        let part = |name: &str| count(progress.get(name)).unwrap_or_default().min(total);
        out.push(GenEvent::Prefill { done: part("processed"), total, cached: part("cache") });
    }
}

fn milliseconds(value: Option<&Value>) -> Option<f64> {
    value?.as_f64().filter(|ms| ms.is_finite() && *ms >= 0.0)
}

fn token_usage(usage: &Map<String, Value>) -> Usage {
    Usage {
        prompt_tokens: count(usage.get("prompt_tokens")),
        cached_tokens: count(usage.get("prompt_tokens_details").and_then(|d| d.get("cached_tokens"))),
        output_tokens: count(usage.get("completion_tokens")),
    }
}

fn server_timings(timings: &Map<String, Value>) -> ServerTimings {
    ServerTimings {
        queue_ms: milliseconds(timings.get("queue_ms")),
        load_ms: milliseconds(timings.get("load_ms")),
        cache_n: count(timings.get("cache_n")),
        cache_from: timings.get("cache_from").and_then(|place| serde_json::from_value(place.clone()).ok()),
        cache_lost: timings.get("cache_lost").and_then(Value::as_str).map(CacheLost::of_words),
        prompt_n: count(timings.get("prompt_n")),
        prompt_ms: milliseconds(timings.get("prompt_ms")),
        predicted_n: count(timings.get("predicted_n")),
        predicted_ms: milliseconds(timings.get("predicted_ms")),
        draft_n: count(timings.get("draft_n")),
        draft_n_accepted: count(timings.get("draft_n_accepted")),
        energy_j: timings.get("energy_j").and_then(Value::as_f64).filter(|joules| *joules >= 0.0),
    }
}

/// What vLLM measured, where it was started to tell: waiting and producing. Of the prefill it tells no time of its own.
fn vllm_timings(metrics: &Map<String, Value>, usage: Option<&Value>) -> Option<ServerTimings> {
    let timings = ServerTimings {
        queue_ms: milliseconds(metrics.get("queue_time_ms")),
        predicted_ms: milliseconds(metrics.get("generation_time_ms")),
        predicted_n: count(usage.and_then(|usage| usage.get("completion_tokens"))),
        ..ServerTimings::default()
    };
    (timings.queue_ms.is_some() || timings.predicted_ms.is_some()).then_some(timings)
}
