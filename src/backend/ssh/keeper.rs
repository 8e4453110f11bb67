//! The thread that keeps a tunnel: opens it, watches over it, opens it again.

use super::session::{Heard, Session};
use super::{Far, Order, Phase, Shared, words};
use crate::chat::{GenError, GenErrorKind};
use crate::paths::create_private;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, test_kill_process};
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two signs of life that are asked for.
const PING: Duration = Duration::from_secs(5);
/// For one to come back.
const OVERDUE: Duration = Duration::from_secs(15);
/// For one to come back while somebody waits to use the tunnel.
const PROOF: Duration = Duration::from_secs(3);
/// For a session to begin, the engine there included.
const BEGIN: Duration = Duration::from_secs(40);
/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// A tunnel nobody has wanted for this long is not opened again by itself.
const UNUSED: Duration = Duration::from_secs(600);
/// What the far program and this one agree on.
const HOLD_VERSION: u64 = 1;

/// The thread; it ends, and `ssh` with it, when this is dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    orders: Arc<Orders>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Orders {
    all: Mutex<Vec<Order>>,
    stop: AtomicBool,
}

impl Orders {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn take(&self) -> Vec<Order> {
        std::mem::take(&mut *self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Keeper {
    /// Starts it.
    ///
    /// # Errors
    /// When the system gives no thread or socket.
    pub(super) fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        wake.set_nonblocking(true)?;
        let orders = Arc::new(Orders::default());
        let run = Run { shared, orders: Arc::clone(&orders), woken, session: None, again: None, failures: 0 };
        let thread = std::thread::Builder::new().name("ssh".to_owned()).spawn(move || run.run())?;
        Ok(Self { orders, wake, thread: Some(thread) })
    }

    /// Whether the thread runs.
    pub(super) fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Tells it something.
    pub(super) fn tell(&self, order: Order) {
        self.orders.all.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        // A full pipe wakes it as well.
        let _ = (&self.wake).write(&[0]);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.orders.stop.store(true, Ordering::Release);
        let _ = (&self.wake).write(&[0]);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What is kept.
struct Kept {
    session: Session,
    /// Whether the engine there runs.
    is_served: bool,
    next_ping: Instant,
}

struct Run {
    shared: Arc<Shared>,
    orders: Arc<Orders>,
    woken: UnixStream,
    session: Option<Kept>,
    /// When it is tried again.
    again: Option<Instant>,
    failures: u32,
}

impl Run {
    fn run(mut self) {
        while !self.orders.is_over() {
            self.wake_up();
            // What is ordered while one is obeyed comes next.
            loop {
                let orders = self.orders.take();
                if orders.is_empty() {
                    break;
                }
                orders.into_iter().for_each(|order| self.obey(order));
            }
            match self.session.take() {
                Some(kept) => self.keep(kept),
                None => self.rest(),
            }
        }
        if let Some(kept) = self.session.take() {
            kept.session.end(&self.shared);
        }
    }

    /// Takes note of having been woken.
    fn wake_up(&self) {
        let mut sink = [0; 64];
        while matches!((&self.woken).read(&mut sink), Ok(count) if count > 0) {}
    }

    fn obey(&mut self, order: Order) {
        match (&mut self.session, order) {
            (None, Order::Open | Order::Start | Order::Prove) => self.open(),
            (None, Order::Measure) => {}
            (Some(kept), Order::Open) if !kept.is_served => kept.session.tell("start"),
            (Some(kept), Order::Start) => {
                kept.is_served = false;
                kept.session.tell("start");
            }
            (Some(kept), Order::Open | Order::Prove | Order::Measure) => kept.session.ask(),
        }
    }

    /// Nothing is open: waits for an order, or for the time of the next attempt.
    fn rest(&mut self) {
        let wanted = *self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = wanted.is_some_and(|at| at.elapsed() < UNUSED);
        let pause = self.again.filter(|_| is_wanted).map(|at| at.saturating_duration_since(Instant::now()));
        if pause.is_some_and(|pause| pause.is_zero()) {
            return self.open();
        }
        let pause = pause.and_then(|pause| Timespec::try_from(pause).ok());
        let _ = poll(&mut [PollFd::new(&self.woken, PollFlags::IN)], pause.as_ref());
    }

    /// Opens it; what comes of it is told as a phase.
    fn open(&mut self) {
        self.shared.phase.send_replace(Phase::Opening);
        let began = Instant::now();
        match self.connect() {
            Ok(session) => {
                tracing::info!(
                    backend = self.shared.backend,
                    ms = began.elapsed().as_millis() as u64,
                    "tunnel open"
                );
                self.failures = 0;
                self.again = None;
                self.shared.heard();
                self.session = Some(Kept { session, is_served: true, next_ping: Instant::now() + PING });
                self.shared.phase.send_replace(Phase::Up);
            }
            Err(error) => self.down(error),
        }
    }

    fn down(&mut self, error: GenError) {
        tracing::info!(backend = self.shared.backend, error = error.message, "tunnel down");
        // What a person has to mend is not tried again by itself.
        let may_pass = matches!(error.kind, GenErrorKind::Unreachable | GenErrorKind::Timeout);
        let pause = Duration::from_secs(1 << self.failures.min(5)).min(MAX_PAUSE);
        self.again = may_pass.then(|| Instant::now() + pause);
        self.failures += 1;
        self.shared.phase.send_replace(Phase::Down(error));
    }

    fn connect(&self) -> Result<Session, GenError> {
        let shared = &self.shared;
        let folder = shared.local.parent().unwrap_or(Path::new("/"));
        create_private(folder).map_err(|error| {
            shared.unreachable(
                &format!("its folder {} can't be made: {error}", folder.display()),
                "set DUET_RUNTIME_DIR to a folder of your own",
            )
        })?;
        sweep(folder);
        let mut known = match shared.far {
            Far::Engine => shared.learned.as_ref().and_then(super::Learned::socket),
            Far::Port { .. } | Far::Socket(_) => None,
        };
        // Where the engine there listens is known once it was asked; then it has to be asked only once.
        for _ in 0..3 {
            let (session, told) = self.begin(known.as_deref())?;
            if shared.far == Far::Engine && told != known {
                session.end(shared);
                known = told;
                continue;
            }
            let is_there = std::fs::symlink_metadata(&shared.local).is_ok_and(|m| m.file_type().is_socket());
            if !is_there {
                let why = session.said().lines().rfind(|line| !line.trim().is_empty());
                let why = format!(
                    "nothing was forwarded ({})",
                    super::super::fault::clean(why.unwrap_or("no reason given"))
                );
                session.end(shared);
                return Err(shared.unreachable(&why, "try again"));
            }
            if let (Some(learned), Some(socket)) = (&shared.learned, &told) {
                learned.set_socket(socket);
            }
            return Ok(session);
        }
        Err(shared.unreachable("the engine there is at another place each time", "try again"))
    }

    /// Starts `ssh` and waits until the far side has spoken. For an engine: where it listens.
    fn begin(&self, socket: Option<&str>) -> Result<(Session, Option<String>), GenError> {
        let shared = &self.shared;
        let mut session = Session::start(shared, socket).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => GenError::new(
                GenErrorKind::Refused,
                format!(
                    "{} wants `ssh`, and there is none in the PATH\ninstall OpenSSH's client",
                    shared.backend
                ),
            ),
            _ => shared.unreachable(&format!("`ssh` can't be started: {error}"), "try again"),
        })?;
        if shared.far != Far::Engine {
            session.ask();
        }
        let deadline = Instant::now() + BEGIN;
        let result = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break Err(shared.unreachable(
                    &format!("nothing came of it within {} s", BEGIN.as_secs()),
                    "see whether `ssh` to it runs commands in a terminal",
                ));
            }
            // Orders that come meanwhile wait; the end does not.
            self.wake_up();
            if self.orders.is_over() {
                break Err(shared.unreachable("it was broken off", "try again"));
            }
            let heard = session.listen(Some(&self.woken), left.min(Duration::from_millis(250)));
            if heard.contains(&Heard::Ended) {
                break Err(session.why(shared));
            }
            if let Some(begun) = heard.into_iter().find_map(|heard| self.begun(heard)) {
                break begun;
            }
        };
        match result {
            Ok(told) => Ok((session, told)),
            Err(error) => {
                session.end(shared);
                Err(error)
            }
        }
    }

    /// What the first words of the far side mean; none when they are not the ones that are waited for.
    fn begun(&self, heard: Heard) -> Option<Result<Option<String>, GenError>> {
        let shared = &self.shared;
        match heard {
            Heard::Echo(took) if shared.far != Far::Engine => {
                shared.meter.add(took.as_secs_f64() * 1000.0);
                Some(Ok(None))
            }
            Heard::Event(event) if shared.far == Far::Engine => match News::read(&event)? {
                News::Ready { socket, version, hold } if hold == HOLD_VERSION => {
                    *shared.version.lock().unwrap_or_else(PoisonError::into_inner) = Some(version);
                    Some(Ok(Some(socket)))
                }
                News::Ready { version, .. } => Some(Err(GenError::new(
                    GenErrorKind::Refused,
                    format!(
                        "{} can't be reached over ssh ({}): the `tui` there is of version {version}, this is {}\ninstall the same on both machines",
                        shared.backend,
                        shared.host,
                        crate::VERSION
                    ),
                ))),
                News::Gone(why) | News::Failed(why) => Some(Err(engine_failed(shared, &why))),
            },
            _ => None,
        }
    }

    /// One step with an open tunnel.
    fn keep(&mut self, mut kept: Kept) {
        let now = Instant::now();
        if now >= kept.next_ping {
            kept.session.ask();
            kept.next_ping = now + PING;
        }
        let is_awaited = matches!(*self.shared.phase.borrow(), Phase::Opening) && kept.is_served;
        let limit = if is_awaited { PROOF } else { OVERDUE };
        let mut patience = kept.next_ping.saturating_duration_since(now);
        if let Some(waited) = kept.session.waited() {
            if waited >= limit {
                self.shared.meter.lost();
                kept.session.end(&self.shared);
                let why = format!("nothing came back for {} s", limit.as_secs());
                if is_awaited {
                    // Whoever waits is not told that it was down: another one is on its way.
                    tracing::info!(backend = self.shared.backend, why, "tunnel replaced");
                    self.open();
                } else {
                    self.down(self.shared.unreachable(&why, "it is opened again by itself; try again"));
                }
                return;
            }
            patience = patience.min(limit.saturating_sub(waited));
        }
        let heard = kept.session.listen(Some(&self.woken), patience);
        for heard in heard {
            self.shared.heard();
            match heard {
                Heard::Echo(took) => {
                    self.shared.meter.add(took.as_secs_f64() * 1000.0);
                    let is_awaited = matches!(*self.shared.phase.borrow(), Phase::Opening);
                    if is_awaited && kept.is_served {
                        self.shared.phase.send_replace(Phase::Up);
                    } else {
                        self.shared.phase.send_modify(|_| {});
                    }
                }
                Heard::Event(event) => self.told(&mut kept, &event),
                Heard::Said(line) => {
                    if let Some(words) = words::refused(&line) {
                        self.shared.said(words);
                    }
                }
                Heard::Ended => {
                    let why = kept.session.why(&self.shared);
                    kept.session.end(&self.shared);
                    return self.down(why);
                }
            }
        }
        self.session = Some(kept);
    }

    /// News of the engine there.
    fn told(&self, kept: &mut Kept, event: &Value) {
        match News::read(event) {
            Some(News::Ready { .. }) => {
                kept.is_served = true;
                self.shared.phase.send_replace(Phase::Up);
            }
            Some(News::Gone(why)) => {
                kept.is_served = false;
                self.shared.said(why.clone());
                self.shared.phase.send_replace(Phase::Down(engine_failed(&self.shared, &why)));
            }
            Some(News::Failed(why)) => {
                kept.is_served = false;
                self.shared.phase.send_replace(Phase::Down(engine_failed(&self.shared, &why)));
            }
            None => {}
        }
    }
}

/// What the far program tells.
enum News {
    Ready { socket: String, version: String, hold: u64 },
    Gone(String),
    Failed(String),
}

impl News {
    fn read(event: &Value) -> Option<Self> {
        let text = |name: &str| {
            let text = event.get(name).and_then(Value::as_str).unwrap_or_default();
            super::super::fault::engine_words(text)
        };
        Some(match event.get("event")?.as_str()? {
            "ready" => {
                let socket = event.get("socket")?.as_str()?.to_owned();
                // It becomes a part of what is forwarded, where a colon separates.
                let is_path = socket.starts_with('/') && !socket.contains([':', '\n']) && socket.len() <= 200;
                if !is_path {
                    return Some(Self::Failed("its socket has a path that can't be forwarded".to_owned()));
                }
                Self::Ready { socket, version: text("version"), hold: event.get("hold")?.as_u64()? }
            }
            "gone" => Self::Gone(text("message")),
            "failed" => Self::Failed(text("message")),
            _ => return None,
        })
    }
}

fn engine_failed(shared: &Shared, why: &str) -> GenError {
    let (cause, next) = why.split_once('\n').unwrap_or((why, "try again: it is started by itself"));
    let message = format!("{}: {cause}\n{next}", shared.backend);
    GenError::new(GenErrorKind::EngineDied, message)
}

/// Removes the sockets of programs that are gone.
fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.split_once('-')).and_then(|(pid, _)| pid.parse().ok());
        if let Some(pid) = pid.and_then(Pid::from_raw)
            && test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
