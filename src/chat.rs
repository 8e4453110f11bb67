//! The plain data every layer shares: messages, requests, events, measurements, ids.
//!
//! No IO, no clock, no formatting for people. What a backend says is a [`GenEvent`]; what the store
//! keeps is in [`record`].

pub mod event;
pub mod ids;
pub mod message;
pub mod metrics;
pub mod model;
pub mod record;
pub mod request;
pub mod residency;

pub use event::{Channel, Finish, GenError, GenErrorKind, GenEvent, Note};
pub use ids::{GenKey, LaneId, SessionId, TurnId};
pub use message::{Message, Role};
pub use metrics::{CacheLost, CachePlace, Metrics, ServerTimings, Usage};
pub use model::{ModelCard, ModelState};
pub use request::{GenRequest, Sampling};
pub use residency::{
    Change, Device, DevicePart, Fit, KeepAlive, Listing, Machine, ModelBytes, Placement, Residency, Verdict,
};
