//! Pairing with `tui serve`: looking at its key, and exchanging a one-time code for a token of our own.

use super::http::{Http, HttpError, QUICK, Reach};
use super::secret::{Key, Secret};
use super::ssh::{Far, Tunnel};
use super::tls::Trust;
use crate::chat::{GenError, GenErrorKind};
use crate::config::address::{Address, HttpAddress, Wrong};
use crate::config::fingerprint::Fingerprint;
use serde_json::{Value, json};
use std::path::Path;

/// Names that are tried for the token when one is taken.
const NAMES: u32 = 20;

/// The line `tui serve --pair` prints: `duet://ADDRESS?key=sha256:…&code=…`.
pub struct PairLink {
    /// Where the server is.
    pub address: HttpAddress,
    /// What its key must be.
    pub fingerprint: Fingerprint,
    /// Good for one token.
    pub code: Secret,
}

impl std::fmt::Debug for PairLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PairLink({}, {})", self.address.base, self.fingerprint)
    }
}

impl std::str::FromStr for PairLink {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let bad = |what: &str| Wrong {
            what: what.to_owned(),
            next: "copy the whole line that `tui serve --pair` prints, in quotes".to_owned(),
        };
        let rest =
            text.trim().strip_prefix("duet://").ok_or_else(|| bad("the line does not begin with duet://"))?;
        let (place, query) = rest.split_once('?').ok_or_else(|| bad("the line has no key and no code"))?;
        let address = match format!("https://{place}").parse()? {
            Address::Http(address) => address,
            Address::Unix(_) | Address::Ssh(_) => return Err(bad("the line has no address")),
        };
        let value = |name: &str| {
            query
                .split('&')
                .find_map(|pair| pair.split_once('=').filter(|(known, _)| *known == name))
                .map(|(_, v)| v)
        };
        let fingerprint = value("key").ok_or_else(|| bad("the line has no key"))?.parse()?;
        let code = value("code").map(Secret::new).filter(|code| !code.is_empty());
        Ok(Self {
            address,
            fingerprint,
            code: code.ok_or_else(|| bad("the line has no code; in a shell it needs quotes"))?,
        })
    }
}

/// A server to pair with, reached as its backend would be.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What to call it in errors.
    pub name: String,
    /// Where it is.
    pub address: HttpAddress,
    /// The host it is behind.
    pub ssh: Option<crate::config::address::SshHost>,
}

impl Candidate {
    fn http(&self, trust: Trust, runtime: &Path) -> Result<Http, GenError> {
        let made = match &self.ssh {
            None => Http::direct(&self.name, &self.address, Key::None, trust),
            Some(host) => Tunnel::new(&self.name, host.clone(), Far::server(&self.address), runtime, None)
                .and_then(|tunnel| {
                    Http::tunnel(&self.name, &Address::Http(self.address.clone()), tunnel, Key::None, trust)
                }),
        };
        made.map_err(|message| GenError::new(GenErrorKind::Refused, message))
    }

    /// The fingerprint of the key the server has now. Nothing is sent to it. `runtime` is where a tunnel has its socket.
    ///
    /// # Errors
    /// When it can't be reached, or does not speak TLS.
    pub async fn fingerprint(&self, runtime: &Path) -> Result<Fingerprint, GenError> {
        let http = self.http(Trust::Nobody, runtime)?;
        let result = http.get("/health", QUICK).await;
        match (http.stranger(), result) {
            (Some(fingerprint), _) => Ok(fingerprint),
            (None, Err(error)) => Err(error.error),
            (None, Ok(_)) => Err(GenError::new(
                GenErrorKind::Protocol,
                format!(
                    "{} does not speak TLS, and pairing needs it\nstart it with `tui serve --pair`",
                    http.place()
                ),
            )),
        }
    }

    /// Exchanges the code for a token, at the server that has this key and no other.
    ///
    /// # Errors
    /// When it has another key, or the code is not good (any more).
    pub async fn redeem(
        &self,
        fingerprint: Fingerprint,
        code: &Secret,
        client: &str,
        runtime: &Path,
    ) -> Result<Secret, GenError> {
        let http = self.http(Trust::Pinned(fingerprint), runtime)?;
        for number in 1..=NAMES {
            // A name that is taken does not use the code up.
            let client = if number == 1 { client.to_owned() } else { format!("{client}-{number}") };
            let body = json!({ "code": code.show(), "name": client });
            match http.post("/engine/pair", &body, QUICK, None).await {
                Ok(answer) => {
                    let token = answer.get("token").and_then(Value::as_str).map(Secret::new);
                    return token.filter(|token| !token.is_empty()).ok_or_else(|| {
                        let message = format!("{} gave no token\ntry again", http.place());
                        GenError::new(GenErrorKind::Protocol, message)
                    });
                }
                Err(HttpError { reach: Reach::Answered { status: 409 }, .. }) => {}
                Err(HttpError { reach: Reach::Answered { status: 401 }, .. }) => {
                    let message = format!(
                        "{} does not take the code: it is good once, for ten minutes\nrun `tui serve --pair` there again, and use the new line",
                        http.place()
                    );
                    return Err(GenError::new(GenErrorKind::Auth, message));
                }
                Err(error) => return Err(error.error),
            }
        }
        Err(GenError::new(
            GenErrorKind::Refused,
            format!(
                "{} knows too many clients named {client}\nrevoke some there: `tui serve token list`",
                http.place()
            ),
        ))
    }
}

/// The name of this machine as a client of others: one word of what names of tokens are made of.
#[must_use]
pub fn client_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let first = host.split('.').next().unwrap_or_default();
    let is_good = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let name: String = first.chars().filter(is_good).skip_while(|c| *c == '-').take(30).collect();
    if name.is_empty() { "duet".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn the_line_is_read() {
        let key = Fingerprint([9; 32]);
        let line = format!("duet://192.168.1.5:7411?key={key}&code=abc_-9");
        let link: PairLink = format!("  {line}\n").parse().expect("good");
        assert_eq!((link.address.base.as_str(), link.fingerprint), ("https://192.168.1.5:7411", key));
        assert_eq!(link.code.show(), "abc_-9");
        assert!(!format!("{link:?}").contains("abc_-9"), "the code is not shown");
        let six: PairLink = line.replace("192.168.1.5", "[fe80::1]").parse().expect("good");
        assert_eq!(six.address.host, "fe80::1");
        for (bad, why) in [
            ("https://192.168.1.5:7411", "does not begin"),
            ("duet://192.168.1.5:7411", "no key and no code"),
            ("duet://192.168.1.5:7411?code=x", "no key"),
            (line.split('&').next().expect("a part"), "needs quotes"),
            ("duet://h?key=sha256:x&code=y", "the fingerprint is none"),
            ("duet://me:pw@h?key=sha256:x&code=y", "keys do not belong"),
        ] {
            let error = bad.parse::<PairLink>().expect_err(bad).to_string();
            assert!(error.contains(why) && !error.contains("pw@"), "{bad}: {error}");
        }
    }

    #[test]
    fn this_machine_has_a_name() {
        let name = client_name();
        assert!((1..=30).contains(&name.len()) && name.is_ascii() && !name.starts_with('-'), "{name}");
    }
}
