//! The body of `/v1/embeddings`.

use super::fields::{Fields, RequestError, wrong};
use super::model;
use serde_json::Value;

/// Texts in one request, at most.
const MAX_INPUTS: usize = 2048;

/// The body of `/v1/embeddings`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingsRequest {
    /// The model.
    pub model: Option<String>,
    /// What to turn into vectors; never empty, and nothing in it is.
    pub input: Vec<EmbeddingInput>,
    /// Whether vectors are given as base64 of little-endian `f32` instead of as lists of numbers.
    pub is_base64: bool,
    /// Numbers of a vector that were asked for.
    pub dimensions: Option<u32>,
}

/// One text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmbeddingInput {
    /// As it is.
    Text(String),
    /// Tokenised by the client, with everything that belongs around it.
    Tokens(Vec<i32>),
}

impl EmbeddingsRequest {
    /// Reads the body of `/v1/embeddings`: `input` is a text, a list of texts, a list of tokens, or a list of such lists.
    ///
    /// # Errors
    /// As [`super::ChatRequest::parse`]; texts of white space are texts.
    pub fn parse(body: &Value) -> Result<Self, RequestError> {
        let fields = Fields::of_body(body)?;
        let is_base64 = match fields.text("encoding_format")? {
            None | Some("float") => false,
            Some("base64") => true,
            Some(_) => {
                let got = fields.get("encoding_format").unwrap_or(&Value::Null);
                return Err(wrong("encoding_format", "float or base64", got));
            }
        };
        let dimensions = fields.whole("dimensions", 1, i64::from(u32::MAX))?;
        Ok(Self {
            model: model(&fields)?,
            input: input(&fields)?,
            is_base64,
            dimensions: dimensions.and_then(|n| u32::try_from(n).ok()),
        })
    }
}

fn input(fields: &Fields) -> Result<Vec<EmbeddingInput>, RequestError> {
    const SHAPES: &str = "a text, a list of texts, or a list of tokens";
    match fields.get("input") {
        None => Err(fields.missing("input", SHAPES)),
        Some(Value::String(text)) => Ok(vec![one_text("input", text)?]),
        Some(Value::Array(all)) if all.is_empty() => Err(RequestError::new("input", "is empty")),
        Some(Value::Array(all)) if all.first().is_some_and(Value::is_number) => {
            Ok(vec![EmbeddingInput::Tokens(tokens("input", all)?)])
        }
        Some(Value::Array(all)) if all.len() > MAX_INPUTS => Err(RequestError::new(
            "input",
            format!("holds {} texts; {MAX_INPUTS} are possible in one request", all.len()),
        )),
        Some(Value::Array(all)) => all
            .iter()
            .enumerate()
            .map(|(index, value)| {
                let path = format!("input[{index}]");
                match value {
                    Value::String(text) => one_text(&path, text),
                    Value::Array(list) if list.is_empty() => Err(RequestError::new(path, "is empty")),
                    Value::Array(list) => Ok(EmbeddingInput::Tokens(tokens(&path, list)?)),
                    other => Err(wrong(&path, "a text or a list of tokens", other)),
                }
            })
            .collect(),
        Some(other) => Err(wrong("input", SHAPES, other)),
    }
}

fn one_text(path: &str, text: &str) -> Result<EmbeddingInput, RequestError> {
    if text.is_empty() {
        return Err(RequestError::new(path, "is empty"));
    }
    Ok(EmbeddingInput::Text(text.to_owned()))
}

fn tokens(path: &str, list: &[Value]) -> Result<Vec<i32>, RequestError> {
    list.iter()
        .enumerate()
        .map(|(index, value)| {
            let id = value.as_i64().and_then(|id| i32::try_from(id).ok()).filter(|id| *id >= 0);
            id.ok_or_else(|| wrong(&format!("{path}[{index}]"), "a token: a whole number, 0 or more", value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use serde_json::json;

    fn refused(body: &Value) -> String {
        EmbeddingsRequest::parse(body).expect_err("refused").message
    }

    #[test]
    fn every_shape_of_input_is_read() {
        let read = |input: Value| EmbeddingsRequest::parse(&json!({"input": input})).expect("good").input;
        let text = |text: &str| EmbeddingInput::Text(text.to_owned());
        assert_eq!(read(json!("a b")), [text("a b")]);
        assert_eq!(read(json!(["a", " "])), [text("a"), text(" ")]);
        assert_eq!(read(json!([1, 2])), [EmbeddingInput::Tokens(vec![1, 2])]);
        assert_eq!(read(json!([[1], "b", [2, 3]])).len(), 3);
        let whole = EmbeddingsRequest::parse(
            &json!({"model": " m ", "input": "a", "encoding_format": "base64", "dimensions": 8, "user": "u"}),
        );
        let whole = whole.expect("good");
        assert_eq!((whole.model.as_deref(), whole.is_base64, whole.dimensions), (Some("m"), true, Some(8)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, words) in [
            (json!({}), "input is missing"),
            (json!({"input": ""}), "input is empty"),
            (json!({"input": []}), "input is empty"),
            (json!({"input": ["a", ""]}), "input[1] is empty"),
            (json!({"input": [[]]}), "input[0] is empty"),
            (json!({"input": 5}), "input must be a text"),
            (json!({"input": [1, -1]}), "input[1] must be a token"),
            (json!({"input": [1, 1.5]}), "input[1] must be a token"),
            (json!({"input": [1, "a"]}), "input[1] must be a token"),
            (json!({"input": [["a"]]}), "input[0][0] must be a token"),
            (json!({"input": [{"text": "a"}]}), "input[0] must be a text"),
            (json!({"input": vec!["a"; 2049]}), "2048 are possible"),
            (json!({"input": "a", "encoding_format": "int8"}), "encoding_format must be float or base64"),
            (json!({"input": "a", "dimensions": 0}), "dimensions must be a whole number"),
        ] {
            let message = refused(&body);
            assert!(message.contains(words), "{message:?} for {words:?}");
        }
    }
}
