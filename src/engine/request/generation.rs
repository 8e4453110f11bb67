//! What to generate: sampling, limits, stop strings, biases, the form of the answer.

use super::fields::{Fields, RequestError, wrong};
use crate::engine::gguf::plain;
use serde_json::Value;

const MAX_STOPS: usize = 64;
const MAX_STOP_BYTES: usize = 1024;
const MAX_BIASES: usize = 100_000;
const MAX_SESSION: usize = 128;
const MAX_GRAMMAR: usize = 256 << 10;
/// llama.cpp's parser recurses for each level, and nothing else bounds its stack.
const MAX_GRAMMAR_DEPTH: usize = 128;

/// How to choose tokens. All values are in force: what was not asked for has its default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy; 0 to 100.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: i32,
    /// Keep the smallest set with this much probability; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this likely, relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides the logits of recent tokens; 1 is off.
    pub repeat_penalty: f32,
    /// How many recent tokens are looked at for penalties; 0: none, -1: all.
    pub repeat_last_n: i32,
    /// Subtracted once for tokens already used.
    pub presence_penalty: f32,
    /// Subtracted for each use of a token so far.
    pub frequency_penalty: f32,
    /// Seed of the random numbers; none: a new one each time.
    pub seed: Option<u32>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
        }
    }
}

/// Which token a bias is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BiasToken {
    /// By number; one beyond the vocabulary is ignored.
    Id(u32),
    /// All tokens of this text.
    Text(String),
}

/// A change to the likelihood of a token.
#[derive(Clone, Debug, PartialEq)]
pub struct LogitBias {
    /// The token.
    pub token: BiasToken,
    /// Added to its logit; negative infinity forbids it.
    pub bias: f32,
}

/// A form the answer must have.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// A grammar in GBNF.
    Grammar(String),
    /// A JSON schema.
    Schema(Value),
}

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Upper bound on output tokens; none: as many as the context holds; 0: only prefill.
    pub max_tokens: Option<u32>,
    /// How to choose tokens.
    pub sampling: SamplingParams,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// Changes to likelihoods.
    pub logit_bias: Vec<LogitBias>,
    /// Whether to go on after the model ends its turn.
    pub ignore_eos: bool,
    /// A form the answer must have.
    pub form: Option<Form>,
    /// Whether the KV cache of an earlier request may be used.
    pub cache_prompt: bool,
    /// The session this belongs to, any text the client chose. Without one nothing of it goes to disk.
    pub session: Option<String>,
    /// Whether this only gets things ready for a question that may come: nothing leaves memory for it. Such a request
    /// has `max_tokens: 0`.
    pub is_ahead: bool,
    /// Most tokens to guess ahead at once; 0 guesses none, none leaves it to the engine.
    pub draft: Option<usize>,
}

/// Reads the fields of a request that say what to generate.
pub(super) fn parse(fields: &Fields) -> Result<Generation, RequestError> {
    Ok(Generation {
        max_tokens: max_tokens(fields)?,
        sampling: sampling(fields)?,
        stop: stop(fields)?,
        logit_bias: logit_bias(fields)?,
        ignore_eos: fields.flag("ignore_eos")?.unwrap_or(false),
        form: form(fields)?,
        cache_prompt: fields.flag("cache_prompt")?.unwrap_or(true),
        session: session(fields, "duet_session")?,
        is_ahead: is_ahead(fields)?,
        draft: match (fields.flag("draft")?, fields.whole("speculative.n_max", 0, 1 << 16)?) {
            (Some(false), _) => Some(0),
            (_, asked) => asked.and_then(|n| usize::try_from(n).ok()),
        },
    })
}

fn is_ahead(fields: &Fields) -> Result<bool, RequestError> {
    let is_ahead = fields.flag("duet_ahead")?.unwrap_or(false);
    if is_ahead && max_tokens(fields)? != Some(0) {
        return Err(RequestError::new("duet_ahead", "goes with `max_tokens: 0` only"));
    }
    Ok(is_ahead)
}

/// The name of a session: any text of at most 128 bytes.
pub(super) fn session(fields: &Fields, name: &str) -> Result<Option<String>, RequestError> {
    let session = fields.text(name)?.filter(|session| !session.is_empty());
    if session.is_some_and(|session| session.len() > MAX_SESSION) {
        return Err(RequestError::new(name, format!("is longer than {MAX_SESSION} bytes")));
    }
    Ok(session.map(str::to_owned))
}

fn max_tokens(fields: &Fields) -> Result<Option<u32>, RequestError> {
    for name in ["n_predict", "max_completion_tokens", "max_tokens"] {
        if let Some(n) = fields.whole(name, -1, i64::from(i32::MAX))? {
            return Ok(u32::try_from(n).ok());
        }
    }
    Ok(None)
}

fn sampling(fields: &Fields) -> Result<SamplingParams, RequestError> {
    let default = SamplingParams::default();
    let small = |n: Option<i64>, default: i32| n.map_or(default, |n| i32::try_from(n).unwrap_or(i32::MAX));
    Ok(SamplingParams {
        temperature: fields.number("temperature", 0.0, 100.0)?.unwrap_or(default.temperature),
        top_k: small(fields.whole("top_k", -1, i64::from(i32::MAX))?.map(|k| k.max(0)), default.top_k),
        top_p: fields.number("top_p", 0.0, 1.0)?.unwrap_or(default.top_p),
        min_p: fields.number("min_p", 0.0, 1.0)?.unwrap_or(default.min_p),
        repeat_penalty: fields.number("repeat_penalty", 0.01, 100.0)?.unwrap_or(default.repeat_penalty),
        repeat_last_n: small(fields.whole("repeat_last_n", -1, i64::from(i32::MAX))?, default.repeat_last_n),
        presence_penalty: fields
            .number("presence_penalty", -100.0, 100.0)?
            .unwrap_or(default.presence_penalty),
        frequency_penalty: fields
            .number("frequency_penalty", -100.0, 100.0)?
            .unwrap_or(default.frequency_penalty),
        seed: fields.whole("seed", -1, i64::from(u32::MAX))?.and_then(|n| u32::try_from(n).ok()),
    })
}

fn stop(fields: &Fields) -> Result<Vec<String>, RequestError> {
    let all: Vec<&Value> = match fields.get("stop") {
        None => return Ok(Vec::new()),
        Some(one @ Value::String(_)) => vec![one],
        Some(Value::Array(all)) => all.iter().collect(),
        Some(other) => return Err(wrong("stop", "a string or a list of strings", other)),
    };
    if all.len() > MAX_STOPS {
        return Err(RequestError::new(
            "stop",
            format!("holds {} strings; at most {MAX_STOPS} are possible", all.len()),
        ));
    }
    let mut out = Vec::new();
    for (index, value) in all.iter().enumerate() {
        match value {
            Value::String(text) if text.len() <= MAX_STOP_BYTES => out.push(text.clone()),
            Value::String(text) => {
                return Err(RequestError::new(
                    format!("stop[{index}]"),
                    format!("is {} bytes long; at most {MAX_STOP_BYTES} are possible", text.len()),
                ));
            }
            other => return Err(wrong(&format!("stop[{index}]"), "a string", other)),
        }
    }
    out.retain(|text| !text.is_empty());
    Ok(out)
}

fn logit_bias(fields: &Fields) -> Result<Vec<LogitBias>, RequestError> {
    let name = "logit_bias";
    let token = |text: &str| match text.trim().parse::<u32>() {
        Ok(id) => BiasToken::Id(id),
        Err(_) => BiasToken::Text(text.to_owned()),
    };
    let out: Result<Vec<LogitBias>, RequestError> = match fields.get(name) {
        None => return Ok(Vec::new()),
        Some(Value::Object(map)) => map
            .iter()
            .map(|(key, value)| {
                Ok(LogitBias { token: token(key), bias: bias(&format!("{name}.{}", plain(key, 40)), value)? })
            })
            .collect(),
        Some(Value::Array(all)) => all
            .iter()
            .enumerate()
            .map(|(index, pair)| {
                let path = format!("{name}[{index}]");
                let Value::Array(pair) = pair else {
                    return Err(wrong(&path, "a pair of token and bias", pair));
                };
                let [id, value] = pair.as_slice() else {
                    return Err(RequestError::new(
                        path,
                        format!("must be a pair of token and bias, got {} values", pair.len()),
                    ));
                };
                let token = match id {
                    Value::String(text) => BiasToken::Text(text.clone()),
                    id => match id.as_u64().and_then(|n| u32::try_from(n).ok()) {
                        Some(n) => BiasToken::Id(n),
                        None => return Err(wrong(&path, "a token's number or text, then the bias", id)),
                    },
                };
                Ok(LogitBias { token, bias: bias(&path, value)? })
            })
            .collect(),
        Some(other) => return Err(wrong(name, "an object or a list of pairs", other)),
    };
    let out = out?;
    if out.len() > MAX_BIASES {
        return Err(RequestError::new(
            name,
            format!("holds {} entries; at most {MAX_BIASES} are possible", out.len()),
        ));
    }
    Ok(out)
}

fn bias(path: &str, value: &Value) -> Result<f32, RequestError> {
    match value {
        Value::Bool(false) => Ok(f32::NEG_INFINITY),
        _ => match value.as_f64().filter(|x| x.abs() <= 1e6) {
            Some(x) => Ok(x as f32),
            None => Err(wrong(path, "a number from -1000000 to 1000000, or false", value)),
        },
    }
}

fn form(fields: &Fields) -> Result<Option<Form>, RequestError> {
    let grammar = fields.text("grammar")?.filter(|g| !g.trim().is_empty());
    let mut schema = fields.map("json_schema")?.cloned();
    if let Some(format) = fields.object("response_format")? {
        let kinds = "\"text\", \"json_object\" or \"json_schema\"";
        match format.text("type")? {
            None | Some("text") => {}
            Some("json_object") => {
                if let Some(own) = format.map("schema")? {
                    schema = Some(own.clone());
                }
                schema.get_or_insert_default();
            }
            Some("json_schema") => {
                let wrapped = format.object("json_schema")?;
                let own = match &wrapped {
                    Some(wrapped) => wrapped.map("schema")?,
                    None => format.map("schema")?,
                };
                schema =
                    Some(own.ok_or_else(|| format.missing("json_schema.schema", "a JSON schema"))?.clone());
            }
            Some(_) => {
                return Err(wrong("response_format.type", kinds, format.get("type").unwrap_or(&Value::Null)));
            }
        }
    }
    match (grammar, schema) {
        (Some(_), Some(_)) => {
            Err(RequestError::new("grammar", "and a JSON schema can't both be followed: send one"))
        }
        (Some(grammar), None) if grammar.len() > MAX_GRAMMAR => Err(RequestError::new(
            "grammar",
            format!("is {} bytes long; at most {MAX_GRAMMAR} are possible", grammar.len()),
        )),
        (Some(grammar), None) if grammar_depth(grammar) > MAX_GRAMMAR_DEPTH => {
            Err(RequestError::new("grammar", format!("nests parentheses more than {MAX_GRAMMAR_DEPTH} deep")))
        }
        (Some(grammar), None) => Ok(Some(Form::Grammar(grammar.to_owned()))),
        (None, Some(mut schema)) => {
            if schema.is_empty() {
                // An empty schema means any object.
                schema.insert("type".to_owned(), Value::from("object"));
            }
            Ok(Some(Form::Schema(Value::Object(schema))))
        }
        (None, None) => Ok(None),
    }
}
/// How deep a grammar nests parentheses. Those in strings, character classes and comments don't count.
fn grammar_depth(grammar: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut inside = None;
    let mut characters = grammar.chars();
    while let Some(c) = characters.next() {
        match (inside, c) {
            (Some('"' | ']'), '\\') => drop(characters.next()),
            (Some(end), c) if c == end => inside = None,
            (None, '"') => inside = Some('"'),
            (None, '[') => inside = Some(']'),
            (None, '#') => inside = Some('\n'),
            (None, '(') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (None, ')') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
