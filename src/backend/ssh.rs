//! SSH as the way to a server: the system's `ssh`, with the person's configuration, agent, jump hosts and shared
//! connections, forwards a socket or port of the far side to a private socket here. Nothing is opened on the
//! network. For `ssh://` the engine there is started when it doesn't run.
//!
//! One thread keeps one tunnel: it starts `ssh`, asks it for a sign of life every few seconds, opens it again when it
//! broke, and ends it with the [`Tunnel`]. What runs on the far side ends with its input, so that nothing is left
//! behind anywhere when this program is killed.

mod command;
mod keeper;
mod session;
mod words;

use super::learned::Learned;
use super::meter::{Meter, Network};
use crate::chat::{GenError, GenErrorKind};
use crate::config::address::{HttpAddress, SshHost};
use keeper::Keeper;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

pub(super) use command::knock;

/// For a tunnel to open: the connection, and an engine that may have to be started.
const OPEN: Duration = Duration::from_secs(45);
/// For a round trip that somebody waits for.
const ROUND_TRIP: Duration = Duration::from_secs(3);
/// For `ssh` to say why the far end did not answer.
const WORDS: Duration = Duration::from_millis(300);
/// For the far side to say why its engine ended.
const DEATH: Duration = Duration::from_millis(2500);
/// Milliseconds without a sign of life after which a tunnel has to prove itself before it is used.
const DOUBT_MS: u64 = 8_000;

/// What the far end of a tunnel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Far {
    /// The engine of the user there.
    Engine,
    /// A server that listens there.
    Port {
        /// The host as the far side sees it.
        host: String,
        /// Its port.
        port: u16,
    },
    /// A server behind a socket there.
    Socket(PathBuf),
}

impl Far {
    /// The server at this address, as the far side sees it.
    pub(super) fn server(address: &HttpAddress) -> Self {
        Self::Port { host: address.host.clone(), port: address.port }
    }
}

/// A tunnel; opened when it is first needed, ended when dropped.
#[derive(Debug)]
pub(super) struct Tunnel {
    shared: Arc<Shared>,
    keeper: Mutex<Option<Keeper>>,
}

/// What the tunnel and its thread have in common.
#[derive(Debug)]
struct Shared {
    backend: String,
    host: SshHost,
    far: Far,
    /// The socket here.
    local: PathBuf,
    learned: Option<Learned>,
    phase: watch::Sender<Phase>,
    meter: Meter,
    /// When the far side was last heard, milliseconds since the epoch.
    heard_ms: AtomicU64,
    /// When somebody last wanted to use it.
    wanted: Mutex<Option<Instant>>,
    /// What `ssh` or the far side said last.
    words: Mutex<Option<(Instant, String)>>,
    /// What the far engine said when it was asked: its version.
    version: Mutex<Option<String>>,
}

/// How a tunnel is.
#[derive(Clone, Debug)]
enum Phase {
    /// Nobody has wanted it yet.
    Closed,
    /// It is being opened, or has to prove that it is alive.
    Opening,
    /// It is open.
    Up,
    /// It is not: why.
    Down(GenError),
}

/// What the thread is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Open it, or start the engine there again.
    Open,
    /// Start the engine there, which does not answer.
    Start,
    /// See whether it is alive.
    Prove,
    /// Measure a round trip.
    Measure,
}

impl Tunnel {
    /// A tunnel whose local socket lies in `folder`, which is private. No IO.
    ///
    /// # Errors
    /// One line naming the backend, when the path of the socket is too long.
    pub(super) fn new(
        backend: &str,
        host: SshHost,
        far: Far,
        folder: &Path,
        learned: Option<Learned>,
    ) -> Result<Self, String> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let local = folder.join("ssh").join(format!("{}-{number}.sock", std::process::id()));
        let bytes = local.as_os_str().len();
        if bytes > command::MAX_LOCAL {
            return Err(format!(
                "backend `{backend}`: the path of its tunnel has {bytes} bytes, {} are possible: {}; set DUET_RUNTIME_DIR to a shorter path",
                command::MAX_LOCAL,
                local.display()
            ));
        }
        let shared = Shared {
            backend: backend.to_owned(),
            host,
            far,
            local,
            learned,
            phase: watch::Sender::new(Phase::Closed),
            meter: Meter::default(),
            heard_ms: AtomicU64::new(0),
            wanted: Mutex::default(),
            words: Mutex::default(),
            version: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared), keeper: Mutex::default() })
    }

    /// The socket here.
    pub(super) fn socket(&self) -> &Path {
        &self.shared.local
    }

    /// The host.
    pub(super) fn host(&self) -> &SshHost {
        &self.shared.host
    }

    /// What is known of the network to it.
    pub(super) fn network(&self) -> Option<Network> {
        self.shared.meter.read()
    }

    /// The version of the engine there, once it was reached.
    pub(super) fn version(&self) -> Option<String> {
        self.shared.version.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes sure that it is open; opens it, or opens it again, if it has to.
    ///
    /// # Errors
    /// Why it can't be opened, in plain words with the next step.
    pub(super) async fn ready(&self) -> Result<(), GenError> {
        let shared = &self.shared;
        *shared.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let mut phase = shared.phase.subscribe();
        let order = match &*phase.borrow_and_update() {
            Phase::Up if !shared.is_doubtful() => return Ok(()),
            Phase::Up => Some(Order::Prove),
            Phase::Opening => None,
            Phase::Closed | Phase::Down(_) => Some(Order::Open),
        };
        if let Some(order) = order {
            // Before the thread is told, so that its answer is not overwritten.
            shared.phase.send_replace(Phase::Opening);
            self.tell(order)?;
        }
        let settled = phase.wait_for(|phase| !matches!(phase, Phase::Opening | Phase::Closed));
        match tokio::time::timeout(OPEN, settled).await {
            Ok(Ok(phase)) => match &*phase {
                Phase::Down(error) => Err(error.clone()),
                _ => Ok(()),
            },
            Ok(Err(_)) | Err(_) => Err(self.shared.unreachable(
                &format!("no tunnel within {} s", OPEN.as_secs()),
                "see whether the machine is awake, then try again",
            )),
        }
    }

    /// The milliseconds of one round trip through it; none when it is not open, or nothing comes back.
    pub(super) async fn round_trip(&self) -> Option<f64> {
        let shared = &self.shared;
        if !matches!(*shared.phase.borrow(), Phase::Up) {
            return None;
        }
        let before = shared.meter.read().map_or(0, |net| net.samples);
        self.tell(Order::Measure).ok()?;
        let deadline = Instant::now() + ROUND_TRIP;
        let mut phase = shared.phase.subscribe();
        loop {
            if let Some(net) = shared.meter.read().filter(|net| net.samples > before) {
                return Some(net.rtt_ms);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            // Every round trip is told as a phase.
            tokio::time::timeout(left, phase.changed()).await.ok()?.ok()?;
        }
    }

    /// What `ssh` or the far side said of a connection that just failed.
    pub(super) async fn last_words(&self) -> Option<String> {
        let since = Instant::now().checked_sub(ROUND_TRIP)?;
        let mut phase = self.shared.phase.subscribe();
        let deadline = Instant::now() + WORDS;
        loop {
            let words = self.shared.words.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some((_, words)) = words.filter(|(at, _)| *at >= since) {
                return Some(words);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            tokio::time::timeout(left, phase.changed()).await.ok()?.ok()?;
        }
    }

    /// Starts the engine there again when the connection that just failed found nobody. `true` when it runs, and nobody
    /// can have seen the request: it may be sent again.
    pub(super) async fn revive(&self) -> bool {
        let is_engine = self.shared.far == Far::Engine;
        if !is_engine || self.last_words().await.as_deref() != Some(words::NOBODY) {
            return false;
        }
        *self.shared.words.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.shared.phase.send_replace(Phase::Opening);
        self.tell(Order::Start).is_ok() && self.ready().await.is_ok()
    }

    /// Why the engine there ended, when it did: waits as long as its record of it may take.
    pub(super) async fn death(&self) -> Option<GenError> {
        let mut phase = self.shared.phase.subscribe();
        let died =
            |phase: &Phase| matches!(phase, Phase::Down(error) if error.kind == GenErrorKind::EngineDied);
        match tokio::time::timeout(DEATH, phase.wait_for(died)).await.ok()?.ok().as_deref() {
            Some(Phase::Down(error)) => Some(error.clone()),
            _ => None,
        }
    }

    /// Tells the thread, which is started by the first order.
    fn tell(&self, order: Order) -> Result<(), GenError> {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let started = match keeper.take() {
            Some(keeper) if keeper.is_alive() => Ok(keeper),
            _ => Keeper::start(Arc::clone(&self.shared)),
        };
        let started = started.map_err(|error| {
            let error = self.shared.unreachable(&error.to_string(), "try again");
            self.shared.phase.send_replace(Phase::Down(error.clone()));
            error
        })?;
        started.tell(order);
        *keeper = Some(started);
        Ok(())
    }
}

impl Shared {
    /// Whether nothing was heard for so long that the machine may have slept, or the network gone.
    fn is_doubtful(&self) -> bool {
        let heard = self.heard_ms.load(Ordering::Relaxed);
        super::engine::wall_ms().abs_diff(heard) > DOUBT_MS
    }

    fn heard(&self) {
        self.heard_ms.store(super::engine::wall_ms(), Ordering::Relaxed);
    }

    fn said(&self, words: String) {
        *self.words.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), words));
        self.phase.send_modify(|_| {});
    }

    fn unreachable(&self, why: &str, next: &str) -> GenError {
        let message = format!("{} can't be reached over ssh ({}): {why}\n{next}", self.backend, self.host);
        GenError::new(GenErrorKind::Unreachable, message)
    }
}

#[cfg(test)]
mod tests;
