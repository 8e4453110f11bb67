//! Ollama's models: `/api/tags` is what it has, `/api/ps` what is resident, `/api/show` what one is like.

use super::shape::{Shape, shape};
use crate::backend::catalogue::{Entry, MAX_ID, MAX_MODELS, parameters_of, quantisation_of};
use crate::backend::dialect::Known;
use crate::backend::http::{Http, HttpError, QUICK};
use crate::chat::{Fit, KeepAlive, ModelCard, ModelState, Residency, Verdict};
use serde_json::{Value, json};
use std::collections::HashSet;

/// Models that are looked at more closely for one list; the others have their turn with the next.
const MAX_SHOWN: usize = 8;
/// A time of leaving further away than this is never.
const FOR_EVER_S: f64 = 10.0 * 365.0 * 86_400.0;

/// The list. None when the answer is no list of models.
///
/// # Errors
/// When it can't be reached or refuses.
pub(in crate::backend) async fn fetch(http: &Http, known: &Known) -> Result<Option<Vec<Entry>>, HttpError> {
    let tags = http.get("/api/tags", QUICK).await?;
    let Some(models) = tags.get("models").and_then(Value::as_array) else { return Ok(None) };
    let running = http.get("/api/ps", QUICK).await?;
    let running = running.get("models").and_then(Value::as_array).cloned().unwrap_or_default();
    let now_s = jiff::Timestamp::now().as_second();
    let mut seen = HashSet::new();
    let mut all: Vec<Listed> = models
        .iter()
        .filter_map(|tag| listed(tag, &running, now_s))
        .filter(|m| seen.insert(m.id.clone()))
        .collect();
    all.truncate(MAX_MODELS);
    // Those in memory first: the router has most use for them.
    let mut shown = 0;
    for wants_resident in [true, false] {
        for model in all.iter_mut().filter(|model| model.is_resident() == wants_resident) {
            if let Some(digest) = model.digest.clone() {
                model.shape = described(http, known, &digest, &model.id, &mut shown).await;
            }
        }
    }
    Ok(Some(all.into_iter().map(entry).collect()))
}

/// What a model is like, asked once for each digest.
async fn described(http: &Http, known: &Known, digest: &str, model: &str, shown: &mut usize) -> Shape {
    if let Some(description) = known.description(digest) {
        return shape(&description);
    }
    if *shown >= MAX_SHOWN {
        return Shape::default();
    }
    *shown += 1;
    let Ok(answer) = http.post("/api/show", &json!({ "model": model }), QUICK, Some(model)).await else {
        return Shape::default();
    };
    let info = answer.get("model_info").cloned().unwrap_or_default();
    let shape = shape(&info);
    known.remember_description(digest, info);
    shape
}

/// One model, by what the two lists say.
struct Listed {
    id: String,
    digest: Option<String>,
    card: ModelCard,
    residency: Option<Residency>,
    embeds: bool,
    shape: Shape,
}

impl Listed {
    fn is_resident(&self) -> bool {
        self.card.state == ModelState::Loaded
    }
}

fn listed(tag: &Value, running: &[Value], now_s: i64) -> Option<Listed> {
    let text = |name: &str| tag.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let detail = |name: &str| tag.get("details")?.get(name)?.as_str();
    let id = text("name").or_else(|| text("model"))?.to_owned();
    if id.chars().count() > MAX_ID {
        return None;
    }
    let hosted_by = text("remote_host")
        .map(str::to_owned)
        .or_else(|| text("remote_model").map(|_| "another host".to_owned()));
    let resident = running.iter().find(|item| item.get("name").and_then(Value::as_str) == Some(id.as_str()));
    let state = match (&hosted_by, resident) {
        (_, Some(_)) => ModelState::Loaded,
        (Some(_), None) => ModelState::Unknown,
        (None, None) => ModelState::Unloaded,
    };
    let capable = |of: &str| {
        let all = tag.get("capabilities").and_then(Value::as_array);
        all.map(|all| all.iter().any(|capability| capability == of))
    };
    let card = ModelCard {
        state,
        parameters: detail("parameter_size").and_then(parameters_of),
        // Of one that lies elsewhere there is but a note of its name.
        bytes: tag.get("size").and_then(Value::as_u64).filter(|bytes| *bytes > 0 && hosted_by.is_none()),
        quantisation: detail("quantization_level").and_then(quantisation_of),
        context: resident.and_then(context),
        hosted_by,
        id: id.clone(),
        ..ModelCard::default()
    };
    Some(Listed {
        digest: text("digest").map(str::to_owned).filter(|_| card.hosted_by.is_none()),
        residency: resident.map(|item| residency(&id, item, now_s)),
        embeds: capable("embedding") == Some(true) && capable("completion") == Some(false),
        shape: Shape::default(),
        id,
        card,
    })
}

fn entry(model: Listed) -> Entry {
    let Listed { mut card, residency, embeds, shape, .. } = model;
    card.parameters = shape.parameters.or(card.parameters);
    card.active_parameters = shape.active_parameters;
    card.kv_bytes_per_token = shape.kv_bytes_per_token;
    card.context = card.context.or(shape.context);
    Entry { card, path: None, residency, embeds }
}

fn context(item: &Value) -> Option<u32> {
    item.get("context_length").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0)
}

#[expect(clippy::cast_precision_loss, reason = "seconds for people")]
fn residency(id: &str, item: &Value, now_s: i64) -> Residency {
    let bytes = |name: &str| item.get(name).and_then(Value::as_u64);
    let expires = item.get("expires_at").and_then(Value::as_str);
    let left = expires
        .and_then(|time| time.parse::<jiff::Timestamp>().ok())
        .map(|time| time.as_second().saturating_sub(now_s) as f64);
    let size = bytes("size").filter(|size| *size > 0);
    let spill = size.zip(bytes("size_vram")).filter(|(size, on_card)| *on_card > 0 && on_card < size);
    Residency {
        id: id.to_owned(),
        keep_alive: left.filter(|left| *left > FOR_EVER_S).map(|_| KeepAlive::ForEver),
        expires_s: left.filter(|left| (0.0..=FOR_EVER_S).contains(left)),
        context: context(item),
        need: size,
        verdict: spill.map(|(size, on_card)| Verdict {
            fit: Fit::Partial,
            context: None,
            unload: Vec::new(),
            gpu_layers: None,
            slowdown: None,
            say: format!("{} % of it lies on the card, the rest in ordinary memory", percent(on_card, size)),
        }),
        ..Residency::default()
    }
}

fn percent(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(whole.max(1))).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn tags() -> Value {
        json!([
            {"name": "llama3.2:latest", "model": "llama3.2:latest", "size": 2_019_393_189_u64, "digest": "a80c",
             "details": {"family": "llama", "parameter_size": "3.2B", "quantization_level": "Q4_K_M"}, "capabilities": ["completion"]},
            {"name": "gpt-oss:120b-cloud", "size": 384, "digest": "569f", "remote_host": "https://ollama.com:443",
             "remote_model": "gpt-oss:120b", "details": {"parameter_size": "116.8B", "quantization_level": "MXFP4"}},
            {"name": "nomic-embed-text:latest", "size": 274_302_450, "digest": "0a10",
             "details": {"parameter_size": "137M", "quantization_level": "F16"}, "capabilities": ["embedding"]},
            {"name": 5}, {"size": 1}, {"name": "x".repeat(2000)}, 7,
        ])
    }

    fn read(running: &Value) -> Vec<Entry> {
        let (tags, running) = (tags(), running.as_array().cloned().unwrap_or_default());
        let now_s = "2026-11-25T03:00:00Z".parse::<jiff::Timestamp>().expect("a time").as_second();
        tags.as_array()
            .into_iter()
            .flatten()
            .filter_map(|tag| listed(tag, &running, now_s))
            .map(entry)
            .collect()
    }

    #[test]
    fn what_it_has_and_what_is_resident() {
        let running = json!([{"name": "llama3.2:latest", "size": 5_000_000_000_u64, "size_vram": 3_000_000_000_u64,
            "expires_at": "2026-11-25T04:04:00.5+01:00", "context_length": 4096}]);
        let all = read(&running);
        assert_eq!(all.len(), 3);
        let card = &all[0].card;
        assert_eq!(card.state, ModelState::Loaded);
        assert_eq!(card.parameters, Some(3_200_000_000));
        assert_eq!((card.bytes, card.quantisation.as_deref()), (Some(2_019_393_189), Some("q4_k_m")));
        assert_eq!((card.context, card.hosted_by.as_deref()), (Some(4096), None));
        let kept = all[0].residency.as_ref().expect("it is resident");
        assert_eq!((kept.expires_s, kept.keep_alive, kept.context), (Some(240.0), None, Some(4096)));
        assert_eq!(kept.memory(), Some(5_000_000_000));
        let verdict = kept.verdict.as_ref().expect("it spills");
        assert_eq!(
            (verdict.fit, verdict.say.starts_with("60 % of it lies on the card")),
            (Fit::Partial, true)
        );

        let cloud = &all[1].card;
        assert_eq!(cloud.hosted_by.as_deref(), Some("https://ollama.com:443"));
        assert_eq!((cloud.state.clone(), cloud.bytes), (ModelState::Unknown, None));
        assert_eq!(all.iter().map(|entry| entry.embeds).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(all[2].card.state, ModelState::Unloaded);
    }

    #[test]
    fn for_ever_and_nonsense() {
        let at = |expires: Value| {
            let running = json!([{"name": "llama3.2:latest", "expires_at": expires, "size": -1, "size_vram": "x", "context_length": 0}]);
            read(&running)[0].residency.clone().expect("it is resident")
        };
        assert_eq!(at(json!("2318-01-01T00:00:00Z")).keep_alive, Some(KeepAlive::ForEver));
        for odd in [json!("soon"), json!(5), json!(null), json!("0001-01-01T00:00:00Z")] {
            let kept = at(odd);
            assert_eq!(
                (kept.expires_s, kept.keep_alive, kept.memory(), kept.context),
                (None, None, None, None)
            );
        }
    }
}
