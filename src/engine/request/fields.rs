//! Typed fields of a JSON object. A null is an absent field, as other servers have it; a wrong type or a
//! value out of range is an error that names the field, what it must be, and what it was.

use super::super::gguf::plain;
use serde_json::{Map, Value};
use std::fmt;

/// A request that can't be served as it is: status 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// The field, as `messages[2].role`; empty for the body as a whole.
    pub field: String,
    /// One line that names the field.
    pub message: String,
}

impl RequestError {
    pub(super) fn new(field: impl Into<String>, what: impl fmt::Display) -> Self {
        let field = field.into();
        let name = if field.is_empty() { "the request" } else { field.as_str() };
        Self { message: format!("{name} {what}"), field }
    }
}

/// An object's fields, under a path for messages.
pub(super) struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The fields of the body.
    pub(super) fn of_body(value: &'a Value) -> Result<Self, RequestError> {
        match value {
            Value::Object(map) => Ok(Self { path: String::new(), map }),
            other => Err(wrong("", "a JSON object", other)),
        }
    }

    /// The fields of a nested object.
    pub(super) fn nested(path: String, value: &'a Value) -> Result<Self, RequestError> {
        match value {
            Value::Object(map) => Ok(Self { path, map }),
            other => Err(wrong(&path, "an object", other)),
        }
    }

    pub(super) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn missing(&self, name: &str, must_be: &str) -> RequestError {
        RequestError::new(self.path(name), format!("is missing; it must be {must_be}"))
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<Self>, RequestError> {
        self.get(name).map(|value| Self::nested(self.path(name), value)).transpose()
    }

    pub(super) fn map(&self, name: &str) -> Result<Option<&'a Map<String, Value>>, RequestError> {
        Ok(self.object(name)?.map(|fields| fields.map))
    }

    pub(super) fn list(&self, name: &str) -> Result<Option<&'a [Value]>, RequestError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(all)) => Ok(Some(all)),
            Some(other) => Err(wrong(&self.path(name), "a list", other)),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, RequestError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&self.path(name), "a string", other)),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, RequestError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(wrong(&self.path(name), "true or false", other)),
        }
    }

    /// A number within bounds, both included.
    pub(super) fn number(&self, name: &str, min: f64, max: f64) -> Result<Option<f32>, RequestError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64() {
            Some(x) if x >= min && x <= max => Ok(Some(x as f32)),
            _ => Err(wrong(&self.path(name), &format!("a number from {min} to {max}"), value)),
        }
    }

    /// A whole number within bounds, both included; `5.0` is one.
    pub(super) fn whole(&self, name: &str, min: i64, max: i64) -> Result<Option<i64>, RequestError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_i64().or_else(|| {
            let x = value.as_f64()?;
            (x.fract() == 0.0 && x.abs() < 9e15).then_some(x as i64)
        });
        match number {
            Some(n) if (min..=max).contains(&n) => Ok(Some(n)),
            _ => Err(wrong(&self.path(name), &format!("a whole number from {min} to {max}"), value)),
        }
    }
}

/// `temperature must be a number from 0 to 100, got "hot"`.
pub(super) fn wrong(field: &str, must_be: &str, got: &Value) -> RequestError {
    let got = match got {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::String(text) => format!("\"{}\"", plain(text, 40)),
        other => plain(&other.to_string(), 40),
    };
    RequestError::new(field, format!("must be {must_be}, got {got}"))
}
