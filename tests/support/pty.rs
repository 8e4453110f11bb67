//! A program under test in a pseudo-terminal whose screen is known (vt100) and which can misbehave: stop
//! reading, crawl, vanish.
//!
//! The terminal's other end is kept open here, so that its settings can be read after the program has ended,
//! and so that ending the program is not a hang-up.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use rustix::process::{Pid, Signal};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// How long anything may take that is expected to happen.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// How the terminal reads what the program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// All of it, at once.
    Fast,
    /// Two kilobytes a second.
    Crawl,
    /// Nothing.
    Stopped,
    /// The terminal is closed.
    Gone,
}

/// Everything the terminal received, and what it shows.
pub struct Received {
    pub raw: Vec<u8>,
    pub parser: vt100::Parser,
    reading: Reading,
}

impl Received {
    pub fn text(&self) -> String {
        self.parser.screen().contents()
    }

    pub fn is_alternate(&self) -> bool {
        self.parser.screen().alternate_screen()
    }
}

/// The folders of one program: `DUET_*_DIR` point into it, and `HOME`.
pub struct Home {
    pub dir: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        for name in ["config", "data", "cache", "run"] {
            std::fs::create_dir(dir.path().join(name)).expect("folder");
        }
        Self { dir }
    }

    /// With this text as `config.toml`.
    pub fn with_config(text: &str) -> Self {
        let home = Self::new();
        std::fs::write(home.path("config/config.toml"), text).expect("configuration");
        home
    }

    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// The environment of a program that lives here: nothing but this.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut all = vec![
            ("PATH".to_owned(), std::env::var("PATH").unwrap_or_default()),
            ("TERM".to_owned(), "xterm-256color".to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ];
        let folders = [
            ("HOME", ""),
            ("DUET_CONFIG_DIR", "config"),
            ("DUET_DATA_DIR", "data"),
            ("DUET_CACHE_DIR", "cache"),
            ("DUET_RUNTIME_DIR", "run"),
        ];
        all.extend(folders.map(|(name, at)| (name.to_owned(), self.path(at).display().to_string())));
        all
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

/// What to run.
pub struct Program {
    argv: Vec<String>,
    environment: Vec<(String, String)>,
    size: (u16, u16),
}

impl Program {
    pub fn new(program: impl AsRef<Path>, home: &Home) -> Self {
        Self {
            argv: vec![program.as_ref().display().to_string()],
            environment: home.environment(),
            size: (80, 24),
        }
    }

    pub fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.argv.extend(args.into_iter().map(str::to_owned));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Columns and rows.
    pub fn size(mut self, cols: u16, rows: u16) -> Self {
        self.size = (cols, rows);
        self
    }

    /// Runs it under a shell: `$0 $@` in the script is the program with its arguments.
    pub fn under_shell(mut self, flags: &str, script: &str) -> Self {
        let mut argv: Vec<String> =
            ["sh", flags, script].into_iter().filter(|part| !part.is_empty()).map(str::to_owned).collect();
        argv.append(&mut self.argv);
        self.argv = argv;
        self
    }

    pub fn start(self) -> Pty {
        Pty::start(&self)
    }
}

/// A running program and its terminal.
pub struct Pty {
    child: Box<dyn Child + Send + Sync>,
    master: Option<Box<dyn MasterPty + Send>>,
    typist: Option<mpsc::Sender<Vec<u8>>>,
    other_end: File,
    received: Arc<(Mutex<Received>, Condvar)>,
    settings: String,
}

impl Pty {
    fn start(program: &Program) -> Self {
        let (cols, rows) = program.size;
        let pair = native_pty_system()
            .openpty(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 })
            .expect("pseudo-terminal");
        let name = pair.master.tty_name().expect("name of the terminal");
        let other_end = {
            use std::os::unix::fs::OpenOptionsExt;
            let no_control = i32::try_from(rustix::fs::OFlags::NOCTTY.bits()).expect("a flag");
            OpenOptions::new().read(true).write(true).custom_flags(no_control).open(name).expect("terminal")
        };
        let settings = settings_of(&other_end);

        let mut command =
            CommandBuilder::from_argv(program.argv.iter().map(std::ffi::OsString::from).collect());
        command.env_clear();
        for (name, value) in &program.environment {
            command.env(name, value);
        }
        let child = pair.slave.spawn_command(command).expect("program starts");
        drop(pair.slave);

        let parser = vt100::Parser::new(cells(rows), cells(cols), 0);
        let received = Received { raw: Vec::new(), parser, reading: Reading::Fast };
        let received = Arc::new((Mutex::new(received), Condvar::new()));
        let reader = pair.master.try_clone_reader().expect("reader");
        std::thread::spawn({
            let received = Arc::clone(&received);
            move || read(reader, &received)
        });
        let mut writer = pair.master.take_writer().expect("writer");
        let (typist, typed) = mpsc::channel::<Vec<u8>>();
        std::thread::spawn(move || {
            for bytes in typed {
                if writer.write_all(&bytes).is_err() {
                    return;
                }
            }
        });
        Self { child, master: Some(pair.master), typist: Some(typist), other_end, received, settings }
    }

    /// What was received so far.
    pub fn received(&self) -> MutexGuard<'_, Received> {
        self.received.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the screen is as told; fails with the screen when that takes too long.
    #[track_caller]
    pub fn wait_for(&self, what: &str, is_so: impl Fn(&Received) -> bool) {
        let received = self.received();
        let (received, _) = self
            .received
            .1
            .wait_timeout_while(received, DEADLINE, |received| !is_so(received))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(
            is_so(&received),
            "waited for {what}; the screen (alternate: {}) is:\n{}\nand the last bytes were: {:?}",
            received.is_alternate(),
            received.text(),
            String::from_utf8_lossy(
                received.raw.get(received.raw.len().saturating_sub(400)..).unwrap_or(&[])
            ),
        );
    }

    /// Waits for a text on the screen.
    #[track_caller]
    pub fn wait_for_text(&self, text: &str) {
        self.wait_for(&format!("{text:?}"), |received| received.text().contains(text));
    }

    /// How many bytes come during this time.
    pub fn bytes_during(&self, time: Duration) -> usize {
        let received = self.received();
        let before = received.raw.len();
        let (received, _) = self
            .received
            .1
            .wait_timeout_while(received, time, |_| true)
            .unwrap_or_else(PoisonError::into_inner);
        received.raw.len() - before
    }

    /// Types. Does not wait for the program to read it.
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        let typist = self.typist.as_ref().expect("terminal is there");
        typist.send(bytes.as_ref().to_vec()).expect("terminal takes keys");
    }

    /// Pastes, bracketed.
    pub fn paste(&self, text: &str) {
        self.send(format!("\x1b[200~{text}\x1b[201~"));
    }

    /// Changes the size; 0 is allowed (and shown as 1).
    pub fn resize(&self, cols: u16, rows: u16) {
        self.received().parser.set_size(cells(rows), cells(cols));
        let size = PtySize { rows, cols, pixel_width: 0, pixel_height: 0 };
        self.master.as_ref().expect("terminal is there").resize(size).expect("resized");
    }

    /// Changes how the terminal reads. `Gone` closes it.
    pub fn set_reading(&mut self, reading: Reading) {
        self.received().reading = reading;
        self.received.1.notify_all();
        if reading == Reading::Gone {
            self.typist = None;
            self.master = None;
        }
        // Wakes a reader that waits for the program. NUL shows nothing.
        let _ = self.other_end.write_all(b"\0");
    }

    /// The process that owns the terminal now.
    pub fn foreground(&self) -> Pid {
        let master = self.master.as_ref().expect("terminal is there");
        Pid::from_raw(master.process_group_leader().expect("a foreground group")).expect("a process")
    }

    /// Sends a signal to the process that was started.
    pub fn kill(&self, signal: Signal) {
        let id = self.child.process_id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        rustix::process::kill_process(id.expect("a process"), signal).expect("signalled");
    }

    /// The id of the process that was started.
    pub fn id(&self) -> u32 {
        self.child.process_id().expect("a process")
    }

    /// Waits for the end: the exit code, or what the signal is called.
    #[track_caller]
    pub fn wait_for_end(&mut self, limit: Duration) -> Result<u32, String> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("asked") {
                // What it wrote last may still be on its way.
                self.bytes_during(Duration::from_millis(100));
                return status
                    .signal()
                    .map_or_else(|| Ok(status.exit_code()), |signal| Err(signal.to_owned()));
            }
            assert!(
                start.elapsed() < limit,
                "the program goes on after {limit:?}; its screen is:\n{}",
                self.received().text()
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Fails unless the terminal is as the program found it: its settings and every mode.
    #[track_caller]
    pub fn assert_restored(&self) {
        assert_eq!(settings_of(&self.other_end), self.settings, "the terminal's settings");
        let (modes, text) = (self.modes(), self.received().text());
        assert!(modes.is_empty(), "still on: {modes:?}\n{text}");
    }

    /// Whether the terminal's settings are not those the program found.
    pub fn is_raw(&self) -> bool {
        settings_of(&self.other_end) != self.settings
    }

    /// Modes that are on and were off at the start.
    pub fn modes(&self) -> Vec<String> {
        let received = self.received();
        let raw = String::from_utf8_lossy(&received.raw).into_owned();
        let screen = received.parser.screen();
        let mut on = Vec::new();
        for mode in [2026, 2004, 1000, 1002, 1003, 1006, 1004, 1049] {
            let (set, reset) = (format!("\x1b[?{mode}h"), format!("\x1b[?{mode}l"));
            if raw.rfind(&set) > raw.rfind(&reset) {
                on.push(mode.to_string());
            }
        }
        if raw.matches("\x1b[>1u").count() > raw.matches("\x1b[<1u").count() {
            on.push("keyboard flags".to_owned());
        }
        if screen.hide_cursor() {
            on.push("hidden cursor".to_owned());
        }
        if screen.bold() || screen.inverse() || screen.fgcolor() != vt100::Color::Default {
            on.push("style".to_owned());
        }
        on
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        self.set_reading(Reading::Gone);
    }
}

fn cells(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap_or(NonZeroU16::MIN)
}

fn settings_of(terminal: &File) -> String {
    let t = rustix::termios::tcgetattr(terminal).expect("settings");
    format!(
        "{:?} {:?} {:?} {:?} {:?}",
        t.input_modes, t.output_modes, t.control_modes, t.local_modes, t.special_codes
    )
}

fn read(mut reader: Box<dyn Read + Send>, received: &(Mutex<Received>, Condvar)) {
    let mut buffer = [0; 4096];
    loop {
        let reading = {
            let state = received.0.lock().unwrap_or_else(PoisonError::into_inner);
            let waiting = |state: &mut Received| state.reading == Reading::Stopped;
            let mut state = received.1.wait_while(state, waiting).unwrap_or_else(PoisonError::into_inner);
            if state.reading == Reading::Crawl {
                let tenth = Duration::from_millis(100);
                let crawls = |state: &mut Received| state.reading == Reading::Crawl;
                state = received
                    .1
                    .wait_timeout_while(state, tenth, crawls)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            state.reading
        };
        let room = match reading {
            Reading::Gone => return,
            Reading::Crawl => 200,
            Reading::Fast | Reading::Stopped => buffer.len(),
        };
        match reader.read(&mut buffer[..room]) {
            Ok(0) | Err(_) => return,
            Ok(read) => {
                let mut state = received.0.lock().unwrap_or_else(PoisonError::into_inner);
                let bytes: Vec<u8> = buffer[..read].iter().copied().filter(|byte| *byte != 0).collect();
                state.raw.extend_from_slice(&bytes);
                state.parser.process(&bytes);
                received.1.notify_all();
            }
        }
    }
}
