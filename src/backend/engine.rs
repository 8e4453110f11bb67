//! This machine's engine, seen from the client: finding it, starting it, replacing one of another version,
//! and learning how it died. It talks to it by [`Http`] alone; what the engine does is elsewhere.
//!
//! Who may start it is decided by a lock on `start.lock` in the runtime folder. A socket that refuses
//! connections is stale and is removed, but only under that lock.

use super::http::{Http, QUICK, Reach};
use crate::VERSION;
use crate::chat::{GenError, GenErrorKind};
use crate::paths::{Paths, create_private};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, getuid, kill_process, kill_process_group};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

mod death;

/// Bytes of a socket's path that every system takes.
const MAX_SOCKET_PATH: usize = 100;
/// For one look at the engine.
const GLANCE: Duration = Duration::from_secs(3);
/// For an engine to be ready after its start.
const READY: Duration = Duration::from_secs(15);
/// For an engine of another version to finish its requests.
const LEAVE: Duration = Duration::from_secs(30);
/// For it to end once it was told by a signal.
const LEAVE_BY_SIGNAL: Duration = Duration::from_secs(5);
/// For another client that is starting the engine: it may have to replace one first.
const LOCK: Duration = Duration::from_secs(60);
/// Where the engine is, and how it is started.
#[derive(Debug)]
pub(super) struct Engine {
    paths: Paths,
    config_file: Option<PathBuf>,
    /// The program to start; this one when there is none.
    program: Option<PathBuf>,
}

/// Who answers at the engine's socket.
#[derive(Debug)]
pub(super) enum Standing {
    /// An engine of this version.
    Ours,
    /// An engine of another version.
    Other {
        /// Its version.
        version: String,
        /// Its process.
        pid: Option<i32>,
    },
    /// Nobody: there is no socket, or a stale one.
    Nobody,
    /// Somebody who gives no good answer, or none in time.
    Silent(GenError),
}

/// The wall clock, milliseconds since the epoch.
pub(super) fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A model's name as the engine needs it: a path to a file is made absolute, because the engine has
/// another working directory. An id stays as it is.
pub(super) fn absolute_model(model: &str) -> String {
    let path = Path::new(model);
    let is_path = model.starts_with("./")
        || model.starts_with("../")
        || ((model.contains('/') || model.to_ascii_lowercase().ends_with(".gguf")) && path.exists());
    let absolute = if is_path { std::path::absolute(path).ok() } else { None };
    absolute.map_or_else(|| model.to_owned(), |path| path.to_string_lossy().into_owned())
}

fn unreachable(message: impl Into<String>) -> GenError {
    GenError::new(GenErrorKind::Unreachable, message)
}

impl Engine {
    /// An engine in these folders. No IO.
    pub(super) fn new(paths: &Paths, config_file: Option<&Path>, program: Option<&Path>) -> Self {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        Self {
            paths: Paths {
                config: absolute(&paths.config),
                data: absolute(&paths.data),
                cache: absolute(&paths.cache),
                runtime: absolute(&paths.runtime),
            },
            config_file: config_file.map(absolute),
            program: program.map(absolute),
        }
    }

    /// Its socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.paths.engine_socket()
    }

    /// Makes sure that an engine of this version answers; starts it if it has to.
    ///
    /// # Errors
    /// When it can't be started or does not get ready.
    pub(super) async fn ensure(&self, http: &Http) -> Result<(), GenError> {
        match self.standing(http).await? {
            Standing::Ours => Ok(()),
            _ => self.start(http).await,
        }
    }

    /// Who answers at the socket.
    ///
    /// # Errors
    /// When the place of the socket is no good, so that nothing was asked.
    pub(super) async fn standing(&self, http: &Http) -> Result<Standing, GenError> {
        self.check_place()?;
        Ok(match http.get("/engine/status", GLANCE).await {
            Ok(status) => standing_of(&status),
            Err(error) if error.reach == Reach::Nobody => Standing::Nobody,
            Err(error) => Standing::Silent(error.error),
        })
    }

    /// Starts the engine, or waits for another client that is starting it.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub(super) async fn start(&self, http: &Http) -> Result<(), GenError> {
        let folder = &self.paths.runtime;
        create_private(folder).map_err(|error| {
            unreachable(format!(
                "the engine's folder {} can't be made: {error}\nset DUET_RUNTIME_DIR to a folder of your own",
                folder.display()
            ))
        })?;
        self.check_place()?;
        let Some(lock) = self.lock(http).await? else { return Ok(()) };
        match self.settled(http).await? {
            Standing::Ours => return Ok(()),
            Standing::Nobody => {}
            Standing::Other { version, pid } => self.replace(http, &version, pid).await?,
            Standing::Silent(error) => {
                return Err(unreachable(format!(
                    "the engine does not answer: {}\nend it with `tui engine stop`, then try again",
                    error.message.lines().next().unwrap_or_default()
                )));
            }
        }
        // One that was told to end holds its lock until its answers are finished.
        if !self.is_gone_within(http, LEAVE + LEAVE_BY_SIGNAL).await? && !self.is_lock_free() {
            return Err(unreachable(
                "an engine that was told to end still runs\nend it with `tui engine stop`, then try again"
                    .to_owned(),
            ));
        }
        self.remove_stale_socket()?;
        let began_ms = wall_ms();
        let child = self.spawn()?;
        self.wait_until_ready(http, child, began_ms).await?;
        drop(lock);
        Ok(())
    }

    /// Refuses a socket path that is too long, and a folder that belongs to somebody else.
    fn check_place(&self) -> Result<(), GenError> {
        let socket = self.socket();
        let bytes = socket.as_os_str().len();
        if bytes > MAX_SOCKET_PATH {
            return Err(unreachable(format!(
                "the path of the engine's socket has {bytes} bytes, {MAX_SOCKET_PATH} are possible: {}\nset DUET_RUNTIME_DIR to a shorter path",
                socket.display()
            )));
        }
        let folder = &self.paths.runtime;
        let Ok(meta) = std::fs::symlink_metadata(folder) else { return Ok(()) };
        let trouble = if meta.is_symlink() {
            "is a link"
        } else if !meta.is_dir() {
            "is not a folder"
        } else if meta.uid() != getuid().as_raw() {
            "belongs to another user"
        } else {
            return Ok(());
        };
        Err(unreachable(format!(
            "the engine's folder {} {trouble}\nset DUET_RUNTIME_DIR to a folder of your own",
            folder.display()
        )))
    }

    /// Takes the right to start the engine. None when another client has started it meanwhile.
    async fn lock(&self, http: &Http) -> Result<Option<File>, GenError> {
        let path = self.paths.runtime.join("start.lock");
        let trouble = |why: &dyn std::fmt::Display| {
            unreachable(format!("{} can't be locked: {why}\ncheck who may write there", path.display()))
        };
        let nofollow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(nofollow)
            .open(&path)
            .map_err(|error| trouble(&error))?;
        let deadline = Instant::now() + LOCK;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(file)),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(trouble(&error)),
            }
            if matches!(self.standing(http).await?, Standing::Ours) {
                return Ok(None);
            }
            if Instant::now() >= deadline {
                return Err(trouble(&format!("another program has held it for {} s", LOCK.as_secs())));
            }
            sleep(Duration::from_millis(25)).await;
        }
    }

    /// Who answers, once somebody who is silent had time to begin.
    async fn settled(&self, http: &Http) -> Result<Standing, GenError> {
        let deadline = Instant::now() + READY;
        loop {
            let standing = self.standing(http).await?;
            if !matches!(standing, Standing::Silent(_)) || Instant::now() >= deadline {
                return Ok(standing);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether no engine lives. One that was told to end is not heard any more, but finishes its answers.
    fn is_lock_free(&self) -> bool {
        let Ok(file) = File::open(self.paths.runtime.join("engine.lock")) else { return true };
        flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// The worker's process as its supervisor wrote it down.
    fn written_pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.paths.runtime.join("engine.lock")).ok()?;
        Pid::from_raw(text.split_whitespace().nth(1)?.parse().ok()?)
    }

    /// Ends an engine that does not answer: it may be stopped, or hang in a driver.
    async fn kill(&self, http: &Http, error: GenError) -> Result<bool, GenError> {
        let Some(pid) = self.written_pid().filter(|_| !self.is_lock_free()) else { return Err(error) };
        let _ = kill_process(pid, Signal::TERM);
        if self.is_gone_within(http, Duration::from_secs(2)).await? {
            return Ok(true);
        }
        let _ = kill_process(pid, Signal::KILL);
        if self.is_gone_within(http, LEAVE_BY_SIGNAL).await? { Ok(true) } else { Err(error) }
    }

    /// What a running engine says of itself; none when nobody is there.
    pub(super) async fn status(&self, http: &Http) -> Result<Option<Value>, GenError> {
        self.check_place()?;
        match http.get("/engine/status", GLANCE).await {
            Ok(status) => Ok(Some(status)),
            Err(error) if error.reach == Reach::Nobody => Ok(None),
            Err(error) => Err(error.error),
        }
    }

    /// Ends a running engine, whatever its version; `false` when nobody is there.
    pub(super) async fn stop(&self, http: &Http) -> Result<bool, GenError> {
        match self.standing(http).await? {
            Standing::Nobody if self.is_lock_free() => Ok(false),
            Standing::Nobody => self.is_gone_within(http, LEAVE).await,
            Standing::Other { version, pid } => self.replace(http, &version, pid).await.map(|()| true),
            Standing::Ours => {
                let pid = self
                    .status(http)
                    .await?
                    .and_then(|status| i32::try_from(status.get("pid")?.as_i64()?).ok());
                self.replace(http, VERSION, pid).await.map(|()| true)
            }
            Standing::Silent(error) => self.kill(http, error).await,
        }
    }

    /// Asks an engine to finish, and waits until it is gone.
    async fn replace(&self, http: &Http, version: &str, pid: Option<i32>) -> Result<(), GenError> {
        tracing::info!(version, "asking an engine to end");
        // What it answers does not matter: only that it goes.
        let _ = http.post("/engine/shutdown", &json!({}), QUICK, None).await;
        if self.is_gone_within(http, LEAVE).await? {
            return Ok(());
        }
        let process = pid.and_then(Pid::from_raw);
        if let Some(process) = process
            && kill_process_group(process, Signal::TERM).is_err()
        {
            // It may be in a group of its starter.
            let _ = kill_process(process, Signal::TERM);
        }
        if process.is_some() && self.is_gone_within(http, LEAVE_BY_SIGNAL).await? {
            return Ok(());
        }
        let next = pid.map_or_else(|| "end it".to_owned(), |pid| format!("end it with `kill {pid}`"));
        Err(unreachable(format!(
            "the engine (version {version}) is running and does not end\n{next}, then try again"
        )))
    }

    async fn is_gone_within(&self, http: &Http, patience: Duration) -> Result<bool, GenError> {
        let deadline = Instant::now() + patience;
        loop {
            if matches!(self.standing(http).await?, Standing::Nobody) && self.is_lock_free() {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Removes a socket that nobody listens on. Only under the lock, and after a refused connection.
    fn remove_stale_socket(&self) -> Result<(), GenError> {
        let socket = self.socket();
        let Ok(meta) = std::fs::symlink_metadata(&socket) else { return Ok(()) };
        let removed = if meta.file_type().is_socket() {
            std::fs::remove_file(&socket)
        } else {
            Err(std::io::Error::other("it is not a socket"))
        };
        removed.map_err(|error| {
            unreachable(format!("{} is in the way: {error}\nremove it, then try again", socket.display()))
        })
    }

    /// Starts the process; the receiver gets its end.
    fn spawn(&self) -> Result<oneshot::Receiver<Option<ExitStatus>>, GenError> {
        let program = match &self.program {
            Some(program) => Ok(program.clone()),
            None => std::env::current_exe(),
        };
        let failed = |what: &dyn std::fmt::Display, why: &dyn std::fmt::Display| {
            unreachable(format!("the engine can't be started: {what}: {why}\nstart this program again"))
        };
        let program = program.map_err(|error| failed(&"this program's path", &error))?;
        let mut command = Command::new(&program);
        command.args(["engine", "run"]);
        if let Some(file) = &self.config_file {
            command.arg("--config").arg(file);
        }
        command
            .env("GGML_NO_BACKTRACE", "1")
            .env("DUET_CONFIG_DIR", &self.paths.config)
            .env("DUET_DATA_DIR", &self.paths.data)
            .env("DUET_CACHE_DIR", &self.paths.cache)
            .env("DUET_RUNTIME_DIR", &self.paths.runtime)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl+C in the terminal is not for the engine.
            .process_group(0);
        let mut child = command.spawn().map_err(|error| failed(&program.display(), &error))?;
        let (sender, ended) = oneshot::channel();
        let reap = move || {
            // Nobody may be waiting any more; the process is reaped all the same.
            let _ = sender.send(child.wait().ok());
        };
        std::thread::Builder::new()
            .name("engine-reaper".to_owned())
            .spawn(reap)
            .map_err(|error| failed(&"a thread to watch it", &error))?;
        Ok(ended)
    }

    async fn wait_until_ready(
        &self,
        http: &Http,
        mut ended: oneshot::Receiver<Option<ExitStatus>>,
        began_ms: u64,
    ) -> Result<(), GenError> {
        let deadline = Instant::now() + READY;
        let mut pause = Duration::from_millis(5);
        loop {
            if http.get("/health", GLANCE).await.is_ok() {
                break;
            }
            if let Ok(status) = ended.try_recv() {
                // It may have found another one running, and left.
                if matches!(self.standing(http).await?, Standing::Ours) {
                    return Ok(());
                }
                return Err(self.ended_early(status, began_ms).await);
            }
            if Instant::now() >= deadline {
                return Err(unreachable(format!(
                    "the engine was started and is not ready after {} s\nlook at its log in {}, then try again",
                    READY.as_secs(),
                    self.paths.logs().display()
                )));
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
        match self.standing(http).await? {
            Standing::Ours => Ok(()),
            Standing::Other { version, .. } => Err(unreachable(format!(
                "the engine that was started has version {version}, this is {VERSION}: the program was replaced while it ran\nstart it again"
            ))),
            Standing::Silent(error) => Err(error),
            Standing::Nobody => Err(unreachable("the engine ended as soon as it was ready\ntry again")),
        }
    }

    async fn ended_early(&self, status: Option<ExitStatus>, began_ms: u64) -> GenError {
        if let Some(death) = self.death_since(began_ms).await {
            return GenError::new(GenErrorKind::EngineDied, death.message);
        }
        let how = status.map_or_else(|| "in an unknown way".to_owned(), |status| format!("with {status}"));
        unreachable(format!("the engine ended while it started, {how}\nrun `tui engine run` to see why"))
    }
}

fn standing_of(status: &Value) -> Standing {
    let version = status.get("version").and_then(Value::as_str).unwrap_or("unknown");
    if version == VERSION {
        return Standing::Ours;
    }
    let pid = status.get("pid").and_then(Value::as_i64).and_then(|pid| i32::try_from(pid).ok());
    // 0 and 1 and negative numbers mean something else to `kill`.
    Standing::Other { version: super::fault::clean(version), pid: pid.filter(|pid| *pid > 1) }
}
