//! What a server was told, as handed from the process that keeps it to the one that serves.

use crate::config::ServeLimits;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Everything but secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Names it answers to, beside its addresses.
    pub names: Vec<String>,
    /// Web pages that may ask.
    pub origins: Vec<String>,
    /// How much at most.
    pub limits: ServeLimits,
    /// Files of the certificate and the key; none: plain HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// A file with a token.
    pub token_file: Option<PathBuf>,
    /// Whether requests may bring grammars and JSON schemas.
    pub allow_grammar: bool,
    /// Whether requests may pin, unload and otherwise manage models.
    pub allow_manage: bool,
    /// Whether each request is told of on stderr.
    pub tell: bool,
    /// Folders with models, beside the configured ones.
    pub models: Vec<PathBuf>,
    /// Models to load at once: they were resident when the worker before ended.
    pub restore: Vec<String>,
}
