//! Giving the terminal back when nothing else can any more: fatal signals, panics, and stopping.
//!
//! The only unsafe code of the client. While the interface owns the screen this module is *armed*: it knows a
//! descriptor of the terminal, its settings from before the first change, and where fd 1 and 2 pointed.
//! [`restore`] gives all of that back once; it is called on every way out, and is safe inside a signal handler:
//! it only makes system calls, and touches no lock and no heap.

#![expect(unsafe_code, reason = "signal handlers and the system calls that are safe inside them")]

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// Ends everything the interface may have switched on, in this order: a sequence cut off in the middle,
/// synchronized output, paste, mouse, focus, keyboard flags, style, cursor shape, cursor, alternate screen.
pub(super) const RESTORE: &[u8] = b"\x18\x1b[?2026l\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\
\x1b[?1004l\x1b[<1u\x1b[0m\x1b[0 q\x1b[?25h\x1b[?1049l";

const FATAL: [libc::c_int; 5] = [libc::SIGABRT, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE];

/// Whether there is something to give back.
static ARMED: AtomicBool = AtomicBool::new(false);
static TERMINAL: AtomicI32 = AtomicI32::new(-1);
static OUT: AtomicI32 = AtomicI32::new(-1);
static ERR: AtomicI32 = AtomicI32::new(-1);
static SETTINGS: Settings = Settings(UnsafeCell::new(MaybeUninit::uninit()));

struct Settings(UnsafeCell<MaybeUninit<libc::termios>>);

// SAFETY: written by `arm` only while `ARMED` is false, read by `restore` only by the one caller that turned
// `ARMED` from true to false; the atomic's ordering makes the write visible to that reader.
unsafe impl Sync for Settings {}

/// Remembers the terminal's settings and what to give back. Call it before the first change.
///
/// # Errors
/// When the descriptor is no terminal.
pub(super) fn arm(terminal: BorrowedFd<'_>, out: BorrowedFd<'_>, err: BorrowedFd<'_>) -> io::Result<()> {
    if is_armed() {
        return Ok(());
    }
    // SAFETY: not armed, so nobody reads the settings; the pointer is valid for a `termios`.
    if unsafe { libc::tcgetattr(terminal.as_raw_fd(), SETTINGS.0.get().cast()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    TERMINAL.store(terminal.as_raw_fd(), Ordering::Relaxed);
    OUT.store(out.as_raw_fd(), Ordering::Relaxed);
    ERR.store(err.as_raw_fd(), Ordering::Relaxed);
    ARMED.store(true, Ordering::SeqCst);
    Ok(())
}

/// Whether the interface owns the screen.
pub(super) fn is_armed() -> bool {
    ARMED.load(Ordering::SeqCst)
}

/// Gives the terminal back, if that has not been done: the modes, its settings, fd 1 and 2. Says whether
/// it did. Never blocks for long: output that the terminal does not take is thrown away.
pub(super) fn restore() -> bool {
    if !ARMED.swap(false, Ordering::SeqCst) {
        return false;
    }
    let terminal = TERMINAL.load(Ordering::Relaxed);
    let mut rest = RESTORE;
    let mut tries = 0;
    while !rest.is_empty() && tries < 8 {
        // SAFETY: the slice is valid for its length; the descriptor stays open for the program's life.
        let written = unsafe { libc::write(terminal, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(written).ok().and_then(|n| rest.get(n..)) {
            Some(left) => rest = left,
            None => {
                // The terminal takes nothing: what waits for it is of no use any more.
                // SAFETY: only a system call.
                unsafe { libc::tcflush(terminal, libc::TCOFLUSH) };
                tries += 1;
            }
        }
    }
    // SAFETY: system calls; the settings were written before `ARMED` was set and this is their only reader.
    // Unread input is dropped so that half a paste is not run by the shell.
    unsafe {
        libc::tcflush(terminal, libc::TCIFLUSH);
        libc::tcsetattr(terminal, libc::TCSANOW, SETTINGS.0.get().cast());
        libc::dup2(OUT.load(Ordering::Relaxed), libc::STDOUT_FILENO);
        libc::dup2(ERR.load(Ordering::Relaxed), libc::STDERR_FILENO);
    }
    true
}

/// Installs the handlers of fatal signals, once. They restore and then let the signal do what it does.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        provide_stack();
        for signal in FATAL {
            set_action(signal, on_fatal as *const () as libc::sighandler_t);
        }
    });
}

/// Ends the process by this signal, as if it had never been caught.
pub(super) fn die_by(signal: libc::c_int) -> ! {
    restore();
    set_action(signal, libc::SIG_DFL);
    // SAFETY: only system calls; the set is initialised before it is used.
    unsafe {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut());
        libc::raise(signal);
    }
    std::process::exit(128 + signal)
}

/// Stops the process group as Ctrl+Z does in any other program, and returns when it goes on. The rest of the
/// group gets the signal first. A group that no shell looks after is not stopped: nobody could wake it.
pub(super) fn stop_group() {
    let ours = set_action(libc::SIGTSTP, libc::SIG_IGN);
    // SAFETY: only system calls. `raise` is delivered to this thread before it returns.
    unsafe {
        libc::kill(0, libc::SIGTSTP);
        set_action(libc::SIGTSTP, libc::SIG_DFL);
        libc::raise(libc::SIGTSTP);
        if let Some(ours) = ours {
            libc::sigaction(libc::SIGTSTP, &raw const ours, std::ptr::null_mut());
        }
    }
}

extern "C" fn on_fatal(signal: libc::c_int) {
    restore();
    set_action(signal, libc::SIG_DFL);
    // SAFETY: only a system call. Blocked until the handler returns, then it ends the process.
    unsafe { libc::raise(signal) };
}

/// Whether whoever started us wants this signal ignored.
pub(super) fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: a zeroed `sigaction` is a valid one; a null action only asks.
    unsafe {
        let mut now: libc::sigaction = MaybeUninit::zeroed().assume_init();
        libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0 && now.sa_sigaction == libc::SIG_IGN
    }
}

/// Sets what a signal does and returns what it did.
fn set_action(signal: libc::c_int, action: libc::sighandler_t) -> Option<libc::sigaction> {
    // SAFETY: a zeroed `sigaction` is a valid one; both pointers live through the call.
    unsafe {
        let mut new: libc::sigaction = MaybeUninit::zeroed().assume_init();
        let mut old: libc::sigaction = MaybeUninit::zeroed().assume_init();
        new.sa_sigaction = action;
        new.sa_flags = libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigemptyset(&raw mut new.sa_mask);
        (libc::sigaction(signal, &raw const new, &raw mut old) == 0).then_some(old)
    }
}

/// Gives this thread a stack for handlers where it has none (Rust's own threads have one).
fn provide_stack() {
    const SIZE: usize = 64 * 1024;
    // SAFETY: the memory is never freed, so the kernel may use it for the program's life.
    unsafe {
        let mut old: libc::stack_t = MaybeUninit::zeroed().assume_init();
        if libc::sigaltstack(std::ptr::null(), &raw mut old) == 0 && old.ss_flags & libc::SS_DISABLE != 0 {
            let memory: &'static mut [u8] = vec![0_u8; SIZE].leak();
            let stack =
                libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
            libc::sigaltstack(&raw const stack, std::ptr::null_mut());
        }
    }
}

/// Ways to crash, for the tests of this module's promises.
#[cfg(debug_assertions)]
pub(super) mod on_purpose {
    /// Crashes in the way named by `DUET_TEST_CRASH`, or writes to fd 1 and 2 (`stray`). Does nothing without it.
    pub(in crate::runtime) fn by_environment() {
        match std::env::var("DUET_TEST_CRASH").as_deref() {
            #[expect(clippy::panic, reason = "the panic that is asked for")]
            Ok("panic") => panic!("asked to panic \u{1b}[31m"),
            Ok("abort") => std::process::abort(),
            // SAFETY: none; the fault is the point.
            Ok("segv") => unsafe { std::ptr::null_mut::<u32>().write_volatile(1) },
            Ok("overflow") => {
                std::hint::black_box(overflow(1));
            }
            Ok("stray") => {
                use std::io::Write;
                let _ = writeln!(std::io::stdout(), "stray output");
                let _ = writeln!(std::io::stderr(), "stray error");
            }
            _ => {}
        }
    }

    #[expect(unconditional_recursion, reason = "the overflow that is asked for")]
    fn overflow(depth: u64) -> u64 {
        let frame = std::hint::black_box([depth; 64]);
        overflow(depth + 1) + frame[7]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_ends_every_mode_in_the_promised_order() {
        let list = std::str::from_utf8(RESTORE).expect("ascii");
        let mut at = 0;
        for mode in ["?2026l", "?2004l", "?1000l", "?1006l", "?1004l", "<1u", "[0m", "[0 q", "?25h", "?1049l"]
        {
            let found = list
                .get(at..)
                .and_then(|rest| rest.find(mode))
                .unwrap_or_else(|| panic!("{mode} is missing or out of order"));
            at += found + mode.len();
        }
        assert_eq!(at, list.len(), "nothing follows the alternate screen");
    }

    #[test]
    fn what_was_not_taken_is_not_given_back() {
        assert!(!is_armed());
        assert!(!restore());
    }
}
