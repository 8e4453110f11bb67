//! Staying connected to the engine: what a client learns of it between questions.

use super::EngineEvent;
use super::catalogue::{entries, listing};
use super::engine::{Engine, Standing, wall_ms};
use super::http::Http;
use super::models::list;
use super::sse::{SseDecoder, SseItem};
use crate::chat::{GenError, GenErrorKind, Listing, ModelState};
use futures_util::Stream;
use reqwest::{Method, Response};
use serde_json::Value;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// For the headers of the stream.
const HEADERS: Duration = Duration::from_secs(10);

/// The news of an engine; ends after `Died` or `Failed`.
pub(super) fn stream(
    http: Arc<Http>,
    engine: Arc<Engine>,
) -> Pin<Box<dyn Stream<Item = EngineEvent> + Send>> {
    let watch = Watch { http, engine, queue: VecDeque::new(), stage: Stage::Look, residents: Vec::new() };
    Box::pin(futures_util::stream::unfold(watch, |mut watch| async move {
        let event = watch.next().await?;
        Some((event, watch))
    }))
}

struct Watch {
    http: Arc<Http>,
    engine: Arc<Engine>,
    queue: VecDeque<EngineEvent>,
    stage: Stage,
    /// Ids of the models that were loaded when last heard.
    residents: Vec<String>,
}

enum Stage {
    /// See whether it runs.
    Look,
    /// Start it.
    Start,
    /// Connect to it.
    Connect,
    /// Listen.
    Listen(Box<Listening>),
    /// The last event was queued.
    Over,
}

struct Listening {
    response: Response,
    sse: SseDecoder,
    /// When the connection was made.
    since_ms: u64,
}

impl Watch {
    async fn next(&mut self) -> Option<EngineEvent> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            let stage = match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Over => return None,
                Stage::Look => self.look().await,
                Stage::Start => self.engine.start(&self.http).await.map(|()| Stage::Connect),
                Stage::Connect => self.connect().await,
                Stage::Listen(listening) => Ok(self.listen(listening).await),
            };
            match stage {
                Ok(stage) => self.stage = stage,
                Err(error) => self.queue.push_back(EngineEvent::Failed(error.message)),
            }
        }
    }

    async fn look(&mut self) -> Result<Stage, GenError> {
        if let Standing::Ours = self.engine.standing(&self.http).await? {
            return Ok(Stage::Connect);
        }
        self.queue.push_back(EngineEvent::Starting);
        Ok(Stage::Start)
    }

    /// Opens the stream first and lists the models then, so that no change falls between.
    async fn connect(&mut self) -> Result<Stage, GenError> {
        let since_ms = wall_ms();
        match self.open().await {
            Ok((response, models)) => {
                self.remember(&models);
                self.queue.push_back(EngineEvent::Ready(models));
                Ok(Stage::Listen(Box::new(Listening { response, sse: SseDecoder::default(), since_ms })))
            }
            Err(error) => match self.engine.death_since(since_ms).await {
                Some(death) => Err(GenError::new(GenErrorKind::EngineDied, death.message)),
                None => Err(error),
            },
        }
    }

    async fn open(&self) -> Result<(Response, Listing), GenError> {
        let request = self.http.request(Method::GET, "/models/sse")?;
        let response = self.http.send(request, HEADERS, None).await?;
        Ok((response, listing(list(&self.http).await?)))
    }

    async fn listen(&mut self, mut listening: Box<Listening>) -> Stage {
        let mut items = Vec::new();
        let goes_on = match listening.response.chunk().await {
            Ok(Some(bytes)) => listening.sse.push(&bytes, &mut items).is_ok(),
            Ok(None) | Err(_) => false,
        };
        for item in items {
            if let SseItem::Event { data, .. } = item
                && let Ok(news) = serde_json::from_str::<Value>(&data)
            {
                match news.get("event").and_then(Value::as_str) {
                    Some("models") => {
                        let models = listing(entries(&news).unwrap_or_default());
                        self.remember(&models);
                        self.queue.push_back(EngineEvent::Models(models));
                    }
                    Some("engine_ending") => {
                        self.queue.push_back(EngineEvent::Stopped);
                        return Stage::Over;
                    }
                    _ => {}
                }
            }
        }
        if goes_on {
            return Stage::Listen(listening);
        }
        let residents = std::mem::take(&mut self.residents);
        self.queue.push_back(match self.engine.death_since(listening.since_ms).await {
            Some(death) => EngineEvent::Died {
                message: death.message,
                residents: if death.residents.is_empty() { residents } else { death.residents },
            },
            None => EngineEvent::Died {
                message: "engine ended without a word: it was killed".to_owned(),
                residents,
            },
        });
        Stage::Over
    }

    fn remember(&mut self, models: &Listing) {
        self.residents = models
            .cards
            .iter()
            .filter(|card| card.state == ModelState::Loaded)
            .map(|card| card.id.clone())
            .collect();
    }
}
