//! Lists of models, as servers give them, to [`Listing`]s. Pure and lenient: only the id is needed.

use super::kept::residency;
use crate::chat::{KeepAlive, Listing, ModelCard, ModelState, Residency};
use serde_json::{Value, json};
use std::collections::HashSet;

/// Models that are kept of one list.
pub(super) const MAX_MODELS: usize = 2000;
/// Characters an id may have.
pub(super) const MAX_ID: usize = 1024;

/// One model of a list.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// What the rest of the program learns.
    pub(super) card: ModelCard,
    /// Where its file is, where the server says.
    pub(super) path: Option<String>,
    /// How it is kept in memory, where the server says.
    pub(super) residency: Option<Residency>,
    /// Whether it makes embeddings, not text.
    pub(super) embeds: bool,
}

/// Reads `{"data": [...]}`, `{"models": [...]}` or a bare array. None when it is none of these.
pub(super) fn entries(list: &Value) -> Option<Vec<Entry>> {
    let items =
        [list.get("data"), list.get("models"), Some(list)].into_iter().flatten().find_map(Value::as_array)?;
    let mut seen = HashSet::new();
    let known = items.iter().filter_map(entry).filter(|entry| seen.insert(entry.card.id.clone()));
    Some(known.take(MAX_MODELS).collect())
}

/// Entries as the rest of the program gets them.
pub(super) fn listing(entries: Vec<Entry>) -> Listing {
    let mut listing = Listing::default();
    for entry in entries {
        if entry.embeds {
            listing.embedders.push(entry.card.id.clone());
        }
        listing.cards.push(entry.card);
        listing.residency.extend(entry.residency);
    }
    listing
}

fn entry(item: &Value) -> Option<Entry> {
    let text =
        |value: Option<&Value>| value.and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
    let id = text(item.get("id")).or_else(|| text(item.get("name")))?;
    if id.chars().count() > MAX_ID {
        return None;
    }
    let meta = |name: &str| item.get("meta").and_then(|meta| meta.get(name));
    let number = |value: Option<&Value>| value.and_then(Value::as_u64).filter(|n| *n > 0);
    let tokens = |value| number(value).and_then(|n| u32::try_from(n).ok());
    let ours = |name: &str| item.get("duet").and_then(|duet| duet.get(name));
    let card = ModelCard {
        state: state(item),
        parameters: number(meta("n_params")),
        bytes: number(meta("size")),
        quantisation: text(ours("quantisation"))
            .or_else(|| quantisation_of(meta("ftype").and_then(Value::as_str)?)),
        context: tokens(meta("n_ctx"))
            .or_else(|| tokens(meta("n_ctx_train")))
            .or_else(|| tokens(item.get("max_model_len"))),
        is_builtin: ours("builtin").and_then(Value::as_bool).unwrap_or_default(),
        id,
        ..ModelCard::default()
    };
    let residency = residency(&card.id, item);
    let path = text(ours("path")).or_else(|| text(item.get("path")));
    Some(Entry { card, path, residency, embeds: embeds(item) })
}

/// An entry in the shape an engine of ours lists its models in, whatever the server's own list looks like.
pub(super) fn as_ours(entry: &Entry) -> Value {
    let Entry { card, residency, embeds, .. } = entry;
    let kept = residency.clone().unwrap_or_default();
    let is_loaded = card.state == ModelState::Loaded;
    let status = match &card.state {
        ModelState::Loaded => json!({ "value": "loaded" }),
        ModelState::Loading { fraction } => json!({ "value": "loading", "progress": { "value": fraction } }),
        ModelState::Unloaded => json!({ "value": "unloaded" }),
        ModelState::Failed { reason } => json!({ "value": "unloaded", "failed": true, "error": reason }),
        ModelState::Unknown => json!({ "value": "unknown" }),
    };
    json!({
        "id": card.id, "object": "model", "status": status, "hosted_by": card.hosted_by,
        "architecture": { "output_modalities": [if *embeds { "embeddings" } else { "text" }] },
        "meta": { "n_params": card.parameters, "size": card.bytes, "n_ctx_train": card.context },
        "duet": {
            "quantisation": card.quantisation, "context": card.context.filter(|_| is_loaded), "need": kept.memory(),
            "expires_s": kept.expires_s, "keep_alive": kept.keep_alive.and_then(KeepAlive::seconds),
            "kv_bytes_per_token": card.kv_bytes_per_token, "active_parameters": card.active_parameters,
        },
    })
}

/// How weights are packed, in the short form: `q4_k_m` for `Q4_K - Medium`, `Q4_K_M` and the like.
pub(super) fn quantisation_of(words: &str) -> Option<String> {
    let words = words.trim().to_lowercase();
    let words = words.trim_start_matches("all ").trim_start_matches("mostly ").trim_end_matches(" (guessed)");
    let (kind, size) = words.split_once(" - ").unwrap_or((words, ""));
    let suffix = match size {
        "small" => "_s",
        "medium" => "_m",
        "large" => "_l",
        _ => "",
    };
    let kind = kind.split_whitespace().next().filter(|kind| *kind != "unknown" && kind.len() <= 24)?;
    Some(format!("{kind}{suffix}"))
}

/// The number of weights in words as `8.0B`, `270M`, `1.5T`; none for anything else.
pub(super) fn parameters_of(words: &str) -> Option<u64> {
    let words = words.trim();
    let unit = words.chars().next_back()?;
    let factor = match unit.to_ascii_uppercase() {
        'K' => 1e3,
        'M' => 1e6,
        'B' => 1e9,
        'T' => 1e12,
        _ => return None,
    };
    let number: f64 = words.strip_suffix(unit)?.trim().parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a count")]
    let count = (number * factor).round() as u64;
    (number.is_finite() && number > 0.0 && number < 1e6).then_some(count)
}

fn state(item: &Value) -> ModelState {
    let Some(status) = item.get("status").filter(|status| status.is_object()) else {
        // llama-server with one model describes what it has loaded, and has no status.
        let is_loaded = item.get("meta").is_some_and(Value::is_object);
        return if is_loaded { ModelState::Loaded } else { ModelState::Unknown };
    };
    let text = |name: &str| status.get(name).and_then(Value::as_str);
    let has_failed = status.get("failed").and_then(Value::as_bool).unwrap_or_default();
    match text("value") {
        Some("loaded" | "sleeping") => ModelState::Loaded,
        Some("loading") => {
            let progress = status.get("progress");
            let fraction =
                progress.and_then(|p| p.get("value")).or(progress).or_else(|| status.get("fraction"));
            #[expect(clippy::cast_possible_truncation, reason = "a fraction for a progress bar")]
            let fraction = fraction.and_then(Value::as_f64).unwrap_or_default().clamp(0.0, 1.0) as f32;
            ModelState::Loading { fraction }
        }
        Some("failed") => failed(status),
        Some("unloaded") if has_failed => failed(status),
        Some("unloaded") if !makes_text(item) && !embeds(item) => {
            ModelState::Failed { reason: "not a chat model: it makes no text".to_owned() }
        }
        Some("unloaded") => ModelState::Unloaded,
        _ => ModelState::Unknown,
    }
}

/// What comes out of a model, where the server says.
fn outputs(item: &Value) -> Option<&Vec<Value>> {
    item.get("architecture")?.get("output_modalities")?.as_array().filter(|all| !all.is_empty())
}

/// Whether text comes out of a model, as far as the server says.
fn makes_text(item: &Value) -> bool {
    outputs(item).is_none_or(|all| all.iter().any(|kind| kind == "text"))
}

/// Whether a model makes embeddings and no text.
fn embeds(item: &Value) -> bool {
    !makes_text(item) && outputs(item).is_some_and(|all| all.iter().any(|kind| kind == "embeddings"))
}

fn failed(status: &Value) -> ModelState {
    let text = |name: &str| status.get(name).and_then(Value::as_str).map(str::to_owned);
    let code = || {
        status
            .get("exit_code")
            .and_then(Value::as_i64)
            .map(|code| format!("its server ended with code {code}"))
    };
    let reason = text("message").or_else(|| text("reason")).or_else(|| text("error")).or_else(code);
    ModelState::Failed { reason: reason.unwrap_or_else(|| "the server doesn't say why".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn cards(list: &Value) -> Vec<ModelCard> {
        listing(entries(list).unwrap_or_default()).cards
    }

    fn bare(id: &str, state: ModelState) -> ModelCard {
        ModelCard {
            id: id.to_owned(),
            state,
            parameters: None,
            bytes: None,
            quantisation: None,
            context: None,
            is_builtin: false,
            ..ModelCard::default()
        }
    }

    #[test]
    fn our_engine() {
        let list = json!({"object": "list", "data": [
            {"id": "builtin", "meta": {"n_params": 2_000_000, "size": 2_100_000, "n_ctx": 512, "n_ctx_train": 1024},
             "status": {"value": "loaded"}, "duet": {"builtin": true, "quantisation": "f16", "path": "/c/builtin.gguf"}},
            {"id": "small", "meta": {"n_ctx_train": 32768}, "status": {"value": "loading", "progress": 0.5}},
            {"id": "bad", "status": {"value": "failed", "message": "cut off at byte 3"}},
            {"id": "old", "status": {"value": "unloaded", "failed": true, "exit_code": 1}},
            {"id": "cold", "status": {"value": "unloaded"}},
        ]});
        let entries = entries(&list).expect("a list");
        assert_eq!(
            entries.iter().map(|e| e.path.as_deref()).collect::<Vec<_>>(),
            [Some("/c/builtin.gguf"), None, None, None, None]
        );
        assert_eq!(listing(entries).residency, [], "an engine that says nothing of it");
        assert_eq!(
            cards(&list),
            [
                ModelCard {
                    parameters: Some(2_000_000),
                    bytes: Some(2_100_000),
                    quantisation: Some("f16".into()),
                    context: Some(512),
                    is_builtin: true,
                    ..bare("builtin", ModelState::Loaded)
                },
                ModelCard { context: Some(32768), ..bare("small", ModelState::Loading { fraction: 0.5 }) },
                bare("bad", ModelState::Failed { reason: "cut off at byte 3".into() }),
                bare("old", ModelState::Failed { reason: "its server ended with code 1".into() }),
                bare("cold", ModelState::Unloaded),
            ]
        );
    }

    #[test]
    fn others() {
        assert_eq!(
            cards(&json!({"data": [{"id": "a", "object": "model"}]})),
            [bare("a", ModelState::Unknown)]
        );
        assert_eq!(cards(&json!({"models": [{"name": "a"}]})), [bare("a", ModelState::Unknown)]);
        let vllm = json!({"data": [{"id": "a", "max_model_len": 4096, "owned_by": "vllm"}]});
        assert_eq!(cards(&vllm), [ModelCard { context: Some(4096), ..bare("a", ModelState::Unknown) }]);
        let router = json!({"data": [{"id": "a", "status": {"value": "loading", "progress": {"stages": [], "value": 0.25}}}]});
        assert_eq!(cards(&router), [bare("a", ModelState::Loading { fraction: 0.25 })]);
    }

    #[test]
    fn what_is_told_in_our_shape_is_read_back() {
        let card = ModelCard {
            parameters: Some(8_000_000_000),
            bytes: Some(5_000_000_000),
            quantisation: Some("q4_k_m".to_owned()),
            context: Some(4096),
            ..bare("a", ModelState::Loaded)
        };
        let residency = Residency {
            id: "a".to_owned(),
            expires_s: Some(60.0),
            need: Some(6_000_000_000),
            context: Some(4096),
            ..Residency::default()
        };
        let entry = Entry { card, path: None, residency: Some(residency), embeds: false };
        let mut read = entries(&json!({ "data": [as_ours(&entry)] })).expect("a list");
        assert_eq!(read.remove(0).card, entry.card);
        let failed =
            Entry { card: bare("b", ModelState::Failed { reason: "cut".into() }), residency: None, ..entry };
        let item = as_ours(&failed);
        assert_eq!((&item["status"]["failed"], &item["status"]["error"]), (&json!(true), &json!("cut")));
    }

    #[test]
    fn sizes_in_words() {
        for (words, short) in [
            ("Q4_K - Medium", Some("q4_k_m")),
            ("Q4_K_M", Some("q4_k_m")),
            ("Q3_K - Small", Some("q3_k_s")),
            ("all F32", Some("f32")),
            ("Q8_0 (guessed)", Some("q8_0")),
            ("MXFP4 MoE", Some("mxfp4")),
            ("IQ2_XXS - 2.0625 bpw", Some("iq2_xxs")),
            ("4bit", Some("4bit")),
            ("unknown", None),
            ("", None),
        ] {
            assert_eq!(quantisation_of(words).as_deref(), short, "{words}");
        }
        for (words, count) in [
            ("8.0B", Some(8_000_000_000)),
            ("270M", Some(270_000_000)),
            ("116.8B", Some(116_800_000_000)),
            ("1T", Some(1_000_000_000_000)),
            ("8x7B", None),
            ("-3B", None),
            ("infB", None),
            ("NaNB", None),
            ("1e300B", None),
            ("B", None),
            ("日", None),
            ("", None),
        ] {
            assert_eq!(parameters_of(words), count, "{words}");
        }
    }

    #[test]
    fn what_makes_no_text_is_told_apart() {
        let of = |id: &str, value: &str, outputs: &[&str]| json!({"id": id, "status": {"value": value}, "architecture": {"output_modalities": outputs}});
        let list = json!({"data": [
            of("bert", "unloaded", &["embeddings"]), of("warm", "loaded", &["embeddings"]),
            of("both", "unloaded", &["text", "embeddings"]), of("painter", "unloaded", &["image"]),
            of("bare", "unloaded", &[]),
        ]});
        let listing = listing(entries(&list).expect("a list"));
        assert_eq!(listing.embedders, ["bert", "warm"]);
        let failed = ModelState::Failed { reason: "not a chat model: it makes no text".into() };
        assert_eq!(
            listing.cards,
            [
                bare("bert", ModelState::Unloaded),
                bare("warm", ModelState::Loaded),
                bare("both", ModelState::Unloaded),
                bare("painter", failed),
                bare("bare", ModelState::Unloaded),
            ]
        );
    }

    #[test]
    fn nonsense_is_skipped() {
        let list = json!({"data": [5, {"id": 7}, {"id": ""}, {"id": "x".repeat(2000)}, {"id": "a", "meta": 3, "status": "?"}, {"id": "a"}]});
        assert_eq!(cards(&list), [bare("a", ModelState::Unknown)]);
        let many: Vec<Value> = (0..10_000).map(|n| json!({"id": format!("m{n}")})).collect();
        assert_eq!(cards(&json!({ "data": many })).len(), MAX_MODELS);
        assert_eq!(entries(&json!({"error": "no"})), None);
    }
}
