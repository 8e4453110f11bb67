//! Backends: the engine of this machine and servers elsewhere, driven by one HTTP client.
//!
//! A [`Backend`] is a cheap handle. [`Backend::generate`] gives a stream of events; dropping the stream
//! closes the connection, which cancels. Nothing is retried and nothing redirected.

mod answer;
mod catalogue;
mod count;
mod decode;
mod dialect;
mod discover;
mod engine;
mod examine;
mod fault;
mod http;
mod in_use;
mod kept;
mod learned;
mod lmstudio;
mod meter;
mod models;
mod ndjson;
mod ollama;
mod openai;
mod pair;
mod residency;
mod secret;
mod sse;
mod ssh;
mod swap;
mod think;
mod tls;
mod wake;
mod watch;

pub use count::{TokenizerFile, find_tokenizer};
pub use dialect::{Identity, Readiness};
pub use discover::{Announced, discover};
pub use examine::{Examination, Step};
pub use meter::Network;
pub use pair::{Candidate, PairLink, client_name};
pub use residency::LoadWish;
pub use secret::{Kept, Secret, keep_key};
pub use wake::Woken;

use crate::chat::{Change, GenError, GenEvent, GenRequest, Listing, Machine, ModelCard};
use crate::config::address::{Address, HardwareAddress, SshHost};
use crate::config::{Abilities, BackendConfig, BackendKind, Config, Continues};
use crate::paths::Paths;
use answer::Patience;
use dialect::Known;
use engine::Engine;
use futures_util::Stream;
use http::Http;
use learned::Learned;
use secret::Key;
use ssh::{Far, Tunnel};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// For a look at what a server says of itself.
const GLANCE: Duration = Duration::from_secs(2);

/// The events of one generation; ends after exactly one `Done` or `Failed`. Dropping it cancels.
pub type GenStream = Pin<Box<dyn Stream<Item = GenEvent> + Send>>;

/// The name of this machine's engine among the backends.
pub const LOCAL: &str = "local";

/// The id of the engine's built-in model, which answers when none is named.
pub const BUILTIN: &str = "builtin";

/// All backends, in order of preference.
#[derive(Clone, Debug)]
pub struct Backends {
    all: Vec<Backend>,
}

impl Backends {
    /// Makes handles for the engine (if this build has one) and every configured server. No IO.
    /// `config_file` is passed on to an engine that has to be started.
    ///
    /// # Errors
    /// One line naming the backend whose URL is no good.
    pub fn new(config: &Config, paths: &Paths, config_file: Option<&Path>) -> Result<Self, String> {
        let mut all = Vec::new();
        if cfg!(feature = "local") {
            all.push(Backend::engine(paths, config_file, None)?);
        }
        for server in &config.backends {
            if server.name.is_empty() || server.name.contains(['/', ' ']) {
                return Err(format!("backend `{}`: a name has no space and no slash", server.name));
            }
            if server.name == LOCAL || all.iter().any(|known| known.name() == server.name) {
                return Err(format!("backend `{}`: the name is taken; choose another", server.name));
            }
            let stall = Some(Duration::from_secs(config.route.stall));
            all.push(Backend::server_in(server, &paths.runtime, Some(&paths.data), stall)?);
        }
        Ok(Self { all })
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Backend] {
        &self.all
    }

    /// The one with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Backend> {
        self.all.iter().find(|b| b.name() == name)
    }
}

/// Why a model is to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadReason {
    /// The person asked for it: what it did to the engine before is forgiven.
    Asked,
    /// It was resident when the engine died: a model that kills it again and again is left alone.
    Restored,
}

/// One backend.
#[derive(Clone, Debug)]
pub struct Backend {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    default_model: Option<String>,
    http: Arc<Http>,
    engine: Option<Arc<Engine>>,
    patience: Patience,
    known: Known,
    wake: Option<HardwareAddress>,
    learned: Option<Learned>,
    marks: Marks,
}

/// What its configuration says of a backend for those who choose one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// It makes noise: avoided under the policy `quiet` and in quiet hours.
    pub is_noisy: bool,
    /// The way to it costs money by the byte: nothing is sent there before Enter.
    pub is_metered: bool,
    /// Files behind the privacy fence may go there.
    pub is_private: bool,
    /// What is sent to it can be read by others on the way.
    pub is_plain: bool,
    /// It is on this machine.
    pub is_here: bool,
}

/// News of the engine process, for those who stay connected.
#[derive(Clone, Debug, PartialEq)]
pub enum EngineEvent {
    /// It is being started.
    Starting,
    /// It answers; these are its models.
    Ready(Listing),
    /// Its models changed state.
    Models(Listing),
    /// It ended: one or two lines with its last words, and the ids of the models that were resident.
    Died {
        /// What happened and what to do.
        message: String,
        /// Ids to load again.
        residents: Vec<String>,
    },
    /// It left in good order, because somebody asked it to: it starts again with the next question.
    Stopped,
    /// It could not be started: one or two lines.
    Failed(String),
}

impl Backend {
    /// This machine's engine, with its socket in `paths`. No IO. `program` is what is started as
    /// `program engine run` when none runs; none: this program itself.
    ///
    /// # Errors
    /// One line, when no HTTP client can be made.
    pub fn engine(paths: &Paths, config_file: Option<&Path>, program: Option<&Path>) -> Result<Self, String> {
        let engine = Engine::new(paths, config_file, program);
        let http = Http::unix(LOCAL, &engine.socket())?;
        let marks = Marks { is_private: true, is_here: true, ..Marks::default() };
        let inner = Inner {
            name: LOCAL.to_owned(),
            default_model: Some(BUILTIN.to_owned()),
            http: Arc::new(http),
            engine: Some(Arc::new(engine)),
            patience: Patience::with_engine(),
            known: Known::new(Some(BackendKind::Duet)),
            wake: None,
            learned: None,
            marks,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A server elsewhere that needs no folder: tunnels are made below the system's folder for temporary files.
    /// No IO.
    ///
    /// # Errors
    /// As [`Self::server_in`].
    pub fn server(config: &BackendConfig) -> Result<Self, String> {
        let runtime = std::env::temp_dir().join(format!("duet-{}", rustix::process::getuid().as_raw()));
        Self::server_in(config, &runtime, None, None)
    }

    /// A server elsewhere. Tunnels have their sockets in `runtime`; what is learnt of it is kept in `data`. No IO: its
    /// key is read when it is used.
    ///
    /// # Errors
    /// One line naming the backend, when its settings don't go together.
    pub fn server_in(
        config: &BackendConfig,
        runtime: &Path,
        data: Option<&Path>,
        stall: Option<Duration>,
    ) -> Result<Self, String> {
        let name = &config.name;
        let wrong = |wrong: crate::config::address::Wrong| format!("backend `{name}`: {wrong}");
        let address = config.check().map_err(wrong)?;
        let pin = config.fingerprint.as_deref().map(str::parse).transpose().map_err(wrong)?;
        let trust = pin.map_or(tls::Trust::System, tls::Trust::Pinned);
        let host = match &address {
            Address::Ssh(host) => Some(host.clone()),
            _ => config.ssh.as_deref().map(str::parse::<SshHost>).transpose().map_err(wrong)?,
        };
        let learned = data.map(|data| Learned::of(data, name));
        let key = Key::of(config);
        let http = match (&address, host) {
            (address, Some(host)) => {
                let far = match address {
                    Address::Http(address) => Far::server(address),
                    Address::Unix(path) => Far::Socket(PathBuf::clone(path)),
                    Address::Ssh(_) => Far::Engine,
                };
                let tunnel = Tunnel::new(name, host, far, runtime, learned.clone())?;
                Http::tunnel(name, address, tunnel, key, trust)?
            }
            (Address::Http(address), None) => Http::direct(name, address, key, trust)?,
            (Address::Unix(path), None) => Http::socket(name, path, key)?,
            (Address::Ssh(_), None) => return Err(format!("backend `{name}`: there is no host")),
        };
        let is_ours = matches!(address, Address::Ssh(_));
        let patience = if is_ours { Patience::with_engine() } else { Patience::default() };
        let patience = Patience { between: stall.unwrap_or(patience.between), ..patience };
        let is_plain = match &address {
            Address::Http(address) => !address.is_tls && !address.is_here() && config.ssh.is_none(),
            Address::Unix(_) | Address::Ssh(_) => false,
        };
        let inner = Inner {
            name: name.clone(),
            default_model: config.model.clone().or_else(|| is_ours.then(|| BUILTIN.to_owned())),
            http: Arc::new(http),
            engine: None,
            patience,
            known: Known::new(config.kind.or_else(|| is_ours.then_some(BackendKind::Duet))),
            wake: config.wake.as_deref().map(str::parse).transpose().map_err(wrong)?,
            learned,
            marks: Marks {
                is_noisy: config.noisy,
                is_metered: config.metered,
                is_private: config.private,
                is_plain,
                is_here: config.ssh.is_none() && address.is_here(),
            },
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Forgets what this program keeps of a backend that leaves the configuration: its key, where it was kept by
    /// [`keep_key`], and what was learnt of it.
    ///
    /// # Errors
    /// One line, when the keyring does not let the key go.
    pub fn forget(config: &BackendConfig, data: &Path) -> Result<(), String> {
        Learned::of(data, &config.name).forget();
        secret::forget_key(config, data)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Whether it is the engine of this machine.
    #[must_use]
    pub fn is_engine(&self) -> bool {
        self.inner.engine.is_some()
    }

    /// The model it answers with when none is named.
    #[must_use]
    pub fn default_model(&self) -> Option<&str> {
        self.inner.default_model.as_deref()
    }

    /// What kind of server it is, as far as that is known without asking.
    #[must_use]
    pub fn kind(&self) -> Option<BackendKind> {
        self.inner.known.identity().map(|identity| identity.kind)
    }

    /// What kind of server it is and whether it can answer now. Asks it unless that is known; starts nothing.
    ///
    /// # Errors
    /// When nobody is there, or a key is wanted.
    pub async fn identify(&self) -> Result<Identity, GenError> {
        Ok(self.inner.known.find_now(&self.inner.http).await?)
    }

    /// What it can be asked for, as far as is known without asking: of a server that was not looked at yet no more
    /// than any can do.
    #[must_use]
    pub fn abilities(&self) -> Abilities {
        let Some(identity) = self.inner.known.identity() else { return BackendKind::Openai.abilities() };
        let able = identity.kind.abilities();
        if identity.kind == BackendKind::LlamaServer && !identity.is_router {
            return Abilities { loads: false, unloads: false, ..able };
        }
        able
    }

    /// Whether it goes on with an answer that was begun elsewhere, or before.
    ///
    /// # Errors
    /// Why not, in a few words. What is not known yet is left to the attempt.
    pub fn can_continue(&self) -> Result<Continues, String> {
        let Some(kind) = self.kind() else { return Ok(Continues::Perhaps) };
        match kind.why_not_continue() {
            None => Ok(kind.abilities().continues),
            Some(why) => Err(format!("{} is {}: {why}", self.name(), kind.words())),
        }
    }

    /// Whether it may be got ready for a question that may come: it prefills without answering, and it is on this machine, or an
    /// engine of ours on a way that is private and costs nothing.
    #[must_use]
    pub fn warms(&self) -> bool {
        let marks = self.marks();
        let is_ours = self.kind() == Some(BackendKind::Duet) && !marks.is_plain && !marks.is_metered;
        self.abilities().warms && (is_ours || marks.is_here)
    }

    /// What its configuration says of it for those who choose.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.inner.marks
    }

    /// Its address, for people.
    #[must_use]
    pub fn place(&self) -> &str {
        self.inner.http.place()
    }

    /// Where its key comes from, for people; none when it has none.
    #[must_use]
    pub fn key_source(&self) -> Option<String> {
        self.inner.http.key_source()
    }

    /// Whether its key is there and private, as far as that is known without asking the keyring.
    ///
    /// # Errors
    /// What is wrong with it, and the next step.
    pub fn check_key(&self) -> Result<(), GenError> {
        self.inner.http.check_key()
    }

    /// What is known of the network to it: round trips as they were measured; none before the first.
    #[must_use]
    pub fn network(&self) -> Option<Network> {
        self.inner.http.network()
    }

    /// Time for a round trip in milliseconds, smoothed; none before the first was measured.
    #[must_use]
    pub fn rtt_ms(&self) -> Option<f64> {
        Some(self.network()?.rtt_ms)
    }

    /// Measures one round trip: the time a connection takes, in milliseconds, nothing is sent on it. Through SSH: only
    /// when the tunnel is open. None when nobody is there.
    pub async fn measure(&self) -> Option<f64> {
        self.inner.http.knock().await
    }

    /// Generates. The engine is started first when it isn't running.
    #[must_use]
    pub fn generate(&self, request: GenRequest) -> GenStream {
        let Inner { http, marks, .. } = &*self.inner;
        let stream = answer::stream(Arc::clone(&self.inner), request);
        if http.is_elsewhere() && !marks.is_metered {
            in_use::measured(stream, Arc::clone(http))
        } else {
            stream
        }
    }

    /// The models it has.
    ///
    /// # Errors
    /// When it can't be reached, refuses, or answers nonsense.
    pub async fn models(&self) -> Result<Vec<ModelCard>, GenError> {
        Ok(self.listing().await?.cards)
    }

    /// The models it has, and how they are kept in memory where it says so.
    ///
    /// # Errors
    /// As [`Self::models`].
    pub async fn listing(&self) -> Result<Listing, GenError> {
        self.ready().await?;
        Ok(catalogue::listing(models::of_dialect(&self.inner).await?))
    }

    /// Loads a model; returns when it is resident.
    ///
    /// # Errors
    /// As [`Self::models`], and when the model can't be loaded.
    pub async fn load(&self, model: &str, why: LoadReason) -> Result<(), GenError> {
        self.ready().await?;
        models::load(&self.inner, model, LoadWish::default(), why, &mut |_| {}).await.map(drop)
    }

    /// Changes how a model is kept: loads it (returns when it is resident), unloads it, pins it, says when it
    /// leaves.
    ///
    /// # Errors
    /// When it can't be reached or refuses; what it says of memory comes along.
    pub async fn change(&self, model: &str, change: Change) -> Result<(), GenError> {
        self.ready().await?;
        models::change(&self.inner, model, change).await
    }

    /// The memory of a running engine's machine and who holds it; none when no engine runs, for servers of others, and
    /// for what was not looked at yet. Starts nothing.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn machine(&self) -> Result<Option<Machine>, GenError> {
        if self.inner.engine.is_none() && self.kind() == Some(BackendKind::Duet) {
            let status = self.inner.http.get("/engine/status", GLANCE).await.map_err(|error| error.error)?;
            return Ok(Some(kept::machine(&status)));
        }
        Ok(self.status().await?.as_ref().map(kept::machine))
    }

    /// Starts the engine when it isn't running; nothing for a server elsewhere.
    ///
    /// # Errors
    /// When it can't be started or does not get ready.
    pub async fn start(&self) -> Result<(), GenError> {
        self.ready().await
    }

    /// What a running engine says of itself (`/engine/status`); none when no engine runs. Starts nothing.
    ///
    /// # Errors
    /// When somebody is there who gives no good answer.
    pub async fn status(&self) -> Result<Option<serde_json::Value>, GenError> {
        match &self.inner.engine {
            Some(engine) => engine.status(&self.inner.http).await,
            None => Ok(None),
        }
    }

    /// Asks the engine to finish what it does and end; returns when it is gone. `false` when none ran.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(&self) -> Result<bool, GenError> {
        match &self.inner.engine {
            Some(engine) => engine.stop(&self.inner.http).await,
            None => Ok(false),
        }
    }

    /// Starts the engine if needed, stays connected (which keeps the engine from lingering out) and tells
    /// what happens to it. Ends after `Died`, `Stopped` or `Failed`; call it again to start the engine anew.
    /// For a server elsewhere: an empty stream.
    #[must_use]
    pub fn watch(&self) -> Pin<Box<dyn Stream<Item = EngineEvent> + Send>> {
        match &self.inner.engine {
            Some(engine) => watch::stream(Arc::clone(&self.inner.http), Arc::clone(engine)),
            None => Box::pin(futures_util::stream::empty()),
        }
    }

    async fn ready(&self) -> Result<(), GenError> {
        match &self.inner.engine {
            Some(engine) => engine.ensure(&self.inner.http).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use std::path::PathBuf;

    fn server(name: &str, url: &str) -> BackendConfig {
        BackendConfig {
            name: name.to_owned(),
            url: url.to_owned(),
            model: Some("large".to_owned()),
            ..BackendConfig::default()
        }
    }

    fn backends(servers: Vec<BackendConfig>) -> Result<Backends, String> {
        let at = PathBuf::from("/tmp/duet-nowhere");
        let paths = Paths { config: at.clone(), data: at.clone(), cache: at.clone(), runtime: at };
        Backends::new(&Config { backends: servers, ..Config::default() }, &paths, None)
    }

    #[test]
    fn the_engine_comes_first() {
        let all = backends(vec![server("mac", "http://mac:8080")]).expect("fine");
        let names: Vec<&str> = all.all().iter().map(Backend::name).collect();
        assert_eq!(names, if cfg!(feature = "local") { vec![LOCAL, "mac"] } else { vec!["mac"] });
        let mac = all.get("mac").expect("it is there");
        assert_eq!((mac.default_model(), mac.is_engine()), (Some("large"), false));
        assert_eq!(all.get("nowhere").map(Backend::name), None);
    }

    #[test]
    fn bad_names_and_addresses_are_one_line() {
        let good = "http://mac:8080";
        for (servers, words) in [
            (vec![server("local", good)], "the name is taken"),
            (vec![server("mac", good), server("mac", good)], "the name is taken"),
            (vec![server("", good)], "no space and no slash"),
            (vec![server("a/b", good)], "no space and no slash"),
            (vec![server("mac", "mac:8080")], "write http://mac:8080"),
        ] {
            let error = backends(servers).expect_err(words);
            assert!(error.contains(words) && error.lines().count() == 1, "{error}");
        }
    }
}
