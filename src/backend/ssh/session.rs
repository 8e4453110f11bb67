//! One run of `ssh`: what it says, whether it lives, and how it ends.

use super::{Shared, command};
use crate::chat::GenError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use std::time::{Duration, Instant};

/// Bytes of a line that are kept.
const MAX_LINE: usize = 64 * 1024;
/// Bytes of stderr that are kept.
const MAX_SAID: usize = 4096;
/// For `ssh` to end once it was told to.
const LEAVE: Duration = Duration::from_millis(500);

/// What came from the other side.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    /// What it was sent last came back after this long.
    Echo(Duration),
    /// The far program told something.
    Event(Value),
    /// A line of stderr.
    Said(String),
    /// It ended.
    Ended,
}

/// A running `ssh`.
pub(super) struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: ChildStderr,
    out: Lines,
    err: Lines,
    /// The end of what stderr said.
    said: String,
    spec: Option<OsString>,
    /// What was sent and has not come back.
    asked: Option<(u64, Instant)>,
    count: u64,
}

impl Session {
    /// Starts `ssh`; `socket` is where the engine there listens, where that is known.
    ///
    /// # Errors
    /// When there is no `ssh`.
    pub(super) fn start(shared: &Shared, socket: Option<&str>) -> std::io::Result<Self> {
        let spec = command::forward(&shared.far, &shared.local, socket);
        let mut child = command::session(&shared.host, &shared.far, spec.as_ref()).spawn()?;
        let lost = || std::io::Error::other("no pipe");
        Ok(Self {
            stdin: Some(child.stdin.take().ok_or_else(lost)?),
            stdout: child.stdout.take().ok_or_else(lost)?,
            stderr: child.stderr.take().ok_or_else(lost)?,
            child,
            out: Lines::default(),
            err: Lines::default(),
            said: String::new(),
            spec,
            asked: None,
            count: 0,
        })
    }

    /// Sends something that is to come back. What was sent before and did not come back yet stays waited for.
    pub(super) fn ask(&mut self) {
        self.count += 1;
        let number = self.count;
        if self.asked.is_none() {
            self.asked = Some((number, Instant::now()));
        }
        self.tell(&format!("ping {number}"));
    }

    /// How long something that was sent has been waited for.
    pub(super) fn waited(&self) -> Option<Duration> {
        self.asked.map(|(_, since)| since.elapsed())
    }

    /// Sends a line. Where that is no longer possible the end is heard soon.
    pub(super) fn tell(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(format!("{line}\n").as_bytes());
        }
    }

    /// What stderr said, at its end.
    pub(super) fn said(&self) -> &str {
        &self.said
    }

    /// Waits for something to come, for `wake` to be written to, or for the time to pass.
    pub(super) fn listen(&mut self, wake: Option<&UnixStream>, patience: Duration) -> Vec<Heard> {
        let mut heard = Vec::new();
        let (has_out, has_err) = {
            let mut fds =
                vec![PollFd::new(&self.stdout, PollFlags::IN), PollFd::new(&self.stderr, PollFlags::IN)];
            fds.extend(wake.map(|wake| PollFd::new(wake, PollFlags::IN)));
            if poll(&mut fds, Timespec::try_from(patience).ok().as_ref()).is_err() {
                return heard;
            }
            let came = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
            (came(0), came(1))
        };
        // First, so that the reason of an end is known when the end is.
        if has_err {
            let mut bytes = [0; 4096];
            let count = self.stderr.read(&mut bytes).unwrap_or(0);
            for line in self.err.push(bytes.get(..count).unwrap_or_default()) {
                self.said.push_str(&line);
                self.said.push('\n');
                let extra = self.said.len().saturating_sub(MAX_SAID);
                let cut = (extra..self.said.len()).find(|at| self.said.is_char_boundary(*at)).unwrap_or(0);
                self.said.drain(..cut);
                heard.push(Heard::Said(line));
            }
        }
        if has_out {
            let mut bytes = [0; 4096];
            match self.stdout.read(&mut bytes) {
                Ok(0) | Err(_) => heard.push(Heard::Ended),
                Ok(count) => {
                    let lines = self.out.push(bytes.get(..count).unwrap_or_default());
                    heard.extend(lines.iter().filter_map(|line| self.understood(line)));
                }
            }
        }
        heard
    }

    fn understood(&mut self, line: &str) -> Option<Heard> {
        if let Some(number) = line.trim().strip_prefix("ping ").and_then(|number| number.parse::<u64>().ok())
        {
            let (_, since) = self.asked.take_if(|(asked, _)| *asked <= number)?;
            return Some(Heard::Echo(since.elapsed()));
        }
        // Shells say this and that when they start.
        serde_json::from_str(line).ok().filter(Value::is_object).map(Heard::Event)
    }

    /// Why it ended, once it has.
    pub(super) fn why(&mut self, shared: &Shared) -> GenError {
        // The last lines of stderr may come after the end of stdout.
        let deadline = Instant::now() + LEAVE;
        let mut code = None;
        while Instant::now() < deadline {
            code = self.child.try_wait().ok().flatten();
            let is_over = code.is_some();
            let heard = self.listen(None, Duration::from_millis(if is_over { 0 } else { 20 }));
            if is_over && !heard.iter().any(|heard| matches!(heard, Heard::Said(_))) {
                break;
            }
        }
        super::words::ended(shared, &self.said, code.and_then(|status| status.code()))
    }

    /// Ends it, with all it has started here.
    pub(super) fn end(mut self, shared: &Shared) {
        // What runs on the far side ends with its input.
        self.stdin = None;
        let group = Pid::from_child(&self.child);
        let is_over = |child: &mut Child| matches!(child.try_wait(), Ok(Some(_)));
        if !is_over(&mut self.child) {
            let _ = kill_process_group(group, Signal::TERM);
            let deadline = Instant::now() + LEAVE;
            while !is_over(&mut self.child) && Instant::now() < deadline {
                let mut fds = [PollFd::new(&self.stdout, PollFlags::empty())];
                let _ = poll(&mut fds, Timespec::try_from(Duration::from_millis(10)).ok().as_ref());
            }
            if !is_over(&mut self.child) {
                let _ = kill_process_group(group, Signal::KILL);
            }
        }
        let _ = self.child.wait();
        // A shared connection keeps what was forwarded through it.
        if let Some(spec) = &self.spec
            && UnixStream::connect(&shared.local).is_ok()
        {
            let _ = command::cancel(&shared.host, spec).status();
        }
        let _ = std::fs::remove_file(&shared.local);
    }
}

/// Bytes put together to lines. Lines that are too long are cut.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                lines.push(String::from_utf8_lossy(&self.0).trim_end_matches('\r').to_owned());
                self.0.clear();
            } else if self.0.len() < MAX_LINE {
                self.0.push(*byte);
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn lines_come_whole() {
        let mut lines = Lines::default();
        assert!(lines.push(b"one\r").is_empty());
        assert_eq!(lines.push(b"\ntwo\nth"), ["one", "two"]);
        assert_eq!(lines.push(&[b'x'; 2 * MAX_LINE]), Vec::<String>::new());
        assert_eq!(lines.push(b"\n").iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE]);
    }
}
