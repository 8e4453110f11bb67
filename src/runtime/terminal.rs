//! The terminal: taken, left, taken again. Every way out goes through [`crash::restore`].
//!
//! Our own descriptor of it is opened anew, so that its flags are not those of the shell's. While the
//! interface owns the screen, fd 1 and 2 point into a log file: whatever a library prints lands there.

use super::crash;
use crate::error::{AppError, Exit};
use crate::paths;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::termios::{OptionalActions, isatty};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Alternate screen, keyboard flags that tell Shift+Enter from Enter (a terminal that doesn't know them
/// ignores them), bracketed paste, no cursor until a frame shows it.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[>1u\x1b[?2004h\x1b[?25l";
/// The same for the Linux console, where old kernels print the keyboard flags as text.
const ENTER_CONSOLE: &[u8] = b"\x1b[?1049h\x1b[?2004h\x1b[?25l";

/// Switches the same on where it may still be on: no cursor is saved and no flags are pushed a second time.
const ENTER_AGAIN: &[u8] = b"\x1b[?1047h\x1b[=1;1u\x1b[?2004h\x1b[?25l";
const ENTER_AGAIN_CONSOLE: &[u8] = b"\x1b[?1047h\x1b[?2004h\x1b[?25l";

/// How long the terminal may take to accept the first bytes.
const PATIENCE: Duration = Duration::from_millis(500);
/// What a terminal is taken for that says it has no size.
const UNKNOWN_SIZE: (u16, u16) = (80, 24);
/// More columns and rows than this are not drawn.
const MAX_SIZE: (u16, u16) = (1024, 512);
/// The file for stray output starts anew beyond this many bytes.
const STRAY_CAP: u64 = 1024 * 1024;

/// A descriptor of the terminal that never blocks (unless it could not be opened anew).
#[derive(Clone, Debug)]
pub(super) struct Tty(Arc<OwnedFd>);

impl Tty {
    /// Opens the terminal: the controlling one, else that of stdin or stdout.
    ///
    /// # Errors
    /// When none of them is a terminal.
    pub(super) fn open() -> io::Result<Self> {
        let mut names = vec![CString::from(c"/dev/tty")];
        for fd in [rustix::stdio::stdin(), rustix::stdio::stdout()] {
            names.extend(rustix::termios::ttyname(fd, Vec::new()));
        }
        if cfg!(target_os = "macos") {
            // Waiting does not work on macOS's /dev/tty, only on the device itself.
            names.rotate_left(1);
        }
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        for name in names {
            if let Ok(fd) = rustix::fs::open(name, flags, Mode::empty())
                && isatty(&fd)
            {
                return Ok(Self(Arc::new(above_stdio(fd)?)));
            }
        }
        let stdout = rustix::stdio::stdout();
        if isatty(stdout) {
            return Ok(Self(Arc::new(rustix::io::fcntl_dupfd_cloexec(stdout, 3)?)));
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "no terminal"))
    }

    /// Columns and rows, within what can be drawn.
    pub(super) fn size(&self) -> (u16, u16) {
        let (cols, rows) =
            rustix::termios::tcgetwinsize(&*self.0).map_or((0, 0), |size| (size.ws_col, size.ws_row));
        if cols == 0 || rows == 0 { UNKNOWN_SIZE } else { (cols.min(MAX_SIZE.0), rows.min(MAX_SIZE.1)) }
    }

    /// Whether this process is in the foreground. One that does not belong to the terminal counts as that.
    pub(super) fn is_ours(&self) -> bool {
        rustix::termios::tcgetpgrp(&*self.0).map_or(true, |group| group == rustix::process::getpgrp())
    }

    /// Writes all of it. `may_go_on` is asked before every piece, and ten times a second while the terminal
    /// takes nothing.
    ///
    /// # Errors
    /// When the terminal is gone, or `TimedOut` when `may_go_on` says no.
    pub(super) fn write_all(&self, mut bytes: &[u8], may_go_on: impl Fn() -> bool) -> io::Result<()> {
        while !bytes.is_empty() {
            if !may_go_on() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match rustix::io::write(&*self.0, bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    let mut fds = [PollFd::new(&*self.0, PollFlags::OUT)];
                    let tenth = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                    let _ = rustix::event::poll(&mut fds, Some(&tenth));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl AsFd for Tty {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A descriptor above 2: where 0, 1 or 2 was closed at the start, `open` would hand out that number.
fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

/// The guard: as long as it has entered, the screen is ours; dropping it gives the terminal back.
#[derive(Debug)]
pub(super) struct Terminal {
    tty: Tty,
    out: OwnedFd,
    err: OwnedFd,
    stray: Option<File>,
}

impl Terminal {
    /// Opens the terminal and changes nothing. Stray output will go to a file in `logs`.
    ///
    /// # Errors
    /// When there is no terminal.
    pub(super) fn open(logs: &Path) -> Result<Self, AppError> {
        let open = || -> io::Result<Self> {
            let tty = Tty::open()?;
            let keep = |fd| rustix::io::fcntl_dupfd_cloexec(fd, 3);
            // A closed fd 1 or 2 is remembered as nowhere, so that no later file gets its number by accident.
            let nowhere = || OpenOptions::new().read(true).write(true).open("/dev/null").map(OwnedFd::from);
            let out = keep(rustix::stdio::stdout()).map_or_else(|_| nowhere().and_then(above_stdio), Ok)?;
            let err = keep(rustix::stdio::stderr()).map_or_else(|_| nowhere().and_then(above_stdio), Ok)?;
            Ok(Self { tty, out, err, stray: stray_file(logs).or_else(|| File::create("/dev/null").ok()) })
        };
        open().map_err(|error| {
            AppError::new(Exit::Usage, format!("the interface needs a terminal: {error}"))
                .hint("ask one question instead: tui -p \"...\"")
        })
    }

    /// Our descriptor.
    pub(super) fn tty(&self) -> &Tty {
        &self.tty
    }

    /// Takes the screen. Does nothing when it is taken.
    ///
    /// # Errors
    /// When the terminal refuses; then nothing has changed.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        if crash::is_armed() {
            return Ok(());
        }
        crash::arm(self.tty.as_fd(), self.out.as_fd(), self.err.as_fd())?;
        let taken = self.make_raw().and_then(|()| {
            let enter = if is_console() { ENTER_CONSOLE } else { ENTER };
            let start = std::time::Instant::now();
            self.tty.write_all(enter, || start.elapsed() < PATIENCE)
        });
        if taken.is_err() {
            self.leave();
        } else if let Some(stray) = &self.stray {
            let _ = rustix::stdio::dup2_stdout(stray);
            let _ = rustix::stdio::dup2_stderr(stray);
        }
        taken
    }

    /// Gives the terminal back. Does nothing when that was done.
    pub(super) fn leave(&self) {
        crash::restore();
    }

    /// Keys one by one, not echoed, without signals.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(super) fn make_raw(&self) -> io::Result<()> {
        let mut settings = rustix::termios::tcgetattr(&self.tty)?;
        settings.make_raw();
        rustix::termios::tcsetattr(&self.tty, OptionalActions::Now, &settings)?;
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What to send to a terminal that was ours before the process was stopped and continued.
pub(super) fn enter_again() -> Vec<u8> {
    if is_console() { ENTER_AGAIN_CONSOLE } else { ENTER_AGAIN }.to_vec()
}

fn is_console() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "linux")
}

/// The file for what libraries print, private to the user.
fn stray_file(logs: &Path) -> Option<File> {
    paths::create_private(logs).ok()?;
    let path = logs.join("stray.log");
    let is_full = std::fs::metadata(&path).is_ok_and(|meta| meta.len() > STRAY_CAP);
    if is_full {
        let _ = std::fs::remove_file(&path);
    }
    let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(nofollow).open(path).ok()
}
