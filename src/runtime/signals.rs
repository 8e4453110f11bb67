//! Signals and the watchdog: two threads that tell the loop, and end the process if the loop doesn't.
//!
//! Both sleep until something happens.

use super::crash;
use super::terminal::Tty;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::iterator::Signals;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long an orderly end may take before the process is ended without one.
const ORDERLY: Duration = Duration::from_millis(1900);
/// The same when there is no terminal any more.
const ORDERLY_WITHOUT_TERMINAL: Duration = Duration::from_millis(1300);

/// What the outside wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// End by this signal.
    End(i32),
    /// Stop, as Ctrl+Z does.
    Stop,
    /// It goes on after a stop: the terminal may look different.
    Continue,
    /// The size of the terminal changed; the newest is asked for when it is needed.
    Resized,
}

/// Set when the interface has ended in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended(Arc<(Mutex<bool>, Condvar)>);

impl Ended {
    /// It has.
    pub(super) fn set(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    fn wait(&self, limit: Duration) -> bool {
        let ended = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (ended, _) = self
            .0
            .1
            .wait_timeout_while(ended, limit, |ended| !*ended)
            .unwrap_or_else(PoisonError::into_inner);
        *ended
    }
}

/// Starts both threads.
///
/// # Errors
/// What the system says.
pub(super) fn start(tty: Tty, ended: Ended) -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(16);
    let mut wanted = vec![SIGTERM, SIGINT, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH];
    if !crash::is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    let mut signals = Signals::new(wanted)?;
    let watchdog = (sender.clone(), ended.clone());
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in &mut signals {
            match signal {
                SIGTSTP => drop(sender.try_send(Signal::Stop)),
                // A full queue holds another one that will be looked at later: that is enough for both.
                SIGWINCH => drop(sender.try_send(Signal::Resized)),
                SIGCONT => drop(sender.try_send(Signal::Continue)),
                fatal => end(fatal, &sender, &ended, ORDERLY),
            }
        }
    })?;
    std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        if wait_for_hang_up(&tty).is_ok() {
            tracing::warn!("the terminal is gone");
            end(SIGHUP, &watchdog.0, &watchdog.1, ORDERLY_WITHOUT_TERMINAL);
        }
    })?;
    Ok(receiver)
}

/// Asks the loop to end; ends the process if it doesn't in time, or if there is no loop any more.
fn end(signal: i32, loop_: &mpsc::Sender<Signal>, ended: &Ended, limit: Duration) {
    if loop_.is_closed() || (loop_.try_send(Signal::End(signal)).is_ok() && !ended.wait(limit)) {
        crash::die_by(signal);
    }
}

/// Returns when the terminal has gone away.
///
/// Linux wakes those who wait for a hang-up only together with those who wait for input, so this waits for
/// both, edge by edge: once per piece of input, never while nothing happens.
#[cfg(target_os = "linux")]
fn wait_for_hang_up(tty: &Tty) -> io::Result<()> {
    use rustix::event::epoll;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&epoll, tty, epoll::EventData::new_u64(0), flags)?;
    let gone = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
    let mut events = Vec::with_capacity(1);
    loop {
        events.clear();
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) if events.iter().any(|event| ({ event.flags }).intersects(gone)) => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns when the terminal has gone away; looks twice a second.
#[cfg(not(target_os = "linux"))]
fn wait_for_hang_up(tty: &Tty) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let half_second = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
    loop {
        let mut fds = [PollFd::new(tty, PollFlags::empty())];
        match poll(&mut fds, Some(&half_second)) {
            Ok(_) if fds[0].revents().contains(PollFlags::NVAL) => {
                return Err(io::ErrorKind::Unsupported.into());
            }
            Ok(_) if fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_in_order_is_waited_for() {
        let ended = Ended::default();
        assert!(!ended.wait(Duration::ZERO));
        let other = ended.clone();
        let thread = std::thread::spawn(move || other.wait(Duration::from_secs(20)));
        ended.set();
        assert!(thread.join().expect("ends"));
    }
}
