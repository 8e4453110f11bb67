//! `[serve]`: the engine for other machines.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Settings of `tui serve`. Flags of the same name win.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServeConfig {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Names under which this machine may be called, as `mac.local`: what clients send in `Host`. Its
    /// addresses and `localhost` need not be listed.
    pub names: Vec<String>,
    /// Web pages that may ask, as `https://chat.example`: what browsers send in `Origin`.
    pub origins: Vec<String>,
    /// Whether every client may pin and unload models, change how long they stay and with which context, and
    /// forget sessions, as with `--allow-manage`. Without it they may ask, and load models by their ids.
    pub manage: bool,
    /// Certificates in PEM, the server's own first; together with `tls_key`. None: one made on first use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of `tls_cert` in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// How much at most.
    pub limits: ServeLimits,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7411)),
            names: Vec::new(),
            origins: Vec::new(),
            manage: false,
            tls_cert: None,
            tls_key: None,
            limits: ServeLimits::default(),
        }
    }
}

/// What one client, and all of them together, may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServeLimits {
    /// Connections open at once.
    pub connections: u32,
    /// Of these, from one address.
    pub per_client: u32,
    /// Largest request body, MiB.
    pub body_mib: u32,
    /// Seconds a TLS handshake may take.
    pub handshake: u32,
    /// Seconds until the whole header of a request is there; also how long a connection may idle.
    pub header: u32,
    /// Seconds until the whole body is there.
    pub body: u32,
    /// Seconds a client may take nothing of an answer before it is dropped.
    pub stall: u32,
    /// Requests that may wait while `engine.slots` others are answered.
    pub queue: u32,
    /// Longest answer in tokens where the request names no length.
    pub max_tokens: u32,
    /// Seconds one answer may take.
    pub run: u32,
    /// Seconds an answer goes on whose client is gone, where it asked for a stream that it can come back to.
    pub resume: u32,
    /// Seconds running answers have left after the server was told to end.
    pub stop: u32,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            connections: 64,
            per_client: 8,
            body_mib: 8,
            handshake: 10,
            header: 10,
            body: 30,
            stall: 10,
            queue: 16,
            max_tokens: 4096,
            run: 1800,
            resume: 15,
            stop: 10,
        }
    }
}

/// Largest body that can be allowed: what the engine itself takes.
const MAX_BODY_MIB: u32 = 32;
const MAX_CONNECTIONS: u32 = 4096;
const DAY: u32 = 86_400;

impl ServeConfig {
    /// What the types can't say.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub(super) fn check(&self) -> Result<(), (String, &'static str)> {
        let odd =
            |text: &str| text.is_empty() || text.contains(|c: char| c.is_control() || c.is_whitespace());
        if let Some(name) = self.names.iter().find(|name| odd(name) || name.contains(['/', '@', '*'])) {
            return Err((
                format!("`serve.names` holds {name:?}"),
                "a name is what stands between `://` and the port, as `mac.local`",
            ));
        }
        let is_origin = |text: &str| {
            let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
            host.is_some_and(|host| !odd(host) && !host.contains(['/', '*']))
        };
        if let Some(origin) = self.origins.iter().find(|origin| !is_origin(origin)) {
            return Err((
                format!("`serve.origins` holds {origin:?}"),
                "an origin is scheme, host and port without a path, as `https://chat.example`",
            ));
        }
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return Err((
                "`serve.tls_cert` and `serve.tls_key` need each other".to_owned(),
                "set both, or neither for a key made on first use",
            ));
        }
        let l = &self.limits;
        for (name, value, high) in [
            ("connections", l.connections, MAX_CONNECTIONS),
            ("per_client", l.per_client, MAX_CONNECTIONS),
            ("body_mib", l.body_mib, MAX_BODY_MIB),
            ("handshake", l.handshake, DAY),
            ("header", l.header, DAY),
            ("body", l.body, DAY),
            ("stall", l.stall, DAY),
            ("max_tokens", l.max_tokens, i32::MAX.unsigned_abs()),
            ("run", l.run, DAY),
        ] {
            if value == 0 || value > high {
                return Err((
                    format!("`serve.limits.{name}` must be from 1 to {high}"),
                    "leave it out for the default",
                ));
            }
        }
        if l.queue > MAX_CONNECTIONS || l.stop > DAY || l.resume > DAY {
            return Err((
                "`serve.limits.queue`, `serve.limits.stop` or `serve.limits.resume` is too large".to_owned(),
                "leave them out for the defaults",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |change: fn(&mut ServeConfig)| {
            let mut config = ServeConfig::default();
            change(&mut config);
            config.check().err().map(|(what, _)| what)
        };
        assert_eq!(refused(|_| {}), None);
        assert_eq!(refused(|c| c.names.push("mac.local".to_owned())), None);
        assert_eq!(refused(|c| c.origins.push("http://localhost:3000".to_owned())), None);
        for change in [
            (|c| c.names.push("http://mac".to_owned())) as fn(&mut ServeConfig),
            |c| c.names.push(String::new()),
            |c| c.names.push("*".to_owned()),
            |c| c.origins.push("null".to_owned()),
            |c| c.origins.push("https://a/b".to_owned()),
            |c| c.origins.push("*".to_owned()),
            |c| c.tls_cert = Some("cert.pem".into()),
            |c| c.limits.stall = 0,
            |c| c.limits.body_mib = 33,
            |c| c.limits.queue = u32::MAX,
            |c| c.limits.resume = u32::MAX,
        ] {
            assert!(refused(change).is_some());
        }
    }
}
