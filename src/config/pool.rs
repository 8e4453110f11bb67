//! `[pool]`: one model over several machines.

use serde::{Deserialize, Serialize};
use std::net::SocketAddrV4;

/// Machines one model may be spread over.
const MAX_SERVERS: usize = 16;

/// One model over several machines, by llama.cpp's RPC backend. Off unless servers are named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// The model: its id, or the path of its file. All others stay on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Addresses of this machine, as `127.0.0.1:50052`, where `tui engine lend` or the end of an SSH tunnel to it listens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
}

impl PoolConfig {
    /// Whether a model is to be spread.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.servers.is_empty()
    }

    /// Checks that every server is on this machine, and that a model is named.
    ///
    /// # Errors
    /// What is wrong, and the next step.
    pub fn check(&self) -> Result<(), (String, String)> {
        if self.servers.len() > MAX_SERVERS {
            return Err((
                format!("`pool.servers` can name {MAX_SERVERS} at most"),
                "leave some out".to_owned(),
            ));
        }
        for (index, server) in self.servers.iter().enumerate() {
            local_address(server).map_err(|(what, next)| (format!("`pool.servers`: {what}"), next))?;
            if self.servers.iter().take(index).any(|before| before == server) {
                return Err((format!("`pool.servers` names {server} twice"), "leave one out".to_owned()));
            }
        }
        if !self.servers.is_empty() && self.model.as_ref().is_none_or(|model| model.trim().is_empty()) {
            return Err((
                "`pool.servers` is set, and no `pool.model` says which model goes there".to_owned(),
                "name one model: the others stay on this machine".to_owned(),
            ));
        }
        Ok(())
    }
}

/// An address of this machine itself. The protocol of ggml's RPC backend has no protection at all, so it never
/// leaves the machine but through a tunnel.
///
/// # Errors
/// What is wrong with it, and the next step.
pub fn local_address(text: &str) -> Result<SocketAddrV4, (String, String)> {
    match text.parse::<SocketAddrV4>() {
        Ok(address) if address.ip().is_loopback() && address.port() != 0 => Ok(address),
        Ok(address) if address.ip().is_loopback() => {
            Err((format!("{text} has no port"), "write it as 127.0.0.1:50052".to_owned()))
        }
        _ => {
            let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
            Err((
                format!("{text:?} is no address of this machine, and ggml's protocol has no protection"),
                format!("make a tunnel (ssh -N -L 50052:127.0.0.1:50052 {host}) and name 127.0.0.1:50052"),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn only_this_machine_is_reached() {
        for good in ["127.0.0.1:50052", "127.0.0.2:1"] {
            assert!(local_address(good).is_ok(), "{good}");
        }
        for bad in [
            "192.168.1.5:50052",
            "0.0.0.0:50052",
            "localhost:50052",
            "[::1]:50052",
            "127.0.0.1",
            "127.0.0.1:0",
            "127.0.0.1.evil.example:50052",
            "127.1:50052",
            "",
        ] {
            assert!(local_address(bad).is_err(), "{bad}");
        }
        let (_, next) = local_address("mac.local:50052").expect_err("elsewhere");
        assert_eq!(
            next,
            "make a tunnel (ssh -N -L 50052:127.0.0.1:50052 mac.local) and name 127.0.0.1:50052"
        );
    }

    #[test]
    fn a_pool_needs_a_model_and_servers_of_its_own() {
        let pool = |model: Option<&str>, servers: &[&str]| PoolConfig {
            model: model.map(str::to_owned),
            servers: servers.iter().map(|s| (*s).to_owned()).collect(),
        };
        let one = "127.0.0.1:50052";
        assert_eq!(pool(None, &[]).check(), Ok(()));
        assert_eq!(pool(Some("m"), &[one, "127.0.0.1:50053"]).check(), Ok(()));
        for (pool, words) in [
            (pool(None, &[one]), "no `pool.model`"),
            (pool(Some(" "), &[one]), "no `pool.model`"),
            (pool(Some("m"), &[one, one]), "twice"),
            (pool(Some("m"), &["10.0.0.1:1"]), "no address of this machine"),
            (pool(Some("m"), &[one; 17]), "16 at most"),
        ] {
            let (what, _) = pool.check().expect_err(words);
            assert!(what.contains(words), "{what}");
        }
    }
}
