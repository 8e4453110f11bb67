//! Looking at what a route answers, whatever its status: what a server is shows in the shape of its answers.

use super::{Http, HttpError, MAX_BODY, read_body};
use reqwest::Method;
use reqwest::header::{CONTENT_ENCODING, SERVER};
use serde_json::Value;
use std::time::Duration;

/// What a route answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::backend) struct Look {
    /// The HTTP status.
    pub(in crate::backend) status: u16,
    /// The `Server` header in lower case; empty when there is none.
    pub(in crate::backend) server: String,
    /// The body; empty when it is compressed, too large or broken.
    pub(in crate::backend) body: Vec<u8>,
}

impl Look {
    /// The body as JSON; null when it is none.
    pub(in crate::backend) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Http {
    /// Gets a route and tells what came, within this time. Has no side effects but those of the route.
    ///
    /// # Errors
    /// When there is no connection, or no answer in time. Any answer is none.
    pub(in crate::backend) async fn look(&self, route: &str, patience: Duration) -> Result<Look, HttpError> {
        let request = self.request(Method::GET, route)?;
        let response = self.answered(request, patience).await?;
        let header =
            |name| response.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let is_plain = header(CONTENT_ENCODING).is_none_or(|coding| coding == "identity");
        let server = header(SERVER).map(|server| server.to_lowercase()).unwrap_or_default();
        let status = response.status().as_u16();
        if !is_plain {
            return Ok(Look { status, server, body: Vec::new() });
        }
        match tokio::time::timeout(patience, read_body(response, MAX_BODY)).await {
            Ok(body) => Ok(Look { status, server, body: body.unwrap_or_default() }),
            Err(_) => Err(self.silent(patience)),
        }
    }
}
