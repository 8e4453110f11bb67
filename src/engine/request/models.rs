//! Bodies of the routes that load, unload and hold models.

use super::fields::{Fields, RequestError};
use serde_json::Value;

/// The body of `/models/load`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadRequest {
    /// The model.
    pub model: String,
    /// Context in tokens, or none within: as configured. None: as it was asked for last.
    pub context: Option<Option<u32>>,
    /// Whether it shall stay whatever else is wanted; none: as it was.
    pub pin: Option<bool>,
    /// Seconds it stays after its last answer; -1 is for ever; none: as it was.
    pub keep_alive: Option<i64>,
    /// Whether it is brought back after the engine died.
    pub is_restored: bool,
}

impl LoadRequest {
    /// Reads the body of `/models/load`.
    ///
    /// # Errors
    /// When the model is missing or a field can't be used.
    pub fn parse(body: &Value) -> Result<Self, RequestError> {
        let fields = Fields::of_body(body)?;
        let context = fields.whole("context", 1, i64::from(u32::MAX))?.and_then(|n| u32::try_from(n).ok());
        Ok(Self {
            model: super::parse_model(body)?,
            context: body.get("context").map(|_| context),
            pin: fields.flag("pin")?,
            keep_alive: keep_alive(&fields, "keep_alive")?,
            is_restored: fields.flag("restore")?.unwrap_or(false),
        })
    }
}

/// Reads the body of `/models/pin`: the model, and whether it is pinned.
///
/// # Errors
/// When one of them is missing or can't be used.
pub fn parse_pin(body: &Value) -> Result<(String, bool), RequestError> {
    let fields = Fields::of_body(body)?;
    let pinned = fields.flag("pinned")?.ok_or_else(|| fields.missing("pinned", "true or false"))?;
    Ok((super::parse_model(body)?, pinned))
}

/// Reads the body of `/models/keep_alive`: the model, and the seconds it stays after its last answer.
///
/// # Errors
/// When one of them is missing or can't be used.
pub fn parse_keep_alive(body: &Value) -> Result<(String, Option<i64>), RequestError> {
    let fields = Fields::of_body(body)?;
    let must_be = "seconds; -1 is for ever, 0 unloads it as soon as it is idle, null is the default";
    let seconds = match body.get("seconds") {
        Some(Value::Null) => None,
        _ => Some(keep_alive(&fields, "seconds")?.ok_or_else(|| fields.missing("seconds", must_be))?),
    };
    Ok((super::parse_model(body)?, seconds))
}

fn keep_alive(fields: &Fields<'_>, name: &str) -> Result<Option<i64>, RequestError> {
    fields.whole(name, -1, i64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use serde_json::json;

    #[test]
    fn bodies_are_read() {
        let bare = LoadRequest::parse(&json!({"model": "a"})).unwrap();
        let nothing = LoadRequest {
            model: "a".to_owned(),
            context: None,
            pin: None,
            keep_alive: None,
            is_restored: false,
        };
        assert_eq!(bare, nothing);
        let full =
            json!({"model": "a", "context": 4096, "pin": true, "keep_alive": -1, "restore": true, "new": 1});
        assert_eq!(
            LoadRequest::parse(&full).unwrap(),
            LoadRequest {
                context: Some(Some(4096)),
                pin: Some(true),
                keep_alive: Some(-1),
                is_restored: true,
                ..nothing.clone()
            }
        );
        let default = LoadRequest::parse(&json!({"model": "a", "context": null})).unwrap();
        assert_eq!(default, LoadRequest { context: Some(None), ..nothing });
        assert_eq!(parse_pin(&json!({"model": "a", "pinned": false})).unwrap(), ("a".to_owned(), false));
        for (seconds, read) in [(json!(0), Some(0)), (json!(null), None)] {
            let body = json!({"model": "a", "seconds": seconds});
            assert_eq!(parse_keep_alive(&body).unwrap(), ("a".to_owned(), read));
        }
    }

    #[test]
    fn what_can_not_be_used_is_named() {
        let load = |body: Value| LoadRequest::parse(&body).unwrap_err().to_string();
        for (body, word) in [
            (json!({}), "model"),
            (json!([]), "object"),
            (json!({"model": "a", "context": 0}), "context"),
            (json!({"model": "a", "context": 1e30}), "context"),
            (json!({"model": "a", "keep_alive": -2}), "keep_alive"),
            (json!({"model": "a", "pin": "yes"}), "pin"),
            (json!({"model": "a", "restore": 1}), "restore"),
        ] {
            let said = load(body.clone());
            assert!(said.contains(word), "{word} in {said} for {body}");
        }
        assert!(parse_pin(&json!({"model": "a"})).unwrap_err().to_string().contains("pinned"));
        assert!(parse_keep_alive(&json!({"model": "a"})).unwrap_err().to_string().contains("seconds"));
    }
}
